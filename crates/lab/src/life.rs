//! What runs: the life of a server between two boots, kept below /run so that it ends with the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cgroup::Limits;
use crate::error::{Error, Result};
use crate::place::{Lab, LabLock, read_json, write_json};
use crate::process::Process;

const MAGIC: &str = "lockstep-life";
const VERSION: u32 = 2;

/// A volume that is bound to a loop device because the server that has it runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Disk {
    /// The volume.
    pub volume: Uuid,
    /// Name below the server's /dev.
    pub device: String,
    /// Number of the loop device.
    pub loop_index: u32,
}

/// One life of a server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Life {
    magic: String,
    version: u32,
    /// Waits for the server's init and boots it anew after a reboot that was asked for inside.
    pub supervisor: Process,
    /// Process 1 of the server, by its id on the host.
    pub init: Process,
    /// Whether it has booted: addresses set, devices there.
    pub up: bool,
    /// Whether its processes are stopped (`lockstep lab fault pause`).
    pub paused: bool,
    /// The volumes it has now.
    pub disks: Vec<Disk>,
    /// What became of its flavor; none before it is up.
    pub limits: Option<Limits>,
}

/// As `nova list` says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It runs.
    Active,
    /// Its supervisor lives, its init does not yet or no more.
    Reboot,
    /// It is off.
    Shutoff,
}

impl Status {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Reboot => "REBOOT",
            Self::Shutoff => "SHUTOFF",
        }
    }
}

fn path(lab: &Lab, server: Uuid) -> PathBuf {
    lab.run_dir().join("servers").join(format!("{server}.json"))
}

impl Life {
    /// A life that begins.
    pub fn new(supervisor: Process, init: Process) -> Self {
        Self {
            magic: MAGIC.into(),
            version: VERSION,
            supervisor,
            init,
            up: false,
            paused: false,
            disks: Vec::new(),
            limits: None,
        }
    }

    /// The server's life as recorded, which may have ended since; none after an orderly end.
    ///
    /// # Errors
    /// A file that cannot be read or is not ours.
    pub fn load(lab: &Lab, server: Uuid) -> Result<Option<Self>> {
        let path = path(lab, server);
        match read_json::<Self>(&path)? {
            Some(life) if life.magic != MAGIC || life.version != VERSION => {
                Err(Error::refused(format!("{}: not a record of this version", path.display())))
            }
            life => Ok(life),
        }
    }

    /// The server's life if it runs and has booted.
    ///
    /// # Errors
    /// As [`Life::load`].
    pub fn running(lab: &Lab, server: Uuid) -> Result<Option<Self>> {
        Ok(Self::load(lab, server)?.filter(|life| life.up && life.init.is_alive()))
    }

    /// Records this life as the server's.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn save(&self, lab: &Lab, server: Uuid, _lock: &LabLock) -> Result<()> {
        write_json(&path(lab, server), self)
    }

    /// Forgets the server's life.
    pub fn forget(lab: &Lab, server: Uuid, _lock: &LabLock) {
        // Not there: the same result.
        let _ = std::fs::remove_file(path(lab, server));
    }

    /// What this life is now.
    pub fn status(life: Option<&Self>) -> Status {
        match life {
            Some(life) if life.up && life.init.is_alive() => Status::Active,
            Some(life) if life.supervisor.is_alive() => Status::Reboot,
            _ => Status::Shutoff,
        }
    }

    /// A file or directory of the server, as the host reaches it.
    pub fn path_in(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{}", self.init.pid, inside.trim_start_matches('/')))
    }
}
