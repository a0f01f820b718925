//! `dump-md` and `dstate`.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use drbd_format::meta::{Layout, MetaFlags, SuperBlock};

use super::{Failed, MetaDisk, bitmap_bytes};

/// Words of 64 bits in a line of the bitmap's dump.
const WORDS_PER_LINE: usize = 4;

/// The bitmap is read in pieces of this.
const PIECE_BYTES: u64 = 1 << 20;

/// Prints the meta-data in drbdmeta's form; `command` is shown in its head. With `force` also meta-data whose
/// activity log is not applied: what is printed cannot be restored then.
///
/// # Errors
/// There are none, or they are unclean; what happened was printed.
pub fn dump_md(
    out: &mut impl Write,
    disk: &MetaDisk,
    node: &str,
    command: &str,
    force: bool,
) -> Result<(), Failed> {
    let (block, layout) = disk.valid()?;
    if block.needs_apply_al() {
        eprintln!("Found meta data is \"unclean\", please apply-al first");
        if !force {
            return Err(Failed { status: 1 });
        }
    }
    write!(out, "# DRBD meta data dump\n# {}\n# {node}> {command}\n#\n\n", now_text())
        .and_then(|()| write_super_block(out, &block, &layout))
        .and_then(|()| write_bitmap(out, disk, &block, &layout))
        .and_then(|()| out.flush())
        .map_err(|error| disk.failed("dump-md", &error))
}

/// Prints the state of the data, as far as the meta-data tell it.
///
/// # Errors
/// There are none; that was printed.
pub fn dstate(disk: &MetaDisk) -> Result<(), Failed> {
    let (block, _) = disk.valid()?;
    println!("{}", data_state(block.flags));
    Ok(())
}

fn data_state(flags: MetaFlags) -> &'static str {
    if !flags.has(MetaFlags::CONSISTENT) {
        "Inconsistent"
    } else if !flags.has(MetaFlags::WAS_UP_TO_DATE) {
        "Outdated"
    } else if flags.has(MetaFlags::PEER_OUT_DATED) {
        "UpToDate"
    } else {
        "Consistent"
    }
}

fn write_super_block(out: &mut impl Write, block: &SuperBlock, layout: &Layout) -> io::Result<()> {
    write!(out, "version \"v08\";\n\n")?;
    if block.needs_apply_al() {
        write!(
            out,
            "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.\n\
             # You should \"apply-al\" first, if you plan to restore this.\n\n"
        )?;
    }
    writeln!(out, "# md_size_sect {}", block.md_size_sectors)?;
    writeln!(out, "# md_offset {}", layout.md_offset_bytes)?;
    writeln!(out, "# al_offset {}", layout.al_offset_bytes)?;
    write!(out, "# bm_offset {}\n\n", layout.bm_offset_bytes)?;
    let [current, bitmap, history0, history1] = block.uuids;
    // Version 9 keeps flags for each peer and prints those; version 08 has none, whatever its own flags are.
    writeln!(
        out,
        "uuid {{\n    0x{current:016X}; 0x{bitmap:016X}; 0x{history0:016X}; 0x{history1:016X};\n    flags \
         0x00000000;\n}}"
    )?;
    writeln!(out, "# al-extents {};", block.al_extents)?;
    writeln!(out, "la-size-sect {};", block.la_size_sectors)?;
    writeln!(out, "bm-byte-per-bit {};", block.bytes_per_bit)?;
    writeln!(out, "device-uuid 0x{:016X};", block.device_uuid)?;
    writeln!(out, "la-peer-max-bio-size {};", block.peer_max_bio_bytes)?;
    writeln!(out, "al-stripes {};", block.al_stripes)?;
    writeln!(out, "al-stripe-size-4k {};", block.al_stripe_size_4k)
}

fn write_bitmap(
    out: &mut impl Write,
    disk: &MetaDisk,
    block: &SuperBlock,
    layout: &Layout,
) -> io::Result<()> {
    let bytes =
        if block.la_size_sectors == 0 { 0 } else { bitmap_bytes(block.la_size_sectors).min(layout.bm_bytes) };
    write!(out, "# bm-bytes {bytes};\nbm {{")?;
    let mut printer = BitmapPrinter::default();
    let mut done = 0;
    while done < bytes {
        let mut piece = vec![0; (bytes - done).min(PIECE_BYTES) as usize];
        std::os::unix::fs::FileExt::read_exact_at(&disk.file, &mut piece, layout.bm_offset_bytes + done)?;
        for line in piece.chunks_exact(WORDS_PER_LINE * 8) {
            printer.line(out, line)?;
        }
        done += piece.len() as u64;
    }
    printer.finish(out)?;
    write!(out, "\n}}\n# bits-set {};\n", printer.bits_set)
}

/// Prints lines of four words; two and more lines of one repeated half-word become `N times`.
#[derive(Default)]
struct BitmapPrinter {
    /// Repeated half-word, number of lines, number of the first of them.
    run: Option<(u32, u64, u64)>,
    lines: u64,
    bits_set: u64,
}

impl BitmapPrinter {
    fn line(&mut self, out: &mut impl Write, line: &[u8]) -> io::Result<()> {
        let number = self.lines;
        self.lines += 1;
        self.bits_set += line.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        let halves =
            line.chunks_exact(4).map(|half| u32::from_le_bytes([half[0], half[1], half[2], half[3]]));
        let halves: Vec<u32> = halves.collect();
        let uniform = halves.iter().all(|&half| half == halves[0]).then_some(halves[0]);
        match (&mut self.run, uniform) {
            (Some((repeated, lines, _)), Some(half)) if *repeated == half => {
                *lines += 1;
                return Ok(());
            }
            _ => self.finish(out)?,
        }
        match uniform {
            Some(half) => self.run = Some((half, 1, number)),
            None => {
                line_break(out, number)?;
                for pair in halves.chunks_exact(2) {
                    write!(out, " 0x{:08X}{:08X};", pair[1], pair[0])?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some((half, lines, first)) = self.run.take() else { return Ok(()) };
        line_break(out, first)?;
        if lines > 1 {
            return write!(out, " {} times 0x{half:08X}{half:08X};", lines * WORDS_PER_LINE as u64);
        }
        (0..WORDS_PER_LINE).try_for_each(|_| write!(out, " 0x{half:08X}{half:08X};"))
    }
}

/// Every eighth line tells the position on the device first.
fn line_break(out: &mut impl Write, number: u64) -> io::Result<()> {
    const KIB_PER_LINE: u64 = 128 * 8;
    if number.is_multiple_of(8) {
        write!(out, "\n   # at {}kB", number * KIB_PER_LINE)?;
    }
    write!(out, "\n   ")
}

/// `2026-11-22 08:16:25 +0000 [1795335385]`.
fn now_text() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days as i64);
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 [{seconds}]")
}

/// Year, month and day of a day counted from 1970-01-01, by the rules of eras of 400 years.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil_from_days;

    #[test]
    fn days_have_dates() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
        assert_eq!(civil_from_days(20_779), (2026, 11, 22));
    }
}
