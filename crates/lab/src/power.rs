//! A server's end that nobody announced, and what is left of a server when it is off.
//!
//! A power cut is not a SIGKILL: the kernel outlives the server and would write its page cache back. So the
//! volumes stop taking writes first, then the server is killed, then its loop devices go with their page
//! cache, and only then do the volumes take writes again.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;

use crate::cgroup;
use crate::disk;
use crate::error::{Error, Result};
use crate::fabric;
use crate::fault::server::Fall;
use crate::life::{Life, Status};
use crate::loopdev::LoopDevice;
use crate::mountinfo::{self, Mount};
use crate::place::{Lab, LabLock};
use crate::state::{Records, Server};
use crate::store;
use crate::wire;

/// Time for killed processes to be gone before the FUSE connections they may hang in are aborted.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Time for a supervisor to notice that its server is dead.
const REAP_PATIENCE: Duration = Duration::from_millis(500);

/// Time after that for the killed processes.
const ABORT_PATIENCE: Duration = Duration::from_secs(10);

/// Ends a running server without telling it. It stays off.
///
/// # Errors
/// It is off already, or something of it could not be stopped; then its volumes stay cut.
pub fn end(lab: &Lab, lock: &LabLock, records: &Records, server: &Server, fall: Fall) -> Result<()> {
    let life = Life::load(lab, server.id)?.filter(|life| Life::status(Some(life)) != Status::Shutoff);
    let Some(life) = life else {
        return Err(Error::refused(format!("server {} is off already", server.name)));
    };
    if !life.init.is_alive() {
        // Between two lives: we have the lock that its supervisor needs for the next one.
        return bury(lab, lock, records, server, &life);
    }
    // A process that waits for a disk that hangs does not die: the disk must fail.
    let volumes =
        records.volumes_of(server.id).filter(|(volume, _)| fall == Fall::PowerCut || volume.hangs());
    for (volume, _) in volumes {
        if let Some(disk) = life.disks.iter().find(|disk| disk.volume == volume.id) {
            disk::cut(lab, &life, volume, disk)?;
        }
    }
    let left = Leftovers::of(life.init.pid);
    life.init.signal(Signal::KILL);
    // A stopped server dies only when it goes on. One that was not is not changed by this.
    let _ = cgroup::freeze(lab, server.id, false);
    if !life.init.wait_gone(KILL_PATIENCE) {
        left.abort_fuse(lab);
        if !life.init.wait_gone(ABORT_PATIENCE) {
            return Err(Error::refused(format!(
                "process {} of server {} does not die",
                life.init, server.name
            )));
        }
    }
    left.clear()?;
    bury(lab, lock, records, server, &life)
}

/// The last of a server whose init is dead: nobody may boot it again, nothing may be left.
fn bury(lab: &Lab, lock: &LabLock, records: &Records, server: &Server, life: &Life) -> Result<()> {
    // It reaps init and ends by itself, unless it wants to boot the server again.
    if !life.supervisor.wait_gone(REAP_PATIENCE) {
        life.supervisor.signal(Signal::KILL);
        life.supervisor.wait_gone(KILL_PATIENCE);
    }
    clean_up(lab, server, records)?;
    Life::forget(lab, server.id, lock);
    Ok(())
}

/// Removes what a dead server left outside itself: cables, loop devices, its cgroup. Its volumes take writes
/// again. The caller has the lab's lock.
///
/// # Errors
/// Something that is still held.
pub fn clean_up(lab: &Lab, server: &Server, records: &Records) -> Result<()> {
    store::refresh_if_running(lab)?;
    fabric::unplug(lab, server)?;
    wire::apply(lab, records)?;
    for (volume, _) in records.volumes_of(server.id) {
        if volume.hangs() {
            // What the kernel would still write back would wait, and everybody with it.
            store::cut(lab, volume.id)?;
        }
        disk::unbind(volume)?;
        disk::restore(&lab.volume_file(volume.id));
        store::restore(lab, volume)?;
    }
    cgroup::remove(lab, server.id)
}

/// What a server's own processes made in the kernel that could outlive them: loop devices on its files, and FUSE
/// connections.
#[derive(Debug)]
pub struct Leftovers {
    loops: Vec<LoopDevice>,
    fuse_minors: BTreeSet<u32>,
}

impl Leftovers {
    /// What the server has now whose process 1 has this id.
    pub fn of(init: i32) -> Self {
        let mounts = mountinfo::of(init).unwrap_or_default();
        // File systems without a block device (overlay, tmpfs, FUSE) are this server's alone.
        let private = |mount: &&Mount| mount.device.0 == 0;
        let devices: BTreeSet<u64> = mounts
            .iter()
            .filter(private)
            .map(|mount| rustix::fs::makedev(mount.device.0, mount.device.1))
            .collect();
        let loops = LoopDevice::bound()
            .into_iter()
            .map(|(device, _)| device)
            .filter(|device| device.backing_device().is_ok_and(|backing| devices.contains(&backing)))
            .collect();
        let fuse_minors = mounts.iter().filter(|m| m.kind.starts_with("fuse")).map(|m| m.device.1).collect();
        Self { loops, fuse_minors }
    }

    /// Fails every request on the server's FUSE file systems, so that whoever waits for one can die.
    fn abort_fuse(&self, lab: &Lab) {
        let connections = lab.run_dir().join("connections");
        let mounted = fs::create_dir_all(&connections).is_ok()
            && mount("fusectl", &connections, "fusectl", MountFlags::empty(), None).is_ok();
        for minor in &self.fuse_minors {
            // Gone already: what was wanted.
            let _ = fs::write(connections.join(minor.to_string()).join("abort"), "1");
        }
        if mounted {
            let _ = unmount(&connections, UnmountFlags::DETACH);
        }
    }

    /// Unbinds the loop devices.
    ///
    /// # Errors
    /// One that is still held.
    pub fn clear(&self) -> Result<()> {
        for device in &self.loops {
            device.unbind(KILL_PATIENCE).map_err(|error| {
                Error::refused(format!(
                    "{} of the dead server is still held: {error}",
                    device.node().display()
                ))
            })?;
        }
        Ok(())
    }
}
