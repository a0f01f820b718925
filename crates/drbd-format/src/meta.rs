//! Meta-data version 08: the superblock, and where it, the activity log and the bitmap lie.
//!
//! Upstream: `struct meta_data_on_disk` and `check_offsets_and_sizes` of drbd_main.c, `drbd_md_set_sector_offsets` of
//! drbd_nl.c; drbdmeta(8) for what fresh meta-data look like.

mod layout;
mod super_block;

pub use layout::{AlSize, DiskSizes, Layout, Placement, TooSmall};
pub use super_block::{Magic, MetaFlags, SUPER_BLOCK_BYTES, SuperBlock};

/// Bytes of disk that one bit of the bitmap stands for (`BM_BLOCK_SIZE`).
pub const BYTES_PER_BIT: u32 = 4096;

/// `UUID_JUST_CREATED`: the current UUID of meta-data that never saw a peer or a primary.
pub const UUID_JUST_CREATED: u64 = 4;

/// Sectors in 4 KiB (`MD_4kB_SECT`).
const SECTORS_4K: u64 = 8;

/// Activity log of the layout everybody has: 1 stripe of 8 blocks of 4 KiB.
const DEFAULT_AL_STRIPES: u32 = 1;
const DEFAULT_AL_STRIPE_SIZE_4K: u32 = 8;
