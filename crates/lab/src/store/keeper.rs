//! The store's first process: it mounts the file system, keeps its descriptors, and starts the process that serves it,
//! again if that one is killed. The kernel then repeats what was not answered, so that servers notice a pause only.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::Server;
use fuse::Session;
use fuse::abi::InitFlags;
use rustix::process::Signal;

use super::{daemon, served};
use crate::error::{Doing, Error, Result};
use crate::place::Lab;

/// One thread for each processor up to this many, each with a FUSE descriptor of its own.
const THREADS_MAX: usize = 4;

/// A serving process that lives shorter than this was started in vain.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// So many in a row, and nothing is served any more: volumes then fail, which is better than to hang.
const IN_VAIN_MAX: u32 = 5;

/// What outlives the serving process.
#[derive(Debug)]
pub struct Kept {
    /// Tools knock here.
    pub server: Server,
    /// One for each thread.
    pub sessions: Vec<Session>,
}

/// How a serving process ended: by itself, which it says on the pipe, or not.
#[derive(Debug)]
pub struct Farewell(OwnedFd);

impl Farewell {
    /// Tells the keeper that nobody shall take over, and ends this process.
    pub fn exit(&self) -> ! {
        // A keeper that is gone does not read it.
        let _ = rustix::io::write(&self.0, b"e");
        std::process::exit(1)
    }
}

/// Runs as the keeper until the file system is unmounted or cannot be served. Says `up`, or why not, as one line on
/// stdout, which it then closes.
///
/// # Errors
/// It cannot start, or what it starts does not live.
pub fn run(lab: &Lab) -> Result<()> {
    // Whoever started this must be able to leave with its terminal.
    let _ = rustix::process::setsid();
    let begun = begin(lab);
    let line = begun.as_ref().map_or_else(|error| error.to_string().replace('\n', "; "), |_| "up".into());
    // A starter that was interrupted does not read it.
    let _ = writeln!(io::stdout(), "{line}");
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
    keep(lab, begun?)
}

fn begin(lab: &Lab) -> Result<Kept> {
    let mount = lab.store_mount();
    std::fs::create_dir_all(&mount).doing(|| format!("create {}", mount.display()))?;
    let server = Server::bind(&lab.store_socket()).map_err(|error| Error::refused(error.to_string()))?;
    let session = served::mount(&mount).doing(|| format!("mount the store on {}", mount.display()))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let mut sessions = vec![session];
    while sessions.len() < threads {
        let another = sessions[0].another().doing(|| "clone the FUSE device".into())?;
        sessions.push(another);
    }
    Ok(Kept { server, sessions })
}

fn keep(lab: &Lab, mut kept: Kept) -> Result<()> {
    // Children are reaped by the kernel: their end is told by the pipe, and earlier than wait(2) would tell it.
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let can_repeat = kept.sessions[0].agreed().flags.contains(InitFlags::HAS_RESEND);
    let mut in_vain = 0;
    let mut successor = false;
    loop {
        let begun = Instant::now();
        let mut ended;
        (kept, ended) = spawn(lab, kept, successor)?;
        let mut word = [0];
        let said = loop {
            match ended.read(&mut word) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.doing(|| "wait for the serving process".into())?,
            }
        };
        in_vain = if begun.elapsed() < LIFE_MIN { in_vain + 1 } else { 0 };
        if said > 0 || !can_repeat || in_vain >= IN_VAIN_MAX {
            return Err(Error::refused("the process that serves the volumes ended; they fail from here on"));
        }
        eprintln!("lockstep lab store: the process that serves the volumes was killed; another takes over");
        successor = true;
    }
}

/// Starts a serving process. Gives what is kept back, and the end of a pipe that closes when it is gone.
///
/// A process that is killed lets go of its descriptors from the highest on, before it ends: the pipe's is high, so that
/// a successor serves even what the dying one itself waits for.
fn spawn(lab: &Lab, kept: Kept, successor: bool) -> Result<(Kept, File)> {
    let (ended, farewell) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(|| "make a pipe".into())?;
    let keeper = rustix::process::getpid();
    // SAFETY: this process has one thread, so the child may do whatever its parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).doing(|| "start the serving process".into()),
        0 => {
            drop(ended);
            // It must not outlive the keeper, whose descriptors would be missing in the next.
            let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            if bound.is_err() || rustix::process::getppid() != Some(keeper) {
                std::process::exit(1);
            }
            let farewell = Arc::new(Farewell(fuse::raise(farewell)));
            let Err(error) = daemon::run(lab, kept, farewell.clone(), successor);
            eprintln!("lockstep lab store: {error}");
            farewell.exit()
        }
        _ => Ok((kept, File::from(ended))),
    }
}
