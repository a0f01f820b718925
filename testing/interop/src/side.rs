//! One of two nodes of a mirror, whoever's it is: the same words are typed on either.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::program::Finished;
use crate::tutorial::{Seat, Wish};

/// Longer than anything that a script waits for.
const SCRIPT_TIME_MAX: Duration = Duration::from_secs(120);

/// How long a state may take to come about.
const STATE_S_MAX: u32 = 60;

/// A node on its seat, where `drbdadm` is the node's own and /etc/drbd.d is nobody else's.
pub trait Side {
    /// Where it sits.
    fn seat(&self) -> Seat;

    /// A directory of this process's that the node sees too, and that outlives it.
    fn shelf(&self) -> &Path;

    /// Where the node sees it.
    fn shelf_inside(&self) -> String;

    /// The highest version of the protocol that a daemon of ours offers which is started from now on.
    fn limit_protocol(&mut self, _version: Option<u32>) {}

    /// Runs a script for sh on the node, to its end.
    fn finish(&mut self, script: &str, limit: Duration) -> anyhow::Result<Finished>;

    /// Its standard output; an error with everything it said unless its status is 0.
    fn run(&mut self, script: &str) -> anyhow::Result<String> {
        let finished = self.finish(script, SCRIPT_TIME_MAX)?;
        ensure!(
            finished.status == Some(0),
            "{}: status {:?} of: {script}\n{}{}",
            self.seat().name(),
            finished.status,
            finished.stdout,
            finished.stderr
        );
        Ok(finished.stdout)
    }

    /// Runs a script that must end with this status, and gives all that it said.
    fn refused(&mut self, script: &str, status: i32) -> anyhow::Result<String> {
        let finished = self.finish(script, SCRIPT_TIME_MAX)?;
        let said = finished.stdout + &finished.stderr;
        ensure!(
            finished.status == Some(status),
            "{}: status {:?}, not {status}, of: {script}\n{said}",
            self.seat().name(),
            finished.status
        );
        Ok(said)
    }

    /// Writes the resource's file.
    fn configure(&mut self, wish: &Wish) -> anyhow::Result<()> {
        self.limit_protocol(wish.protocol_max);
        self.run(&format!(
            "printf 'global {{ usage-count no; }}\\n' >/etc/drbd.d/global_common.conf\n\
             cat >/etc/drbd.d/r0.res <<'END'\n{}END\n",
            wish.resource()
        ))?;
        Ok(())
    }

    /// Waits for connection, roles and disks, a blank between, that a shell pattern (`*` for anything) matches.
    fn await_state(&mut self, pattern: &str) -> anyhow::Result<()> {
        let glob = pattern.replace(' ', "\\ ");
        self.run(&format!(
            "end=$(($(date +%s) + {STATE_S_MAX})); while [ $(date +%s) -lt $end ]; do\n\
             s=\"$(drbdadm cstate r0) $(drbdadm role r0) $(drbdadm dstate r0)\"\n\
             case \"$s\" in {glob}) exit 0;; esac; sleep 0.1; done\n\
             echo \"$s, and never {pattern}\"\n\
             if [ -e /proc/drbd ]; then dmesg | tail -n 30; else tail -n 30 /var/log/lockstep/drbd.log; fi; exit 1"
        ))
        .map(drop)
    }

    /// Waits until both disks are said to hold everything.
    fn await_in_sync(&mut self) -> anyhow::Result<()> {
        self.await_state("Connected * UpToDate/UpToDate")
    }

    /// A digest of the node's device as it reads it.
    fn device_digest(&mut self) -> anyhow::Result<String> {
        let said = self.run("dd if=/dev/drbd0 bs=1M iflag=direct status=none | sha256sum")?;
        said.split_whitespace().next().map(str::to_owned).context("a digest")
    }
}
