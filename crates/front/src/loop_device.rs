//! A loop device on a file, with direct IO, under a name of its own.

mod abi;
mod kept;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use thiserror::Error;

use crate::extent::Access;
use abi::{LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_READ_ONLY, LoopConfig};

/// Loop devices tried until one is free: others may take each one between finding and binding it.
const ATTEMPTS_MAX: usize = 64;

/// The largest request that the FUSE file below takes whole.
const MAX_REQUEST_KIB: u32 = 1024;

/// `LOOP_MAJOR`.
const LOOP_MAJOR: u32 = 7;

/// Why a loop device is not bound or not released.
#[derive(Debug, Error)]
pub enum LoopError {
    /// Something else has it open or mounted; nothing has changed.
    #[error("`{node}` is held open or mounted")]
    Busy {
        /// The device node.
        node: PathBuf,
    },
    /// The kernel gave up direct IO on the file.
    #[error("the kernel does no direct IO on `{backing}`")]
    NoDirectIo {
        /// The file below.
        backing: PathBuf,
    },
    /// The kept descriptor's loop device is bound no more.
    #[error("`{node}`: its loop device is no longer bound")]
    Unbound {
        /// The device node.
        node: PathBuf,
    },
    /// The path is taken by something that is no block device.
    #[error("`{node}` exists and is no block device")]
    Taken {
        /// The device node.
        node: PathBuf,
    },
    /// No loop device stayed free long enough.
    #[error("no free loop device in {ATTEMPTS_MAX} attempts")]
    NoneFree,
    /// A system call failed.
    #[error("{action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LoopError {
    move |source| LoopError::Io { action, path: path.to_owned(), source }
}

/// A release that was refused gives the device back.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct NotReleased {
    /// Bound and usable as before.
    pub device: LoopDevice,
    /// Why.
    #[source]
    pub why: LoopError,
}

/// A bound loop device, kept bound by its open descriptor: when all copies of that and all users are gone, the kernel
/// unbinds it (AUTOCLEAR).
///
/// Where the file below is served by this process, every function here must be called from a thread other than the
/// serving one: binding reads the file, closing and releasing write it.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    number: u32,
    node: PathBuf,
}

impl LoopDevice {
    /// Binds a free loop device to the file `backing` and puts its node at `node`, replacing a block device's node that
    /// an earlier run left there. The name appears when the device is usable, not before. `block_bytes` is the logical
    /// block size: 512, or a power of two up to 4096.
    ///
    /// # Errors
    /// See `LoopError`; on any of them nothing is bound and `node` is as it was.
    pub fn bind(backing: &Path, node: &Path, block_bytes: u32, access: Access) -> Result<Self, LoopError> {
        match node.symlink_metadata() {
            Ok(found) if !found.file_type().is_block_device() => {
                return Err(LoopError::Taken { node: node.to_owned() });
            }
            _ => {}
        }
        let write = access == Access::ReadWrite;
        let file =
            OpenOptions::new().read(true).write(write).open(backing).map_err(failed("open", backing))?;
        let control = Path::new("/dev/loop-control");
        let control_fd =
            OpenOptions::new().read(true).write(true).open(control).map_err(failed("open", control))?;
        let staged = Staged::beside(node);
        for _ in 0..ATTEMPTS_MAX {
            let number =
                abi::free_device(&control_fd).map_err(failed("find a free loop device by", control))?;
            match Self::bind_number(number, &file, &staged, block_bytes, access) {
                Ok(device) => {
                    let device = Self { device, number, node: node.to_owned() };
                    device.check_direct_io(backing)?;
                    rustix::fs::rename(&staged.0, node)
                        .map_err(|e| failed("name the device", node)(e.into()))?;
                    device.limit_queue();
                    return Ok(device);
                }
                Err(LoopError::Io { source, .. }) if is_taken(&source) => {}
                Err(why) => return Err(why),
            }
        }
        Err(LoopError::NoneFree)
    }

    fn bind_number(
        number: u32,
        file: &File,
        staged: &Staged,
        block_bytes: u32,
        access: Access,
    ) -> Result<File, LoopError> {
        let path = &staged.0;
        staged.make(device_number(number))?;
        let device = open_device(path, access).map_err(failed("open the loop device", path))?;
        // A predecessor killed amid a release may have left it read-only.
        abi::set_read_only(&device, false).map_err(failed("make writable", path))?;
        let read_only = if access == Access::ReadOnly { LO_FLAGS_READ_ONLY } else { 0 };
        let flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO | read_only;
        let config = LoopConfig::new(file.as_fd().as_raw_fd(), block_bytes, flags);
        abi::configure(&device, &config).map_err(failed("bind the loop device", path))?;
        Ok(device)
    }

    fn check_direct_io(&self, backing: &Path) -> Result<(), LoopError> {
        let info = abi::status(&self.device).map_err(failed("read the state of", &self.node))?;
        if info.lo_flags & LO_FLAGS_DIRECT_IO == 0 {
            return Err(LoopError::NoDirectIo { backing: backing.to_owned() });
        }
        Ok(())
    }

    /// The kernel's default would split large requests unevenly. Where /sys is not writable they stay as they are.
    fn limit_queue(&self) {
        let queue = PathBuf::from(format!("/sys/block/loop{}/queue", self.number));
        for (limit, value) in [("max_sectors_kb", MAX_REQUEST_KIB), ("read_ahead_kb", MAX_REQUEST_KIB)] {
            if let Err(why) = std::fs::write(queue.join(limit), value.to_string()) {
                tracing::debug!(node = %self.node.display(), limit, %why, "a queue limit stays at its default");
            }
        }
    }

