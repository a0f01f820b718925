//! What befalls a server as a whole: its power cut, its process 1 killed, or all of it stopped for a while.

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::{Error, Result};
use crate::events::{self, Kind};
use crate::life::{Life, Status};
use crate::place::Lab;
use crate::power;
use crate::state::Records;

/// How a server falls.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fall {
    /// Its volumes stop taking writes first: what was not flushed is lost.
    PowerCut,
    /// Its processes die; what it had written is written back by the kernel that outlives it.
    Kill,
}

impl Fall {
    /// As a user types it.
    pub fn word(self) -> &'static str {
        match self {
            Self::PowerCut => "power-cut",
            Self::Kill => "kill",
        }
    }
}

/// Ends a running server. It stays off until somebody boots it, or `heal --all` does.
///
/// # Errors
/// No such server, it is off, or something of it that could not be stopped.
pub fn fell(lab: &Lab, fall: Fall, verb: &str, wanted: &str) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let server = records.server(verb, wanted)?.clone();
    power::end(lab, &lock, &records, &server, fall)?;
    records.faults.fallen.push((server.id, fall));
    records.save(lab, &lock)?;
    events::append(lab, Kind::Fault, &[fall.word(), &server.name])
}

/// Stops every process of a running server where it is, or lets them go on. Its peers hear nothing of it meanwhile; its
/// kernel still answers pings. Ends with the server.
///
/// # Errors
/// No such server, it is off or boots, or it is paused (runs) already.
pub fn set_paused(lab: &Lab, wanted: &str, paused: bool) -> Result<()> {
    let (kind, word) = if paused { (Kind::Fault, "pause") } else { (Kind::Heal, "resume") };
    let verb = format!("fault {word}");
    let lock = lab.lock()?;
    let records = Records::load(lab)?;
    let server = records.server(&verb, wanted)?;
    let life = Life::load(lab, server.id)?;
    let status = Life::status(life.as_ref());
    let (Some(mut life), Status::Active) = (life, status) else {
        let what = if status == Status::Reboot { "boots" } else { "is off" };
        return Err(Error::refused(format!("{verb}: server {} {what}", server.name)));
    };
    if life.paused == paused {
        let what = if paused { "is paused already" } else { "is not paused" };
        return Err(Error::refused(format!("{verb}: server {} {what}", server.name)));
    }
    cgroup::freeze(lab, server.id, paused)?;
    life.paused = paused;
    life.save(lab, server.id, &lock)?;
    events::append(lab, kind, &[word, &server.name])
}
