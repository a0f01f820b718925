//! `restore-md` and `verify-dump`: meta-data from the text that `dump-md` prints. Nothing is written before all of it was
//! understood.

mod tokens;

use std::io::Read;

use drbd_format::meta::{AlSize, BYTES_PER_BIT, DiskSizes, Layout, Magic, MetaFlags, SuperBlock};

use super::{Failed, MetaDisk, bitmap_bytes, existing_data, is_confirmed};
use tokens::{Token, Tokens};

/// Words are written in pieces of this.
const PIECE_WORDS: usize = 1 << 17;

/// Longest text that is read: the dump of a bitmap without any repetition, of 16 TiB.
const TEXT_BYTES_MAX: u64 = 2 << 30;

/// What a dump says.
struct Dump {
    block: SuperBlock,
    layout: Layout,
    /// Runs of one word.
    bitmap: Vec<(u64, u64)>,
    is_too_long: bool,
}

/// Checks that a dump could be restored to a disk like this.
///
/// # Errors
/// It could not; where and why was printed.
pub fn verify_dump(disk: &MetaDisk, source: &mut dyn Read) -> Result<(), Failed> {
    let dump = parse(disk, &text_of(source)?)?;
    if dump.is_too_long {
        eprintln!("Bitmap info too large, truncated!");
    }
    println!("input file parsed ok");
    Ok(())
}

/// Writes what a dump says, after a person has agreed to lose what is there.
///
/// # Errors
/// Nobody agreed, the dump is none, or the device failed; what happened was printed.
pub fn restore_md(
    disk: &MetaDisk,
    source: &mut dyn Read,
    al: Option<AlSize>,
    force: bool,
) -> Result<(), Failed> {
    if disk.existing().is_some() && !is_confirmed("Valid meta-data in place, overwrite?", force) {
        return Err(Failed { status: 1 });
    }
    let text = text_of(source)?;
    let mut dump = parse(disk, &text)?;
    eprintln!("reinitializing");
    if let Some(al) = al.filter(|al| *al != dump.layout.al_size()) {
        eprintln!("override activity log striping from commandline");
        dump.set_al(disk, al)?;
    }
    existing_data::check(disk, &dump.layout, force)?;
    if dump.is_too_long {
        eprintln!("Bitmap info too large, truncated!");
    }
    dump.write_bitmap(disk)?;
    disk.sync()?;
    disk.write_super_block(&dump.block, &dump.layout)?;
    println!("Successfully restored meta data");
    Ok(())
}

