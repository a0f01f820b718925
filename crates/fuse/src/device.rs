//! How requests come in and answers go out.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

use crate::abi::DEV_IOC_CLONE;

/// A way to the kernel's side of a session. Readable (`as_fd`) when a request waits.
pub trait Transport: AsFd {
    /// Brings exactly one request, scattered over `into`, and its length in bytes.
    ///
    /// # Errors
    /// As read(2) of /dev/fuse: `WouldBlock` when nothing waits, ENODEV when the file system is unmounted.
    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Sends exactly one answer or notification.
    ///
    /// # Errors
    /// As write(2) of /dev/fuse: ENOENT when nobody waits for this answer any more.
    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()>;
}

/// An open /dev/fuse, under a high number.
///
/// A process that dies lets go of its descriptors from the highest number down. The session must end before a block
/// device that is made of it is closed: the last close of a block device writes out what is cached, and would wait for
/// ever for a session that the same dying process still holds.
#[derive(Debug)]
pub struct Device(OwnedFd);

/// Numbers from here on are "high", or from half of the limit on where that is less.
const HIGH: u64 = 4096;

/// The same open file under a high number, see `Device`; as it is where the limit leaves no room.
pub fn raise(fd: OwnedFd) -> OwnedFd {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let floor = (limit / 2).min(HIGH) as RawFd;
    rustix::io::fcntl_dupfd_cloexec(&fd, floor).unwrap_or(fd)
}

impl Device {
    fn open() -> io::Result<OwnedFd> {
        let fd = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(raise(fd))
    }

    /// A new descriptor without a file system; mount(2) attaches one.
    ///
    /// # Errors
    /// From open(2): the kernel has no FUSE, or the device may not be opened.
    pub(crate) fn unattached() -> io::Result<Self> {
        Self::open().map(Self)
    }

    /// The device behind a descriptor that belonged to a session before.
    pub fn from_kept(fd: OwnedFd) -> Self {
        Self(raise(fd))
    }

    /// Another descriptor of the same session with a queue of its own for requests handed out
    /// (`FUSE_DEV_IOC_CLONE`): answers go out where their requests came in, and a resend covers all descriptors.
    /// The blocking mode is not inherited.
    ///
    /// # Errors
    /// From open(2) and ioctl(2).
    pub fn another(&self) -> io::Result<Self> {
        let fd = Self::open()?;
        let of = self.0.as_raw_fd().unsigned_abs();
        // SAFETY: FUSE_DEV_IOC_CLONE reads one u32, the descriptor to clone, through the pointer it is given.
        unsafe { rustix::ioctl::ioctl(&fd, rustix::ioctl::Setter::<DEV_IOC_CLONE, u32>::new(of)) }?;
        Ok(Self(fd))
    }

    /// Chooses between waiting for a request and `WouldBlock`. A new device waits.
    ///
    /// # Errors
    /// From fcntl(2).
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.0)?;
        let wanted = if nonblocking { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
        Ok(rustix::fs::fcntl_setfl(&self.0, wanted)?)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Transport for Device {
    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::readv(&self.0, into)?)
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        // The kernel takes an answer whole or not at all.
        rustix::io::writev(&self.0, parts)?;
        Ok(())
    }
}
