//! The whole path: a file system on a loop device on a FUSE file on memory, and what may not happen to it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::JoinHandle;

use front::{Access, FuseFile, LoopDevice, LoopError};

use crate::machine::{can_bind, has_programs, run};
use crate::store::serve;

const SIZE_BYTES: usize = 64 << 20;

/// A served file; its thread ends when `stop` is dropped.
struct Served {
    stop: OwnedFd,
    server: JoinHandle<(FuseFile, Vec<u8>)>,
}

impl Served {
    fn start(mut file: FuseFile, mut store: Vec<u8>) -> Self {
        let (stopped, stop) = rustix::pipe::pipe().unwrap();
        let server = std::thread::spawn(move || {
            serve(&mut file, &mut store, Some(&stopped)).unwrap();
            (file, store)
        });
        Self { stop, server }
    }

    fn stop(self) -> (FuseFile, Vec<u8>) {
        drop(self.stop);
        self.server.join().unwrap()
    }
}

fn refused_busy(device: LoopDevice) -> LoopDevice {
    let refused = device.release().expect_err("a busy device must not be released");
    assert!(matches!(refused.why, LoopError::Busy { .. }), "{}", refused.why);
    refused.device
}

fn is_direct(device: &LoopDevice) -> bool {
    let path = format!("/sys/block/loop{}/loop/dio", device.number());
    std::fs::read_to_string(path).unwrap().trim() == "1"
}

