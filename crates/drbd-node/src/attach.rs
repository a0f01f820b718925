//! What is on a disk before it is taken into use: superblock, bitmap, activity log.

use std::io;

use drbd_engine::event::FoundDisk;
use drbd_format::Malformed;
use drbd_format::activity_log::{EXTENT_SECTORS, replay};
use drbd_format::bitmap::Bitmap;
use drbd_format::meta::{DiskSizes, Layout, Placement, SUPER_BLOCK_BYTES, SuperBlock};
use thiserror::Error;

/// Reads from the meta-data disk: fills the buffer from a byte offset on.
pub type ReadAt<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

/// Why a disk cannot be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It could not be read.
    #[error("cannot read the meta-data at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for meta-data.
    #[error("the disk is too small: {found_bytes} bytes, at least {needed_bytes} are needed")]
    TooSmall {
        /// Its size.
        found_bytes: u64,
        /// What would do.
        needed_bytes: u64,
    },
    /// What is there are no valid meta-data.
    #[error("no valid meta-data found (at byte {offset}): {source}; `drbdadm create-md` writes new ones")]
    Invalid {
        /// Where.
        offset: u64,
        /// What is wrong.
        source: Malformed,
    },
}

/// The superblock, and where by its word the other parts are.
///
/// # Errors
/// See [`AttachError`].
pub fn superblock(
    read: ReadAt<'_>,
    placement: Placement,
    meta_disk_bytes: u64,
    data_disk_bytes: u64,
) -> Result<(SuperBlock, Layout), AttachError> {
    let offset = placement.super_block_offset_bytes(meta_disk_bytes).map_err(|small| {
        AttachError::TooSmall { found_bytes: small.found_bytes, needed_bytes: small.needed_bytes }
    })?;
    let mut bytes = [0; SUPER_BLOCK_BYTES];
    read(offset, &mut bytes).map_err(|source| AttachError::Read { offset, source })?;
    let invalid = |source| AttachError::Invalid { offset, source };
    let superblock = SuperBlock::decode(&bytes).map_err(invalid)?;
    let layout =
        Layout::recorded(&superblock, placement, meta_disk_bytes, data_disk_bytes).map_err(invalid)?;
    Ok((superblock, layout))
}

/// Everything the engine must know of a disk.
///
/// An activity log that cannot be replayed counts every extent as hot: more is synced than need be, nothing is missed.
///
/// # Errors
/// If the bitmap or the log cannot be read.
pub fn found_disk(
    read: ReadAt<'_>,
    superblock: SuperBlock,
    placement: Placement,
    sizes: DiskSizes,
    layout: &Layout,
    logical_block_bytes: u32,
    discards: bool,
) -> Result<FoundDisk, AttachError> {
    let mut at = |offset: u64, bytes: &mut [u8]| {
        read(offset, bytes).map_err(|source| AttachError::Read { offset, source })
    };
    let sectors = superblock.la_size_sectors.min(layout.usable_sectors);
    let mut bitmap = Bitmap::of_device(sectors);
    let mut page_bytes = vec![0; drbd_format::bitmap::PAGE_BYTES];
    for page in 0..bitmap.pages() {
        at(layout.bm_offset_bytes + page * 4096, &mut page_bytes)?;
        bitmap.load_page(page, &page_bytes);
    }
    let mut log = vec![0; layout.al_bytes as usize];
    at(layout.al_offset_bytes, &mut log)?;
    let (hot_extents, next_transaction) = match replay(&log, layout.al_stripes, layout.al_stripe_size_4k) {
        Ok(replayed) => (replayed.slots.values().copied().collect(), replayed.next_number),
        Err(_) => ((0..layout.usable_sectors.div_ceil(EXTENT_SECTORS) as u32).collect(), 0),
    };
    Ok(FoundDisk {
        superblock,
        placement,
        sizes,
        layout: *layout,
        bitmap,
        hot_extents,
        next_transaction,
        logical_block_bytes,
        discards,
    })
}
