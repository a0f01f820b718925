//! What drbdmeta does with meta-data that move, are restored, or are damaged; its own bytes are the judge where it is
//! installed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use drbd_format::meta::{AlSize, Placement};
use drbd_tools::meta_disk::last_known::LastKnown;
use drbd_tools::meta_disk::{MetaDisk, check_resize, create_md, dump_md, restore_md, verify_dump};

/// Minors that nothing else uses.
const OURS: u32 = 4051;
const THEIRS: u32 = 4052;

const DISK_BYTES: u64 = 64 << 20;
const GROWN_BYTES: u64 = 96 << 20;

fn raw(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/meta/{name}.raw", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A disk whose end is captured meta-data.
fn captured(directory: &Path, name: &str, capture: &str) -> PathBuf {
    let path = directory.join(name);
    let file = File::create(&path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let raw = raw(capture);
    file.write_all_at(&raw, DISK_BYTES - raw.len() as u64).unwrap();
    path
}

fn open(path: &Path) -> MetaDisk {
    MetaDisk::open(path, Placement::Internal, None).unwrap()
}

fn dumped(path: &Path) -> String {
    let mut text = Vec::new();
    dump_md(&mut text, &open(path), "drbd0", "drbdmeta", false).unwrap();
    String::from_utf8(text).unwrap()
}

/// Runs drbdmeta on a loop device; none without root, loop devices or drbdmeta.
fn drbdmeta(image: &Path, minor: &str, words: &[&str]) -> Option<Output> {
    let attached = Command::new("losetup").args(["-f", "--show"]).arg(image).output().ok()?;
    if !attached.status.success() {
        return None;
    }
    let device = String::from_utf8(attached.stdout).ok()?.trim().to_owned();
    let said =
        Command::new("drbdmeta").args(["--force", minor, "v08", &device, "internal"]).args(words).output();
    let _ = Command::new("losetup").args(["-d", &device]).status();
    said.ok()
}

fn first_difference(a: &Path, b: &Path) -> Option<usize> {
    let (a, b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).position(|(a, b)| a != b)
}

#[test]
fn a_dump_comes_back_as_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let original = captured(directory.path(), "original", "md-03d-drbd0-applied");
    let text = dumped(&original);
    let ours = directory.path().join("ours");
    File::create(&ours).unwrap().set_len(DISK_BYTES).unwrap();
    create_md(&open(&ours), true, false).unwrap();
    let theirs = directory.path().join("theirs");
    std::fs::copy(&ours, &theirs).unwrap();
    verify_dump(&open(&ours), &mut text.as_bytes()).unwrap();
    // Nobody says yes here.
    assert_eq!(restore_md(&open(&ours), &mut text.as_bytes(), None, false).unwrap_err().status, 1);
    restore_md(&open(&ours), &mut text.as_bytes(), None, true).unwrap();
    let file = directory.path().join("dump");
    std::fs::write(&file, &text).unwrap();
    let Some(said) = drbdmeta(&theirs, "-", &["restore-md", file.to_str().unwrap()]) else {
        return println!("skip a_dump_comes_back_as_the_same_bytes: needs root, loop devices and drbdmeta");
    };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(first_difference(&ours, &theirs), None);
}

#[test]
fn a_dump_that_is_none_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = captured(directory.path(), "disk", "md-03d-drbd0-applied");
    let text = dumped(&path);
    let before = std::fs::read(&path).unwrap();
    for (what, with) in [
        ("version \"v08\";", "version \"v09\";"),
        ("version \"v08\";", "version v08;"),
        ("la-size-sect", "la-sect"),
        ("bm {", "bm {{"),
        ("al-stripes 1;", "al-stripes 0;"),
        ("bm-byte-per-bit 4096;", "bm-byte-per-bit 8192;"),
        ("device-uuid 0x", "device-uuid 0x0"),
        ("# bits-set", "} bits-set"),
    ] {
        let damaged = text.replacen(what, with, 1);
        assert_ne!(damaged, text, "{what}");
        let failed = restore_md(&open(&path), &mut damaged.as_bytes(), None, true).unwrap_err();
        assert_eq!(failed.status, 10, "{with}");
    }
    let cut = &text[..text.len() / 2];
    assert_eq!(restore_md(&open(&path), &mut cut.as_bytes(), None, true).unwrap_err().status, 10);
    assert!(std::fs::read(&path).unwrap() == before, "something was written");
}

#[test]
fn a_larger_log_by_restoring() {
    let directory = tempfile::tempdir().unwrap();
    let path = captured(directory.path(), "disk", "md-03d-drbd0-applied");
    let text = dumped(&path);
    let al = AlSize { stripes: 2, stripe_size_4k: 8 };
    restore_md(&open(&path), &mut text.as_bytes(), Some(al), true).unwrap();
    let mut again = Vec::new();
    dump_md(&mut again, &open(&path), "drbd0", "drbdmeta", true).unwrap();
    assert!(String::from_utf8(again).unwrap().contains("\nal-stripes 2;\nal-stripe-size-4k 8;\n"));
}