fn text_of(source: &mut dyn Read) -> Result<String, Failed> {
    let mut bytes = Vec::new();
    source.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| {
        eprintln!("the dump cannot be read: {}", super::system_text(&error));
        Failed { status: 20 }
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn refuse(text: &str) -> Failed {
    eprintln!("{text}");
    Failed { status: 10 }
}

fn parse(disk: &MetaDisk, text: &str) -> Result<Dump, Failed> {
    let mut tokens = Tokens::new(text);
    match read(disk, &mut tokens) {
        Ok(dump) => dump,
        Err(wrong) => Err(refuse(&wrong)),
    }
}

/// The text's parts in their order; outside an error of its grammar, inside one of its meaning.
fn read(disk: &MetaDisk, tokens: &mut Tokens<'_>) -> Result<Result<Dump, Failed>, String> {
    tokens.word("version")?;
    let version = tokens.string()?;
    if version != "v08" {
        return Ok(Err(refuse(&format!("dump is '{version}' you requested 'v08'."))));
    }
    tokens.sign(';')?;
    tokens.word("uuid")?;
    tokens.sign('{')?;
    let mut uuids = [0; 4];
    for uuid in &mut uuids {
        *uuid = tokens.hex64()?;
        tokens.sign(';')?;
    }
    tokens.word("flags")?;
    let flags = tokens.hex32()?;
    tokens.sign(';')?;
    tokens.sign('}')?;
    let la_size_sectors = tokens.setting("la-size-sect")?;
    let bytes_per_bit = tokens.setting("bm-byte-per-bit")?;
    if bytes_per_bit != u64::from(BYTES_PER_BIT) {
        return Ok(Err(refuse(&format!(
            "Invalid value for bm-byte-per-bit: {bytes_per_bit}; version 08 has {BYTES_PER_BIT}"
        ))));
    }
    tokens.word("device-uuid")?;
    let device_uuid = tokens.hex64()?;
    tokens.sign(';')?;
    let peer_max_bio_bytes = tokens.setting("la-peer-max-bio-size")? as u32;
    let stripes = tokens.setting("al-stripes")?;
    let stripe_size_4k = tokens.setting("al-stripe-size-4k")?;
    let al = AlSize {
        stripes: u32::try_from(stripes).unwrap_or(u32::MAX),
        stripe_size_4k: u32::try_from(stripe_size_4k).unwrap_or(u32::MAX),
    };
    let layout = match layout(disk, al) {
        Ok(layout) => layout,
        Err(failed) => return Ok(Err(failed)),
    };
    let la_size_sectors = if la_size_sectors > layout.usable_sectors {
        let usable = layout.usable_sectors;
        println!("# la-size-sect was too big ({la_size_sectors}), truncated ({usable})!");
        usable
    } else {
        la_size_sectors
    };
    let bytes = if la_size_sectors == 0 { 0 } else { bitmap_bytes(la_size_sectors).min(layout.bm_bytes) };
    let (bitmap, is_too_long) = read_bitmap(tokens, bytes / 8)?;
    tokens.end()?;
    let mut block = SuperBlock::fresh(&layout, device_uuid);
    block.uuids = uuids;
    block.flags = MetaFlags(flags);
    block.magic = Magic::V08;
    block.la_size_sectors = la_size_sectors;
    block.peer_max_bio_bytes = peer_max_bio_bytes;
    Ok(Ok(Dump { block, layout, bitmap, is_too_long }))
}

fn layout(disk: &MetaDisk, al: AlSize) -> Result<Layout, Failed> {
    if al.is_too_small() || al.is_too_large() {
        let (found, min, max) = (al.blocks(), AlSize::BLOCKS_MIN, AlSize::BLOCKS_MAX);
        return Err(refuse(&format!(
            "al-stripes x al-stripe-size-4k: {found} blocks; {min} to {max} can be"
        )));
    }
    let sizes = DiskSizes { data_bytes: disk.data_bytes, meta_bytes: disk.bytes };
    Layout::of(disk.placement, sizes, al)
        .map_err(|small| refuse(&format!("{}: {small}", disk.path.display())))
}

/// The words of the bitmap as runs, and whether there are more than `words_max`.
fn read_bitmap(tokens: &mut Tokens<'_>, words_max: u64) -> Result<(Vec<(u64, u64)>, bool), String> {
    const WHAT: &str = "repeat count, 16-digit hex number, or closing brace (})";
    tokens.word("bm")?;
    tokens.sign('{')?;
    let (mut runs, mut words, mut is_too_long) = (Vec::new(), 0_u64, false);
    loop {
        let (times, word) = match tokens.next() {
            Token::Sign('}') => return Ok((runs, is_too_long)),
            Token::Hex64(word) => (1, word),
            Token::Number(times) => {
                tokens.word("times")?;
                (times, tokens.hex64()?)
            }
            other => return Err(tokens.wrong(WHAT, &other)),
        };
        tokens.sign(';')?;
        let fits = times.min(words_max - words);
        is_too_long |= fits < times;
        words += fits;
        if fits > 0 {
            runs.push((fits, word));
        }
    }
}

impl Dump {
    fn set_al(&mut self, disk: &MetaDisk, al: AlSize) -> Result<(), Failed> {
        self.layout = layout(disk, al)?;
        self.block.md_size_sectors = self.layout.md_size_sectors;
        self.block.al_offset_sectors = self.layout.al_offset_sectors();
        self.block.bm_offset_sectors = self.layout.bm_offset_sectors();
        self.block.al_stripes = self.layout.al_stripes;
        self.block.al_stripe_size_4k = self.layout.al_stripe_size_4k;
        Ok(())
    }

    fn write_bitmap(&self, disk: &MetaDisk) -> Result<(), Failed> {
        let mut offset = self.layout.bm_offset_bytes;
        let mut piece = Vec::new();
        let mut put = |piece: &mut Vec<u8>| {
            // The rest of the last block is zero.
            piece.resize(piece.len().next_multiple_of(units::SECTOR_BYTES as usize), 0);
            disk.write_at(piece, offset)?;
            offset += piece.len() as u64;
            piece.clear();
            Ok(())
        };
        for &(times, word) in &self.bitmap {
            for _ in 0..times {
                piece.extend_from_slice(&word.to_le_bytes());
                if piece.len() == PIECE_WORDS * 8 {
                    put(&mut piece)?;
                }
            }
        }
        if piece.is_empty() { Ok(()) } else { put(&mut piece) }
    }
}
