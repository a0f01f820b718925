//! The cgroups of servers: what limits them to their flavor, what stops them for a while, and what a systemd in them
//! tells its units apart by.
//!
//! A server has the cgroup `lockstep-LAB/SERVER` in each hierarchy that this system has. In version 2 nothing may live
//! beside limited children, so there the server's processes are in its child `server`, and daemons that its limits are
//! not for in its child `block-daemons`. Version 1 has these in one place for the whole lab.

mod hierarchy;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalog::Flavor;
use crate::error::{Doing, Error, Result};
use crate::place::Lab;
use crate::process::Process;
use hierarchy::{Hierarchies, Seat};

/// The child with a server's processes, in version 2.
const SERVER: &str = "server";

/// The cgroup of daemons that a server's limits are not for.
const BLOCK_DAEMONS: &str = "block-daemons";

/// The unit whose cgroup commands from the host join, in a server that systemd runs.
pub const SESSIONS: &str = "lab-sessions.service";

/// Microseconds in which a server gets its share of processor time.
const CPU_PERIOD_US: u64 = 100_000;

/// Time for the kernel to empty a dead server's cgroup.
const REMOVE_PATIENCE: Duration = Duration::from_secs(3);

/// Time for a server's processes to stop. One that waits in the kernel does not run either.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// What became of a part of the flavor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The server's processes get no more than this.
    Applied(String),
    /// The system has no cgroup for it that we may use; why.
    Absent(String),
}

impl Limit {
    /// As `nova show` prints it.
    pub fn text(&self) -> String {
        match self {
            Self::Applied(amount) => amount.clone(),
            Self::Absent(why) => format!("not limited: {why}"),
        }
    }

    fn from_attempt(amount: String, attempt: std::result::Result<(), String>) -> Self {
        match attempt {
            Ok(()) => Self::Applied(amount),
            Err(why) => Self::Absent(why),
        }
    }
}

/// What became of the flavor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Of memory, the page cache included.
    pub memory: Limit,
    /// Of processor time.
    pub cpu: Limit,
}

fn lab_directory(root: &Path, lab: &Lab) -> PathBuf {
    root.join(lab.fabric())
}

fn server_directory(root: &Path, lab: &Lab, server: Uuid) -> PathBuf {
    lab_directory(root, lab).join(server.to_string())
}

/// What a systemd in a server can tell its units apart by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tracking {
    /// Version 2, with controllers or without.
    Unified,
    /// A hierarchy of version 1 that has no controller, called systemd.
    Named,
}

/// What this system offers; version 2 tells when a unit's last process ends.
pub fn tracking() -> Option<Tracking> {
    let hierarchies = Hierarchies::mounted().ok()?;
    match (hierarchies.unified(), hierarchies.v1("name=systemd")) {
        (Some(_), _) => Some(Tracking::Unified),
        (None, Some(_)) => Some(Tracking::Named),
        (None, None) => None,
    }
}

/// Gives the server its cgroups and moves the process `pid` into them: the roots of a cgroup namespace that it makes
/// then. Limits come later ([`confine`]). What cannot be made is told there.
pub fn track(lab: &Lab, server: Uuid, pid: i32) {
    let Ok(hierarchies) = Hierarchies::mounted() else { return };
    for root in hierarchies.roots() {
        let directory = server_directory(root, lab, server);
        let _ = fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("cgroup.procs"), pid.to_string()));
    }
}

/// Limits the server to its flavor, with the process `pid`, which has no children yet.
pub fn confine(lab: &Lab, server: Uuid, flavor: &Flavor, pid: i32) -> Limits {
    let hierarchies = Hierarchies::mounted();
    let limit = |controller: &str, v1: &str, v2: &str, value: &dyn Fn(bool) -> String| {
        let seat = hierarchies.as_ref().map_err(Clone::clone)?.controller(controller)?;
        let (directory, file, value) = match seat {
            Seat::V1(root) => (server_directory(root, lab, server), v1, value(false)),
            Seat::V2(root) => (server_directory(root, lab, server).join(SERVER), v2, value(true)),
        };
        let apply = || -> io::Result<()> {
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("cgroup.procs"), pid.to_string())?;
            if let Seat::V2(root) = seat {
                hand_down(root, lab, server, controller)?;
            }
            fs::write(directory.join(file), value)
        };
        apply().map_err(|error| format!("{}: {error}", directory.display()))
    };
    if let Some(root) = hierarchies.as_ref().ok().and_then(Hierarchies::unified) {
        let directory = server_directory(root, lab, server).join(SERVER);
        // Whatever its controllers are. What it cannot do is told by those that are needed.
        let _ = fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("cgroup.procs"), pid.to_string()));
    }
    let bytes = (flavor.memory_mib << 20).to_string();
    let memory = limit("memory", "memory.limit_in_bytes", "memory.max", &|_| bytes.clone());
    let there = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let vcpus = flavor.vcpus.min(there);
    let quota_us = u64::from(vcpus) * CPU_PERIOD_US;
    let cpu = limit("cpu", "cpu.cfs_quota_us", "cpu.max", &|v2| {
        if v2 { format!("{quota_us} {CPU_PERIOD_US}") } else { quota_us.to_string() }
    });
    Limits {
        memory: Limit::from_attempt(format!("{} MiB", flavor.memory_mib), memory),
        cpu: Limit::from_attempt(format!("{vcpus} of this system's {there} processors"), cpu),
    }
}

