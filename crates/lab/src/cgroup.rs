//! The memory limit of a server: a cgroup of version 1 or 2, whichever the system has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Doing, Result};
use crate::place::Lab;

/// What became of the flavor's memory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryLimit {
    /// The server's processes and their page cache get no more than so many MiB.
    Applied(u64),
    /// The system has no memory cgroup that we may use; why.
    Absent(String),
}

impl MemoryLimit {
    /// As `nova show` prints it.
    pub fn text(&self) -> String {
        match self {
            Self::Applied(mib) => format!("{mib} MiB"),
            Self::Absent(why) => format!("not limited: {why}"),
        }
    }
}

/// Where the memory controller is mounted, and the file that takes a limit in bytes.
struct Hierarchy {
    root: PathBuf,
    limit_file: &'static str,
}

fn hierarchy() -> std::result::Result<Hierarchy, String> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let mut unified = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                return Ok(Hierarchy { root: path.into(), limit_file: "memory.limit_in_bytes" });
            }
            "cgroup2" => unified = Some(PathBuf::from(path)),
            _ => {}
        }
    }
    let root = unified.ok_or("no cgroup file system is mounted")?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_ascii_whitespace().any(|controller| controller == "memory") {
        return Err("no memory controller in the cgroup hierarchy".into());
    }
    Ok(Hierarchy { root, limit_file: "memory.max" })
}

fn lab_directory(lab: &Lab, hierarchy: &Hierarchy) -> PathBuf {
    hierarchy.root.join(lab.fabric())
}

/// Makes the server's cgroup with its limit and moves the process `pid` into it.
pub fn confine(lab: &Lab, server: Uuid, memory_mib: u64, pid: i32) -> MemoryLimit {
    let hierarchy = match hierarchy() {
        Ok(hierarchy) => hierarchy,
        Err(why) => return MemoryLimit::Absent(why),
    };
    let directory = lab_directory(lab, &hierarchy).join(server.to_string());
    let make = || -> io::Result<()> {
        fs::create_dir_all(&directory)?;
        if hierarchy.limit_file == "memory.max" {
            // Version 2 hands the controller down level by level.
            fs::write(hierarchy.root.join("cgroup.subtree_control"), "+memory")?;
            fs::write(lab_directory(lab, &hierarchy).join("cgroup.subtree_control"), "+memory")?;
        }
        fs::write(directory.join(hierarchy.limit_file), (memory_mib << 20).to_string())?;
        fs::write(directory.join("cgroup.procs"), pid.to_string())
    };
    match make() {
        Ok(()) => MemoryLimit::Applied(memory_mib),
        Err(error) => MemoryLimit::Absent(format!("{}: {error}", directory.display())),
    }
}

/// The file that moves a process out of its server's limit, for daemons that serve the server's own block devices: they
/// must not wait for memory that only they can clean. A hypervisor's are outside the machine, too.
pub fn outside(lab: &Lab) -> Option<PathBuf> {
    let hierarchy = hierarchy().ok()?;
    let directory = lab_directory(lab, &hierarchy).join("block-daemons");
    fs::create_dir_all(&directory).ok()?;
    Some(directory.join("cgroup.procs"))
}

/// The file that moves a process into the server's cgroup, if it has one.
pub fn entrance(lab: &Lab, server: Uuid) -> Option<PathBuf> {
    let directory = lab_directory(lab, &hierarchy().ok()?).join(server.to_string());
    Some(directory.join("cgroup.procs")).filter(|path| path.exists())
}

/// Removes a directory of the hierarchy; the kernel empties it of dead processes a moment after they died.
fn remove_directory(directory: &Path) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(3);
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done.doing(|| format!("remove {}", directory.display())),
        }
    }
}

/// Removes a dead server's cgroup.
///
/// # Errors
/// The system's refusal; a process that still lives in it above all.
pub fn remove(lab: &Lab, server: Uuid) -> Result<()> {
    let Ok(hierarchy) = hierarchy() else { return Ok(()) };
    remove_directory(&lab_directory(lab, &hierarchy).join(server.to_string()))
}

/// Removes the lab's cgroups, whichever servers they belonged to.
///
/// # Errors
/// The system's refusal.
pub fn remove_all(lab: &Lab) -> Result<()> {
    let Ok(hierarchy) = hierarchy() else { return Ok(()) };
    let directory = lab_directory(lab, &hierarchy);
    let servers = fs::read_dir(&directory).into_iter().flatten().flatten();
    for server in servers.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_directory(&server.path())?;
    }
    remove_directory(&directory)
}
