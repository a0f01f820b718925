//! The volumes as the daemon has them: open files that can be cut.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use uuid::Uuid;

use super::faults::{Access, Faults, Verdict};
use super::unflushed::Unflushed;
use crate::place::Lab;
use crate::state::{Records, Volume, VolumeKind};

/// The most that is written to a volume's file at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Unserved {
    /// It failed.
    Failed(io::Error),
    /// It waits for so long, or for the volume to be released.
    Later(Option<Duration>),
}

impl<E: Into<io::Error>> From<E> for Unserved {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What became of a request.
pub type Served<T> = Result<T, Unserved>;

/// An open volume, as it is plugged in: one that was pulled out under power is another than the same one plugged in
/// anew.
#[derive(Debug)]
pub struct OpenVolume {
    /// Its id.
    pub id: Uuid,
    /// Which of its plugs.
    plug: u32,
    file: File,
    size_bytes: AtomicU64,
    /// Writers share it for the length of a write, so that none is on its way when a cut has returned.
    cut: RwLock<bool>,
    /// Only volumes of type `volatile` forget.
    unflushed: Option<Mutex<Unflushed>>,
    /// Whether anything was written since the last flush. A flush of nothing needs no medium, and whoever binds a loop
    /// device to a volume that hangs (which flushes) must not hang with it: he holds locks of all loop devices.
    written: AtomicBool,
    faults: Faults,
}

impl OpenVolume {
    fn open(lab: &Lab, record: &Volume) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(lab.volume_file(record.id))?;
        let size_bytes = file.metadata()?.len().into();
        let unflushed =
            (record.kind == VolumeKind::Volatile).then(|| Mutex::new(Unflushed::new(record.seed)));
        let cut = RwLock::new(marker(lab, record.id, record.plug).exists());
        let faults = Faults::new(record.faults.clone());
        let (id, plug, written) = (record.id, record.plug, AtomicBool::new(false));
        Ok(Self { id, plug, file, size_bytes, cut, unflushed, written, faults })
    }

    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// The number that the kernel knows it by: of its own, and the same in a daemon that takes over.
    pub fn node(&self) -> u64 {
        node(self.id, self.plug)
    }

