//! Where a lab keeps what it has, and the lock that one tool at a time holds on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::{Doing, Error, Result};

/// What outlives the machine: every lab's records, server roots and volumes.
pub const STATE_ROOT: &str = "/var/lib/lockstep/lab";

/// What does not: process ids, sockets, mount points.
pub const RUN_ROOT: &str = "/run/lockstep/lab";

/// Named network namespaces, as `ip netns` knows them.
pub const NETNS_ROOT: &str = "/run/netns";

/// Begins every name that is visible outside the lab's directories (namespaces, cgroups).
pub const PREFIX: &str = "lockstep-";

const NAME_CHARS_MAX: usize = 32;

/// A lab by its name. Knows paths and names only; what is in it is in [`crate::state`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// The lab of this name, there or not.
    ///
    /// # Errors
    /// A name that could not be a path component and part of a namespace's name.
    pub fn named(name: &str) -> Result<Self> {
        let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-');
        if fits {
            Ok(Self { name: name.to_owned() })
        } else {
            Err(Error::refused(format!(
                "lab name {name:?}: use 1 to {NAME_CHARS_MAX} of a-z, 0-9 and -, not starting with -"
            )))
        }
    }

    /// Every lab that left a trace on this machine: records, runtime files or a network namespace.
    pub fn all() -> Vec<Self> {
        let directories = [(STATE_ROOT, ""), (RUN_ROOT, ""), (NETNS_ROOT, PREFIX)];
        let mut names: Vec<String> = directories
            .iter()
            .filter_map(|(root, prefix)| Some((fs::read_dir(root).ok()?, prefix)))
            .flat_map(|(entries, prefix)| {
                entries.flatten().filter_map(move |entry| {
                    Some(entry.file_name().to_str()?.strip_prefix(prefix)?.to_owned())
                })
            })
            .collect();
        names.sort();
        names.dedup();
        names.iter().filter_map(|name| Self::named(name).ok()).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Directory of records, server roots and volumes.
    pub fn state_dir(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(&self.name)
    }

    /// Directory of runtime files.
    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN_ROOT).join(&self.name)
    }

    /// Directory with one server's root file system and log.
    pub fn server_dir(&self, server: Uuid) -> PathBuf {
        self.state_dir().join("servers").join(server.to_string())
    }

    /// The file that holds a volume's bytes.
    pub fn volume_file(&self, volume: Uuid) -> PathBuf {
        self.state_dir().join("volumes").join(format!("{volume}.img"))
    }

    /// The file that holds a snapshot's bytes.
    pub fn snapshot_file(&self, snapshot: Uuid) -> PathBuf {
        self.state_dir().join("snapshots").join(format!("{snapshot}.img"))
    }

    /// Where the store's FUSE file system is mounted.
    pub fn store_mount(&self) -> PathBuf {
        self.run_dir().join("store")
    }

    /// The store daemon's control socket.
    pub fn store_socket(&self) -> PathBuf {
        self.run_dir().join("store.sock")
    }

    /// Name of the network namespace that holds the lab's bridges.
    pub fn fabric(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// Takes the lab's lock, waiting for whoever has it. Creates the runtime directory.
    ///
    /// # Errors
    /// The system's refusal; without root above all.
    pub fn lock(&self) -> Result<LabLock> {
        let lock = self.lock_within(None)?;
        lock.ok_or_else(|| Error::refused(format!("lab {} is in use", self.name)))
    }

    /// The same, for no longer than `patience`; none if somebody had it all the time.
    ///
    /// # Errors
    /// As [`Lab::lock`].
    pub fn lock_within(&self, patience: Option<Duration>) -> Result<Option<LabLock>> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::refused("a lab needs root: namespaces, loop devices and mounts"));
        }
        let path = self.run_dir().join("lock");
        loop {
            fs::create_dir_all(self.run_dir()).doing(|| format!("create {}", self.run_dir().display()))?;
            let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
                // `down` removed the directory between the two steps.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.doing(|| format!("open {}", path.display()))?,
            };
            if !wait_for(&file, patience).doing(|| format!("lock {}", path.display()))? {
                return Ok(None);
            }
            // A lock on a file that `down` has unlinked meanwhile excludes nobody.
            let ours = file.metadata().doing(|| format!("stat {}", path.display()))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
                return Ok(Some(LabLock { _file: file }));
            }
        }
    }
}

/// Takes a lock; false if it was not to be had in time.
fn wait_for(file: &File, patience: Option<Duration>) -> io::Result<bool> {
    let Some(patience) = patience else {
        flock(file, FlockOperation::LockExclusive)?;
        return Ok(true);
    };
    let end = Instant::now() + patience;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            done => return Ok(done.map(|()| true)?),
        }
    }
}

/// Proof that no other tool changes this lab. Released on drop.
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

/// Writes `value` as JSON so that a reader finds either the old file or the whole new one. Nothing is flushed:
/// a crash of the machine ends the lab's servers anyhow, and must not make every tool wait for its disk before.
///
/// # Errors
/// The system's refusal.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        fs::rename(&fresh, path)
    };
    write().doing(|| format!("write {}", path.display()))
}

/// Reads a JSON file; none if it is not there.
///
/// # Errors
/// An unreadable file, or one that is not what was expected.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.doing(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::refused(format!("{}: not a file of this lab: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::Lab;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "-x", "A", "a b", &"x".repeat(33)] {
            assert!(Lab::named(name).is_err(), "{name:?} was taken");
        }
        assert_eq!(Lab::named("gluster-2").expect("a plain name").fabric(), "lockstep-gluster-2");
    }
}
