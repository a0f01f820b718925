//! Ours in two servers of a lab: `r0` mirrored, `r1` on the first server with a peer that never comes.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::program::output;

/// A lab of its own, beside any other.
const LAB: &str = "bench";

/// How long the two may take to be in sync.
const SYNC_TIME_MAX: Duration = Duration::from_secs(300);

/// The running lab; dropping it takes it down.
pub struct Lab {
    lockstep: PathBuf,
}

/// A first full sync.
#[derive(Clone, Copy, Debug)]
pub struct FullSync {
    /// What was sent.
    pub mib: f64,
    /// How long it took.
    pub seconds: f64,
}

impl Lab {
    /// Boots the servers and brings both resources up; the first server is Primary of both.
    pub fn start() -> anyhow::Result<(Self, FullSync)> {
        let lockstep = match std::env::var_os("LOCKSTEP") {
            Some(path) => path.into(),
            None => std::env::current_exe()?.with_file_name("lockstep"),
        };
        let lab = Self { lockstep };
        lab.nova(&["network-create", "drbd0", "172.16.16.0/24"])?;
        let network = lab.id_of("network-list", "drbd0")?;
        for server in ["drbd0", "drbd1"] {
            let nic = format!("net-id={network}");
            let boot = ["boot", "--image", &lab.image()?, "--flavor", "2"];
            let network = ["--init", "tiny", "--no-public", "--no-service-net", "--nic", &nic, server];
            lab.nova(&[&boot[..], &network].concat())?;
            let mut volumes = vec![(server, "/dev/xvdb")];
            if server == "drbd0" {
                volumes.push(("alone", "/dev/xvdc"));
            }
            for (volume, device) in volumes {
                // A plain loop below: what is measured is the mirror.
                lab.nova(&["volume-create", "--display-name", volume, "--volume-type", "raw", "1"])?;
                let id = lab.id_of("volume-list", volume)?;
                lab.nova(&["volume-attach", server, &id, device])?;
            }
            lab.sh(
                server,
                &format!("mkdir -p /etc/drbd.d; cat >/etc/drbd.d/bench.res <<'END'\n{CONFIGURATION}END"),
            )?;
            lab.sh(server, "drbdadm create-md --force r0 && drbdadm up r0")?;
        }
        lab.sh("drbd0", "drbdadm create-md --force r1 && drbdadm up r1 && drbdadm primary --force r1")?;
        let sync = lab.full_sync()?;
        Ok((lab, sync))
    }

    fn full_sync(&self) -> anyhow::Result<FullSync> {
        self.await_state("Connected", "Inconsistent/Inconsistent")?;
        let begun = Instant::now();
        self.sh("drbd0", "drbdadm primary --force r0")?;
        self.await_state("Connected", "UpToDate/UpToDate")?;
        let seconds = begun.elapsed().as_secs_f64();
        let bytes: f64 =
            self.sh("drbd0", "blockdev --getsize64 /dev/drbd0")?.trim().parse().context("a size")?;
        Ok(FullSync { mib: bytes / f64::from(1 << 20), seconds })
    }

    /// `lockstep nova ssh SERVER`, ready for a command's words.
    pub fn ssh(&self, server: &str) -> Command {
        let mut command = Command::new(&self.lockstep);
        command.args(["nova", "--lab", LAB, "ssh", server]);
        command
    }

    fn sh(&self, server: &str, script: &str) -> anyhow::Result<String> {
        output(self.ssh(server).arg(script))
    }

    fn nova(&self, words: &[&str]) -> anyhow::Result<String> {
        output(Command::new(&self.lockstep).args(["nova", "--lab", LAB]).args(words))
    }

    fn await_state(&self, connection: &str, disks: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.sh("drbd0", "drbdadm cstate r0; drbdadm dstate r0")?;
            if found.split_whitespace().eq([connection, disks]) {
                return Ok(());
            }
            if begun.elapsed() > SYNC_TIME_MAX {
                bail!("r0 is {} and never became {connection} {disks}", found.trim().replace('\n', " "));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn image(&self) -> anyhow::Result<String> {
        let images = self.listing("image-list")?;
        let id = images.first().and_then(|image| image["id"].as_str()).context("an image")?;
        Ok(id.to_owned())
    }

    fn id_of(&self, listing: &str, name: &str) -> anyhow::Result<String> {
        let is_named = |row: &&Value| ["name", "label", "display_name"].iter().any(|key| row[*key] == name);
        let rows = self.listing(listing)?;
        let row = rows.iter().find(is_named).with_context(|| format!("no `{name}` in {listing}"))?;
        Ok(row["id"].as_str().context("an id")?.to_owned())
    }

    fn listing(&self, verb: &str) -> anyhow::Result<Vec<Value>> {
        let rows: Vec<Value> = serde_json::from_str(&self.nova(&[verb, "--json"])?)?;
        ensure!(!rows.is_empty(), "{verb} is empty");
        Ok(rows)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new(&self.lockstep).args(["lab", "--lab", LAB, "down"])) {
            eprintln!("bench: the lab `{LAB}` is still there: {error:#}");
        }
    }
}

const CONFIGURATION: &str = "\
resource r0 {
  protocol C;
  disk { resync-rate 4G; c-plan-ahead 0; }
  on drbd0 { device /dev/drbd0; disk /dev/xvdb; address 172.16.16.4:7788; meta-disk internal; }
  on drbd1 { device /dev/drbd0; disk /dev/xvdb; address 172.16.16.3:7788; meta-disk internal; }
}
resource r1 {
  protocol C;
  on drbd0 { device /dev/drbd1; disk /dev/xvdc; address 172.16.16.4:7789; meta-disk internal; }
  on drbd1 { device /dev/drbd1; disk /dev/xvdc; address 172.16.16.3:7789; meta-disk internal; }
}
";
