//! Opening a backing device, and reading its meta-data.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use block::Buffer;
use drbd_engine::admin::{MetaIndex, Refusal};
use drbd_engine::event::FoundDisk;
use drbd_format::meta::DiskSizes;

use crate::attach::{self, AttachError};
use crate::worker::OpenDisk;

/// `ERR_OPEN_DISK` and its neighbours.
mod code {
    pub const OPEN_DISK: i32 = 104;
    pub const OPEN_MD_DISK: i32 = 105;
    pub const DISK_TOO_SMALL: i32 = 111;
    pub const CLAIM_DISK: i32 = 114;
    pub const CLAIM_MD_DISK: i32 = 115;
    pub const IO_MD_DISK: i32 = 118;
    pub const MD_INVALID: i32 = 119;
}

struct Device {
    file: File,
    bytes: u64,
    block_bytes: u32,
}

/// Opens a device for ourselves alone, past the page cache.
fn open(path: &Path) -> io::Result<Device> {
    let is_device = std::fs::metadata(path)?.file_type().is_block_device();
    let exclusive = if is_device { libc::O_EXCL } else { 0 };
    let with = |flags| OpenOptions::new().read(true).write(true).custom_flags(exclusive | flags).open(path);
    let file = with(libc::O_DIRECT).or_else(|error| {
        // A file system without direct IO.
        if !is_device && error.raw_os_error() == Some(libc::EINVAL) { with(0) } else { Err(error) }
    })?;
    if !is_device {
        let bytes = file.metadata()?.len();
        return Ok(Device { file, bytes, block_bytes: 512 });
    }
    let bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
    let mut block_bytes: libc::c_int = 512;
    // SAFETY: BLKSSZGET writes one int.
    let got = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &raw mut block_bytes) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Device { file, bytes, block_bytes: block_bytes.max(512) as u32 })
}

/// linux/fs.h: `_IO(0x12, 104)`.
const BLKSSZGET: libc::c_ulong = 0x1268;

fn refused(code: i32, detail: impl std::fmt::Display) -> Refusal {
    Refusal { code, detail: detail.to_string() }
}

/// Opens a backing device and reads what its meta-data say.
///
/// # Errors
/// In DRBD's numbers, with the path and what is wrong.
pub fn open_disk(disk: &Path, meta_disk: &Path, index: MetaIndex) -> Result<(OpenDisk, FoundDisk), Refusal> {
    let classify = |path: &Path, open_code, claim_code, error: io::Error| {
        let code = if error.raw_os_error() == Some(libc::EBUSY) { claim_code } else { open_code };
        refused(code, format_args!("{}: {error}", path.display()))
    };
    let data = open(disk).map_err(|error| classify(disk, code::OPEN_DISK, code::CLAIM_DISK, error))?;
    let meta = match index {
        MetaIndex::Internal => None,
        _ => Some(
            open(meta_disk)
                .map_err(|error| classify(meta_disk, code::OPEN_MD_DISK, code::CLAIM_MD_DISK, error))?,
        ),
    };
    let (meta_file, meta_bytes) = meta.as_ref().map_or((&data.file, data.bytes), |m| (&m.file, m.bytes));
    let mut read = |offset: u64, bytes: &mut [u8]| {
        // Direct IO wants aligned memory and whole blocks.
        let mut buffer = Buffer::new(bytes.len().next_multiple_of(4096));
        meta_file.read_exact_at(&mut buffer, offset)?;
        bytes.copy_from_slice(&buffer[..bytes.len()]);
        Ok(())
    };
    let failed = |error: AttachError| {
        let code = match error {
            AttachError::Read { .. } => code::IO_MD_DISK,
            AttachError::TooSmall { .. } => code::DISK_TOO_SMALL,
            AttachError::Invalid { .. } => code::MD_INVALID,
        };
        refused(code, format_args!("{}: {error}", meta_disk.display()))
    };
    let (superblock, layout) =
        attach::superblock(&mut read, index.into(), meta_bytes, data.bytes).map_err(failed)?;
    let sizes = DiskSizes { data_bytes: data.bytes, meta_bytes };
    let (block_bytes, discards) = (data.block_bytes, discards(&data.file));
    let found =
        attach::found_disk(&mut read, superblock, index.into(), sizes, &layout, block_bytes, discards)
            .map_err(failed)?;
    let open = OpenDisk { data: data.file.into(), meta: meta.map(|m| m.file.into()), layout };
    Ok((open, found))
}

/// Whether space that is punched out is given back.
fn discards(file: &File) -> bool {
    let Ok(stat) = rustix::fs::fstat(file.as_fd()) else { return false };
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::BlockDevice {
        return true;
    }
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let text = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let own = text(format!("/sys/dev/block/{major}:{minor}/queue/discard_max_bytes"));
    let parent = text(format!("/sys/dev/block/{major}:{minor}/../queue/discard_max_bytes"));
    [own, parent].iter().any(|s| s.trim().parse::<u64>().is_ok_and(|bytes| bytes > 0))
}
