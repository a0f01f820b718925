//! Loop devices: `linux/loop.h` and the partition calls of `linux/blkpg.h`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use units::SectorRange;

const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_SET_STATUS64: libc::Ioctl = 0x4C04;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_PARTSCAN: u32 = 8;
const LO_FLAGS_DIRECT_IO: u32 = 16;

const BLKPG: libc::Ioctl = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_DEL_PARTITION: libc::c_int = 2;

/// Somebody else may take the free device that we were told of: so many attempts.
const BIND_ATTEMPTS_MAX: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<Info64>() == 232);

impl Info64 {
    fn zeroed() -> Self {
        // SAFETY: integers and arrays of integers; all zero is a valid value.
        unsafe { std::mem::zeroed() }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start_bytes: i64,
    length_bytes: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArg {
    operation: libc::c_int,
    flags: libc::c_int,
    data_len: libc::c_int,
    data: *mut BlkpgPartition,
}

/// An ioctl whose argument is a pointer to `argument`.
fn ioctl<T>(fd: RawFd, request: libc::Ioctl, argument: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: each request of this file takes a pointer to the very structure its caller passes.
    let rc = unsafe { libc::ioctl(fd, request, std::ptr::from_mut(argument)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// A loop device of this machine, by number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LoopDevice(pub u32);

/// A partition as the kernel has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KernelPartition {
    /// Number, from 1 on.
    pub number: u32,
    /// Where it lies on the disk.
    pub sectors: SectorRange,
    /// Major and minor number of its node.
    pub device: (u32, u32),
}

impl LoopDevice {
    /// Every loop device that is bound to a file now, with the file's path as the kernel tells it.
    pub fn bound() -> Vec<(Self, PathBuf)> {
        fs::read_dir("/sys/block")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok())
            .filter_map(|index| Some((Self(index), Self(index).backing_file()?)))
            .collect()
    }

    /// Binds a free loop device to `file`.
    ///
    /// # Errors
    /// The system's refusal, such as no access to /dev/loop-control.
    pub fn bind(file: &File, direct_io: bool) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        // The lab reads tables itself, with patience: a kernel that does would wait for a disk that hangs.
        let partscan = if partitions_need_partscan() { LO_FLAGS_PARTSCAN } else { 0 };
        let flags = partscan | if direct_io { LO_FLAGS_DIRECT_IO } else { 0 };
        let mut attempts = 0;
        loop {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let index = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            let device = Self(u32::try_from(index).map_err(|_| io::Error::last_os_error())?);
            let mut config = Config {
                fd: file.as_raw_fd() as u32,
                block_size: 512,
                info: Info64::zeroed(),
                reserved: [0; 8],
            };
            config.info.flags = flags;
            let bound =
                device.open(true).and_then(|node| ioctl(node.as_raw_fd(), LOOP_CONFIGURE, &mut config));
            attempts += 1;
            match bound {
                Ok(_) => return Ok(device),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts < BIND_ATTEMPTS_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its node on the host.
    pub fn node(self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.0))
    }

    fn sysfs(self) -> PathBuf {
        PathBuf::from(format!("/sys/block/loop{}", self.0))
    }

    /// Opens the device.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(self, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).open(self.node())
    }

    /// Major and minor number of the whole disk.
    ///
    /// # Errors
    /// The device is not there.
    pub fn device(self) -> io::Result<(u32, u32)> {
        device_number(&self.sysfs().join("dev"))
    }

    /// The path of the file it is bound to, if it is bound.
    pub fn backing_file(self) -> Option<PathBuf> {
        let path = fs::read_to_string(self.sysfs().join("loop/backing_file")).ok()?;
        Some(PathBuf::from(path.trim_end_matches('\n')))
    }

    /// `st_dev` of the file system that the file it is bound to lies in.
    ///
    /// # Errors
    /// Not bound, or the system's refusal.
    pub fn backing_device(self) -> io::Result<u64> {
        let mut info = Info64::zeroed();
        ioctl(self.open(false)?.as_raw_fd(), LOOP_GET_STATUS64, &mut info)?;
        Ok(info.device)
    }

    /// From now on the kernel reads its table too when it is asked to: fdisk(8) ends with that, and fails without it.
    /// Waits for the disk. Does nothing if it is not bound to `volume`'s file.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn let_kernel_read_tables(self, volume: uuid::Uuid) -> io::Result<()> {
        // As long as it is open, it is not bound to another file.
        let node = self.open(false)?;
        let file = self.backing_file().unwrap_or_default();
        if !file.to_string_lossy().contains(&volume.to_string()) {
            return Ok(());
        }
        let mut info = Info64::zeroed();
        ioctl(node.as_raw_fd(), LOOP_GET_STATUS64, &mut info)?;
        if info.flags & LO_FLAGS_PARTSCAN != 0 {
            return Ok(());
        }
        info.flags |= LO_FLAGS_PARTSCAN;
        ioctl(node.as_raw_fd(), LOOP_SET_STATUS64, &mut info).map(drop)
    }

    /// Whether nobody has it or one of its partitions mounted or claimed otherwise.
    pub fn is_unclaimed(self) -> bool {
        let nodes = self.partitions().into_iter().map(|p| format!("/dev/loop{}p{}", self.0, p.number));
        nodes.chain([self.node().display().to_string()]).all(|node| {
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(node);
            !opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
        })
    }

    /// Unbinds it, and waits until nobody holds it any more and its page cache is gone.
    ///
    /// # Errors
    /// `ResourceBusy` if it is still held after `patience`; it will be unbound by whoever closes it last.
    pub fn unbind(self, patience: Duration) -> io::Result<()> {
        let bound_to = self.backing_file();
        if bound_to.is_none() {
            return Ok(());
        }
        self.abandon()?;
        let patience_ends = Instant::now() + patience;
        // Another binding may have taken the number already: then ours is gone too.
        while self.backing_file() == bound_to {
            if Instant::now() > patience_ends {
                return Err(io::Error::from(io::ErrorKind::ResourceBusy));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Unbinds it as soon as nobody holds it, and does not wait for that.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn abandon(self) -> io::Result<()> {
        let node = self.open(false)?;
        // SAFETY: LOOP_CLR_FD takes no argument.
        if unsafe { libc::ioctl(node.as_raw_fd(), LOOP_CLR_FD) } < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENXIO) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the size that its file has now.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn take_size(self) -> io::Result<()> {
        let node = self.open(false)?;
        // SAFETY: LOOP_SET_CAPACITY takes no argument.
        if unsafe { libc::ioctl(node.as_raw_fd(), LOOP_SET_CAPACITY) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The partitions that the kernel has on it.
    pub fn partitions(self) -> Vec<KernelPartition> {
        let number = |directory: &Path, file: &str| -> Option<u64> {
            fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
        };
        fs::read_dir(self.sysfs())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let directory = entry.path();
                Some(KernelPartition {
                    number: u32::try_from(number(&directory, "partition")?).ok()?,
                    sectors: SectorRange::new(number(&directory, "start")?, number(&directory, "size")?),
                    device: device_number(&directory.join("dev")).ok()?,
                })
            })
            .collect()
    }

    /// Adds a partition.
    ///
    /// # Errors
    /// The kernel's refusal: an overlap, or a number that is taken.
    pub fn add_partition(self, number: u32, sectors: SectorRange) -> io::Result<()> {
        self.blkpg(BLKPG_ADD_PARTITION, number, sectors)
    }

    /// Removes a partition.
    ///
    /// # Errors
    /// `ResourceBusy` while somebody holds it.
    pub fn remove_partition(self, number: u32) -> io::Result<()> {
        self.blkpg(BLKPG_DEL_PARTITION, number, SectorRange::new(0, 0))
    }

    fn blkpg(self, operation: libc::c_int, number: u32, sectors: SectorRange) -> io::Result<()> {
        let bytes =
            |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let mut partition = BlkpgPartition {
            start_bytes: bytes(sectors.byte_offset())?,
            length_bytes: bytes(sectors.bytes())?,
            number: number as libc::c_int,
            device_name: [0; 64],
            volume_name: [0; 64],
        };
        let data_len = size_of::<BlkpgPartition>() as libc::c_int;
        let mut argument = BlkpgArg { operation, flags: 0, data_len, data: &raw mut partition };
        ioctl(self.open(false)?.as_raw_fd(), BLKPG, &mut argument).map(drop)
    }
}

/// Before Linux 5.19 a loop device took partitions only if the kernel also looked for them.
fn partitions_need_partscan() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (5, 19)
}

/// Reads `MAJOR:MINOR` from a `dev` file of sysfs.
fn device_number(path: &Path) -> io::Result<(u32, u32)> {
    let text = fs::read_to_string(path)?;
    let numbers = text.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {text:?}", path.display())))
}
