//! Quantities that several floors share: sectors and ranges of sectors.

use serde::{Deserialize, Serialize};

/// A sector is 512 bytes, always, whatever the disk below says.
pub const SECTOR_BYTES: u64 = 512;

/// A run of sectors on one device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct SectorRange {
    /// First sector.
    pub start: u64,
    /// Number of sectors.
    pub count: u64,
}

impl SectorRange {
    /// The range of `count` sectors from `start` on.
    pub const fn new(start: u64, count: u64) -> Self {
        Self { start, count }
    }

    /// The sector after the last one.
    pub const fn end(self) -> u64 {
        self.start + self.count
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u64 {
        self.count * SECTOR_BYTES
    }

    /// Offset of the first byte.
    pub const fn byte_offset(self) -> u64 {
        self.start * SECTOR_BYTES
    }

    /// Whether the two have a sector in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}
