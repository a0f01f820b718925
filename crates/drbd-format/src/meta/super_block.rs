//! `struct meta_data_on_disk`: 4 KiB, big-endian.

use zerocopy::big_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    AlSize, BYTES_PER_BIT, DEFAULT_AL_STRIPE_SIZE_4K, DEFAULT_AL_STRIPES, Layout, SECTORS_4K,
    UUID_JUST_CREATED,
};
use crate::Malformed;

/// Length of the superblock.
pub const SUPER_BLOCK_BYTES: usize = 4096;

/// What drbdmeta writes as `al_nr_extents`, before a kernel attached with the configured number.
const FRESH_AL_EXTENTS: u32 = 257;

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct OnDisk {
    la_size_sect: U64,
    uuid: [U64; 4],
    device_uuid: U64,
    reserved_u64_1: U64,
    flags: U32,
    magic: U32,
    md_size_sect: U32,
    al_offset: I32,
    al_nr_extents: U32,
    bm_offset: I32,
    bm_bytes_per_bit: U32,
    la_peer_max_bio_size: U32,
    al_stripes: U32,
    al_stripe_size_4k: U32,
    reserved_u8: [u8; 4000],
}
const _: () = assert!(size_of::<OnDisk>() == SUPER_BLOCK_BYTES);

/// `MDF_*`: what is remembered of the device while it is detached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MetaFlags(pub u32);

