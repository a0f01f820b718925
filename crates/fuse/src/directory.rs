//! The body of READDIR's and READDIRPLUS's answers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use zerocopy::IntoBytes;

use crate::abi::{Dirent, EntryOut};

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Where reading goes on after this entry: the `offset` of the next READDIR.
    pub next_offset: u64,
    /// `DT_*` of readdir(3).
    pub kind: u32,
    /// The name.
    pub name: &'a OsStr,
}

/// Collects entries up to the size that the kernel asked for.
#[derive(Debug)]
pub struct Directory {
    bytes: Vec<u8>,
    size_max: usize,
}

/// `FUSE_REC_ALIGN`.
const ALIGNMENT_BYTES: usize = 8;

impl Directory {
    /// For a request of `size_max` bytes (`read_in.size`).
    pub fn new(size_max: u32) -> Self {
        Self { bytes: Vec::new(), size_max: size_max as usize }
    }

    /// Adds an entry for READDIR. False if it does not fit: the answer is full.
    #[must_use]
    pub fn push(&mut self, entry: &Entry<'_>) -> bool {
        self.append(&[], entry)
    }

    /// Adds an entry with its attributes for READDIRPLUS, which counts as a lookup unless `found.nodeid` is 0.
    /// False if it does not fit.
    #[must_use]
    pub fn push_plus(&mut self, found: &EntryOut, entry: &Entry<'_>) -> bool {
        self.append(found.as_bytes(), entry)
    }

    fn append(&mut self, found: &[u8], entry: &Entry<'_>) -> bool {
        let name = entry.name.as_bytes();
        let Ok(namelen) = u32::try_from(name.len()) else { return false };
        let dirent = Dirent { ino: entry.ino, off: entry.next_offset, namelen, kind: entry.kind };
        let end = self.bytes.len() + found.len() + size_of::<Dirent>() + name.len();
        let aligned = end.next_multiple_of(ALIGNMENT_BYTES);
        if aligned > self.size_max {
            return false;
        }
        self.bytes.extend_from_slice(found);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(aligned, 0);
        true
    }

    /// The answer's body.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}
