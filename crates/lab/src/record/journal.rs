//! What systemd and its services said in a server: its journal as text, read on the host.
//!
//! The files are read below the overlay's upper directory: whoever had them open through the server's own root would
//! keep that root alive when the server's power is cut.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use uuid::Uuid;

use crate::error::{Doing, Result};

/// A server's journal from the beginning of the recording on.
#[derive(Debug)]
pub struct Journal {
    source: PathBuf,
    target: PathBuf,
    since: String,
    limit_bytes: u64,
    /// Writes while the server may yet be deleted, and its journal with it.
    follower: Option<Child>,
}

/// What became of it, as run.json says it.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Bytes of text in the file.
    bytes: u64,
    /// Whether text is missing behind it because of the limit.
    cut_off: bool,
}

/// Where the journal of a server is; none if it keeps none, as without systemd.
pub fn directory(server_directory: &Path, server: Uuid) -> Option<PathBuf> {
    // The host may have /var or /var/log on a disk of its own, which then has an overlay of its own.
    let uppers = fs::read_dir(server_directory.join("disks")).into_iter().flatten().flatten();
    let below = ["var/log/journal", "log/journal", "journal"];
    std::iter::once(server_directory.join("upper"))
        .chain(uppers.map(|entry| entry.path().join("upper")))
        .flat_map(|upper| below.map(|below| upper.join(below).join(server.simple().to_string())))
        .find(|path| path.is_dir())
}

impl Journal {
    /// Begins to write down what comes after `begin_unix_ns`.
    ///
    /// # Errors
    /// The system's refusal; without journalctl above all.
    pub fn follow(source: &Path, target: &Path, begin_unix_ns: u64, limit_bytes: u64) -> Result<Self> {
        let since =
            format!("--since=@{}.{:06}", begin_unix_ns / 1_000_000_000, begin_unix_ns % 1_000_000_000 / 1000);
        let mut journal =
            Self { source: source.to_owned(), target: target.to_owned(), since, limit_bytes, follower: None };
        let file = File::create(target).doing(|| format!("create {}", target.display()))?;
        let mut journalctl = journal.journalctl();
        journalctl.arg("--follow").stdout(file);
        // SAFETY: runs in the forked child; one system call that allocates nothing.
        unsafe { journalctl.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
        journal.follower = Some(journalctl.spawn().doing(|| "run journalctl".into())?);
        Ok(journal)
    }

    fn journalctl(&self) -> Command {
        let mut command = Command::new("journalctl");
        command.args(["--quiet", "--no-pager", "--output=short-iso-precise", &self.since, "--directory"]);
        command.arg(&self.source).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Stops writing if the limit is reached.
    pub fn mind_limit(&mut self) {
        if fs::metadata(&self.target).is_ok_and(|about| about.len() >= self.limit_bytes) {
            self.stop();
        }
    }

    fn stop(&mut self) {
        if let Some(mut follower) = self.follower.take() {
            // It may have ended by an interrupt of its own.
            let _ = follower.kill();
            let _ = follower.wait();
        }
    }

    /// Ends with everything that is in the journal now; of a server that was deleted, with what was seen before.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn close(&mut self) -> Result<Kept> {
        self.stop();
        let doing = || format!("write {}", self.target.display());
        if self.source.is_dir() {
            let mut journalctl = self.journalctl();
            let mut child = journalctl.stdout(Stdio::piped()).spawn().doing(|| "run journalctl".into())?;
            let mut file = File::create(&self.target).doing(doing)?;
            if let Some(text) = child.stdout.take() {
                // One byte more tells that there is more.
                io::copy(&mut text.take(self.limit_bytes + 1), &mut file).doing(doing)?;
            }
            child.wait().doing(|| "wait for journalctl".into())?;
        }
        let file = File::options().write(true).open(&self.target).doing(doing)?;
        let bytes = file.metadata().doing(doing)?.len();
        let cut_off = bytes > self.limit_bytes;
        if cut_off {
            file.set_len(self.limit_bytes).doing(doing)?;
        }
        Ok(Kept { bytes: bytes.min(self.limit_bytes), cut_off })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}
