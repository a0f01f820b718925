//! `linux/loop.h`, and the two calls of `linux/fs.h` that a release needs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use zerocopy::{FromZeros, IntoBytes};

const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const BLKROSET: libc::Ioctl = 0x125D;
const BLKROGET: libc::Ioctl = 0x125E;

pub(super) const LO_FLAGS_READ_ONLY: u32 = 1;
pub(super) const LO_FLAGS_AUTOCLEAR: u32 = 4;
pub(super) const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[derive(FromZeros, IntoBytes)]
#[repr(C)]
pub(super) struct LoopInfo {
    lo_device: u64,
    lo_inode: u64,
    lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    pub(super) lo_flags: u32,
    lo_file_name: [u8; 64],
    lo_crypt_name: [u8; 64],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

/// `struct loop_config`.
#[derive(FromZeros, IntoBytes)]
#[repr(C)]
pub(super) struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopConfig {
    pub(super) fn new(backing: RawFd, block_size: u32, lo_flags: u32) -> Self {
        let info = LoopInfo { lo_flags, ..LoopInfo::new_zeroed() };
        Self { fd: backing.unsigned_abs(), block_size, info, reserved: [0; 8] }
    }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Number of a device that is not bound now.
pub(super) fn free_device(control: &File) -> io::Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }).map(i32::unsigned_abs)
}

pub(super) fn configure(device: &File, config: &LoopConfig) -> io::Result<()> {
    // SAFETY: LOOP_CONFIGURE reads one loop_config, which has the kernel's layout (sizes asserted above).
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config) }).map(drop)
}

/// ENXIO where the device is not bound.
pub(super) fn status(device: &File) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::new_zeroed();
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64, which has the kernel's layout; every bit pattern is valid.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) })?;
    Ok(info)
}

pub(super) fn take_capacity(device: &File) -> io::Result<()> {
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) }).map(drop)
}

pub(super) fn clear(device: &File) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) }).map(drop)
}

pub(super) fn set_read_only(device: &File, read_only: bool) -> io::Result<()> {
    let value = libc::c_int::from(read_only);
    // SAFETY: BLKROSET reads one int.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &raw const value) }).map(drop)
}

pub(super) fn is_read_only(device: &File) -> io::Result<bool> {
    let mut value: libc::c_int = 0;
    // SAFETY: BLKROGET writes one int.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), BLKROGET, &raw mut value) })?;
    Ok(value != 0)
}
