//! The lab's store: one daemon a lab that serves volumes as files of a FUSE file system, which loop devices are
//! bound to, and watches the disks of running servers for new partition tables.
//!
//! This file is the tools' side. Invariant: after [`cut`] has returned, nothing that was on its way to the volume
//! reaches its bytes.

mod daemon;
mod faults;
mod files;
pub mod keeper;
mod parked;
mod served;
mod unflushed;
mod watch;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use control::{Client, ControlError};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Doing, Error, Result};
use crate::place::{Lab, LabLock, read_json, write_json};
use crate::process::Process;
use crate::state::Volume;
use crate::supervisor::log_file;

/// Time for the daemon to take a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Time for a killed daemon to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What tools ask of the daemon.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Look at the records again: device nodes and partitions follow what runs now.
    Refresh,
    /// The volume takes no more writes. One of type `volatile` loses what its seed says.
    Cut(Uuid),
    /// The volume, as it is plugged in now, takes writes again.
    Restore {
        /// The volume.
        volume: Uuid,
        /// Which of its plugs.
        plug: u32,
    },
    /// The volume is deleted.
    Close(Uuid),
    /// Look at the volume's faults in the records again.
    ReadFaults(Uuid),
    /// Writes to the volume wait while a tool lives, or until it is thawed.
    Freeze {
        /// The volume.
        volume: Uuid,
        /// Who asks.
        tool: Process,
    },
    /// Writes to the volume go on.
    Thaw(Uuid),
    /// The volume's file has another size.
    Resize(Uuid),
    /// Replace one byte of the volume's medium if it is as expected.
    ExchangeByte {
        /// The volume.
        volume: Uuid,
        /// Which byte.
        at: u64,
        /// What it must be.
        expected: u8,
        /// What it becomes.
        new: u8,
    },
}

/// The daemon's answer: false where a byte was not as expected; the text says why not.
pub type Reply = std::result::Result<bool, String>;

fn process_file(lab: &Lab) -> PathBuf {
    lab.run_dir().join("store.json")
}

/// The name of the file that a volume appears as; no other volume's and no earlier plug's name contains it.
pub fn file_name(volume: &Volume) -> String {
    files::name(volume.id, volume.plug)
}

/// The file that a volume of the store appears as.
pub fn file(lab: &Lab, volume: &Volume) -> PathBuf {
    lab.store_mount().join(file_name(volume))
}

/// Connects; none if no daemon runs.
fn connect(lab: &Lab) -> Result<Option<Client>> {
    match Client::connect(&lab.store_socket(), CONNECT_PATIENCE) {
        Err(ControlError::NotRunning { .. }) => Ok(None),
        connected => connected.map(Some).map_err(|error| said(lab, &error)),
    }
}

fn said(lab: &Lab, error: &ControlError) -> Error {
    Error::refused(format!("store of lab {}: {error}", lab.name()))
}

/// Sends a request; none if no daemon runs.
fn ask_if_running(lab: &Lab, request: &Request) -> Result<Option<bool>> {
    let Some(mut client) = connect(lab)? else { return Ok(None) };
    let reply: Reply = match client.call(request) {
        // The serving process was killed in the middle; its successor is asked. Everything may be asked twice.
        Err(ControlError::Closed { .. } | ControlError::Transfer { .. }) => {
            let Some(mut successor) = connect(lab)? else { return Ok(None) };
            successor.call(request).map_err(|error| said(lab, &error))?
        }
        replied => replied.map_err(|error| said(lab, &error))?,
    };
    reply.map(Some).map_err(|why| Error::refused(format!("store of lab {}: {why}", lab.name())))
}

fn ask(lab: &Lab, request: &Request) -> Result<bool> {
    ask_if_running(lab, request)?
        .ok_or_else(|| Error::refused(format!("the store of lab {} does not run", lab.name())))
}

/// Makes devices and partitions follow the records; returns when they do.
///
/// # Errors
/// The daemon does not run, or says why not.
pub fn refresh(lab: &Lab) -> Result<()> {
    ask(lab, &Request::Refresh).map(drop)
}

/// The same, where a daemon that does not run has nothing to follow.
///
/// # Errors
/// What the daemon says.
pub fn refresh_if_running(lab: &Lab) -> Result<()> {
    ask_if_running(lab, &Request::Refresh).map(drop)
}

