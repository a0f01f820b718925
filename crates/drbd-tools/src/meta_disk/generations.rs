//! Generation identifiers and flags: `get-gi`, `show-gi`, `set-gi`, `outdate`, `invalidate`, `wipe-md`.

use drbd_format::meta::{Layout, Magic, MetaFlags, SUPER_BLOCK_BYTES, SuperBlock};

use super::{Failed, MetaDisk, is_confirmed, size_text};

/// The flags in the order in which they follow the identifiers.
const SHOWN_FLAGS: [MetaFlags; 7] = [
    MetaFlags::CONSISTENT,
    MetaFlags::WAS_UP_TO_DATE,
    MetaFlags::PRIMARY_IND,
    MetaFlags::CONNECTED_IND,
    MetaFlags::FULL_SYNC,
    MetaFlags::PEER_OUT_DATED,
    MetaFlags::CRASHED_PRIMARY,
];

/// What is drawn around the line of `show-gi`.
const ABOVE: &str = "
       +--<  Current data generation UUID  >-
       |               +--<  Bitmap's base data generation UUID  >-
       |               |                 +--<  younger history UUID  >-
       |               |                 |         +-<  older history  >-
       V               V                 V         V
";
const BELOW: &str = "                                                                    ^ ^ ^ ^ ^ ^ ^
                                      -<  Data consistency flag  >--+ | | | | | |
                             -<  Data was/is currently up-to-date  >--+ | | | | |
                                  -<  Node was/is currently primary  >--+ | | | |
                                  -<  Node was/is currently connected  >--+ | | |
         -<  Node was in the progress of setting all bits in the bitmap  >--+ | |
                        -<  The peer's disk was out-dated or inconsistent  >--+ |
      -<  This node was a crashed primary, and has not seen its peer since   >--+

";

/// `CURRENT:BITMAP:HISTORY:HISTORY:` and seven flags, with a newline.
pub fn line(uuids: [u64; 4], flags: MetaFlags) -> String {
    let mut text: String = uuids.iter().map(|uuid| format!("{uuid:016X}:")).collect();
    let bits: Vec<_> = SHOWN_FLAGS.iter().map(|&flag| if flags.has(flag) { "1" } else { "0" }).collect();
    text += &bits.join(":");
    text + "\n"
}

/// The same with what each part means.
pub fn explained(uuids: [u64; 4], flags: MetaFlags) -> String {
    let crashed = if flags.has(MetaFlags::CRASHED_PRIMARY) { "crashed " } else { "" };
    let role = if flags.has(MetaFlags::PRIMARY_IND) { "Primary" } else { "Secondary" };
    let connection = if flags.has(MetaFlags::CONNECTED_IND) { "Connected" } else { "StandAlone" };
    let data = if !flags.has(MetaFlags::CONSISTENT) {
        "Inconsistent"
    } else if !flags.has(MetaFlags::WAS_UP_TO_DATE) {
        "Outdated"
    } else {
        "UpToDate"
    };
    let full_sync = if flags.has(MetaFlags::FULL_SYNC) { ", need full sync" } else { "" };
    let peer = if flags.has(MetaFlags::PEER_OUT_DATED) { ", peer Outdated" } else { "" };
    let log = if flags.has(MetaFlags::AL_CLEAN) { "clean" } else { "need apply-al" };
    let gi = line(uuids, flags);
    format!(
        "{ABOVE}{gi}{BELOW}flags: {crashed}{role}, {connection}, {data}{full_sync}{peer}\nmeta-data: {log}\n"
    )
}

fn found(disk: &MetaDisk) -> Result<(SuperBlock, Layout), Failed> {
    disk.valid()
}

/// Prints the identifiers.
///
/// # Errors
/// There are none.
pub fn get_gi(disk: &MetaDisk) -> Result<(), Failed> {
    let (block, _) = found(disk)?;
    print!("{}", line(block.uuids, block.flags));
    Ok(())
}

/// Prints the identifiers and what they mean.
///
/// # Errors
/// There are none.
pub fn show_gi(disk: &MetaDisk) -> Result<(), Failed> {
    let (block, _) = found(disk)?;
    print!("{}", explained(block.uuids, block.flags));
    if block.la_size_sectors == 0 {
        println!("zero size device -- never seen peer yet?");
    } else {
        let sectors = block.la_size_sectors;
        println!("last agreed size: {} ({sectors} sectors)", size_text(sectors >> 1));
        println!("last agreed max bio size: {} Byte", block.peer_max_bio_bytes);
    }
    Ok(())
}

/// Sets identifiers and flags after a person has agreed; a part that is empty or left out stays.
///
/// # Errors
/// A part is no number, there are no meta-data, or the device failed; what happened was printed.
pub fn set_gi(disk: &MetaDisk, text: &str, force: bool) -> Result<(), Failed> {
    let (block, layout) = found(disk)?;
    let (uuids, flags) = parse(text, block.uuids, block.flags).map_err(|wrong| {
        eprintln!("{wrong}");
        Failed { status: 10 }
    })?;
    print!("previously {}", line(block.uuids, block.flags));
    print!("set GI to  {}", line(uuids, flags));
    if !is_confirmed("Write new GI to disk?", force) {
        println!("Operation canceled.");
        return Ok(());
    }
    write(disk, &SuperBlock { uuids, flags, ..block }, &layout)
}

