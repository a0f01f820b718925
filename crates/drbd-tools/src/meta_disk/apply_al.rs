//! `apply-al`: what the activity log says was hot becomes out of sync.

use drbd_format::activity_log::{EXTENT_SECTORS, replay};
use drbd_format::meta::{Layout, Magic, MetaFlags, SuperBlock};

use super::create::write_activity_log;
use super::{Failed, MetaDisk, size_text};

/// Bytes of bitmap that cover an extent of the activity log.
const EXTENT_BITMAP_BYTES: u64 = EXTENT_SECTORS / 8 / 8;

/// Marks the hot extents of a crashed Primary in the bitmap, empties the activity log and says in the superblock that this is done. Clean
/// meta-data stay as they are.
///
/// # Errors
/// There are none, or the log is damaged beyond what a crash leaves; what happened was printed.
pub fn apply_al(disk: &MetaDisk) -> Result<(), Failed> {
    let (mut block, layout) = disk.valid()?;
    if !block.needs_apply_al() {
        return Ok(());
    }
    // Who was not Primary has acknowledged nothing to an application that the peer might not have.
    if block.flags.has(MetaFlags::PRIMARY_IND) {
        apply(disk, &layout, &block)?;
    }
    // The bitmap first, then the log, then the word that both are done: a crash between two of them repeats the work.
    disk.sync()?;
    write_activity_log(disk, &layout)?;
    disk.sync()?;
    block.flags = block.flags.with(MetaFlags::AL_CLEAN);
    block.magic = Magic::V08;
    disk.write_super_block(&block, &layout)
}

fn apply(disk: &MetaDisk, layout: &Layout, block: &SuperBlock) -> Result<(), Failed> {
    let mut log = vec![0; layout.al_bytes as usize];
    disk.read_at(&mut log, layout.al_offset_bytes)?;
    let replayed = replay(&log, layout.al_stripes, layout.al_stripe_size_4k).map_err(|damage| {
        eprintln!("{}: {damage}", disk.path.display());
        eprintln!("Cannot tell which blocks differ: invalidate this node's data to sync all of it.");
        Failed { status: 2 }
    })?;
    let mut added_bits = 0;
    for &extent in replayed.slots.values() {
        added_bits += mark(disk, layout, block, extent)?;
    }
    if replayed.slots.is_empty() {
        eprintln!("Nothing to do.");
    } else {
        eprintln!("Marked additional {} as out-of-sync based on AL.", size_text(added_bits * 4));
    }
    Ok(())
}

/// Sets the bits of one extent; returns how many were not set before.
fn mark(disk: &MetaDisk, layout: &Layout, block: &SuperBlock, extent: u32) -> Result<u64, Failed> {
    let bits = block.la_size_sectors.div_ceil(8);
    let bitmap_bytes = bits.div_ceil(64).saturating_mul(8).min(layout.bm_bytes);
    let offset = u64::from(extent) * EXTENT_BITMAP_BYTES;
    let length = EXTENT_BITMAP_BYTES.min(bitmap_bytes.saturating_sub(offset)) as usize;
    if length == 0 {
        return Ok(0);
    }
    let mut bytes = vec![0; length];
    disk.read_at(&mut bytes, layout.bm_offset_bytes + offset)?;
    let before: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
    disk.write_at(&vec![0xff; length], layout.bm_offset_bytes + offset)?;
    Ok(length as u64 * 8 - before)
}
