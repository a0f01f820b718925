//! What a client may name: whole sectors inside the device.

use units::{SECTOR_BYTES, SectorRange};

/// Whether clients may write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Every change is refused.
    ReadOnly,
    /// Reads and changes.
    ReadWrite,
}

/// Why a client's offset and length are no range of the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BadExtent {
    /// Not whole sectors, or nothing at all.
    Misaligned,
    /// Not inside the device.
    OutOfRange,
}

/// The sectors of `length` bytes at `offset` on a device of `size_bytes`.
pub(crate) fn sectors(offset: u64, length: u64, size_bytes: u64) -> Result<SectorRange, BadExtent> {
    if length == 0 || !offset.is_multiple_of(SECTOR_BYTES) || !length.is_multiple_of(SECTOR_BYTES) {
        return Err(BadExtent::Misaligned);
    }
    if offset.checked_add(length).is_none_or(|end| end > size_bytes) {
        return Err(BadExtent::OutOfRange);
    }
    Ok(SectorRange::new(offset / SECTOR_BYTES, length / SECTOR_BYTES))
}
