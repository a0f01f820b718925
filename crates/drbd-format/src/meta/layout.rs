//! Where superblock, activity log and bitmap lie on a disk.
//!
//! ```text
//! internal:  | data ........ | bitmap | activity log | superblock |
//! external:  | superblock | activity log | bitmap ........ |
//! ```

use units::SECTOR_BYTES;

use super::{DEFAULT_AL_STRIPE_SIZE_4K, DEFAULT_AL_STRIPES, SECTORS_4K, SUPER_BLOCK_BYTES, SuperBlock};
use crate::Malformed;

/// Where a resource's meta-data are (`meta-disk` of drbd.conf(5)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placement {
    /// At the end of the disk that holds the data.
    Internal,
    /// On a disk of their own, all of it.
    FlexExternal,
    /// In the n-th slot of 128 MiB of a disk that several resources share.
    Indexed(u32),
}

/// A disk that cannot hold the meta-data, or nothing beside them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the {disk} is {found_bytes} bytes, at least {needed_bytes} are needed")]
pub struct TooSmall {
    /// Which disk.
    pub disk: &'static str,
    /// Its size.
    pub found_bytes: u64,
    /// The smallest size that would do.
    pub needed_bytes: u64,
}

/// Positions and sizes of the meta-data's parts. Offsets in bytes are from the start of the disk that holds them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// The superblock.
    pub md_offset_bytes: u64,
    /// The activity log.
    pub al_offset_bytes: u64,
    /// Length of the activity log.
    pub al_bytes: u64,
    /// The bitmap.
    pub bm_offset_bytes: u64,
    /// Length reserved for the bitmap, not less than what `usable_sectors` need.
    pub bm_bytes: u64,
    /// `md_size_sect` of the superblock.
    pub md_size_sectors: u32,
    /// Sectors of data that may be offered to the peer.
    pub usable_sectors: u64,
    /// Stripes of the activity log.
    pub al_stripes: u32,
    /// Blocks of 4 KiB in a stripe of the activity log.
    pub al_stripe_size_4k: u32,
}

/// `MD_128MB_SECT`: a slot of indexed meta-data.
const SLOT_SECTORS: u64 = 128 << 11;

/// `DRBD_MAX_SECTORS_FLEX`: 1 PiB.
const SECTORS_MAX: u64 = 1 << 41;

/// drbdmeta refuses smaller disks, for data and meta-data alike.
const DISK_BYTES_MIN: u64 = 68 << 10;

/// Sizes of the disks that hold a volume; equal if it is one disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskSizes {
    /// Of the disk of the data.
    pub data_bytes: u64,
    /// Of the disk of the meta-data.
    pub meta_bytes: u64,
}

impl DiskSizes {
    /// Data and meta-data on one disk.
    pub const fn of_one(bytes: u64) -> Self {
        Self { data_bytes: bytes, meta_bytes: bytes }
    }
}

/// How large an activity log is: `al-stripes` and `al-stripe-size-kB`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AlSize {
    /// Stripes.
    pub stripes: u32,
    /// Blocks of 4 KiB in each.
    pub stripe_size_4k: u32,
}

impl AlSize {
    /// The kernel takes none with fewer blocks in all.
    pub const BLOCKS_MIN: u64 = 8;
    /// The kernel takes none with more blocks in all: 16 GiB.
    pub const BLOCKS_MAX: u64 = 16 * 1024 * 1024 / 4;

    /// What everybody has: 32 KiB.
    pub const DEFAULT: Self = Self { stripes: DEFAULT_AL_STRIPES, stripe_size_4k: DEFAULT_AL_STRIPE_SIZE_4K };

    /// Blocks of 4 KiB in all.
    pub const fn blocks(self) -> u64 {
        self.stripes as u64 * self.stripe_size_4k as u64
    }

    /// Larger than the kernel takes.
    pub const fn is_too_large(self) -> bool {
        self.blocks() > Self::BLOCKS_MAX
    }

    /// Smaller than the kernel takes.
    pub const fn is_too_small(self) -> bool {
        self.blocks() < Self::BLOCKS_MIN
    }

    const fn sectors(self) -> u64 {
        self.blocks() * SECTORS_4K
    }
}