    /// Takes over a device from its kept descriptor and `kept` bytes.
    ///
    /// # Errors
    /// `Io` with `InvalidData` where the bytes are none of `kept`'s; `Unbound`.
    pub fn resume(fd: OwnedFd, kept: &[u8]) -> Result<Self, LoopError> {
        let (number, node) = kept::decode(kept).map_err(failed("take over", Path::new("loop device")))?;
        let device = Self { device: File::from(fd), number, node };
        match abi::status(&device.device) {
            Ok(_) => Ok(device),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NXIO) => {
                Err(LoopError::Unbound { node: device.node.clone() })
            }
            Err(e) => Err(failed("read the state of", &device.node)(e)),
        }
    }

    /// What gives the device the size of the file `backing` later, from any thread but the one that serves the file.
    pub fn sizer(&self, backing: PathBuf) -> LoopSizer {
        LoopSizer { node: self.node.clone(), backing }
    }

    /// The descriptor that keeps the device bound.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// What `resume` needs beside the descriptor; good for the device's whole life.
    pub fn kept(&self) -> Vec<u8> {
        kept::encode(self.number, &self.node)
    }

    /// The device node.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// The number N of loopN.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Writes out what is cached, unbinds the device and removes its node: afterwards the file below is free, once
    /// every copy of the descriptor elsewhere (a holder's) is closed too.
    /// Closing the last copy is what unbinds; with a holder that is its `forget`, which waits for the file below as well.
    ///
    /// # Errors
    /// `Busy` while anyone else has it open or mounted, `Io` where the write-out fails; the device is as before then.
    pub fn release(self) -> Result<(), Box<NotReleased>> {
        match self.unbind() {
            Ok(()) => {
                // The last copy to be closed unbinds; the node must be gone before the number is another's.
                drop(std::fs::remove_file(&self.node));
                Ok(())
            }
            Err(why) => Err(Box::new(NotReleased { device: self, why })),
        }
    }

    fn unbind(&self) -> Result<(), LoopError> {
        self.refuse_claimed()?;
        self.device.sync_all().map_err(failed("write out", &self.node))?;
        // From here until the device is unbound or found busy a write to it is refused. Without this, what a quick
        // writer left in the page cache after the write-out would be lost: an unbinding device takes no writes.
        let was_read_only =
            abi::is_read_only(&self.device).map_err(failed("read the state of", &self.node))?;
        abi::set_read_only(&self.device, true).map_err(failed("make read-only", &self.node))?;
        let unbound = self.unbind_read_only();
        if !was_read_only {
            // The flag is the device's, not the binding's: left set, the next binding would be read-only.
            abi::set_read_only(&self.device, false).map_err(failed("make writable", &self.node))?;
        }
        unbound
    }

    fn unbind_read_only(&self) -> Result<(), LoopError> {
        self.device.sync_all().map_err(failed("write out", &self.node))?;
        abi::clear(&self.device).map_err(failed("unbind", &self.node))?;
        // With other openers the kernel only marks the device to be unbound after the last of them, as ours is anyway.
        match abi::status(&self.device) {
            Ok(_) => Err(LoopError::Busy { node: self.node.clone() }),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NXIO) => Ok(()),
            Err(e) => Err(failed("read the state of", &self.node)(e)),
        }
    }

    /// A mounted file system (or a volume manager) has claimed the device: found first, so that it does not see it
    /// read-only for a moment.
    fn refuse_claimed(&self) -> Result<(), LoopError> {
        match OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.node) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::BUSY) => {
                Err(LoopError::Busy { node: self.node.clone() })
            }
            // A node that someone removed does not keep the device from being released.
            _ => Ok(()),
        }
    }
}

/// Gives a loop device the size that its file has now.
#[derive(Clone, Debug)]
pub struct LoopSizer {
    node: PathBuf,
    backing: PathBuf,
}

impl LoopSizer {
    /// Does so; not from the thread that serves the file.
    ///
    /// # Errors
    /// The file cannot be asked, or the device is not there or takes no size.
    pub fn take_size(&self) -> Result<(), LoopError> {
        // The driver reads the size that the kernel has: it must have asked for the new one.
        std::fs::metadata(&self.backing).map_err(failed("look at", &self.backing))?;
        let device = File::open(&self.node).map_err(failed("open the loop device", &self.node))?;
        abi::take_capacity(&device).map_err(failed("set the size of", &self.node))
    }
}

/// A node under a name nobody looks for, removed again unless it was renamed.
struct Staged(PathBuf);

impl Staged {
    fn beside(node: &Path) -> Self {
        let mut name = std::ffi::OsString::from(".");
        name.push(node.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        Self(node.with_file_name(name))
    }

    fn make(&self, device: u64) -> Result<(), LoopError> {
        drop(std::fs::remove_file(&self.0));
        let mode = Mode::from_raw_mode(0o660);
        rustix::fs::mknodat(CWD, self.0.as_os_str().as_bytes(), FileType::BlockDevice, mode, device)
            .map_err(|e| failed("make the device node", &self.0)(e.into()))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn is_taken(source: &io::Error) -> bool {
    matches!(Errno::from_io_error(source), Some(Errno::BUSY | Errno::NXIO))
}

fn open_device(path: &Path, access: Access) -> io::Result<File> {
    OpenOptions::new().read(true).write(access == Access::ReadWrite).open(path)
}

/// Major and minor of loop device `number`: minors are spread where the module was loaded with `max_part`.
fn device_number(number: u32) -> u64 {
    let told = std::fs::read_to_string(format!("/sys/block/loop{number}/dev")).ok().and_then(|dev| {
        let (major, minor) = dev.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    let (major, minor) = told.unwrap_or((LOOP_MAJOR, number));
    rustix::fs::makedev(major, minor)
}
