//! Volumes as block devices: binding a volume to a loop device, and making it stop taking writes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use uuid::Uuid;

use crate::error::{Doing, Error, Result};
use crate::life::{Disk, Life};
use crate::loopdev::LoopDevice;
use crate::mountinfo;
use crate::partition;
use crate::place::Lab;
use crate::state::{Volume, VolumeKind};
use crate::store;
use crate::udev;

/// `EXT4_IOC_SHUTDOWN`, which XFS, F2FS and GFS2 take too: `_IOR('X', 125, __u32)`.
const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587D;

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written.
const NOLOGFLUSH: u32 = 2;

/// Time for the last holder of a disk to let go of it.
const UNBIND_PATIENCE: Duration = Duration::from_secs(5);

/// Makes the sparse file of a new volume, empty.
///
/// # Errors
/// The system's refusal.
pub fn create(lab: &Lab, volume: Uuid, size_gib: u64) -> Result<()> {
    let path = lab.volume_file(volume);
    let make = || -> io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create_new(&path)?.set_len(size_gib << 30)
    };
    make().doing(|| format!("create {}", path.display()))
}

/// Removes a volume's file.
///
/// # Errors
/// The system's refusal.
pub fn remove(lab: &Lab, volume: Uuid) -> Result<()> {
    let path = lab.volume_file(volume);
    restore(&path);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.doing(|| format!("remove {}", path.display())),
    }
}

/// Binds a volume to a loop device. A volume of the store goes through it with direct IO, so that nothing of it
/// is cached between a server's page cache and the store; the store must run.
///
/// # Errors
/// The system's refusal.
pub fn bind(lab: &Lab, volume: &Volume) -> Result<LoopDevice> {
    udev::hide_volumes();
    let path = match volume.kind {
        VolumeKind::Raw => lab.volume_file(volume.id),
        VolumeKind::Sata | VolumeKind::Ssd | VolumeKind::Volatile => store::file(lab, volume),
    };
    let file =
        OpenOptions::new().read(true).write(true).open(&path).doing(|| format!("open {}", path.display()))?;
    LoopDevice::bind(&file, volume.kind != VolumeKind::Raw)
        .doing(|| format!("bind a loop device to {}", path.display()))
}

/// The loop devices that a volume, as it is plugged in now, is bound to. The file's name tells, whatever mount the path
/// is told from.
fn loops_of(volume: &Volume) -> Vec<LoopDevice> {
    let name = store::file_name(volume);
    let bound = LoopDevice::bound().into_iter();
    bound.filter(|(_, path)| path.to_string_lossy().contains(&name)).map(|(device, _)| device).collect()
}

/// Unbinds a volume from whatever it is bound to, partitions first.
///
/// # Errors
/// Somebody holds it.
pub fn unbind(volume: &Volume) -> Result<()> {
    for device in loops_of(volume) {
        partition::clear(device);
        device.unbind(UNBIND_PATIENCE).doing(|| format!("unbind {}", device.node().display()))?;
    }
    Ok(())
}

/// Unbinds a volume that may be held: its loop devices go when their last holder does, and fail until then, because
/// the store does.
///
/// # Errors
/// The system's refusal.
pub fn abandon(volume: &Volume) -> Result<()> {
    for device in loops_of(volume) {
        partition::clear(device);
        device.abandon().doing(|| format!("unbind {}", device.node().display()))?;
    }
    Ok(())
}

/// Gives a volume's file another size, and whatever it is bound to.
///
/// # Errors
/// The system's refusal.
pub fn extend(lab: &Lab, volume: &Volume, size_gib: u64) -> Result<()> {
    let path = lab.volume_file(volume.id);
    let grow = || OpenOptions::new().write(true).open(&path)?.set_len(size_gib << 30);
    grow().doing(|| format!("extend {}", path.display()))?;
    store::resize(lab, volume.id)?;
    for device in loops_of(volume) {
        if volume.kind != VolumeKind::Raw {
            // The kernel asks the store for the new size when somebody looks.
            let file = store::file(lab, volume);
            fs::metadata(&file).doing(|| format!("look at {}", file.display()))?;
        }
        device.take_size().doing(|| format!("extend {}", device.node().display()))?;
    }
    Ok(())
}