impl Placement {
    /// Offset of the superblock on a meta-data disk of this size (`drbd_md_ss`).
    pub fn super_block_offset_bytes(self, meta_disk_bytes: u64) -> Result<u64, TooSmall> {
        let (offset, needed_bytes) = match self {
            Self::Internal => {
                let end = meta_disk_bytes & !(SUPER_BLOCK_BYTES as u64 - 1);
                (end.saturating_sub(SUPER_BLOCK_BYTES as u64), DISK_BYTES_MIN)
            }
            Self::FlexExternal => (0, DISK_BYTES_MIN),
            Self::Indexed(index) => {
                let slot_bytes = SLOT_SECTORS * SECTOR_BYTES;
                (u64::from(index) * slot_bytes, (u64::from(index) + 1) * slot_bytes)
            }
        };
        at_least("meta-data disk", meta_disk_bytes, needed_bytes)?;
        Ok(offset)
    }
}

impl Layout {
    /// Sectors of data that one sector of bitmap covers: 512 bytes x 8 bits x 4 KiB.
    pub const SECTORS_PER_BITMAP_SECTOR: u64 = SECTOR_BYTES * 8 * SECTORS_4K;

    /// New internal meta-data on a disk of this size.
    pub fn internal(disk_bytes: u64) -> Result<Self, TooSmall> {
        Self::of(Placement::Internal, DiskSizes::of_one(disk_bytes), AlSize::DEFAULT)
    }

    /// New meta-data on a disk of their own, for a data disk of the given size.
    pub fn flex_external(meta_disk_bytes: u64, data_disk_bytes: u64) -> Result<Self, TooSmall> {
        let sizes = DiskSizes { data_bytes: data_disk_bytes, meta_bytes: meta_disk_bytes };
        Self::of(Placement::FlexExternal, sizes, AlSize::DEFAULT)
    }

    /// New meta-data in a slot of a shared disk, for a data disk of the given size.
    pub fn indexed(index: u32, meta_disk_bytes: u64, data_disk_bytes: u64) -> Result<Self, TooSmall> {
        let sizes = DiskSizes { data_bytes: data_disk_bytes, meta_bytes: meta_disk_bytes };
        Self::of(Placement::Indexed(index), sizes, AlSize::DEFAULT)
    }

    /// Where everything belongs on disks of these sizes (`drbd_md_set_sector_offsets`).
    pub fn of(placement: Placement, sizes: DiskSizes, al: AlSize) -> Result<Self, TooSmall> {
        let md_offset_bytes = placement.super_block_offset_bytes(sizes.meta_bytes)?;
        let al_sectors = al.sectors();
        let rest_sectors = SECTORS_4K + al_sectors;
        let (md_sectors, al_offset_bytes) = match placement {
            Placement::Internal => {
                let disk_sectors = (sizes.data_bytes / SECTOR_BYTES).min(SECTORS_MAX);
                // A little more than needed: the bitmap is sized for the whole disk, its own place included.
                let bm_sectors = disk_sectors.div_ceil(Self::SECTORS_PER_BITMAP_SECTOR);
                let md_sectors = bm_sectors.next_multiple_of(SECTORS_4K) + rest_sectors;
                let needed_bytes = md_sectors * SECTOR_BYTES + SUPER_BLOCK_BYTES as u64;
                at_least("disk", md_offset_bytes + SUPER_BLOCK_BYTES as u64, needed_bytes)?;
                (md_sectors, md_offset_bytes - al_sectors * SECTOR_BYTES)
            }
            Placement::FlexExternal | Placement::Indexed(_) => {
                let md_sectors = match placement {
                    Placement::Indexed(_) => SLOT_SECTORS,
                    _ => (sizes.meta_bytes / SECTOR_BYTES).min(u64::from(u32::MAX)),
                };
                let needed_bytes = (rest_sectors + SECTORS_4K) * SECTOR_BYTES;
                at_least("meta-data disk", md_sectors * SECTOR_BYTES, needed_bytes)?;
                (md_sectors, md_offset_bytes + SUPER_BLOCK_BYTES as u64)
            }
        };
        let bm_sectors = md_sectors - rest_sectors;
        let (bm_offset_bytes, data_bytes) = if placement == Placement::Internal {
            let bm = al_offset_bytes - bm_sectors * SECTOR_BYTES;
            (bm, bm)
        } else {
            (al_offset_bytes + al_sectors * SECTOR_BYTES, sizes.data_bytes)
        };
        Ok(Self {
            md_offset_bytes,
            al_offset_bytes,
            al_bytes: al_sectors * SECTOR_BYTES,
            bm_offset_bytes,
            bm_bytes: bm_sectors * SECTOR_BYTES,
            md_size_sectors: md_sectors as u32,
            usable_sectors: usable(data_bytes, bm_sectors),
            al_stripes: al.stripes,
            al_stripe_size_4k: al.stripe_size_4k,
        })
    }

