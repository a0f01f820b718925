//! A disk's volatile cache: the writes since the last flush, and which of them a power cut takes back.
//!
//! Writes go to the file at once; this remembers what they replaced. A power cut puts all of that back, newest
//! first, and then writes those again that the seed lets survive, oldest first. So any subset of the unflushed
//! writes can be what is left, and no flushed one is ever touched.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::random::SplitMix64;

/// Beyond this the oldest writes count as flushed, as a disk's own cache is finite too.
const REMEMBERED_BYTES_MAX: usize = 64 << 20;

/// One write that no flush has followed yet.
#[derive(Debug)]
struct Write {
    offset: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// The unflushed writes of one file, oldest first.
#[derive(Debug)]
pub struct Unflushed {
    writes: Vec<Write>,
    bytes: usize,
    random: SplitMix64,
}

impl Unflushed {
    /// Nothing yet; `seed` chooses what power cuts lose.
    pub fn new(seed: u64) -> Self {
        Self { writes: Vec::new(), bytes: 0, random: SplitMix64(seed) }
    }

    /// Writes to the file and remembers what was there.
    ///
    /// # Errors
    /// From the file.
    pub fn write(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, offset)?;
        file.write_all_at(bytes, offset)?;
        self.bytes += bytes.len();
        self.writes.push(Write { offset, before, after: bytes.to_vec() });
        if self.bytes > REMEMBERED_BYTES_MAX {
            self.flush();
        }
        Ok(())
    }

    /// All that was written so far survives.
    pub fn flush(&mut self) {
        self.writes.clear();
        self.bytes = 0;
    }

    /// Loses a part of the unflushed writes; gives how many of how many.
    ///
    /// # Errors
    /// From the file.
    pub fn lose(&mut self, file: &File) -> io::Result<(usize, usize)> {
        for write in self.writes.iter().rev() {
            file.write_all_at(&write.before, write.offset)?;
        }
        let total = self.writes.len();
        let mut lost = 0;
        for write in &self.writes {
            if self.random.bits() & 1 == 0 {
                lost += 1;
            } else {
                file.write_all_at(&write.after, write.offset)?;
            }
        }
        self.flush();
        Ok((lost, total))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::Unflushed;

    fn content(file: &std::fs::File) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        file.read_exact_at(&mut bytes, 0).expect("a file of 32 bytes");
        bytes
    }

    #[test]
    fn flushed_writes_stay_and_the_rest_is_some_subset() {
        let mut survivors = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(32).expect("32 bytes");
            let mut unflushed = Unflushed::new(seed);
            unflushed.write(&file, 0, &[1; 16]).expect("write");
            unflushed.flush();
            unflushed.write(&file, 0, &[2; 8]).expect("write");
            unflushed.write(&file, 4, &[3; 8]).expect("write");
            assert_eq!(content(&file)[..16], [2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1]);
            let (lost, total) = unflushed.lose(&file).expect("write");
            assert_eq!(total, 2);
            survivors.insert((lost, content(&file)));
        }
        let both = [vec![2; 4], vec![3; 8], vec![1; 4], vec![0; 16]].concat();
        let first = [vec![2; 8], vec![1; 8], vec![0; 16]].concat();
        let second = [vec![1; 4], vec![3; 8], vec![1; 4], vec![0; 16]].concat();
        let none = [vec![1; 16], vec![0; 16]].concat();
        assert_eq!(survivors, [(0, both), (1, first), (1, second), (2, none)].into());
    }
}
