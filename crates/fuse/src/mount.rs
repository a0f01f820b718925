//! Attaching a file system to a directory, without fusermount.

use std::ffi::CString;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::device::Device;

/// What mount(2) is told. The file system is mounted `nosuid` and `nodev`.
#[derive(Clone, Debug)]
pub struct Mount<'a> {
    /// What mount tables show as the source.
    pub source: &'a str,
    /// What mount tables show after `fuse.` as the type.
    pub subtype: &'a str,
    /// Type and permissions of the root inode, as `st_mode`.
    pub root_mode: u32,
    /// The user that the file system belongs to (`user_id=`).
    pub user: u32,
    /// The group that the file system belongs to (`group_id=`).
    pub group: u32,
    /// Whether others than `user` may enter (`allow_other`).
    pub allow_other: bool,
    /// Whether the kernel checks permissions by mode, owner and group (`default_permissions`).
    pub default_permissions: bool,
    /// Limit of one READ in bytes (`max_read=`); without it the kernel's own (`max_pages`).
    pub max_read_bytes: Option<u32>,
    /// Mounted read-only.
    pub read_only: bool,
}

impl Mount<'_> {
    fn data(&self, device: &Device) -> String {
        let mut data = format!(
            "fd={},rootmode={:o},user_id={},group_id={}",
            device.as_fd().as_raw_fd(),
            self.root_mode,
            self.user,
            self.group
        );
        for (wanted, word) in
            [(self.allow_other, ",allow_other"), (self.default_permissions, ",default_permissions")]
        {
            data.push_str(if wanted { word } else { "" });
        }
        if let Some(bytes) = self.max_read_bytes {
            // Writing to a String does not fail.
            let _ = write!(data, ",max_read={bytes}");
        }
        data
    }

    /// Mounts on `target` and returns the device, on which the kernel's INIT already waits. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// From open(2) of /dev/fuse and from mount(2).
    pub fn attach(&self, target: &Path) -> io::Result<Device> {
        let device = Device::unattached()?;
        let data = CString::new(self.data(&device))?;
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
        flags.set(MountFlags::RDONLY, self.read_only);
        rustix::mount::mount(self.source, target, format!("fuse.{}", self.subtype), flags, data.as_c_str())?;
        Ok(device)
    }
}

/// Unmounts; refused with EBUSY while anything on it is open. The session's server must be running.
///
/// # Errors
/// From umount2(2).
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount out of the tree at once and ends it when the last user is gone (`MNT_DETACH`).
///
/// # Errors
/// From umount2(2).
pub fn detach(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}