/// Why a disk cannot be taken from a running server now, if it cannot.
pub fn holder(life: &Life, disk: &Disk) -> Option<String> {
    let device = LoopDevice(disk.loop_index);
    let mut numbers: Vec<(u32, u32)> = device.partitions().iter().map(|p| p.device).collect();
    numbers.extend(device.device());
    let mounts = mountinfo::of(life.init.pid).unwrap_or_default();
    if let Some(mount) = mounts.iter().find(|mount| numbers.contains(&mount.device)) {
        return Some(format!("it is mounted on {}", mount.point));
    }
    if let Some((pid, name)) = opener(&numbers) {
        return Some(format!("process {pid} ({name}) has it open"));
    }
    (!device.is_unclaimed()).then(|| "the kernel has it in use (swap, a loop device or a mapping)".to_owned())
}

/// A process that has a block device of these numbers open.
fn opener(numbers: &[(u32, u32)]) -> Option<(i32, String)> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let open = |path: &Path| {
            fs::metadata(path).is_ok_and(|file| {
                let device = (rustix::fs::major(file.rdev()), rustix::fs::minor(file.rdev()));
                file.mode() & libc::S_IFMT == libc::S_IFBLK && numbers.contains(&device)
            })
        };
        if descriptors.map(|entry| entry.path()).any(|path| open(&path)) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// Power cut, first half: from here on nothing more reaches the volume's bytes.
///
/// # Errors
/// The volume goes on taking writes.
pub fn cut(lab: &Lab, life: &Life, volume: &Volume, disk: &Disk) -> Result<()> {
    if volume.kind != VolumeKind::Raw {
        return store::cut(lab, volume.id);
    }
    let path = lab.volume_file(volume.id);
    let frozen = freeze(&path);
    let mut numbers: Vec<(u32, u32)> =
        LoopDevice(disk.loop_index).partitions().iter().map(|p| p.device).collect();
    numbers.extend(LoopDevice(disk.loop_index).device());
    let mounts = mountinfo::of(life.init.pid).unwrap_or_default();
    for mount in mounts.iter().filter(|mount| numbers.contains(&mount.device)) {
        let shut = shut_down(&life.path_in(&mount.point));
        if let (Err(error), Err(_)) = (&shut, &frozen) {
            return Err(Error::refused(format!(
                "volume {} of type raw: neither its file nor the {} on {} could be stopped: {error}",
                volume.called(),
                mount.kind,
                mount.point
            )));
        }
    }
    Ok(())
}

/// Makes a file refuse writes, also through descriptors that are open, where the file system looks at the
/// flag on each write (ext4 does).
fn freeze(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    Ok(ioctl_setflags(&file, ioctl_getflags(&file)? | IFlags::IMMUTABLE)?)
}

/// Makes a mounted file system stop at once, without writing its journal.
fn shut_down(mount_point: &Path) -> io::Result<()> {
    let directory = File::open(mount_point)?;
    let flags = NOLOGFLUSH;
    // SAFETY: the request takes a pointer to a u32, which lives through the call.
    let rc = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flags) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the freeze of a power cut off a volume's file.
pub fn restore(path: &Path) {
    let thaw = || -> io::Result<()> {
        let file = File::open(path)?;
        let flags = ioctl_getflags(&file)?;
        if flags.contains(IFlags::IMMUTABLE) {
            ioctl_setflags(&file, flags - IFlags::IMMUTABLE)?;
        }
        Ok(())
    };
    // Where the flag does not exist it was not set either.
    let _ = thaw();
}
