//! The seat `drbd1` taken by our own daemon.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::lockstep;
use crate::program::output;
use crate::tutorial::{ADDRESS_1, resource};
use crate::uml::Segment;

/// Its configuration; /run is the suite's own.
const CONFIGURATION: &str = "/run/r0.conf";

/// How long a state may take to be reached.
const STATE_TIME_MAX: Duration = Duration::from_secs(60);

/// Our side, configured and with empty meta-data. Dropping it takes the resource down.
pub struct Ours {
    device: String,
}

impl Ours {
    /// Sits down; `drbdadm up` is the caller's.
    pub fn sit(segment: &Segment, disk: &Path) -> anyhow::Result<Self> {
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(disk))?.trim().to_owned();
        let ours = Self { device };
        fs::write(CONFIGURATION, resource(&ours.device))?;
        segment.take_address(ADDRESS_1)?;
        ours.drbdadm("create-md --force r0")?;
        Ok(ours)
    }

    /// Our drbdadm on a host of that name; a daemon that it starts has the name too.
    pub fn drbdadm(&self, words: &str) -> anyhow::Result<String> {
        output(
            Command::new("unshare")
                .args(["--uts", "sh", "-c", "hostname drbd1 && exec \"$@\"", "sh"])
                .arg(lockstep::path())
                .args(["drbdadm", "-c", CONFIGURATION])
                .args(words.split_whitespace()),
        )
    }

    /// Waits until both `cstate` and `dstate` are these.
    pub fn await_state(&self, connection: &str, disks: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let found = (self.drbdadm("cstate r0")?, self.drbdadm("dstate r0")?);
            if found.0.trim() == connection && found.1.trim() == disks {
                return Ok(());
            }
            if begun.elapsed() > STATE_TIME_MAX {
                bail!("ours is {} {}, and never became {connection} {disks}", found.0.trim(), found.1.trim());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The unix socket on which the daemon serves /dev/drbd0 over NBD while it is primary.
    pub fn nbd_socket(&self) -> anyhow::Result<String> {
        let found = output(Command::new("find").args(["/run/lockstep", "-name", "drbd0.nbd", "-type", "s"]))?;
        found
            .lines()
            .next()
            .map(str::to_owned)
            .context("the daemon has no socket drbd0.nbd below /run/lockstep")
    }

    /// Runs a script for sh here, where /dev/drbd0 is ours.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        output(Command::new("sh").args(["-c", script])).with_context(|| format!("on our side: {script}"))
    }

    /// Takes everything down and stands up.
    pub fn leave(self, segment: &Segment) -> anyhow::Result<()> {
        self.drbdadm("down r0")?;
        segment.leave_address(ADDRESS_1)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if Path::new(CONFIGURATION).exists() {
            // Down already, if the scenario came to its end.
            let _ = self.drbdadm("down r0");
        }
        let _ = output(Command::new("losetup").args(["--detach", &self.device]));
    }
}
