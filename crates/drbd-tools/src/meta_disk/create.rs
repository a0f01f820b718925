//! `create-md`.

use drbd_format::activity_log::Transaction;
use drbd_format::meta::{AlSize, DiskSizes, Layout, Placement, SuperBlock, TooSmall};

use super::{Failed, MetaDisk, bitmap_bytes, existing_data, is_confirmed, size_text};

/// Zeroes are written in pieces of this.
const PIECE_BYTES: u64 = 1 << 20;

/// Writes fresh meta-data, after a person has agreed to lose what is there. Keeps the device's UUID if it had one.
/// The texts are drbdmeta's; with `era2013` those of its release of that year.
///
/// # Errors
/// Refused, or the device failed; what happened was printed.
pub fn create_md(disk: &MetaDisk, force: bool, era2013: bool) -> Result<(), Failed> {
    NewMetaData { force, era2013, al: AlSize::DEFAULT, peer_max_bio_bytes: 0 }.create(disk)
}

/// How new meta-data are to be.
#[derive(Clone, Copy, Debug)]
pub struct NewMetaData {
    /// Without asking.
    pub force: bool,
    /// In the words of the release of 2013.
    pub era2013: bool,
    /// Size of the activity log.
    pub al: AlSize,
    /// Largest request the peer is assumed to take.
    pub peer_max_bio_bytes: u32,
}

impl NewMetaData {
    /// Writes them.
    ///
    /// # Errors
    /// Refused, or the device failed; what happened was printed.
    pub fn create(self, disk: &MetaDisk) -> Result<(), Failed> {
        create(disk, self)
    }
}

fn create(disk: &MetaDisk, wanted: NewMetaData) -> Result<(), Failed> {
    let NewMetaData { force, era2013, al, peer_max_bio_bytes } = wanted;
    let layout = new_layout(disk, al).map_err(|too_small| {
        eprintln!("{}: {too_small}", disk.path.display());
        Failed { status: 10 }
    })?;
    let former = disk.existing();
    if let Some((_, former)) = &former {
        ask_to_overwrite(disk, former, force)?;
    }
    existing_data::check(disk, &layout, force)?;
    let device_uuid = match former.map(|(block, _)| block.device_uuid) {
        Some(uuid) if uuid != 0 => uuid,
        _ => random_uuid()?,
    };
    if era2013 {
        println!("Writing meta data...");
    }
    println!("initializing activity log");
    write_activity_log(disk, &layout)?;
    // The release of 2013 left the bitmap as it was. A cleared one is right for both: the first handshake sets it.
    let bitmap_bytes = bitmap_bytes(disk.data_bytes / units::SECTOR_BYTES).min(layout.bm_bytes);
    if era2013 {
        println!("NOT initialized bitmap");
    } else {
        eprintln!("initializing bitmap ({}) to all zero", size_text(bitmap_bytes >> 10));
    }
    write_zeroes(disk, layout.bm_offset_bytes, bitmap_bytes)?;
    if !era2013 {
        println!("Writing meta data...");
    }
    // The superblock makes the rest valid: it is written when the rest is durable.
    disk.sync()?;
    let block = SuperBlock { peer_max_bio_bytes, ..SuperBlock::fresh(&layout, device_uuid) };
    disk.write_super_block(&block, &layout)?;
    println!("New drbd meta data block successfully created.");
    if era2013 {
        println!("success");
    }
    Ok(())
}

fn new_layout(disk: &MetaDisk, al: AlSize) -> Result<Layout, TooSmall> {
    let sizes = DiskSizes { data_bytes: disk.data_bytes, meta_bytes: disk.bytes };
    Layout::of(disk.placement, sizes, al)
}

fn ask_to_overwrite(disk: &MetaDisk, former: &Layout, force: bool) -> Result<(), Failed> {
    let question = if disk.placement == Placement::Internal {
        eprintln!(
            "You want me to create a v08 style flexible-size internal meta data block.\nThere appears to be a v08 \
             flexible-size internal meta data block\nalready in place on {} at byte offset {}",
            disk.path.display(),
            former.md_offset_bytes
        );
        "Do you really want to overwrite the existing meta-data?"
    } else {
        "Valid meta data seems to be in place.\nDo you really want to overwrite?"
    };
    if is_confirmed(question, force) {
        return Ok(());
    }
    println!("Operation cancelled.");
    Err(Failed { status: 1 })
}

fn random_uuid() -> Result<u64, Failed> {
    getrandom::u64().map_err(|error| {
        eprintln!("no random numbers: {error}");
        Failed { status: 10 }
    })
}

/// An activity log without transactions.
pub fn write_activity_log(disk: &MetaDisk, layout: &Layout) -> Result<(), Failed> {
    let block = Transaction::initialized().encode();
    let blocks = layout.al_bytes / block.len() as u64;
    let log: Vec<u8> = (0..blocks).flat_map(|_| block).collect();
    disk.write_at(&log, layout.al_offset_bytes)
}

fn write_zeroes(disk: &MetaDisk, mut offset: u64, mut bytes: u64) -> Result<(), Failed> {
    let zeroes = vec![0; PIECE_BYTES as usize];
    while bytes > 0 {
        let piece = bytes.min(PIECE_BYTES);
        disk.write_at(&zeroes[..piece as usize], offset)?;
        offset += piece;
        bytes -= piece;
    }
    Ok(())
}
