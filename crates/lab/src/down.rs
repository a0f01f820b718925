//! `lockstep lab down`: removes all that a lab made, and only that, whatever state it was left in.
//!
//! Nothing here trusts the records alone: processes are also found by their command line, loop devices by the
//! file they are bound to, namespaces and cgroups by their name, and processes by these.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use uuid::Uuid;

use crate::cgroup;
use crate::disk;
use crate::error::{Doing, Error, Result};
use crate::fabric;
use crate::fault::server::Fall;
use crate::forward;
use crate::life::{Life, Status};
use crate::loopdev::LoopDevice;
use crate::mountinfo;
use crate::partition;
use crate::place::{Lab, LabLock, RUN_ROOT};
use crate::power::{self, Leftovers};
use crate::process::Process;
use crate::state::Records;
use crate::store;
use crate::udev;

/// Time for killed processes to be gone, and for loop devices to be let go of.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for a tool at work to be done.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// Words of `lockstep lab` that name processes which stay.
const STAYING: &[&str] = &["server", "server-init", "store", "forward", "wires"];

/// Removes the lab.
///
/// # Errors
/// Something that could not be removed; all else is, and trying again goes on from there.
pub fn down(lab: &Lab) -> Result<()> {
    let lock = match lab.lock_within(Some(LOCK_PATIENCE))? {
        Some(lock) => lock,
        None => {
            // Whoever has it may wait for a volume that hangs, and nobody can heal it without the lock. Without a store
            // nothing waits for a volume.
            processes(lab).iter().for_each(|process| process.signal(Signal::KILL));
            lab.lock()?
        }
    };
    let mut first_error = Ok(());
    let mut note = |done: Result<()>| {
        if first_error.is_ok() {
            first_error = done;
        }
    };
    note(forward::end_all(lab, &lock));
    if store::refresh_if_running(lab).is_err() {
        // Of another version, or out of order. Nobody needs these volumes any more.
        daemons(lab, &["store"]).iter().for_each(|process| process.signal(Signal::KILL));
        store::stop(lab, &lock);
    }
    let records = Records::load(lab).unwrap_or_default();
    for server in &records.servers {
        let life = Life::load(lab, server.id).unwrap_or_default();
        if Life::status(life.as_ref()) != Status::Shutoff {
            note(power::end(lab, &lock, &records, server, Fall::PowerCut));
        }
    }
    // What systemd runs in a server bears no name of ours.
    let living = || processes(lab).into_iter().chain(cgroup::processes(lab));
    // Of servers that the records do not tell of, or not so that this version understands it.
    let left = leftovers(living());
    living().for_each(|process| process.signal(Signal::KILL));
    for process in living() {
        if !process.wait_gone(PATIENCE) {
            note(Err(Error::refused(format!("down: process {process} does not die"))));
        }
    }
    store::stop(lab, &lock);
    left.iter().for_each(|left| note(left.clear()));
    note(unbind_loops(lab, &records));
    unmount_leftovers(lab);
    note(fabric::remove(lab));
    note(cgroup::remove_all(lab));
    note(remove_directories(lab, &lock));
    if !Path::new(RUN_ROOT).exists() {
        udev::forget();
    }
    first_error
}

/// The lab's processes, by the words they were started with: `lockstep lab store --lab NAME …`.
pub fn processes(lab: &Lab) -> Vec<Process> {
    daemons(lab, STAYING)
}

/// Those of them that were started with one of these words.
fn daemons(lab: &Lab, chosen: &[&str]) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = cmdline.split(|&byte| byte == 0).collect();
            matches!(words.as_slice(), [b"lockstep", b"lab", word, b"--lab", name, ..]
                if chosen.iter().any(|chosen| chosen.as_bytes() == *word) && *name == lab.name().as_bytes())
        })
        .filter_map(|pid| Process::of(pid).ok())
        .collect()
}

/// What processes made that do not see this machine's mounts.
fn leftovers(living: impl Iterator<Item = Process>) -> Vec<Leftovers> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace("self");
    let mut seen = BTreeSet::new();
    living
        .filter(|process| {
            let theirs = namespace(&process.pid.to_string());
            theirs.is_some() && theirs != own && seen.insert(theirs)
        })
        .map(|process| Leftovers::of(process.pid))
        .collect()
}

fn unbind_loops(lab: &Lab, records: &Records) -> Result<()> {
    // A loop device on a file of a dead store's mount tells the file's name only.
    let names: Vec<String> = fs::read_dir(lab.state_dir().join("volumes"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .chain(records.volumes.iter().map(|volume| volume.id.to_string()))
        .filter(|name| name.parse::<Uuid>().is_ok())
        .collect();
    let mut done = Ok(());
    for (device, path) in LoopDevice::bound() {
        let ours = path.starts_with(lab.state_dir())
            || path.starts_with(lab.run_dir())
            || names.iter().any(|name| path.to_string_lossy().contains(name));
        if ours {
            partition::clear(device);
            let unbound = device.unbind(PATIENCE).doing(|| format!("unbind {}", device.node().display()));
            done = done.and(unbound);
        }
    }
    done
}

/// Mounts below the lab's directories in this very mount namespace: none, unless a tool died in the middle.
fn unmount_leftovers(lab: &Lab) {
    let Ok(mounts) = mountinfo::own() else { return };
    for mount in mounts.iter().rev() {
        let point = Path::new(&mount.point);
        if point.starts_with(lab.state_dir()) || point.starts_with(lab.run_dir()) {
            // What stays is reported by the removal of its directory.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

fn remove_directories(lab: &Lab, _lock: &LabLock) -> Result<()> {
    thaw(lab);
    for directory in [lab.state_dir(), lab.run_dir()] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.doing(|| format!("remove {}", directory.display()))?,
        }
        // The directory of all labs and the one above it go with the last of them.
        for above in directory.ancestors().skip(1).take(2) {
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// Volumes of type raw whose power was cut cannot be removed before this.
fn thaw(lab: &Lab) {
    let volumes = fs::read_dir(lab.state_dir().join("volumes")).into_iter().flatten().flatten();
    volumes.for_each(|volume| disk::restore(&volume.path()));
}
