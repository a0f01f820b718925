//! What the shell finds on a disk that `create-md` has just written.

use drbd_engine::event::FoundDisk;
use drbd_format::bitmap::Bitmap;
use drbd_format::meta::{DiskSizes, Layout, Placement, SuperBlock};

/// A disk of this size with internal meta-data, and nothing has happened to it.
pub fn fresh_disk(bytes: u64) -> Box<FoundDisk> {
    let layout = Layout::internal(bytes).expect("large enough");
    Box::new(FoundDisk {
        superblock: SuperBlock::fresh(&layout, 1),
        placement: Placement::Internal,
        sizes: DiskSizes::of_one(bytes),
        layout,
        bitmap: Bitmap::of_device(0),
        hot_extents: Vec::new(),
        next_transaction: 0,
        logical_block_bytes: 512,
        discards: true,
    })
}
