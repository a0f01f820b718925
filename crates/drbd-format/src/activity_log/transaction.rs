//! One block of the ring.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BLOCK_BYTES, CONTEXT_MAX, EXTENT_FREE, UPDATES_MAX};
use crate::Malformed;

/// `DRBD_AL_MAGIC`.
const MAGIC: u32 = 0x69cb_65a2;

/// Slot number in the updates that are not used.
const NO_SLOT: u16 = u16::MAX;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct OnDisk {
    magic: U32,
    tr_number: U32,
    crc32c: U32,
    transaction_type: U16,
    n_updates: U16,
    context_size: U16,
    context_start_slot_nr: U16,
    reserved: [U32; 4],
    update_slot_nr: [U16; UPDATES_MAX],
    update_extent_nr: [U32; UPDATES_MAX],
    context: [U32; CONTEXT_MAX],
}
const _: () = assert!(size_of::<OnDisk>() == BLOCK_BYTES);

/// `enum al_transaction_types`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kind(pub u16);

impl Kind {
    /// `AL_TR_UPDATE`: extents became hot or cold.
    pub const UPDATE: Self = Self(0);
    /// `AL_TR_INITIALIZED`: what `drbdmeta create-md` and `apply-al` fill the ring with; says nothing.
    pub const INITIALIZED: Self = Self(0xffff);
}

/// A transaction: the slots that change, and a part of those that stay, so that the newest few transactions
/// together tell every slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transaction {
    /// `tr_number`: counts on by one, around at 2^32.
    pub number: u32,
    /// `transaction_type`.
    pub kind: Kind,
    /// Slot and its new extent, [`EXTENT_FREE`] for none; at most [`UPDATES_MAX`].
    pub updates: Vec<(u16, u32)>,
    /// Number of slots (`al-extents` of drbd.conf(5)).
    pub context_size: u16,
    /// First slot of `context`. The next transaction's starts [`CONTEXT_MAX`] later, or at 0 past the last slot.
    pub context_start: u16,
    /// Extents of the slots from there on, before the updates; as many as there are slots, at most
    /// [`CONTEXT_MAX`].
    pub context: Vec<u32>,
}

impl Transaction {
    /// A block of a ring that was never used.
    pub fn initialized() -> Self {
        Self {
            number: 0,
            kind: Kind::INITIALIZED,
            updates: Vec::new(),
            context_size: 0,
            context_start: 0,
            context: Vec::new(),
        }
    }

    /// The block as it lies on disk.
    ///
    /// # Panics
    /// If there are more updates or more context than a block holds.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        assert!(self.updates.len() <= UPDATES_MAX, "{} updates in one transaction", self.updates.len());
        assert!(
            self.context.len() <= CONTEXT_MAX,
            "{} slots of context in one transaction",
            self.context.len()
        );
        let initialized = self.kind == Kind::INITIALIZED;
        let (no_slot, no_extent) = if initialized { (0, 0) } else { (NO_SLOT, EXTENT_FREE) };
        let mut block = OnDisk {
            magic: MAGIC.into(),
            tr_number: self.number.into(),
            crc32c: U32::ZERO,
            transaction_type: self.kind.0.into(),
            n_updates: (self.updates.len() as u16).into(),
            context_size: self.context_size.into(),
            context_start_slot_nr: self.context_start.into(),
            reserved: [U32::ZERO; 4],
            update_slot_nr: [no_slot.into(); UPDATES_MAX],
            update_extent_nr: [no_extent.into(); UPDATES_MAX],
            context: [no_extent.into(); CONTEXT_MAX],
        };
        for (at, &(slot, extent)) in self.updates.iter().enumerate() {
            block.update_slot_nr[at] = slot.into();
            block.update_extent_nr[at] = extent.into();
        }
        for (out, &extent) in block.context.iter_mut().zip(&self.context) {
            *out = extent.into();
        }
        block.crc32c = checksum(block.as_bytes()).into();
        zerocopy::transmute!(block)
    }

    /// Reads a block. Whatever a torn write or a stray one leaves is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let Ok(mut block) = OnDisk::read_from_bytes(bytes) else {
            return Err(wrong("length", bytes.len(), BLOCK_BYTES));
        };
        if block.magic != MAGIC {
            return Err(wrong("magic", format!("{:#010x}", block.magic), format!("{MAGIC:#010x}")));
        }
        let found = std::mem::replace(&mut block.crc32c, U32::ZERO).get();
        let expected = checksum(block.as_bytes());
        if found != expected {
            return Err(wrong("crc32c", format!("{found:#010x}"), format!("{expected:#010x}")));
        }
        let kind = Kind(block.transaction_type.get());
        if kind != Kind::UPDATE && kind != Kind::INITIALIZED {
            return Err(wrong("transaction_type", kind.0, "0 or 65535"));
        }
        let updates = usize::from(block.n_updates.get());
        if updates > UPDATES_MAX {
            return Err(wrong("n_updates", updates, format!("at most {UPDATES_MAX}")));
        }
        let (size, start) = (block.context_size.get(), block.context_start_slot_nr.get());
        let context = usize::from(size.saturating_sub(start)).min(CONTEXT_MAX);
        let slots = block.update_slot_nr.iter().map(|slot| slot.get());
        let extents = block.update_extent_nr.iter().map(|extent| extent.get());
        Ok(Self {
            number: block.tr_number.get(),
            kind,
            updates: slots.zip(extents).take(updates).collect(),
            context_size: size,
            context_start: start,
            context: block.context[..context].iter().map(|extent| extent.get()).collect(),
        })
    }
}

/// CRC-32C as the kernel's `crc32c(0, …)` computes it: without the usual inversions at both ends.
fn checksum(block: &[u8]) -> u32 {
    !crc32c::crc32c_append(!0, block)
}

fn wrong(field: &'static str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Malformed {
    Malformed::new("activity log transaction", field, found, expected)
}