#[test]
fn ext4_survives_release_and_bind() {
    let test = "ext4_survives_release_and_bind";
    if !can_bind(test) || !has_programs(test, &["mkfs.ext4", "mount", "umount", "e2fsck"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [on, node, mounted] = ["on", "drbd0", "mnt"].map(|name| place.path().join(name));
    for directory in [&on, &mounted] {
        std::fs::create_dir(directory).unwrap();
    }
    let [node_word, mounted_word] = [&node, &mounted].map(|path| path.to_str().unwrap());
    let file = FuseFile::mount(&on, "disk", SIZE_BYTES as u64, Access::ReadWrite).unwrap();
    let path = file.path();
    let served = Served::start(file, vec![0x5a; SIZE_BYTES]);

    let device = LoopDevice::bind(&path, &node, 512, Access::ReadWrite).unwrap();
    assert!(is_direct(&device));
    run("mkfs.ext4", &["-q", node_word]).unwrap();
    run("mount", &[node_word, mounted_word]).unwrap();
    let content: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut written = File::create(mounted.join("file")).unwrap();
    written.write_all(&content).unwrap();
    written.sync_all().unwrap();
    drop(written);

    let device = refused_busy(device);
    std::fs::write(mounted.join("after"), "still writable").unwrap();
    run("umount", &[mounted_word]).unwrap();
    device.release().unwrap();
    assert!(!node.exists());

    let device = LoopDevice::bind(&path, &node, 512, Access::ReadWrite).unwrap();
    run("e2fsck", &["-fn", node_word]).unwrap();
    run("mount", &[node_word, mounted_word]).unwrap();
    assert!(std::fs::read(mounted.join("file")).unwrap() == content);
    assert_eq!(std::fs::read_to_string(mounted.join("after")).unwrap(), "still writable");
    run("umount", &[mounted_word]).unwrap();
    device.release().unwrap();
    served.stop().0.unmount().unwrap();
}

/// What is cached above is written out at release, and what changed below meanwhile is seen at the next bind.
#[test]
fn no_page_is_stale_or_lost() {
    if !can_bind("no_page_is_stale_or_lost") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [on, node] = ["on", "drbd0"].map(|name| place.path().join(name));
    std::fs::create_dir(&on).unwrap();
    let file = FuseFile::mount(&on, "disk", SIZE_BYTES as u64, Access::ReadWrite).unwrap();
    let path = file.path();
    let served = Served::start(file, vec![0x5a; SIZE_BYTES]);

    let device = LoopDevice::bind(&path, &node, 512, Access::ReadWrite).unwrap();
    let mut user = OpenOptions::new().read(true).write(true).open(&node).unwrap();
    user.write_all(&vec![1; 8 << 20]).unwrap();
    let device = refused_busy(device);
    // Busy changed nothing: writing goes on, by those who are there and by others.
    user.write_all_at(&vec![2; 1 << 20], 0).unwrap();
    OpenOptions::new().write(true).open(&node).unwrap().write_all_at(&[3; 512], 0).unwrap();
    drop(user);
    device.release().unwrap();

    let (file, mut store) = served.stop();
    assert!(store[..512].iter().all(|&b| b == 3));
    assert!(store[512..1 << 20].iter().all(|&b| b == 2));
    assert!(store[1 << 20..8 << 20].iter().all(|&b| b == 1));
    store[..4096].fill(4);
    let served = Served::start(file, store);

    let device = LoopDevice::bind(&path, &node, 4096, Access::ReadOnly).unwrap();
    let mut bytes = vec![0; 8192];
    File::open(&node).unwrap().read_exact(&mut bytes).unwrap();
    assert!(bytes[..4096].iter().all(|&b| b == 4) && bytes[4096..].iter().all(|&b| b == 2));
    let written = OpenOptions::new().write(true).open(&node).and_then(|mut user| user.write_all(&[6; 512]));
    assert!(written.is_err(), "a read-only device was written");
    device.release().unwrap();
    // The read-only binding leaves nothing behind.
    let device = LoopDevice::bind(&path, &node, 512, Access::ReadWrite).unwrap();
    OpenOptions::new().write(true).open(&node).unwrap().write_all(&[5; 512]).unwrap();
    device.release().unwrap();
    served.stop().0.unmount().unwrap();
}

/// Discards and zeroes arrive at the file as such, and read as zeroes.
#[test]
fn discarded_blocks_read_as_zeroes() {
    let test = "discarded_blocks_read_as_zeroes";
    if !can_bind(test) || !has_programs(test, &["blkdiscard"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [on, node] = ["on", "drbd0"].map(|name| place.path().join(name));
    std::fs::create_dir(&on).unwrap();
    let file = FuseFile::mount(&on, "disk", SIZE_BYTES as u64, Access::ReadWrite).unwrap();
    let path = file.path();
    let served = Served::start(file, vec![0x5a; SIZE_BYTES]);
    let device = LoopDevice::bind(&path, &node, 512, Access::ReadWrite).unwrap();
    let node_word = node.to_str().unwrap();
    run("blkdiscard", &["-o", "1048576", "-l", "1048576", node_word]).unwrap();
    run("blkdiscard", &["-z", "-o", "4194304", "-l", "8192", node_word]).unwrap();
    device.release().unwrap();
    let (mut file, store) = served.stop();

    let zero = |range: std::ops::Range<usize>| store[range].iter().all(|&b| b == 0);
    assert!(zero(1 << 20..2 << 20) && zero(4 << 20..(4 << 20) + 8192));
    assert_eq!([store[(1 << 20) - 1], store[2 << 20], store[(4 << 20) + 8192]], [0x5a; 3]);
    file.unmount().unwrap();
}

#[test]
fn what_is_no_block_request_is_refused() {
    if !can_bind("what_is_no_block_request_is_refused") {
        return;
    }
    let on = tempfile::tempdir().unwrap();
    let kind = |result: io::Result<FuseFile>| result.err().map(|e| e.kind());
    assert_eq!(
        kind(FuseFile::mount(on.path(), "disk", 513, Access::ReadWrite)),
        Some(io::ErrorKind::InvalidInput)
    );
    assert_eq!(
        kind(FuseFile::mount(on.path(), "a/b", 512, Access::ReadWrite)),
        Some(io::ErrorKind::InvalidInput)
    );

    let size_bytes = 4096 + 512;
    let file = FuseFile::mount(on.path(), "disk", size_bytes, Access::ReadWrite).unwrap();
    let path = file.path();
    let served = Served::start(file, vec![0x5a; size_bytes as usize]);
    let user = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let errno = |result: io::Result<()>| result.err().and_then(|e| e.raw_os_error());
    assert_eq!(errno(user.write_all_at(&[1; 100], 0)), Some(libc::EINVAL));
    assert_eq!(errno(user.write_all_at(&[1; 512], 8192)), Some(libc::EIO));
    assert_eq!(errno(user.set_len(0)), Some(libc::EPERM));
    user.write_all_at(&[1; 512], 4096).unwrap();
    assert_eq!(std::fs::read(&path).unwrap().len() as u64, size_bytes);
    assert!(File::create(on.path().join("other")).is_err());
    assert!(std::fs::remove_file(&path).is_err());
    let names: Vec<_> =
        std::fs::read_dir(on.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["disk"]);
    drop(user);
    served.stop().0.unmount().unwrap();
    assert!(!Path::new(&path).exists());
}

/// A server that died without a holder leaves a dead mount; the next one takes its place.
#[test]
fn a_dead_mount_is_replaced() {
    if !can_bind("a_dead_mount_is_replaced") {
        return;
    }
    let on = tempfile::tempdir().unwrap();
    drop(FuseFile::mount(on.path(), "disk", 4096, Access::ReadWrite).unwrap());
    assert!(on.path().metadata().is_err());
    let mut file = FuseFile::mount(on.path(), "disk", 4096, Access::ReadWrite).unwrap();
    file.unmount().unwrap();
    assert!(on.path().read_dir().unwrap().next().is_none());
}
