//! Our meta-data before the tool of drbd-utils, on plain files. Skipped, and said so, where it is not installed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use drbd_format::activity_log::{
    BLOCK_BYTES, EXTENT_FREE, EXTENT_SECTORS, Kind, Transaction, replay, ring_block,
};
use drbd_format::bitmap::Bitmap;
use drbd_format::meta::{Layout, Magic, MetaFlags, SuperBlock};
use units::SectorRange;

const DRBDMETA: &str = "/usr/sbin/drbdmeta";

fn is_installed(test: &str) -> bool {
    let installed = Path::new(DRBDMETA).exists();
    if !installed {
        eprintln!("skip {test}: {DRBDMETA} is not installed (package drbd-utils)");
    }
    installed
}

/// What the tool prints. It runs below `timeout`: it would wait for an answer if it found something to ask.
fn drbdmeta(disk: &Path, index: &str, words: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["20", DRBDMETA, "--force", "0", "v08"]).arg(disk).arg(index).args(words);
    let output = command.output().expect("timeout(1) starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors
}

fn blank(path: &Path, bytes: u64) -> File {
    let file = File::options().create_new(true).read(true).write(true).open(path).expect("a new file");
    file.set_len(bytes).expect("a sparse file");
    file
}

fn read(file: &File, offset: u64, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; bytes as usize];
    file.read_exact_at(&mut buffer, offset).expect("inside the disk");
    buffer
}

#[test]
fn create_md_writes_what_we_write() {
    if !is_installed("create_md_writes_what_we_write") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (name, index, bytes) in [
        ("smallest", "internal", 68 << 10),
        ("odd", "internal", (64 << 20) + 513),
        ("large", "internal", 20 << 30),
        ("flex", "flex-external", 1 << 20),
        ("slot", "1", 256 << 20),
    ] {
        let layout = match index {
            "internal" => Layout::internal(bytes),
            "flex-external" => Layout::flex_external(bytes, 1 << 30),
            _ => Layout::indexed(1, bytes, 1 << 30),
        };
        let layout = layout.expect("large enough");
        let path = folder.path().join(name);
        let theirs = blank(&path, bytes);
        drbdmeta(&path, index, &["create-md"]);
        let block = SuperBlock::fresh(&layout, 0).encode();
        assert_eq!(read(&theirs, layout.md_offset_bytes, 4096), block, "{name}: superblock");
        let log = Transaction::initialized().encode().repeat(8);
        assert_eq!(read(&theirs, layout.al_offset_bytes, layout.al_bytes), log, "{name}: activity log");
    }
}

#[test]
fn dump_md_and_apply_al_read_what_we_wrote() {
    if !is_installed("dump_md_and_apply_al_read_what_we_wrote") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    let disk = blank(&path, 64 << 20);
    let layout = Layout::internal(64 << 20).expect("large enough");
    let mut block = SuperBlock {
        la_size_sectors: layout.usable_sectors,
        uuids: [0x0123_4567_89ab_cdef, 2, 0x10, 0x20],
        flags: MetaFlags::CONSISTENT.with(MetaFlags::PRIMARY_IND).with(MetaFlags::WAS_UP_TO_DATE),
        magic: Magic::V84_UNCLEAN,
        al_extents: 1237,
        peer_max_bio_bytes: 1 << 20,
        ..SuperBlock::fresh(&layout, 0xfeed)
    };
    let mut bitmap = Bitmap::of_device(layout.usable_sectors);
    bitmap.set_range(SectorRange::new(100_000, 64));
    let mut log = Transaction::initialized().encode().repeat(8);
    for (number, updates) in [(0, vec![(1236, 0), (1235, 7)]), (1, vec![(1234, 3)]), (2, vec![(1235, 15)])] {
        let from = if number % 2 == 0 { 0u16 } else { 919 };
        // Slots above 919 in use: only the second transaction's context has them.
        let context = (from..1237.min(from + 919)).map(|slot| match slot {
            1236 => 0,
            1235 => 7,
            _ => EXTENT_FREE,
        });
        let transaction = Transaction {
            number,
            kind: Kind::UPDATE,
            updates,
            context_size: 1237,
            context_start: from,
            context: context.collect(),
        };
        let at = ring_block(number, 1, 8) as usize * BLOCK_BYTES;
        log[at..at + BLOCK_BYTES].copy_from_slice(&transaction.encode());
    }
    disk.write_all_at(&block.encode(), layout.md_offset_bytes).expect("written");
    disk.write_all_at(&log, layout.al_offset_bytes).expect("written");
    disk.write_all_at(&bitmap.page(0), layout.bm_offset_bytes).expect("written");

    let dump = drbdmeta(&path, "internal", &["dump-md"]);
    for line in
        ["la-size-sect 130992;", "0x0123456789ABCDEF; 0x0000000000000002;", "device-uuid 0x000000000000FEED;"]
    {
        assert!(dump.contains(line), "{line} in {dump}");
    }
    drbdmeta(&path, "internal", &["apply-al"]);

    for extent in replay(&log, 1, 8).expect("a ring").slots.into_values() {
        bitmap.set_range(SectorRange::new(u64::from(extent) * EXTENT_SECTORS, EXTENT_SECTORS));
    }
    let mut theirs = Bitmap::of_device(layout.usable_sectors);
    theirs.load_page(0, &read(&disk, layout.bm_offset_bytes, 4096));
    assert_eq!((theirs.count(), theirs.page(0)), (bitmap.count(), bitmap.page(0)));
    block.magic = Magic::V08;
    block.flags = block.flags.with(MetaFlags::AL_CLEAN);
    assert_eq!(SuperBlock::decode(&read(&disk, layout.md_offset_bytes, 4096)), Ok(block));
    assert_eq!(
        read(&disk, layout.al_offset_bytes, layout.al_bytes),
        Transaction::initialized().encode().repeat(8)
    );
}
