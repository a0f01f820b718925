//! The activity log: which extents of 4 MiB may differ between the disks if the primary crashes now.
//!
//! A ring of blocks of 4 KiB. A transaction is on disk before the first write into an extent that it makes hot; after
//! a crash the blocks of all hot extents count as out of sync. Upstream: `struct al_transaction_on_disk` and
//! `__al_write_transaction` of drbd_actlog.c, `drbdmeta apply-al`.

mod replay;
mod transaction;

pub use replay::{Replay, replay};
pub use transaction::{Kind, Transaction};

/// Sectors of an extent: 4 MiB.
pub const EXTENT_SECTORS: u64 = 8192;

/// Extent number of a slot that is not in use (`LC_FREE`).
pub const EXTENT_FREE: u32 = u32::MAX;

/// Length of a transaction on disk.
pub const BLOCK_BYTES: usize = 4096;

/// `AL_UPDATES_PER_TRANSACTION`.
pub const UPDATES_MAX: usize = 64;

/// `AL_CONTEXT_PER_TRANSACTION`.
pub const CONTEXT_MAX: usize = 919;

/// Which block of the ring, counted from the activity log's start, a transaction belongs in
/// (`al_tr_number_to_on_disk_sector`): successive transactions go to successive stripes.
pub fn ring_block(number: u32, al_stripes: u32, al_stripe_size_4k: u32) -> u64 {
    let (stripes, stripe_blocks) = (u64::from(al_stripes.max(1)), u64::from(al_stripe_size_4k.max(1)));
    let place = u64::from(number) % (stripes * stripe_blocks);
    place % stripes * stripe_blocks + place / stripes
}
