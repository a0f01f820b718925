//! Where a minor's internal meta-data were last: without it nobody finds them after the disk has grown while it was not
//! in use.
//!
//! Upstream: `struct bdev_info`, `lk_bdev_save`, `lk_bdev_load`, `lk_bdev_delete`; /var/lib/drbd/drbd-minor-N.lkbd.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use drbd_format::meta::{Placement, SUPER_BLOCK_BYTES, SuperBlock};

use super::system_text;

/// Where drbdmeta keeps the files.
const DIRECTORY: &str = "/var/lib/drbd";

/// What was last known of the disk of a minor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastKnown {
    /// Its size.
    pub bytes: u64,
    /// Its path, if it was written down whole.
    pub path: Option<PathBuf>,
    /// The device's UUID; 0: not known.
    pub device_uuid: u64,
}

fn path_of(minor: u32) -> PathBuf {
    Path::new(DIRECTORY).join(format!("drbd-minor-{minor}.lkbd"))
}

impl LastKnown {
    /// `BYTES TAB PATH`, and in a second line the UUID; what is cut off counts as far as it is there.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split_whitespace();
        let bytes = words.next()?.parse().ok()?;
        let path = words.next().map(PathBuf::from);
        let uuid = lines.next().and_then(|line| line.strip_prefix("uuid:"));
        let device_uuid = uuid.and_then(|uuid| u64::from_str_radix(uuid.trim(), 16).ok()).unwrap_or(0);
        Some(Self { bytes, path, device_uuid })
    }

    /// As drbdmeta writes it.
    pub fn text(&self) -> String {
        let path = self.path.as_deref().map_or_else(String::new, |path| path.display().to_string());
        let mut text = format!("{}\t{path}\n", self.bytes);
        if self.device_uuid != 0 {
            text += &format!("uuid:\t{:016X}\n", self.device_uuid);
        }
        text
    }

    /// What is known of a minor.
    pub fn load(minor: u32) -> Option<Self> {
        let path = path_of(minor);
        let text = std::fs::read_to_string(&path).ok()?;
        let known = Self::parse(&text);
        if known.is_none() {
            eprintln!("lk_bdev_load({}): parse error", path.display());
        }
        known
    }

    /// Writes it down. That it cannot be is said and no reason to fail.
    pub fn save(&self, minor: u32) {
        let path = path_of(minor);
        let written =
            std::fs::create_dir_all(DIRECTORY).and_then(|()| File::create(&path)).and_then(|mut file| {
                file.write_all(self.text().as_bytes())?;
                file.sync_all()
            });
        if let Err(error) = written {
            eprintln!("lk_bdev_save({}) failed: {}", path.display(), system_text(&error));
        }
    }

    /// Forgets a minor's: its meta-data are gone, or are not internal.
    pub fn forget(minor: u32) {
        let path = path_of(minor);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("lk_bdev_delete({}) failed: {}", path.display(), system_text(&error));
            }
            _ => {}
        }
    }

    /// The same for a disk that is in use.
    pub fn note_in_use(minor: u32, disk: &Path, placement: Placement) {
        if placement != Placement::Internal {
            return Self::forget(minor);
        }
        let found = File::open(disk).and_then(|mut file| {
            let bytes = file.seek(SeekFrom::End(0))?;
            let offset = placement.super_block_offset_bytes(bytes).map_err(io::Error::other)?;
            let mut block = [0; SUPER_BLOCK_BYTES];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut block, offset)?;
            Ok((bytes, SuperBlock::decode(&block).map_or(0, |block| block.device_uuid)))
        });
        if let Ok((bytes, device_uuid)) = found {
            Self { bytes, path: Some(disk.to_owned()), device_uuid }.save(minor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LastKnown;

    /// A file that drbdmeta 9.22 wrote.
    const THEIRS: &str = "67108864\t/dev/loop0\nuuid:\t123456789ABCDEF0\n";

    #[test]
    fn files_are_drbdmetas() {
        let known = LastKnown::parse(THEIRS).unwrap();
        assert_eq!((known.bytes, known.device_uuid), (64 << 20, 0x1234_5678_9abc_def0));
        assert_eq!(known.text(), THEIRS);
        let cut = LastKnown::parse("67108864").unwrap();
        assert_eq!((cut.bytes, cut.path, cut.device_uuid), (64 << 20, None, 0));
        assert_eq!(LastKnown::parse("nonsense"), None);
    }
}
