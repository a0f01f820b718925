//! Follows files that grow, and keeps what they gain.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};

/// A copy of what is added to a file from now on, until its limit.
#[derive(Debug)]
pub struct Follower {
    source: PathBuf,
    open: Option<File>,
    target: PathBuf,
    copy: File,
    limit_bytes: u64,
    /// Bytes in the copy.
    pub kept_bytes: u64,
    /// Bytes that came after the limit.
    pub left_out_bytes: u64,
}

impl Follower {
    /// Begins behind what `source` has now; it need not be there yet.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn from_now_on(source: &Path, target: &Path, limit_bytes: u64) -> Result<Self> {
        let mut follower = Self::from_the_start(source, target, limit_bytes)?;
        if let Some(open) = &mut follower.open {
            open.seek(SeekFrom::End(0)).doing(|| format!("read {}", source.display()))?;
        }
        Ok(follower)
    }

    /// Begins with the first byte of `source`; it need not be there yet.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn from_the_start(source: &Path, target: &Path, limit_bytes: u64) -> Result<Self> {
        Ok(Self {
            source: source.to_owned(),
            open: open(source).doing(|| format!("open {}", source.display()))?,
            target: target.to_owned(),
            copy: File::create(target).doing(|| format!("create {}", target.display()))?,
            limit_bytes,
            kept_bytes: 0,
            left_out_bytes: 0,
        })
    }

    /// The copy.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Copies what was added since the last call. A file that was removed is read to its end; one that takes its
    /// place is read from its start.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn catch_up(&mut self) -> Result<()> {
        self.drain()?;
        if self.was_replaced() {
            self.open = open(&self.source).doing(|| format!("open {}", self.source.display()))?;
            self.drain()?;
        }
        Ok(())
    }

    /// Whether another file lies where ours lay, or the first one does now.
    fn was_replaced(&self) -> bool {
        let Ok(there) = fs::metadata(&self.source) else { return false };
        let ours = self.open.as_ref().and_then(|open| open.metadata().ok());
        ours.is_none_or(|ours| (ours.dev(), ours.ino()) != (there.dev(), there.ino()))
    }

    fn drain(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let room = self.limit_bytes - self.kept_bytes;
        self.kept_bytes += io::copy(&mut open.take(room), &mut self.copy)
            .doing(|| format!("copy {} to {}", self.source.display(), self.target.display()))?;
        if self.kept_bytes == self.limit_bytes {
            self.left_out_bytes += io::copy(open, &mut io::sink()).doing(|| "read a log".into())?;
        }
        self.copy.flush().doing(|| format!("write {}", self.target.display()))
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Follower;

    #[test]
    fn only_what_is_added_and_only_up_to_the_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let (source, target) = (directory.path().join("log"), directory.path().join("copy"));
        let add = |text: &str| {
            use std::io::Write;
            let file = fs::File::options().create(true).append(true).open(&source);
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a log");
        };
        add("before\n");
        let mut follower = Follower::from_now_on(&source, &target, 12).expect("a follower");
        add("one\n");
        follower.catch_up().expect("copied");
        // Removed and begun anew between two looks: what was added to the old one is there, and the new one.
        add("two\n");
        fs::remove_file(&source).expect("removed");
        add("three\n");
        follower.catch_up().expect("copied");
        assert_eq!(fs::read_to_string(&target).expect("a copy"), "one\ntwo\nthre");
        assert_eq!((follower.kept_bytes, follower.left_out_bytes), (12, 2));
    }
}