fn parse(text: &str, mut uuids: [u64; 4], mut flags: MetaFlags) -> Result<([u64; 4], MetaFlags), String> {
    let parts: Vec<&str> = text.split(':').collect();
    for (uuid, part) in uuids.iter_mut().zip(&parts).filter(|(_, part)| !part.is_empty()) {
        *uuid = u64::from_str_radix(part, 16).map_err(|_| format!("'{part}' is not a number."))?;
    }
    for (&flag, part) in SHOWN_FLAGS.iter().zip(parts.iter().skip(4)).filter(|(_, part)| !part.is_empty()) {
        flags = match *part {
            "0" => flags.without(flag),
            "1" => flags.with(flag),
            _ => return Err(format!("'{part}' is not 0 or 1.")),
        };
    }
    Ok((uuids, flags))
}

/// Marks the data as older than the peer's.
///
/// # Errors
/// They are not even consistent (status 5), or the device failed.
pub fn outdate(disk: &MetaDisk) -> Result<(), Failed> {
    let (mut block, layout) = found(disk)?;
    if !block.flags.has(MetaFlags::CONSISTENT) {
        eprintln!("Device is inconsistent.");
        return Err(Failed { status: 5 });
    }
    block.flags = block.flags.without(MetaFlags::WAS_UP_TO_DATE);
    write(disk, &block, &layout)
}

/// Marks the data as of no value: all of them come from the peer.
///
/// # Errors
/// There are no meta-data, or the device failed.
pub fn invalidate(disk: &MetaDisk) -> Result<(), Failed> {
    let (mut block, layout) = found(disk)?;
    let without = block.flags.without(MetaFlags::CONSISTENT).without(MetaFlags::WAS_UP_TO_DATE);
    block.flags = without.with(MetaFlags::FULL_SYNC);
    write(disk, &block, &layout)
}

/// Removes the superblock after a person has agreed: then these are no meta-data any more.
///
/// # Errors
/// Nobody agreed, or the device failed.
pub fn wipe_md(disk: &MetaDisk, force: bool) -> Result<(), Failed> {
    let Some((_, layout)) = disk.existing() else {
        eprintln!("There appears to be no drbd meta data to wipe out?");
        return Ok(());
    };
    if !is_confirmed("Do you really want to wipe out the DRBD meta data?", force) {
        println!("Operation cancelled.");
        return Err(Failed { status: 1 });
    }
    println!("Wiping meta data...");
    disk.write_at(&[0; SUPER_BLOCK_BYTES], layout.md_offset_bytes)?;
    disk.sync()?;
    println!("DRBD meta data block successfully wiped out.");
    if let Some(minor) = disk.minor {
        super::last_known::LastKnown::forget(minor);
    }
    Ok(())
}

/// Prints the device's UUID.
///
/// # Errors
/// There are no meta-data.
pub fn read_dev_uuid(disk: &MetaDisk) -> Result<(), Failed> {
    let (block, _) = found(disk)?;
    println!("{:016X}", block.device_uuid);
    Ok(())
}

/// Sets the device's UUID.
///
/// # Errors
/// It is no number, there are no meta-data, or the device failed; what happened was printed.
pub fn write_dev_uuid(disk: &MetaDisk, text: &str) -> Result<(), Failed> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let device_uuid = u64::from_str_radix(digits, 16).map_err(|_| {
        eprintln!("'{text}' is not a number of at most 16 hex digits.");
        Failed { status: 10 }
    })?;
    let (block, layout) = found(disk)?;
    write(disk, &SuperBlock { device_uuid, ..block }, &layout)
}

fn write(disk: &MetaDisk, block: &SuperBlock, layout: &Layout) -> Result<(), Failed> {
    // Unclean meta-data stay so: the magic number says it, too.
    debug_assert!(matches!(block.magic, Magic::V08 | Magic::V84_UNCLEAN));
    disk.write_super_block(block, layout)
}

#[cfg(test)]
mod tests {
    use drbd_format::meta::MetaFlags;

    use super::{explained, line, parse};

    /// As drbdmeta 9.22 prints them.
    #[test]
    fn flags_in_words() {
        for (flags, expected) in [
            (0x00, "flags: Secondary, StandAlone, Inconsistent\nmeta-data: need apply-al\n"),
            (0x01, "flags: Secondary, StandAlone, Outdated\nmeta-data: need apply-al\n"),
            (0x31, "flags: Secondary, StandAlone, UpToDate, peer Outdated\nmeta-data: need apply-al\n"),
            (0x91, "flags: Secondary, StandAlone, UpToDate\nmeta-data: clean\n"),
            (
                0x1ff,
                "flags: crashed Primary, Connected, UpToDate, need full sync, peer Outdated\nmeta-data: clean\n",
            ),
        ] {
            let text = explained([0; 4], MetaFlags(flags));
            assert!(text.ends_with(expected), "{flags:#x}:\n{text}");
        }
    }

    #[test]
    fn what_is_set_and_what_stays() {
        let (uuids, flags) = parse("A0::7:::0:1", [1, 2, 3, 4], MetaFlags(0x11)).unwrap();
        assert_eq!(
            line(uuids, flags),
            "00000000000000A0:0000000000000002:0000000000000007:0000000000000004:1:0:1:0:0:0:0\n"
        );
        assert_eq!(parse("x", [0; 4], MetaFlags(0)), Err("'x' is not a number.".into()));
        assert_eq!(parse("::::2", [0; 4], MetaFlags(0)), Err("'2' is not 0 or 1.".into()));
    }
}