/// Makes a volume take no more writes.
///
/// # Errors
/// The daemon does not run, or says why not. Without a daemon no write reaches the volume either.
pub fn cut(lab: &Lab, volume: Uuid) -> Result<()> {
    ask_if_running(lab, &Request::Cut(volume)).map(drop)
}

/// Makes a volume that nobody has take writes again.
///
/// # Errors
/// What the daemon says.
pub fn restore(lab: &Lab, volume: &Volume) -> Result<()> {
    ask_if_running(lab, &Request::Restore { volume: volume.id, plug: volume.plug }).map(drop)
}

/// Makes the daemon look at a volume's faults in the records.
///
/// # Errors
/// What the daemon says.
pub fn read_faults(lab: &Lab, volume: Uuid) -> Result<()> {
    ask_if_running(lab, &Request::ReadFaults(volume)).map(drop)
}

/// Replaces one byte of a volume's medium; false if it is not as expected.
///
/// # Errors
/// What the daemon says; from the file.
pub fn exchange_byte(lab: &Lab, volume: Uuid, at: u64, expected: u8, new: u8) -> Result<bool> {
    if let Some(done) = ask_if_running(lab, &Request::ExchangeByte { volume, at, expected, new })? {
        return Ok(done);
    }
    let path = lab.volume_file(volume);
    let exchange = || {
        let file = File::options().read(true).write(true).open(&path)?;
        files::exchange_byte(&file, at, expected, new)
    };
    exchange().doing(|| format!("change a byte of {}", path.display()))
}

/// Lets writes to a volume wait until [`thaw`], or until this process ends.
///
/// # Errors
/// What the daemon says.
pub fn freeze(lab: &Lab, volume: Uuid) -> Result<()> {
    let tool = Process::of(std::process::id() as i32).doing(|| "find myself".into())?;
    ask_if_running(lab, &Request::Freeze { volume, tool }).map(drop)
}

/// Lets writes to a volume go on.
///
/// # Errors
/// What the daemon says.
pub fn thaw(lab: &Lab, volume: Uuid) -> Result<()> {
    ask_if_running(lab, &Request::Thaw(volume)).map(drop)
}

/// Tells the daemon, and through it the kernel, that a volume's file has another size.
///
/// # Errors
/// What the daemon says.
pub fn resize(lab: &Lab, volume: Uuid) -> Result<()> {
    ask_if_running(lab, &Request::Resize(volume)).map(drop)
}

/// Makes the daemon let go of a volume that is deleted.
///
/// # Errors
/// What the daemon says.
pub fn close(lab: &Lab, volume: Uuid) -> Result<()> {
    ask_if_running(lab, &Request::Close(volume)).map(drop)
}

/// Starts the daemon if it does not run.
///
/// # Errors
/// Why it does not start.
pub fn ensure(lab: &Lab, lock: &LabLock) -> Result<()> {
    if Client::connect(&lab.store_socket(), CONNECT_PATIENCE).is_ok() {
        return Ok(());
    }
    // It may hang, or have died and left its mount.
    stop(lab, lock);
    let mut child = Command::new("/proc/self/exe")
        .arg0("lockstep")
        .args(["lab", "store", "--lab", lab.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file(&lab.run_dir().join("store.log"))?)
        .spawn()
        .doing(|| "start the lab's store".into())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).doing(|| "listen to the lab's store".into())?;
    }
    if line.trim() != "up" {
        let why = if line.trim().is_empty() { "it ended; see store.log" } else { line.trim() };
        return Err(Error::refused(format!("the store of lab {} does not start: {why}", lab.name())));
    }
    let process = Process::of(child.id() as i32).doing(|| "find the lab's store".into())?;
    write_json(&process_file(lab), &process)
}

/// Ends the daemon, running or not, and its mount.
pub fn stop(lab: &Lab, _lock: &LabLock) {
    if let Ok(Some(process)) = read_json::<Process>(&process_file(lab)) {
        process.signal(Signal::KILL);
        process.wait_gone(KILL_PATIENCE);
    }
    // Not mounted: nothing to do. A daemon that was started twice by hand: the lower mount too.
    while fuse::detach(&lab.store_mount()).is_ok() {}
    for path in [process_file(lab), lab.store_socket()] {
        let _ = std::fs::remove_file(path);
    }
}

/// The daemon, if it runs.
pub fn process(lab: &Lab) -> Option<Process> {
    read_json::<Process>(&process_file(lab)).ok().flatten().filter(|process| process.is_alive())
}
