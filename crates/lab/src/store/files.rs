//! The volumes as the daemon has them: open files that can be cut.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use uuid::Uuid;

use super::unflushed::Unflushed;
use crate::place::Lab;
use crate::state::{Records, VolumeKind};

/// Name of a volume's file in the store's mount.
pub fn name(volume: Uuid) -> String {
    format!("{volume}.img")
}

/// An open volume.
#[derive(Debug)]
pub struct OpenVolume {
    file: File,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Writers share it for the length of a write, so that none is on its way when a cut has returned.
    cut: RwLock<bool>,
    /// Only volumes of type `volatile` forget.
    unflushed: Option<Mutex<Unflushed>>,
}

impl OpenVolume {
    fn open(lab: &Lab, volume: Uuid) -> io::Result<Self> {
        let records = Records::load(lab).map_err(io::Error::other)?;
        let record =
            records.volumes.iter().find(|record| record.id == volume).ok_or(io::ErrorKind::NotFound)?;
        let file = OpenOptions::new().read(true).write(true).open(lab.volume_file(volume))?;
        let size_bytes = file.metadata()?.len();
        let unflushed =
            (record.kind == VolumeKind::Volatile).then(|| Mutex::new(Unflushed::new(record.seed)));
        Ok(Self { file, size_bytes, cut: RwLock::new(false), unflushed })
    }

    /// Runs `access` unless the volume is cut.
    fn while_powered<T>(&self, access: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
        if *cut { Err(Errno::IO.into()) } else { access() }
    }

    /// Reads; short only at the end.
    ///
    /// # Errors
    /// `EIO` while cut; from the file.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.while_powered(|| {
            let mut done = 0;
            while done < bytes.len() {
                match self.file.read_at(&mut bytes[done..], offset + done as u64)? {
                    0 => break,
                    count => done += count,
                }
            }
            Ok(done)
        })
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// `EIO` while cut; `EFBIG` beyond the end; from the file.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size_bytes) {
            return Err(Errno::FBIG.into());
        }
        self.while_powered(|| match &self.unflushed {
            Some(unflushed) => {
                unflushed.lock().unwrap_or_else(PoisonError::into_inner).write(&self.file, offset, bytes)
            }
            None => self.file.write_all_at(bytes, offset),
        })
    }

    /// What was written survives power cuts from here on. The host's own page cache outlives them, so there is
    /// nothing to wait for.
    ///
    /// # Errors
    /// `EIO` while cut.
    pub fn flush(&self) -> io::Result<()> {
        self.while_powered(|| {
            if let Some(unflushed) = &self.unflushed {
                unflushed.lock().unwrap_or_else(PoisonError::into_inner).flush();
            }
            Ok(())
        })
    }

    /// Zeroes or discards a range, as the mode of fallocate(2) says. Counts as flushed, with all before it.
    ///
    /// # Errors
    /// `EIO` while cut; from the file.
    pub fn allocate(&self, mode: u32, offset: u64, length: u64) -> io::Result<()> {
        self.flush()?;
        let mode = FallocateFlags::from_bits_retain(mode);
        self.while_powered(|| Ok(fallocate(&self.file, mode, offset, length)?))
    }

    fn cut(&self) -> io::Result<()> {
        let mut cut = self.cut.write().unwrap_or_else(PoisonError::into_inner);
        *cut = true;
        if let Some(unflushed) = &self.unflushed {
            let (lost, total) = unflushed.lock().unwrap_or_else(PoisonError::into_inner).lose(&self.file)?;
            eprintln!("power cut: {lost} of {total} writes that no flush followed are lost");
        }
        Ok(())
    }

    fn restore(&self) {
        *self.cut.write().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// The volumes that somebody has looked up, each under the inode number it got then.
#[derive(Debug)]
pub struct Volumes {
    lab: Lab,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    nodes: BTreeMap<u64, (Uuid, Arc<OpenVolume>)>,
    /// A number is never given twice: the kernel may still know the old file's size by it.
    given: u64,
}

impl Volumes {
    /// None open yet.
    pub fn new(lab: Lab) -> Self {
        Self { lab, open: Mutex::default() }
    }

    /// The volume behind a file name, opened if need be, and its inode number.
    ///
    /// # Errors
    /// `NotFound` for any other name; from opening the file.
    pub fn look_up(&self, name: &str) -> io::Result<(u64, Arc<OpenVolume>)> {
        let volume: Uuid =
            name.strip_suffix(".img").and_then(|id| id.parse().ok()).ok_or(io::ErrorKind::NotFound)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((&node, (_, there))) = open.nodes.iter().find(|(_, (id, _))| *id == volume) {
            return Ok((node, there.clone()));
        }
        let opened = Arc::new(OpenVolume::open(&self.lab, volume)?);
        open.given += 1;
        let node = fuse::abi::ROOT_ID + open.given;
        open.nodes.insert(node, (volume, opened.clone()));
        Ok((node, opened))
    }

    /// The volume of an inode number.
    pub fn at(&self, node: u64) -> Option<Arc<OpenVolume>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.nodes.get(&node).map(|(_, volume)| volume.clone())
    }

    fn named(&self, volume: Uuid) -> Option<Arc<OpenVolume>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.nodes.values().find(|(id, _)| *id == volume).map(|(_, volume)| volume.clone())
    }

    /// Cuts a volume; one that nobody looked up has nothing on its way.
    ///
    /// # Errors
    /// From the file, while a volatile volume forgets.
    pub fn cut(&self, volume: Uuid) -> io::Result<()> {
        self.named(volume).map_or(Ok(()), |volume| volume.cut())
    }

    /// Lets a volume take writes again.
    pub fn restore(&self, volume: Uuid) {
        if let Some(volume) = self.named(volume) {
            volume.restore();
        }
    }

    /// Forgets a volume whose file goes away.
    pub fn close(&self, volume: Uuid) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).nodes.retain(|_, (id, _)| *id != volume);
    }
}
