//! The mirror in two servers of a lab: `r0` mirrored, `r1` on the first server with a peer that never comes.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::lab::Lab;
use crate::program::output;

/// How long the two may take to be in sync.
const SYNC_TIME_MAX: Duration = Duration::from_secs(300);

/// The running lab; dropping it takes it down.
pub struct Mirrored(Lab);

/// A first full sync.
#[derive(Clone, Copy, Debug)]
pub struct FullSync {
    /// What was sent.
    pub mib: f64,
    /// How long it took.
    pub seconds: f64,
}

impl Mirrored {
    /// Boots the servers and brings both resources up; the first server is Primary of both.
    pub fn start() -> anyhow::Result<(Self, FullSync)> {
        let lab = Lab::new("bench")?;
        lab.nova(&["network-create", "drbd0", "172.16.16.0/24"])?;
        let network = lab.id_of("network-list", "drbd0")?;
        for server in ["drbd0", "drbd1"] {
            let mut boot = lab.nova_command(&[]);
            boot.args(lab.boot_words("tiny", server)?);
            boot.args(["--no-public", "--no-service-net", "--nic", &format!("net-id={network}")]);
            output(&mut boot)?;
            // A plain loop below: what is measured is the mirror.
            lab.attach(server, server, "raw", "/dev/xvdb")?;
            if server == "drbd0" {
                lab.attach(server, "alone", "raw", "/dev/xvdc")?;
            }
            lab.sh(
                server,
                &format!("mkdir -p /etc/drbd.d; cat >/etc/drbd.d/bench.res <<'END'\n{CONFIGURATION}END"),
            )?;
            lab.sh(server, "drbdadm create-md --force r0 && drbdadm up r0")?;
        }
        lab.sh("drbd0", "drbdadm create-md --force r1 && drbdadm up r1 && drbdadm primary --force r1")?;
        let mirrored = Self(lab);
        let sync = mirrored.full_sync()?;
        Ok((mirrored, sync))
    }

    fn full_sync(&self) -> anyhow::Result<FullSync> {
        self.await_state("Connected", "Inconsistent/Inconsistent")?;
        let begun = Instant::now();
        self.0.sh("drbd0", "drbdadm primary --force r0")?;
        self.await_state("Connected", "UpToDate/UpToDate")?;
        let seconds = begun.elapsed().as_secs_f64();
        let bytes: f64 =
            self.0.sh("drbd0", "blockdev --getsize64 /dev/drbd0")?.trim().parse().context("a size")?;
        Ok(FullSync { mib: bytes / f64::from(1 << 20), seconds })
    }

    /// A command in a server, ready for its words.
    pub fn ssh(&self, server: &str) -> Command {
        self.0.ssh(server)
    }

    fn await_state(&self, connection: &str, disks: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.0.sh("drbd0", "drbdadm cstate r0; drbdadm dstate r0")?;
            if found.split_whitespace().eq([connection, disks]) {
                return Ok(());
            }
            if begun.elapsed() > SYNC_TIME_MAX {
                bail!("r0 is {} and never became {connection} {disks}", found.trim().replace('\n', " "));
            }
            thread::sleep(Duration::from_millis(20));
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
