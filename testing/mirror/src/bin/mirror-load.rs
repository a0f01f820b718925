//! What writes in a server. Each line on stdout is a promise that it was given, told before it goes on; it ends
//! when stdin does, or with status 1 at the first error.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mirror::random::SplitMix64;
use mirror::stamp::{BLOCK_BYTES, fill};

const USAGE: &str = "\
Usage: mirror-load stamps DEVICE SEED FIRST-STAMP [BLOCKS]
       mirror-load append FILE

  stamps  writes stamped blocks of 4 to 64 KiB past the page cache, at random places of the first BLOCKS blocks
          or of all, some with a flush behind
  append  appends numbered records to a file, each with fsync";

/// Writers of `stamps`; a slot belongs to one of them.
const THREADS: u64 = 4;

/// A slot is the largest write.
const SLOT_BLOCKS: u64 = 16;

/// One write in so many is followed by a flush.
const WRITES_PER_FLUSH: u64 = 8;

/// Set when stdin has ended.
static ENDING: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        ENDING.store(true, Ordering::Relaxed);
    });
    let outcome = match words.as_slice() {
        ["stamps", device, seed, first, blocks @ ..] => {
            let blocks = blocks.iter().map(|blocks| blocks.parse()).collect::<Result<Vec<_>, _>>();
            match (seed.parse(), first.parse(), blocks.as_deref()) {
                (Ok(seed), Ok(first), Ok([])) => stamps(device, seed, first, u64::MAX),
                (Ok(seed), Ok(first), Ok(&[blocks])) => stamps(device, seed, first, blocks),
                _ => Err(io::Error::other(USAGE)),
            }
        }
        ["append", file] => append(file),
        _ => Err(io::Error::other(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirror-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_going_on() -> bool {
    !ENDING.load(Ordering::Relaxed)
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn stamps(device: &str, seed: u64, first: u64, blocks_max: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(device)?;
    let blocks = (file.seek(SeekFrom::End(0))? / BLOCK_BYTES as u64).min(blocks_max);
    let (next, file) = (AtomicU64::new(first), &file);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let next = &next;
                scope.spawn(move || stamp_slots(file, blocks, thread, SplitMix64(seed ^ thread << 56), next))
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("it does not panic"))
    })
}

/// Writes to slots of one thread until told to end.
fn stamp_slots(
    file: &File,
    blocks: u64,
    thread: u64,
    mut random: SplitMix64,
    next: &AtomicU64,
) -> io::Result<()> {
    // Memory that O_DIRECT takes: aligned to a block.
    let slot_bytes = SLOT_BLOCKS as usize * BLOCK_BYTES;
    let mut memory = vec![0_u8; slot_bytes + BLOCK_BYTES];
    let aligned = memory.as_ptr().align_offset(BLOCK_BYTES);
    let slots = blocks / SLOT_BLOCKS / THREADS;
    while is_going_on() {
        let first = (random.below(slots) * THREADS + thread) * SLOT_BLOCKS;
        let count = 1 + random.below(SLOT_BLOCKS);
        let stamp = next.fetch_add(1, Ordering::Relaxed);
        let bytes = &mut memory[aligned..aligned + count as usize * BLOCK_BYTES];
        for (block, bytes) in (first..).zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
            fill(bytes, block, stamp);
        }
        file.write_all_at(bytes, first * BLOCK_BYTES as u64)?;
        say(&format!("w {first} {count} {stamp}\n"))?;
        if random.below(WRITES_PER_FLUSH) == 0 {
            let number = next.fetch_add(1, Ordering::Relaxed);
            say(&format!("s {number}\n"))?;
            file.sync_data()?;
            say(&format!("f {number}\n"))?;
        }
    }
    Ok(())
}

fn append(path: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    for number in 0_u64.. {
        if !is_going_on() {
            break;
        }
        writeln!(file, "{number}")?;
        file.sync_all()?;
        say(&format!("{number}\n"))?;
    }
    Ok(())
}