    fn powered(&self) -> RwLockReadGuard<'_, bool> {
        self.cut.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, bool> {
        self.cut.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `access` unless the volume is cut or faulty. The faults are looked at under the same lock, so that whoever
    /// changes them and then has the lock for himself knows that every request met them.
    fn while_sound<T>(
        &self,
        wanted: &Access,
        waited: bool,
        access: impl FnOnce() -> io::Result<T>,
    ) -> Served<T> {
        let cut = self.powered();
        if *cut {
            return Err(Errno::IO.into());
        }
        match self.faults.verdict(wanted, waited, |bytes| self.has_hole(bytes)) {
            Verdict::Pass => Ok(access()?),
            Verdict::Fail(error) => Err(error.into()),
            Verdict::Wait(time) => Err(Unserved::Later(Some(time))),
            Verdict::Hang => Err(Unserved::Later(None)),
        }
    }

    fn has_hole(&self, bytes: &Range<u64>) -> bool {
        // Where the file system does not know, everything is data.
        seek(&self.file, SeekFrom::Hole(bytes.start)).is_ok_and(|hole| hole < bytes.end)
    }

    /// Reads; short only at the end.
    ///
    /// # Errors
    /// `EIO` while cut; as the volume's faults say; from the file.
    pub fn read(&self, offset: u64, bytes: &mut [u8], waited: bool) -> Served<usize> {
        let wanted = Access::Read(offset..offset.saturating_add(bytes.len() as u64));
        self.while_sound(&wanted, waited, || {
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
    /// `EIO` while cut; `EFBIG` beyond the end; as the volume's faults say; from the file.
    pub fn write(&self, offset: u64, bytes: &[u8], waited: bool) -> Served<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.size_bytes());
        let wanted = Access::Write { bytes: offset..end.ok_or(Errno::FBIG)?, fills: true };
        self.while_sound(&wanted, waited, || {
            self.written.store(true, Ordering::Relaxed);
            match &self.unflushed {
                Some(unflushed) => {
                    unflushed.lock().unwrap_or_else(PoisonError::into_inner).write(&self.file, offset, bytes)
                }
                None => write_in_pieces(&self.file, bytes, offset),
            }
        })
    }

    fn forget_unflushed(&self) {
        if let Some(unflushed) = &self.unflushed {
            unflushed.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }

    /// What was written survives power cuts from here on. The host's own page cache outlives them, so there is
    /// nothing to wait for.
    ///
    /// # Errors
    /// `EIO` while cut; as the volume's faults say.
    pub fn flush(&self, waited: bool) -> Served<()> {
        let written = self.written.load(Ordering::Relaxed);
        let wanted = if written { Access::Flush } else { Access::Nothing };
        self.while_sound(&wanted, waited, || {
            self.written.store(false, Ordering::Relaxed);
            self.forget_unflushed();
            Ok(())
        })
    }

    /// Zeroes or discards a range, as the mode of fallocate(2) says. Counts as flushed, with all before it.
    ///
    /// # Errors
    /// `EIO` while cut; as the volume's faults say; from the file.
    pub fn allocate(&self, mode: u32, offset: u64, length: u64, waited: bool) -> Served<()> {
        let mode = FallocateFlags::from_bits_retain(mode);
        let bytes = offset..offset.saturating_add(length);
        let wanted = Access::Write { bytes, fills: !mode.contains(FallocateFlags::PUNCH_HOLE) };
        self.while_sound(&wanted, waited, || {
            self.forget_unflushed();
            Ok(fallocate(&self.file, mode, offset, length)?)
        })
    }

    fn cut(&self, lab: &Lab) -> io::Result<()> {
        let mut cut = self.exclusive();
        // A daemon that takes over must not let writes through that this one refused.
        let marker = marker(lab, self.id, self.plug);
        marker.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        File::create(marker)?;
        *cut = true;
        self.written.store(false, Ordering::Relaxed);
        if let Some(unflushed) = &self.unflushed {
            let (lost, total) = unflushed.lock().unwrap_or_else(PoisonError::into_inner).lose(&self.file)?;
            eprintln!("power cut: {lost} of {total} writes that no flush followed are lost");
        }
        Ok(())
    }

    fn restore(&self) {
        *self.exclusive() = false;
    }

    /// Replaces one byte if it is as expected; what is not yet flushed stays so.
    fn exchange_byte(&self, at: u64, expected: u8, new: u8) -> io::Result<bool> {
        let _alone = self.exclusive();
        exchange_byte(&self.file, at, expected, new)
    }
}

/// Writes all of `bytes`. The host's file system makes its cache's folios as large as the write that fills them, and later
/// walks a whole one for each small write.
fn write_in_pieces(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut at = offset;
    for piece in bytes.chunks(PIECE_BYTES) {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Replaces one byte of a file if it is as expected; nobody else may write it meanwhile.
///
/// # Errors
/// From the file.
pub fn exchange_byte(file: &File, at: u64, expected: u8, new: u8) -> io::Result<bool> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    if byte[0] != expected {
        return Ok(false);
    }
    file.write_all_at(&[new], at)?;
    Ok(true)
}

/// Name of a volume's file in the store's mount. A number tells plugs apart.
pub fn name(volume: Uuid, plug: u32) -> String {
    if plug == 0 { format!("{volume}.img") } else { format!("{volume}.{plug}.img") }
}

fn of_name(name: &str) -> Option<(Uuid, u32)> {
    let name = name.strip_suffix(".img")?;
    match name.split_once('.') {
        None => Some((name.parse().ok()?, 0)),
        Some((id, plug)) => Some((id.parse().ok()?, plug.parse().ok().filter(|&plug| plug > 0)?)),
    }
}

/// The inode number of a volume's file: no two plugs ever have the same, as the kernel may still know the old one.
fn node(volume: Uuid, plug: u32) -> u64 {
    let (high, low) = volume.as_u64_pair();
    let mixed =
        (high ^ low.rotate_left(32)).wrapping_add(u64::from(plug).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // 0 is none, 1 the directory.
    mixed.max(fuse::abi::ROOT_ID + 1)
}

/// The file that says that a volume is cut.
fn marker(lab: &Lab, volume: Uuid, plug: u32) -> std::path::PathBuf {
    lab.run_dir().join("cut").join(name(volume, plug))
}

/// The volumes that somebody has looked up, by their inode numbers.
#[derive(Debug)]
pub struct Volumes {
    lab: Lab,
    open: Mutex<BTreeMap<u64, Arc<OpenVolume>>>,
}

impl Volumes {
    /// None open yet.
    pub fn new(lab: Lab) -> Self {
        Self { lab, open: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<OpenVolume>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, is_it: impl Fn(&Volume) -> bool) -> io::Result<Arc<OpenVolume>> {
        let records = Records::load(&self.lab).map_err(io::Error::other)?;
        let record = records.volumes.iter().find(|record| is_it(record)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(OpenVolume::open(&self.lab, record)?))
    }

    /// The volume behind a file name, opened if need be.
    ///
    /// # Errors
    /// `NotFound` for any other name; from opening the file.
    pub fn look_up(&self, name: &str) -> io::Result<Arc<OpenVolume>> {
        let (volume, plug) = of_name(name).ok_or(io::ErrorKind::NotFound)?;
        let mut open = self.lock();
        if let Some(there) = open.get(&node(volume, plug)) {
            return Ok(there.clone());
        }
        let opened = self.open(|record| record.id == volume && record.plug == plug)?;
        open.insert(opened.node(), opened.clone());
        Ok(opened)
    }

    /// The volume of an inode number. The kernel may know it from a daemon before this one.
    pub fn at(&self, number: u64) -> Option<Arc<OpenVolume>> {
        let mut open = self.lock();
        if let Some(there) = open.get(&number) {
            return Some(there.clone());
        }
        let opened = self.open(|record| node(record.id, record.plug) == number).ok()?;
        open.insert(number, opened.clone());
        Some(opened)
    }

    /// Every open plug of a volume.
    fn of(&self, volume: Uuid) -> Vec<Arc<OpenVolume>> {
        self.lock().values().filter(|open| open.id == volume).cloned().collect()
    }

    /// Cuts a volume; one that nobody looked up has nothing on its way.
    ///
    /// # Errors
    /// From the file, while a volatile volume forgets.
    pub fn cut(&self, volume: Uuid) -> io::Result<()> {
        self.of(volume).iter().try_for_each(|volume| volume.cut(&self.lab))
    }

    /// Lets a volume as it is plugged in now take writes again.
    pub fn restore(&self, volume: Uuid, plug: u32) {
        // Not cut: not there.
        let _ = std::fs::remove_file(marker(&self.lab, volume, plug));
        self.of(volume).iter().filter(|volume| volume.plug == plug).for_each(|volume| volume.restore());
    }

    /// Reads a volume's faults again.
    ///
    /// # Errors
    /// Unreadable records.
    pub fn read_faults(&self, volume: Uuid) -> io::Result<()> {
        let records = Records::load(&self.lab).map_err(io::Error::other)?;
        let record = records.volumes.iter().find(|record| record.id == volume);
        for open in self.of(volume) {
            open.faults.set(record.map(|record| record.faults.clone()).unwrap_or_default());
        }
        Ok(())
    }

    /// Lets writes wait or not. When this has returned, none is on its way to the file of a frozen volume.
    pub fn freeze(&self, volume: Uuid, frozen: bool) {
        for open in self.of(volume) {
            open.faults.freeze(frozen);
            drop(open.exclusive());
        }
    }

    /// Takes a file's new size, and gives the inode numbers that the kernel knows with the old one.
    ///
    /// # Errors
    /// From the file.
    pub fn resize(&self, volume: Uuid) -> io::Result<Vec<u64>> {
        let resize = |open: &Arc<OpenVolume>| {
            open.size_bytes.store(open.file.metadata()?.len(), Ordering::Relaxed);
            Ok(open.node())
        };
        self.of(volume).iter().map(resize).collect()
    }

    /// Replaces one byte if it is as expected.
    ///
    /// # Errors
    /// From the file.
    pub fn exchange_byte(&self, volume: Uuid, at: u64, expected: u8, new: u8) -> io::Result<bool> {
        match self.of(volume).iter().max_by_key(|open| open.plug) {
            Some(open) => open.exchange_byte(at, expected, new),
            None => {
                let file = OpenOptions::new().read(true).write(true).open(self.lab.volume_file(volume))?;
                exchange_byte(&file, at, expected, new)
            }
        }
    }

    /// Forgets a volume whose file goes away.
    pub fn close(&self, volume: Uuid) {
        self.lock().retain(|_, open| open.id != volume);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{name, node, of_name};

    #[test]
    fn names_and_numbers_tell_plugs_apart() {
        let volume = Uuid::new_v4();
        for plug in [0, 1, 17] {
            assert_eq!(of_name(&name(volume, plug)), Some((volume, plug)));
        }
        for wrong in
            ["x.img".to_owned(), format!("{volume}"), format!("{volume}.0.img"), format!("{volume}.a.img")]
        {
            assert_eq!(of_name(&wrong), None, "{wrong}");
        }
        assert_ne!(node(volume, 0), node(volume, 1));
    }
}
