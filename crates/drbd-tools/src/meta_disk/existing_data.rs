//! Guards what is on a device before meta-data are written to it.

use drbd_format::meta::{Layout, Placement};

use super::{Failed, MetaDisk, is_confirmed};

/// Bytes at the start of a device that are looked at.
const LOOKED_AT_BYTES: usize = 68 * 1024;

/// Exit status of drbdmeta if meta-data would corrupt data.
const EXIT_WOULD_CORRUPT: u8 = 40;

const CLEAR_FIRST: &str = "If you want me to do this, you need to zero out the first part\n\
                           of the device (destroy the content).\n\
                           You should be very sure that you mean it.\n\
                           Operation refused.\n";

const TRUNCATED: &str = "Device size would be truncated, which\n\
                         would corrupt data and result in\n\
                         'access beyond end of device' errors.";

/// What the start of a device looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    /// Nothing but zeroes.
    Nothing,
    /// Nothing that is known.
    SomeData,
    /// A file system of a size.
    FileSystem { name: &'static str, bytes: u64 },
    /// Something whose size cannot be told.
    Unsized { name: &'static str },
}

fn recognise(data: &[u8]) -> Found {
    let has = |offset: usize, magic: &[u8]| data.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let bytes4 = |offset: usize| data.get(offset..).and_then(|rest| rest.first_chunk::<4>()).copied();
    let le32 = |offset: usize| u64::from(bytes4(offset).map_or(0, u32::from_le_bytes));
    if data.iter().all(|&byte| byte == 0) {
        return Found::Nothing;
    }
    let is_swap = [4086, 8182].iter().any(|&at| has(at, b"SWAP-SPACE") || has(at, b"SWAPSPACE2"));
    if is_swap {
        return Found::Unsized { name: "swap space signature" };
    }
    if has(0x218, b"LVM2") {
        return Found::Unsized { name: "LVM2 physical volume signature" };
    }
    if has(0x438, &[0x53, 0xef]) {
        let name = if le32(0x45c) & 4 == 4 { "ext3 filesystem" } else { "ext2 filesystem" };
        let block_bytes = 1024_u64 << le32(0x418).min(2);
        return Found::FileSystem { name, bytes: le32(0x404) * block_bytes };
    }
    if has(0, b"XFSB") {
        let block_bytes = u64::from(bytes4(4).map_or(0, u32::from_be_bytes));
        let blocks = data.get(8..).and_then(|rest| rest.first_chunk::<8>()).copied();
        let blocks = blocks.map_or(0, u64::from_be_bytes);
        return Found::FileSystem { name: "xfs filesystem", bytes: blocks.saturating_mul(block_bytes) };
    }
    Found::SomeData
}

/// Looks for data that new meta-data would harm; asks where that is a guess, refuses where it is not.
pub fn check(disk: &MetaDisk, layout: &Layout, force: bool) -> Result<(), Failed> {
    let mut data = vec![0; LOOKED_AT_BYTES.min(usize::try_from(disk.bytes).unwrap_or(usize::MAX))];
    disk.read_at(&mut data, 0)?;
    let found = recognise(&data);
    let name = match found {
        Found::Nothing => return Ok(()),
        Found::SomeData => "some data",
        Found::FileSystem { name, .. } | Found::Unsized { name } => name,
    };
    println!("md_offset {}", layout.md_offset_bytes);
    println!("al_offset {}", layout.al_offset_bytes);
    println!("bm_offset {}", layout.bm_offset_bytes);
    println!("\nFound {name}");
    let usable_kib = layout.usable_sectors / 2;
    match found {
        Found::FileSystem { .. } | Found::Unsized { .. } if disk.placement != Placement::Internal => {
            println!("\nThis would corrupt existing data.\n{CLEAR_FIRST}");
            return Err(Failed { status: EXIT_WOULD_CORRUPT });
        }
        Found::Unsized { .. } => {
            println!("{usable_kib:12} kB left usable by current configuration");
            println!("{TRUNCATED}\n{CLEAR_FIRST}");
            return Err(Failed { status: EXIT_WOULD_CORRUPT });
        }
        Found::FileSystem { bytes, .. } => {
            let used_kib = bytes.div_ceil(1024);
            println!("{used_kib:12} kB data area apparently used");
            println!("{usable_kib:12} kB left usable by current configuration");
            if used_kib > usable_kib {
                println!(
                    "\n{TRUNCATED}\nYou need to either\n   * use external meta data (recommended)\n   * shrink \
                     that filesystem first\n   * zero out the device (destroy the filesystem)\nOperation refused.\n"
                );
                return Err(Failed { status: EXIT_WOULD_CORRUPT });
            }
            println!(
                "\nEven though it looks like this would place the new meta data into\nunused space, you still \
                 need to confirm, as this is only a guess."
            );
        }
        Found::Nothing | Found::SomeData => println!("\n ==> This might destroy existing data! <=="),
    }
    if is_confirmed("Do you want to proceed?", force) {
        return Ok(());
    }
    println!("Operation canceled.");
    Err(Failed { status: 1 })
}

#[cfg(test)]
mod tests {
    use super::{Found, LOOKED_AT_BYTES, recognise};

    #[test]
    fn what_is_on_a_device() {
        let with = |at: usize, bytes: &[u8]| {
            let mut data = vec![0; LOOKED_AT_BYTES];
            data[at..at + bytes.len()].copy_from_slice(bytes);
            data
        };
        assert_eq!(recognise(&vec![0; LOOKED_AT_BYTES]), Found::Nothing);
        assert_eq!(recognise(&with(70, b"x")), Found::SomeData);
        assert_eq!(recognise(&with(4086, b"SWAPSPACE2")), Found::Unsized { name: "swap space signature" });
        let mut ext = with(0x438, &[0x53, 0xef]);
        ext[0x404..0x408].copy_from_slice(&65536_u32.to_le_bytes());
        assert_eq!(recognise(&ext), Found::FileSystem { name: "ext2 filesystem", bytes: 64 << 20 });
        assert_eq!(recognise(b"XFSB"), Found::FileSystem { name: "xfs filesystem", bytes: 0 });
        assert_eq!(recognise(b""), Found::Nothing);
    }
}