    /// Size of its activity log.
    pub fn al_size(&self) -> AlSize {
        AlSize { stripes: self.al_stripes, stripe_size_4k: self.al_stripe_size_4k }
    }

    /// The layout that a superblock records, checked against the disks it was found on.
    pub fn recorded(
        block: &SuperBlock,
        placement: Placement,
        meta_disk_bytes: u64,
        data_disk_bytes: u64,
    ) -> Result<Self, Malformed> {
        let wrong = |field, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
            Malformed::new("superblock", field, found, expected)
        };
        block.check()?;
        let md_offset_bytes = placement
            .super_block_offset_bytes(meta_disk_bytes)
            .map_err(|small| wrong("disk size", &small.found_bytes, &small.needed_bytes))?;
        let internal = placement == Placement::Internal;
        if internal != (block.al_offset_sectors < 0) {
            let expected = if internal { "below the superblock" } else { "above the superblock" };
            return Err(wrong("al_offset", &block.al_offset_sectors, &expected));
        }
        let al_sectors = u64::from(block.al_stripes) * u64::from(block.al_stripe_size_4k) * SECTORS_4K;
        let md_sectors = u64::from(block.md_size_sectors);
        let md_sectors_max = match placement {
            Placement::Internal => md_offset_bytes / SECTOR_BYTES + SECTORS_4K,
            Placement::FlexExternal => meta_disk_bytes / SECTOR_BYTES,
            Placement::Indexed(_) => SLOT_SECTORS,
        };
        if md_sectors > md_sectors_max || md_sectors <= al_sectors + SECTORS_4K {
            let expected = format!("{} to {md_sectors_max}", al_sectors + SECTORS_4K + 1);
            return Err(wrong("md_size_sect", &md_sectors, &expected));
        }
        let bm_sectors = md_sectors - al_sectors - SECTORS_4K;
        let (al_offset_bytes, bm_offset_bytes, data_bytes) = if internal {
            let bm = md_offset_bytes + SUPER_BLOCK_BYTES as u64 - md_sectors * SECTOR_BYTES;
            (md_offset_bytes - al_sectors * SECTOR_BYTES, bm, bm)
        } else {
            let al = md_offset_bytes + SUPER_BLOCK_BYTES as u64;
            (al, al + al_sectors * SECTOR_BYTES, data_disk_bytes)
        };
        Ok(Self {
            md_offset_bytes,
            al_offset_bytes,
            al_bytes: al_sectors * SECTOR_BYTES,
            bm_offset_bytes,
            bm_bytes: bm_sectors * SECTOR_BYTES,
            md_size_sectors: block.md_size_sectors,
            usable_sectors: usable(data_bytes, bm_sectors),
            al_stripes: block.al_stripes,
            al_stripe_size_4k: block.al_stripe_size_4k,
        })
    }

    /// `al_offset` of the superblock.
    pub fn al_offset_sectors(&self) -> i32 {
        relative_sectors(self.md_offset_bytes, self.al_offset_bytes)
    }

    /// `bm_offset` of the superblock.
    pub fn bm_offset_sectors(&self) -> i32 {
        relative_sectors(self.md_offset_bytes, self.bm_offset_bytes)
    }
}

/// `drbd_get_max_capacity`: clipped at what a device may have and what the bitmap covers.
fn usable(data_disk_bytes: u64, bm_sectors: u64) -> u64 {
    (data_disk_bytes / SECTOR_BYTES).min(SECTORS_MAX).min(bm_sectors * Layout::SECTORS_PER_BITMAP_SECTOR)
}

fn relative_sectors(from_bytes: u64, to_bytes: u64) -> i32 {
    ((to_bytes as i64 - from_bytes as i64) / SECTOR_BYTES as i64) as i32
}

fn at_least(disk: &'static str, found_bytes: u64, needed_bytes: u64) -> Result<(), TooSmall> {
    if found_bytes < needed_bytes {
        return Err(TooSmall { disk, found_bytes, needed_bytes });
    }
    Ok(())
}