impl MetaFlags {
    /// `MDF_CONSISTENT`: the data are from one point in time.
    pub const CONSISTENT: Self = Self(0x1);
    /// `MDF_PRIMARY_IND`: the node was primary.
    pub const PRIMARY_IND: Self = Self(0x2);
    /// `MDF_CONNECTED_IND`: the node was connected.
    pub const CONNECTED_IND: Self = Self(0x4);
    /// `MDF_FULL_SYNC`: the bitmap on disk does not count, every block is out of sync.
    pub const FULL_SYNC: Self = Self(0x8);
    /// `MDF_WAS_UP_TO_DATE`: the data were current when last seen.
    pub const WAS_UP_TO_DATE: Self = Self(0x10);
    /// `MDF_PEER_OUT_DATED`: the peer's data are known to be old.
    pub const PEER_OUT_DATED: Self = Self(0x20);
    /// `MDF_CRASHED_PRIMARY`: the node was primary when it crashed.
    pub const CRASHED_PRIMARY: Self = Self(0x40);
    /// `MDF_AL_CLEAN`: the activity log was applied to the bitmap.
    pub const AL_CLEAN: Self = Self(0x80);
    /// `MDF_AL_DISABLED`: written without activity log updates.
    pub const AL_DISABLED: Self = Self(0x100);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but not `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// First of the two things that say whether the activity log must be applied before use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Magic(pub u32);

impl Magic {
    /// `DRBD_MD_MAGIC_07`: an older layout that is not read.
    pub const V07: Self = Self(0x8374_026a);
    /// `DRBD_MD_MAGIC_08`: what drbdmeta writes and the kernel attaches.
    pub const V08: Self = Self(0x8374_026b);
    /// `DRBD_MD_MAGIC_84_UNCLEAN`: what an attached node writes and leaves, also when it detaches in order.
    pub const V84_UNCLEAN: Self = Self(0x8374_026c);
}

/// The superblock, decoded and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SuperBlock {
    /// `la_size_sect`: size last agreed with the peer, in sectors; 0 before the first attach.
    pub la_size_sectors: u64,
    /// `uuid`: current, bitmap and two former generations.
    pub uuids: [u64; 4],
    /// `device_uuid`: random, of this meta-data.
    pub device_uuid: u64,
    /// `flags`.
    pub flags: MetaFlags,
    /// `magic`.
    pub magic: Magic,
    /// `md_size_sect`: superblock, activity log and bitmap together, in sectors.
    pub md_size_sectors: u32,
    /// `al_offset`: of the activity log from the superblock, in sectors.
    pub al_offset_sectors: i32,
    /// `al_nr_extents`: slots of the activity log when it was last written.
    pub al_extents: u32,
    /// `bm_offset`: of the bitmap from the superblock, in sectors.
    pub bm_offset_sectors: i32,
    /// `bm_bytes_per_bit`.
    pub bytes_per_bit: u32,
    /// `la_peer_max_bio_size`: largest request the peer took, in bytes.
    pub peer_max_bio_bytes: u32,
    /// `al_stripes`.
    pub al_stripes: u32,
    /// `al_stripe_size_4k`: blocks of 4 KiB in a stripe.
    pub al_stripe_size_4k: u32,
}

impl SuperBlock {
    /// The superblock that `drbdmeta create-md` writes (which leaves `device_uuid` 0).
    pub fn fresh(layout: &Layout, device_uuid: u64) -> Self {
        Self {
            la_size_sectors: 0,
            uuids: [UUID_JUST_CREATED, 0, 0, 0],
            device_uuid,
            flags: MetaFlags::AL_CLEAN,
            magic: Magic::V08,
            md_size_sectors: layout.md_size_sectors,
            al_offset_sectors: layout.al_offset_sectors(),
            al_extents: FRESH_AL_EXTENTS,
            bm_offset_sectors: layout.bm_offset_sectors(),
            bytes_per_bit: BYTES_PER_BIT,
            peer_max_bio_bytes: 0,
            al_stripes: layout.al_stripes,
            al_stripe_size_4k: layout.al_stripe_size_4k,
        }
    }

    /// Whether the activity log must be applied before the data may be used. `drbdmeta apply-al` marks the hot
    /// extents in the bitmap only if [`MetaFlags::PRIMARY_IND`] is set (who was not primary has nothing to fear),
    /// then fills the ring with `Transaction::initialized`, sets [`MetaFlags::AL_CLEAN`] and [`Magic::V08`], and
    /// leaves the other flags as they are.
    pub fn needs_apply_al(&self) -> bool {
        self.magic == Magic::V84_UNCLEAN || !self.flags.has(MetaFlags::AL_CLEAN)
    }

    /// The block as it lies on disk.
    pub fn encode(&self) -> [u8; SUPER_BLOCK_BYTES] {
        let on_disk = OnDisk {
            la_size_sect: self.la_size_sectors.into(),
            uuid: self.uuids.map(U64::new),
            device_uuid: self.device_uuid.into(),
            reserved_u64_1: U64::ZERO,
            flags: self.flags.0.into(),
            magic: self.magic.0.into(),
            md_size_sect: self.md_size_sectors.into(),
            al_offset: self.al_offset_sectors.into(),
            al_nr_extents: self.al_extents.into(),
            bm_offset: self.bm_offset_sectors.into(),
            bm_bytes_per_bit: self.bytes_per_bit.into(),
            la_peer_max_bio_size: self.peer_max_bio_bytes.into(),
            al_stripes: self.al_stripes.into(),
            al_stripe_size_4k: self.al_stripe_size_4k.into(),
            reserved_u8: [0; 4000],
        };
        zerocopy::transmute!(on_disk)
    }

    /// Reads a superblock and checks all that can be checked without knowing the disk.
    /// Reserved bytes are ignored, and zero after the next `encode`, as upstream does.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let Ok((disk, _)) = OnDisk::ref_from_prefix(bytes) else {
            return Err(wrong("length", bytes.len(), "4096 bytes"));
        };
        let magic = Magic(disk.magic.get());
        if magic == Magic::V07 {
            return Err(wrong(
                "magic",
                "that of version 0.7",
                "0x8374026b (version 08); create meta-data anew",
            ));
        }
        if magic != Magic::V08 && magic != Magic::V84_UNCLEAN {
            let found = format!("{:#010x}", magic.0);
            return Err(wrong(
                "magic",
                found,
                "0x8374026b or 0x8374026c; there are no meta-data of version 08 here",
            ));
        }
        let (al_stripes, al_stripe_size_4k) = match (disk.al_stripes.get(), disk.al_stripe_size_4k.get()) {
            (0, 0) => (DEFAULT_AL_STRIPES, DEFAULT_AL_STRIPE_SIZE_4K),
            given => given,
        };
        let block = Self {
            la_size_sectors: disk.la_size_sect.get(),
            uuids: disk.uuid.map(U64::get),
            device_uuid: disk.device_uuid.get(),
            flags: MetaFlags(disk.flags.get()),
            magic,
            md_size_sectors: disk.md_size_sect.get(),
            al_offset_sectors: disk.al_offset.get(),
            al_extents: disk.al_nr_extents.get(),
            bm_offset_sectors: disk.bm_offset.get(),
            bytes_per_bit: disk.bm_bytes_per_bit.get(),
            peer_max_bio_bytes: disk.la_peer_max_bio_size.get(),
            al_stripes,
            al_stripe_size_4k,
        };
        block.check()?;
        Ok(block)
    }

    /// What can be said without knowing the disk.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        if self.bytes_per_bit != BYTES_PER_BIT {
            return Err(wrong("bm_bytes_per_bit", self.bytes_per_bit, BYTES_PER_BIT));
        }
        let al = AlSize { stripes: self.al_stripes, stripe_size_4k: self.al_stripe_size_4k };
        let al_size_4k = al.blocks();
        if al.is_too_small() || al.is_too_large() {
            let found = format!("{} x {}", self.al_stripes, self.al_stripe_size_4k);
            return Err(wrong(
                "al_stripes x al_stripe_size_4k",
                found,
                format!("{} to {} blocks", AlSize::BLOCKS_MIN, AlSize::BLOCKS_MAX),
            ));
        }
        let al_sectors = (al_size_4k * SECTORS_4K) as i64;
        let (al, bm, size) = (
            i64::from(self.al_offset_sectors),
            i64::from(self.bm_offset_sectors),
            i64::from(self.md_size_sectors),
        );
        // Internal meta-data lie below their superblock (bitmap, log, superblock), external ones above it.
        let internal = al < 0;
        let al_expected = if internal { -al_sectors } else { SECTORS_4K as i64 };
        if al != al_expected {
            return Err(wrong("al_offset", al, al_expected));
        }
        let (bm_expected, bm_sectors) = if internal {
            (SECTORS_4K as i64 - size, al - bm)
        } else {
            (SECTORS_4K as i64 + al_sectors, size - bm)
        };
        if bm != bm_expected || bm % SECTORS_4K as i64 != 0 {
            return Err(wrong("bm_offset", bm, format!("{bm_expected}, a multiple of {SECTORS_4K}")));
        }
        if bm_sectors <= 0 {
            return Err(wrong("md_size_sect", size, format!("more than {}", size - bm_sectors)));
        }
        let covered_sectors = bm_sectors as u64 * Layout::SECTORS_PER_BITMAP_SECTOR;
        if self.la_size_sectors > covered_sectors {
            return Err(wrong(
                "la_size_sect",
                self.la_size_sectors,
                format!("at most {covered_sectors}, what the bitmap covers"),
            ));
        }
        Ok(())
    }
}

fn wrong(field: &'static str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Malformed {
    Malformed::new("superblock", field, found, expected)
}
