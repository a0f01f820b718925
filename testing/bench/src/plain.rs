//! What two servers' network and disks do without a mirror: the measure of what the mirror adds. Runs in the servers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Subcommand;

/// A request of this size asks, as a mirrored write does.
const QUESTION_BYTES: usize = 4096;
/// An acknowledgement of this size answers.
const ANSWER_BYTES: usize = 24;
const QUESTIONS: usize = 5000;
const CHUNK_BYTES: usize = 1 << 20;

/// What one of the servers does.
#[derive(Subcommand)]
pub enum Part {
    /// Answers each question of one client
    Echo { address: SocketAddr },
    /// Prints the median time until an answer, in microseconds
    Ask { address: SocketAddr },
    /// Writes to a device what one client sends, and says so when it is on stable storage
    Take { address: SocketAddr, device: PathBuf },
    /// Sends a device's bytes, and prints how many MiB a second that were
    Give { address: SocketAddr, device: PathBuf },
}

/// Does it.
///
/// # Errors
/// From sockets and devices.
pub fn run(part: &Part) -> anyhow::Result<()> {
    match part {
        Part::Echo { address } => echo(*address),
        Part::Ask { address } => ask(*address),
        Part::Take { address, device } => take(*address, device),
        Part::Give { address, device } => give(*address, device),
    }
}

fn client(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let listener = TcpListener::bind(address)?;
    println!("ready");
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn echo(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = client(address)?;
    let mut question = vec![0; QUESTION_BYTES];
    for _ in 0..QUESTIONS {
        stream.read_exact(&mut question)?;
        stream.write_all(&question[..ANSWER_BYTES])?;
    }
    Ok(())
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let question = vec![1; QUESTION_BYTES];
    let mut answer = [0; ANSWER_BYTES];
    let mut times = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let asked = Instant::now();
        stream.write_all(&question)?;
        stream.read_exact(&mut answer)?;
        times.push(asked.elapsed());
    }
    times.sort();
    println!("{:.1}", times[QUESTIONS / 2].as_secs_f64() * 1e6);
    Ok(())
}

fn direct(device: &Path, write: bool) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    OpenOptions::new().read(!write).write(write).custom_flags(flags).open(device)
}

/// Memory as direct I/O wants it.
fn chunk() -> Vec<u8> {
    // What has this size comes from mmap(2), which gives whole pages; the start is aligned by hand.
    vec![0; CHUNK_BYTES + 4096]
}

fn aligned(chunk: &mut [u8]) -> &mut [u8] {
    let skip = chunk.as_ptr().align_offset(4096);
    &mut chunk[skip..skip + CHUNK_BYTES]
}

fn take(address: SocketAddr, device: &Path) -> anyhow::Result<()> {
    let mut stream = client(address)?;
    let mut file = direct(device, true)?;
    let mut chunk = chunk();
    let chunk = aligned(&mut chunk);
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    for _ in 0..u64::from_le_bytes(length) {
        stream.read_exact(chunk)?;
        file.write_all(chunk)?;
    }
    file.sync_data()?;
    stream.write_all(&[1])?;
    Ok(())
}

/// As many whole chunks as the device has.
fn give(address: SocketAddr, device: &Path) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let size = rustix::fs::seek(File::open(device)?, rustix::fs::SeekFrom::End(0))?;
    let chunks = size / CHUNK_BYTES as u64;
    let mut file = direct(device, false)?;
    let mut chunk = chunk();
    let chunk = aligned(&mut chunk);
    let begun = Instant::now();
    stream.write_all(&chunks.to_le_bytes())?;
    for _ in 0..chunks {
        file.read_exact(chunk)?;
        stream.write_all(chunk)?;
    }
    stream.read_exact(&mut [0])?;
    println!("{:.1}", chunks as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}
