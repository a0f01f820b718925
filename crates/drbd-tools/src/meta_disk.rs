//! Meta-data of a device that nobody uses: what `drbdmeta` does offline.

mod apply_al;
mod check_resize;
mod create;
mod dump;
mod existing_data;
pub mod generations;
pub mod last_known;
mod restore;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drbd_format::meta::{DiskSizes, Layout, Placement, SUPER_BLOCK_BYTES, SuperBlock};

pub use last_known::LastKnown;

pub use apply_al::apply_al;
pub use check_resize::check_resize;
pub use create::{NewMetaData, create_md};
pub use dump::{dstate, dump_md};
pub use restore::{restore_md, verify_dump};

/// Exit status of drbdmeta if the device cannot be had.
pub const EXIT_DEVICE: u8 = 20;

/// A meta-data operation that did not succeed. What a person should know was printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failed {
    /// Exit status.
    pub status: u8,
}

/// An open device with meta-data, or place for them. Nobody else has it open for itself.
#[derive(Debug)]
pub struct MetaDisk {
    file: File,
    path: PathBuf,
    bytes: u64,
    placement: Placement,
    /// The device of DRBD's whose meta-data these are, if that was told.
    minor: Option<u32>,
    /// Size of the data device, where the meta-data are on another one.
    data_bytes: u64,
}

impl MetaDisk {
    /// Opens the device of the meta-data. `data` is the device of the data if that is another one.
    ///
    /// # Errors
    /// If it cannot be opened or is in use; status 20.
    pub fn open(path: &Path, placement: Placement, data: Option<&Path>) -> Result<Self, Failed> {
        let failed = |step: &str, path: &Path, error: io::Error| {
            eprintln!("{step}({}) failed: {}", path.display(), system_text(&error));
            Failed { status: EXIT_DEVICE }
        };
        // Slots of one device belong to several resources: no one may claim it for itself.
        let exclusive = if matches!(placement, Placement::Indexed(_)) { 0 } else { libc::O_EXCL };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(exclusive)
            .open(path)
            .map_err(|error| failed("open", path, error))?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(|error| failed("lseek", path, error))?;
        let data_bytes = match data {
            None => bytes,
            Some(data) => File::open(data)
                .and_then(|mut file| file.seek(SeekFrom::End(0)))
                .map_err(|error| failed("open", data, error))?,
        };
        Ok(Self { file, path: path.into(), bytes, placement, minor: None, data_bytes })
    }

    /// The same of a device of DRBD's: where they were last is written down for it.
    pub fn of_minor(self, minor: Option<u32>) -> Self {
        Self { minor, ..self }
    }

    /// The superblock and its layout, if there are valid ones.
    fn existing(&self) -> Option<(SuperBlock, Layout)> {
        self.recorded(DiskSizes { data_bytes: self.data_bytes, meta_bytes: self.bytes }).ok()
    }

    /// The superblock and its layout where they would be on disks of these sizes, or what is wrong with them.
    fn recorded(&self, sizes: DiskSizes) -> Result<(SuperBlock, Layout), String> {
        let offset =
            self.placement.super_block_offset_bytes(sizes.meta_bytes).map_err(|small| small.to_string())?;
        let mut bytes = [0; SUPER_BLOCK_BYTES];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| system_text(&error))?;
        let block = SuperBlock::decode(&bytes).map_err(|malformed| malformed.to_string())?;
        let layout = Layout::recorded(&block, self.placement, sizes.meta_bytes, sizes.data_bytes)
            .map_err(|malformed| malformed.to_string())?;
        Ok((block, layout))
    }

    /// The same, or the word that there are none.
    fn valid(&self) -> Result<(SuperBlock, Layout), Failed> {
        let sizes = DiskSizes { data_bytes: self.data_bytes, meta_bytes: self.bytes };
        self.recorded(sizes).map_err(|why| {
            eprintln!("No valid meta data found");
            eprintln!("{}: {why}", self.path.display());
            Failed { status: 1 }
        })
    }

    /// Writes a superblock, durably: with it all that was written before counts.
    fn write_super_block(&self, block: &SuperBlock, layout: &Layout) -> Result<(), Failed> {
        self.write_at(&block.encode(), layout.md_offset_bytes)?;
        self.sync()?;
        self.note_last_known(block);
        Ok(())
    }

    /// Writes down where the meta-data are, unless that is known.
    fn note_last_known(&self, block: &SuperBlock) {
        let Some(minor) = self.minor else { return };
        if self.placement != Placement::Internal {
            return LastKnown::forget(minor);
        }
        let (bytes, device_uuid) = (self.bytes, block.device_uuid);
        let now = LastKnown { bytes, path: Some(self.path.clone()), device_uuid };
        if LastKnown::load(minor).is_none_or(|known| known != now) {
            now.save(minor);
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Failed> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed("pwrite", &error))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Failed> {
        self.file.read_exact_at(bytes, offset).map_err(|error| self.failed("pread", &error))
    }

    /// Makes everything written so far durable.
    fn sync(&self) -> Result<(), Failed> {
        self.file.sync_all().map_err(|error| self.failed("fsync", &error))
    }

    fn failed(&self, step: &str, error: &io::Error) -> Failed {
        eprintln!("{step}({}) failed: {}", self.path.display(), system_text(error));
        Failed { status: 10 }
    }
}

/// Bytes of the bitmap of a device of so many sectors, as drbdmeta counts them: whole blocks of 4 KiB.
fn bitmap_bytes(sectors: u64) -> u64 {
    sectors.div_ceil(8).div_ceil(64).saturating_mul(8).next_multiple_of(4096)
}

/// The system's text without Rust's "(os error N)".
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A size as drbdmeta shows it; `size` is in KiB.
fn size_text(mut size: u64) -> String {
    let units = ['K', 'M', 'G', 'T', 'P', 'E'];
    let mut unit = 0;
    while size >= 10_000 && unit + 1 < units.len() {
        size = (size >> 10) + (size >> 9 & 1);
        unit += 1;
    }
    format!("{size} {}B", units[unit])
}

/// Asks a person to type `yes`; `force` types it for them. Without a terminal nobody answers.
fn is_confirmed(question: &str, force: bool) -> bool {
    eprintln!("\n{question}");
    if force {
        eprintln!("*** confirmation forced via --force option ***");
        return true;
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        eprintln!("stdin not a TTY, not waiting for confirmation");
        return false;
    }
    eprint!("[need to type 'yes' to confirm] ");
    let mut answer = String::new();
    let is_read = stdin.lock().read_line(&mut answer).is_ok();
    eprintln!();
    is_read && answer.trim_end_matches('\n') == "yes"
}
