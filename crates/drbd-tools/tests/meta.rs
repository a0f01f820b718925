//! Offline meta-data against drbdmeta: dumps it made of captured meta-data (tests/meta, each `.raw` is the end of the
//! disk; `applied` is what its apply-al left), and the bytes that its create-md writes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use drbd_format::meta::Placement;
use drbd_tools::meta_disk::{Failed, MetaDisk, apply_al, create_md, dump_md};

fn sparse(directory: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = directory.join(name);
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn captured(directory: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = sparse(directory, name, bytes);
    let raw = std::fs::read(format!("{}/tests/meta/{name}.raw", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&raw, bytes - raw.len() as u64).unwrap();
    path
}

fn open(path: &Path) -> MetaDisk {
    MetaDisk::open(path, Placement::Internal, None).unwrap()
}

fn dumped(path: &Path, force: bool) -> Result<String, Failed> {
    let mut text = Vec::new();
    dump_md(&mut text, &open(path), "drbd0", "drbdmeta", force)?;
    Ok(String::from_utf8(text).unwrap())
}

/// Without the lines that tell time and command, and without what went to stderr.
fn body(text: &str) -> String {
    let lines = text.lines().skip(3).filter(|line| !line.starts_with("Found meta data is"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn dumps_are_drbdmetas() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("md-01-drbd0", 64 << 20),
        ("md-01-drbd1", 64 << 20),
        ("md-03d-drbd0-after-crash", 64 << 20),
        ("md-1GiB-fresh", 1 << 30),
    ] {
        let golden = format!("{}/tests/meta/{name}.dump.txt", env!("CARGO_MANIFEST_DIR"));
        let golden = std::fs::read_to_string(golden).unwrap();
        let text = dumped(&captured(directory.path(), name, bytes), true).unwrap();
        assert_eq!(body(&text), body(&golden), "{name}");
    }
}

#[test]
fn unclean_meta_data_are_not_dumped_until_the_log_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let path = captured(directory.path(), "md-03d-drbd0-after-crash", 64 << 20);
    assert_eq!(dumped(&path, false).unwrap_err().status, 1);
    apply_al(&open(&path)).unwrap();
    let text = dumped(&path, false).unwrap();
    assert_eq!(body(&text), body(include_str!("meta/md-03d-drbd0-applied.dump.txt")));
    let applied = std::fs::read(&path).unwrap();
    let golden = include_bytes!("meta/md-03d-drbd0-applied.raw");
    assert!(applied.ends_with(golden), "not the bytes that drbdmeta apply-al left");
}

#[test]
fn a_log_of_who_was_not_primary_is_only_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let path = captured(directory.path(), "md-01-drbd0", 64 << 20);
    let bitmap = |path: &Path| std::fs::read(path).unwrap()[(64 << 20) - 40960..][..4096].to_vec();
    let before = bitmap(&path);
    apply_al(&open(&path)).unwrap();
    assert!(bitmap(&path) == before, "blocks were marked");
    assert!(dumped(&path, false).unwrap().contains("al-extents"), "still unclean");
}

#[test]
fn nothing_valid_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = sparse(directory.path(), "empty", 1 << 20);
    assert_eq!(dumped(&path, true).unwrap_err().status, 1);
    assert_eq!(apply_al(&open(&path)).unwrap_err().status, 1);
    let missing = directory.path().join("missing");
    assert_eq!(MetaDisk::open(&missing, Placement::Internal, None).unwrap_err().status, 20);
}

#[test]
fn a_file_system_or_former_meta_data_are_not_overwritten_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let path = sparse(directory.path(), "disk", 64 << 20);
    create_md(&open(&path), false, false).unwrap();
    // Tests have no terminal: nobody says yes.
    assert_eq!(create_md(&open(&path), false, false).unwrap_err().status, 1);
    create_md(&open(&path), true, true).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"data", 0).unwrap();
    assert_eq!(create_md(&open(&path), false, false).unwrap_err().status, 1);
    // An ext file system over the whole disk, with no room for meta-data: not even by force.
    file.write_all_at(&65536_u32.to_le_bytes(), 0x404).unwrap();
    file.write_all_at(&[0x53, 0xef], 0x438).unwrap();
    assert_eq!(create_md(&open(&path), true, false).unwrap_err().status, 40);
}

#[test]
fn the_bytes_are_those_of_drbdmeta() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("small", 64 << 20), ("odd", (100 << 20) + 512 * 3), ("big", 1 << 30)] {
        let ours = sparse(directory.path(), &format!("{name}.ours"), bytes);
        create_md(&open(&ours), true, false).unwrap();
        let theirs = sparse(directory.path(), &format!("{name}.theirs"), bytes);
        let Some(theirs) = created_by_drbdmeta(&theirs) else {
            println!("skip the_bytes_are_those_of_drbdmeta: needs root, loop devices and drbdmeta");
            return;
        };
        let (mut ours, mut theirs) = (std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());
        // The device's UUID is random here; drbdmeta leaves it to drbdadm.
        let uuid = (bytes as usize & !4095) - 4096 + 40;
        ours[uuid..uuid + 8].fill(0);
        theirs[uuid..uuid + 8].fill(0);
        assert!(
            ours == theirs,
            "{name}: first difference at {:?}",
            ours.iter().zip(&theirs).position(|(a, b)| a != b)
        );
    }
}

fn created_by_drbdmeta(image: &Path) -> Option<PathBuf> {
    let attached = Command::new("losetup").args(["-f", "--show"]).arg(image).output().ok()?;
    if !attached.status.success() {
        return None;
    }
    let device = String::from_utf8(attached.stdout).ok()?.trim().to_owned();
    // "-" is no DRBD device: drbdmeta does not look for a kernel that has it configured.
    let created =
        Command::new("drbdmeta").args(["--force", "-", "v08", &device, "internal", "create-md"]).output();
    let _ = Command::new("losetup").args(["-d", &device]).status();
    created.ok()?.status.success().then(|| image.to_path_buf())
}
