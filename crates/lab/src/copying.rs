//! Copies of sparse files: shared blocks where the file system can, else only what is data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Doing, Error, Result};

/// Between two looks at the clock and at what the person wants.
const STEP_BYTES: u64 = 16 << 20;

/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Makes `to` a copy of `from`, of the same length. Tells a terminal on stderr how far it is. If it fails, or is
/// interrupted, there is no `to`.
///
/// # Errors
/// The system's refusal; an interrupt.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone()).doing(|| "wait for signals".into())?;
    }
    let doing = || format!("copy {} to {}", from.display(), to.display());
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).doing(doing)?;
    }
    let source = File::open(from).doing(doing)?;
    let target = OpenOptions::new().read(true).write(true).create_new(true).open(to).doing(doing)?;
    let done = contents(&source, &target, &interrupted);
    if done.is_err() {
        // The copy's own failure is what counts.
        let _ = fs::remove_file(to);
    }
    match done {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(Error::refused("interrupted; nothing was copied"))
        }
        done => done.doing(doing),
    }
}

fn contents(source: &File, target: &File, interrupted: &AtomicBool) -> io::Result<()> {
    if ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let parts = data(source, size)?;
    let mut progress = Progress::new(parts.iter().map(|(from, to)| to - from).sum());
    for (from, to) in parts {
        let (mut read_at, mut write_at) = (from, from);
        while read_at < to {
            if interrupted.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let step = usize::try_from((to - read_at).min(STEP_BYTES)).unwrap_or(usize::MAX);
            match copy_file_range(source, Some(&mut read_at), target, Some(&mut write_at), step) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                copied => progress.add(copied? as u64),
            }
        }
    }
    progress.end();
    Ok(())
}

/// The parts of a file that hold data, as first byte and byte after the last.
fn data(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let from = match seek(file, SeekFrom::Data(at)) {
            // No data from here on.
            Err(Errno::NXIO) => break,
            from => from?,
        };
        at = seek(file, SeekFrom::Hole(from))?.min(size);
        parts.push((from, at));
    }
    Ok(parts)
}

/// One line on a terminal, written over and over.
struct Progress {
    total_bytes: u64,
    done_bytes: u64,
    begun: Instant,
    /// When a line was last written; none where nobody looks.
    told: Option<Instant>,
    shown: bool,
}

impl Progress {
    fn new(total_bytes: u64) -> Self {
        let begun = Instant::now();
        let told = io::stderr().is_terminal().then_some(begun);
        Self { total_bytes, done_bytes: 0, begun, told, shown: false }
    }

    fn add(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        if self.told.is_none_or(|told| told.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        self.shown = true;
        let share = self.done_bytes as f64 / self.total_bytes.max(1) as f64;
        let left = self.begun.elapsed().as_secs_f64() * (1.0 / share - 1.0);
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        // A terminal that is gone is nobody's loss.
        let _ = write!(
            io::stderr(),
            "\rcopying: {:.1} of {:.1} GB, {:.0} %, {left:.0} s left \x1b[K",
            gib(self.done_bytes),
            gib(self.total_bytes),
            share * 100.0
        );
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::copy;

    #[test]
    fn holes_stay_holes() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("new/to"));
        let file = File::create(&from).expect("a file");
        file.set_len(1 << 30).expect("1 GiB");
        for at in [0, 300 << 20, (1 << 30) - 4096] {
            file.write_all_at(&[7; 4096], at).expect("write");
        }
        copy(&from, &to).expect("it is copied");
        let about = fs::metadata(&to).expect("it is there");
        assert_eq!(about.len(), 1 << 30);
        assert!(about.blocks() * 512 < 64 << 20, "{} blocks", about.blocks());
        let mut bytes = [0; 8192];
        File::open(&to).expect("it is there").read_exact_at(&mut bytes, (300 << 20) - 4096).expect("read");
        assert!(bytes[..4096] == [0; 4096] && bytes[4096..] == [7; 4096]);
        assert!(copy(&from, &to).is_err(), "an existing file is not overwritten");
    }
}