#[test]
fn meta_data_follow_the_end_of_a_disk_that_has_grown() {
    if !rustix::process::geteuid().is_root() {
        return println!("skip meta_data_follow_the_end_of_a_disk_that_has_grown: needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = captured(directory.path(), "ours", "md-03d-drbd0-applied");
    let disk = || open(&path).of_minor(Some(OURS));
    LastKnown::forget(OURS);
    // Found where they belong: that is written down.
    check_resize(&disk(), false).unwrap();
    let known = LastKnown::load(OURS).unwrap();
    assert_eq!(known.bytes, DISK_BYTES);
    File::options().write(true).open(&path).unwrap().set_len(GROWN_BYTES).unwrap();
    let theirs = directory.path().join("theirs");
    std::fs::copy(&path, &theirs).unwrap();
    LastKnown { path: None, ..known }.save(THEIRS);
    check_resize(&disk(), false).unwrap();
    assert_eq!(LastKnown::load(OURS).unwrap().bytes, GROWN_BYTES);
    let said = drbdmeta(&theirs, &THEIRS.to_string(), &["check-resize"]);
    for minor in [OURS, THEIRS] {
        LastKnown::forget(minor);
    }
    let Some(said) = said.filter(|said| said.status.success()) else {
        return println!(
            "skip meta_data_follow_the_end_of_a_disk_that_has_grown: needs loop devices and drbdmeta"
        );
    };
    assert!(String::from_utf8_lossy(&said.stdout).contains("successfully moved"));
    assert_eq!(first_difference(&path, &theirs), None);
    // Without the word where they were nobody finds them.
    File::options().write(true).open(&path).unwrap().set_len(GROWN_BYTES + (1 << 20)).unwrap();
    assert_eq!(check_resize(&disk(), false).unwrap_err().status, 1);
}

#[test]
fn damaged_meta_data_are_refused_and_left_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    // Offsets in the superblock, which is the last block.
    const MAGIC: u64 = 60;
    const MD_SIZE: u64 = 64;
    const AL_OFFSET: u64 = 68;
    const BM_OFFSET: u64 = 76;
    const BYTES_PER_BIT: u64 = 80;
    const AL_STRIPES: u64 = 88;
    const LA_SIZE: u64 = 0;
    let block = DISK_BYTES - 4096;
    for (at, bytes) in [
        (MAGIC, &[0, 0, 0, 0][..]),
        (MAGIC, &[0x83, 0x74, 0x02, 0x6a]),
        (MD_SIZE, &[0xff, 0xff, 0xff, 0xff]),
        (MD_SIZE, &[0, 0, 0, 8]),
        (AL_OFFSET, &[0, 0, 0, 8]),
        (AL_OFFSET, &[0x80, 0, 0, 0]),
        (BM_OFFSET, &[0, 0, 0, 72]),
        (BM_OFFSET, &[0x80, 0, 0, 0]),
        (BYTES_PER_BIT, &[0, 0, 0x20, 0]),
        (AL_STRIPES, &[0, 0, 0, 0]),
        (AL_STRIPES, &[0xff, 0xff, 0xff, 0xff]),
        // More than the bitmap covers.
        (LA_SIZE, &[0, 0, 1, 0, 0, 0, 0, 0]),
    ] {
        let path = captured(directory.path(), "disk", "md-01-drbd0");
        File::options().write(true).open(&path).unwrap().write_all_at(bytes, block + at).unwrap();
        let before = std::fs::read(&path).unwrap();
        let disk = open(&path);
        let mut out = Vec::new();
        let refused = dump_md(&mut out, &disk, "drbd0", "drbdmeta", true);
        assert_eq!(refused.unwrap_err().status, 1, "{at}: {bytes:x?}");
        assert!(drbd_tools::meta_disk::apply_al(&disk).is_err());
        assert!(out.is_empty() && std::fs::read(&path).unwrap() == before, "{at}: {bytes:x?}");
    }
    // A log that is damaged in two places does not tell what was hot.
    let path = captured(directory.path(), "disk", "md-03d-drbd0-after-crash");
    let log = DISK_BYTES - 4096 - 32768;
    let file = File::options().write(true).open(&path).unwrap();
    for place in 0..8 {
        file.write_all_at(&[0xee; 64], log + place * 4096 + 100).unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    assert_eq!(drbd_tools::meta_disk::apply_al(&open(&path)).unwrap_err().status, 2);
    assert!(std::fs::read(&path).unwrap() == before, "nothing is marked, nothing is forgotten");
}
