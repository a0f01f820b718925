//! `check-resize`: internal meta-data belong at the end of their disk, also after it has grown while nobody used it.

use drbd_format::meta::{DiskSizes, Layout, Placement, SUPER_BLOCK_BYTES, SuperBlock};

use super::last_known::LastKnown;
use super::{Failed, MetaDisk};

/// The bitmap is moved in pieces of this.
const PIECE_BYTES: u64 = 1 << 20;

/// Finds the meta-data where they belong, or moves them there from where they were last.
///
/// # Errors
/// They are at neither place, or the device failed; what happened was printed.
pub fn check_resize(disk: &MetaDisk, force: bool) -> Result<(), Failed> {
    if let Some((block, _)) = disk.existing() {
        disk.note_last_known(&block);
        return Ok(());
    }
    if disk.placement != Placement::Internal {
        eprintln!("Operation only supported for >= v8 internal meta data");
        return Err(Failed { status: 1 });
    }
    let Some((block, old)) = at_last_known(disk, force) else {
        eprintln!("no suitable meta data found :(");
        return Err(Failed { status: 1 });
    };
    move_to_the_end(disk, block, &old)
}

/// Valid meta-data at the place where they were when the disk had its last known size.
pub fn at_last_known(disk: &MetaDisk, force: bool) -> Option<(SuperBlock, Layout)> {
    let known = disk.minor.and_then(LastKnown::load)?;
    if disk.placement != Placement::Internal || known.bytes >= disk.bytes {
        return None;
    }
    let (block, layout) = disk.recorded(DiskSizes::of_one(known.bytes)).ok()?;
    if known.device_uuid != 0 && known.device_uuid != block.device_uuid {
        eprintln!(
            "Last known and found uuid differ!?\n{:016X} != {:016X}",
            known.device_uuid, block.device_uuid
        );
        eprintln!(
            "{}",
            if force { "You --force'ed me to ignore that." } else { "You may --force me to ignore that." }
        );
        return force.then_some((block, layout));
    }
    Some((block, layout))
}

fn move_to_the_end(disk: &MetaDisk, mut block: SuperBlock, old: &Layout) -> Result<(), Failed> {
    let new =
        Layout::of(Placement::Internal, DiskSizes::of_one(disk.bytes), old.al_size()).map_err(|small| {
            eprintln!("{}: {small}", disk.path.display());
            Failed { status: 10 }
        })?;
    eprintln!("Moving the internal meta data to its proper location");
    let mut log = vec![0; old.al_bytes as usize];
    disk.read_at(&mut log, old.al_offset_bytes)?;
    disk.write_at(&log, new.al_offset_bytes)?;
    // The two places may overlap, and the new one is behind: from the end on.
    let mut left = old.bm_bytes;
    while left > 0 {
        let piece = left.min(PIECE_BYTES);
        left -= piece;
        let mut bytes = vec![0; piece as usize];
        disk.read_at(&mut bytes, old.bm_offset_bytes + left)?;
        disk.write_at(&bytes, new.bm_offset_bytes + left)?;
    }
    disk.sync()?;
    block.md_size_sectors = new.md_size_sectors;
    block.al_offset_sectors = new.al_offset_sectors();
    block.bm_offset_sectors = new.bm_offset_sectors();
    disk.write_super_block(&block, &new)?;
    println!("Internal drbd meta data successfully moved.");
    if old.md_offset_bytes + SUPER_BLOCK_BYTES as u64 <= new.bm_offset_bytes {
        // Two superblocks would be one too many when the disk shrinks again.
        disk.write_at(&[0; SUPER_BLOCK_BYTES], old.md_offset_bytes)?;
        disk.sync()?;
    }
    Ok(())
}