/// Version 2 hands a controller down level by level.
fn hand_down(root: &Path, lab: &Lab, server: Uuid, controller: &str) -> io::Result<()> {
    for directory in [root.to_owned(), lab_directory(root, lab), server_directory(root, lab, server)] {
        fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(())
}

/// The files that move a process out of its server's limits, with the names that daemons which serve the server's own
/// block devices look for: they must not wait for memory that only they can clean. A hypervisor's are outside the machine,
/// too. Version 2 has one file for all limits.
pub fn outside(lab: &Lab, server: Uuid) -> Vec<(&'static str, PathBuf)> {
    let Ok(hierarchies) = Hierarchies::mounted() else { return Vec::new() };
    let mut ways: Vec<(&str, PathBuf)> = Vec::new();
    for (controller, name) in [("memory", "cgroup.procs"), ("cpu", "cgroup.cpu.procs")] {
        let directory = match hierarchies.controller(controller) {
            Ok(Seat::V1(root)) => lab_directory(root, lab),
            Ok(Seat::V2(root)) => server_directory(root, lab, server),
            Err(_) => continue,
        }
        .join(BLOCK_DAEMONS);
        let procs = directory.join("cgroup.procs");
        if fs::create_dir_all(&directory).is_ok() && ways.iter().all(|(_, path)| *path != procs) {
            ways.push((name, procs));
        }
    }
    ways
}

/// The files that move a process into the server's cgroups, where commands from the host belong: in a server that
/// systemd runs, with the unit that ends them in time.
pub fn entrances(lab: &Lab, server: Uuid) -> Vec<PathBuf> {
    let Ok(hierarchies) = Hierarchies::mounted() else { return Vec::new() };
    let mut entrances = Vec::new();
    for root in hierarchies.roots() {
        let mut directory = server_directory(root, lab, server);
        if hierarchies.unified() == Some(root) {
            directory.push(SERVER);
        }
        let sessions = directory.join("system.slice").join(SESSIONS);
        entrances.push(if sessions.exists() { sessions } else { directory });
    }
    entrances.iter().map(|directory| directory.join("cgroup.procs")).filter(|path| path.exists()).collect()
}

/// Stops every process of the server where it is, its block daemons too, or lets them go on. Returns when they have
/// stopped, or after a moment if one waits in the kernel and so cannot be seen to stop.
///
/// # Errors
/// The system has no cgroup for it, or the server is off.
pub fn freeze(lab: &Lab, server: Uuid, frozen: bool) -> Result<()> {
    let hierarchies = Hierarchies::mounted().map_err(Error::refused)?;
    if let Some(root) = hierarchies.unified() {
        let directory = server_directory(root, lab, server);
        let (value, reached) = if frozen { ("1", "frozen 1") } else { ("0", "frozen 0") };
        return set_state(&directory.join("cgroup.freeze"), value, &directory.join("cgroup.events"), reached);
    }
    let root = hierarchies.v1("freezer").ok_or_else(|| {
        Error::refused("neither cgroup version 2 nor the freezer of version 1 is mounted on this system")
    })?;
    let state = server_directory(root, lab, server).join("freezer.state");
    let value = if frozen { "FROZEN" } else { "THAWED" };
    set_state(&state, value, &state, value)
}

/// Writes a state and waits until a line of `shown` says that it is reached.
fn set_state(file: &Path, value: &str, shown: &Path, reached: &str) -> Result<()> {
    let patience_ends = Instant::now() + FREEZE_PATIENCE;
    loop {
        // Version 1 needs more than one attempt when processes are being born.
        fs::write(file, value).doing(|| format!("write {value} to {}", file.display()))?;
        let state = fs::read_to_string(shown).doing(|| format!("read {}", shown.display()))?;
        if state.lines().any(|line| line == reached) || Instant::now() > patience_ends {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The processes in the lab's cgroups.
pub fn processes(lab: &Lab) -> Vec<Process> {
    let Ok(hierarchies) = Hierarchies::mounted() else { return Vec::new() };
    let mut pids = BTreeSet::new();
    for root in hierarchies.roots() {
        members(&lab_directory(root, lab), &mut pids);
    }
    pids.into_iter().filter_map(|pid| Process::of(pid).ok()).collect()
}

/// Adds the process ids of a cgroup and all below it.
fn members(directory: &Path, pids: &mut BTreeSet<i32>) {
    let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        members(&child.path(), pids);
    }
}

/// Removes a cgroup with all below it; the kernel empties it of dead processes a moment after they died.
fn remove_tree(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path())?;
    }
    let patience_ends = Instant::now() + REMOVE_PATIENCE;
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < patience_ends => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done.doing(|| format!("remove {}", directory.display())),
        }
    }
}

/// Removes a dead server's cgroups.
///
/// # Errors
/// The system's refusal; a process that still lives in one above all.
pub fn remove(lab: &Lab, server: Uuid) -> Result<()> {
    let Ok(hierarchies) = Hierarchies::mounted() else { return Ok(()) };
    hierarchies.roots().into_iter().try_for_each(|root| remove_tree(&server_directory(root, lab, server)))
}

/// Removes the lab's cgroups, whichever servers they belonged to.
///
/// # Errors
/// The system's refusal.
pub fn remove_all(lab: &Lab) -> Result<()> {
    let Ok(hierarchies) = Hierarchies::mounted() else { return Ok(()) };
    hierarchies.roots().into_iter().try_for_each(|root| remove_tree(&lab_directory(root, lab)))
}
