//! The mirror in two servers of a lab: `r0` mirrored and `r1` with a peer that never comes, `r2` and `r3` the same on slow
//! disks. The first server is Primary of all.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::lab::Lab;
use crate::program::output;

/// How long the two may take to be in sync.
const SYNC_TIME_MAX: Duration = Duration::from_secs(300);
/// What a slow disk adds to each request.
const SLOW_MS: &str = "0.2";
/// A server with a large disk, and a peer that never comes.
const HUGE: &str = "huge";
const HUGE_GB: u32 = 100;
const IDLE_S: u32 = 10;

/// The running lab; dropping it takes it down.
pub struct Mirrored(Lab);

impl Mirrored {
    /// Boots the servers and brings the resources up; all are in sync.
    pub fn start() -> anyhow::Result<Self> {
        let lab = Lab::new("bench")?;
        lab.nova(&["network-create", "drbd0", "172.16.16.0/24"])?;
        let network = lab.id_of("network-list", "drbd0")?;
        for server in ["drbd0", "drbd1", HUGE] {
            let mut boot = lab.nova_command(&[]);
            boot.args(lab.boot_words("tiny", server)?);
            boot.args(["--no-public", "--no-service-net", "--nic", &format!("net-id={network}")]);
            output(&mut boot)?;
            lab.sh(
                server,
                &format!("mkdir -p /etc/drbd.d; cat >/etc/drbd.d/bench.res <<'END'\n{CONFIGURATION}END"),
            )?;
        }
        for server in ["drbd0", "drbd1"] {
            // A plain loop below: what is measured is the mirror.
            lab.attach(server, server, "raw", "/dev/xvdb")?;
            lab.attach(server, &format!("{server}-plain"), "raw", "/dev/xvdd")?;
            slow_volume(&lab, server, &format!("{server}-slow"), "/dev/xvde")?;
            lab.install(server, &std::env::current_exe()?, "bench")?;
            lab.sh(server, "for r in r0 r2; do drbdadm create-md --force $r && drbdadm up $r; done")?;
        }
        lab.attach("drbd0", "alone", "raw", "/dev/xvdc")?;
        slow_volume(&lab, "drbd0", "alone-slow", "/dev/xvdf")?;
        let alone = "drbdadm create-md --force $r && drbdadm up $r && drbdadm primary --force $r";
        lab.sh("drbd0", &format!("for r in r1 r3; do {alone}; done"))?;
        let mirrored = Self(lab);
        for resource in ["r0", "r2"] {
            mirrored.await_state(resource, "Connected", "Inconsistent/Inconsistent")?;
            mirrored.0.sh("drbd0", &format!("drbdadm primary --force {resource}"))?;
            mirrored.await_state(resource, "Connected", "UpToDate/UpToDate")?;
        }
        Ok(mirrored)
    }

    /// A command in a server, ready for its words.
    pub fn ssh(&self, server: &str) -> Command {
        self.0.ssh(server)
    }

    /// MiB a second of a full sync of `r0`.
    pub fn sync_mib_per_s(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        self.0.sh("drbd1", "drbdadm invalidate r0")?;
        self.await_state("r0", "Connected", "UpToDate/UpToDate")?;
        let seconds = begun.elapsed().as_secs_f64();
        let bytes: f64 =
            self.0.sh("drbd0", "blockdev --getsize64 /dev/drbd0")?.trim().parse().context("a size")?;
        Ok(bytes / f64::from(1 << 20) / seconds)
    }

    /// MiB a second of a copy from disk to disk through a socket.
    pub fn copy_mib_per_s(&self) -> anyhow::Result<f64> {
        self.opposite("take 172.16.16.3:9000 /dev/xvdd", "give 172.16.16.3:9000 /dev/xvdd")
    }

    /// Microseconds from a question of the size of a write to its answer.
    pub fn round_trip_us(&self) -> anyhow::Result<f64> {
        self.opposite("echo 172.16.16.3:9000", "ask 172.16.16.3:9000")
    }

    /// Starts a part on the second server and, when it is ready, another on the first, whose number counts.
    fn opposite(&self, there: &str, here: &str) -> anyhow::Result<f64> {
        let child = self.0.ssh("drbd1").arg(format!("bench plain {there}")).stdout(Stdio::piped()).spawn()?;
        let mut child = Ended(child);
        let mut line = String::new();
        if let Some(stdout) = child.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        ensure!(line.trim() == "ready", "`bench plain {there}` did not get ready");
        let said = self.0.sh("drbd0", &format!("bench plain {here}"))?;
        said.trim().parse().with_context(|| format!("`bench plain {here}` said {said:?}"))
    }

    /// How much of a processor the daemon of each server takes while nobody asks anything of it, in percent.
    pub fn idle_percent(&self) -> anyhow::Result<f64> {
        let mut most: f64 = 0.0;
        for server in ["drbd0", "drbd1"] {
            let script = format!("{DAEMON_TICKS}; a=$(ticks); sleep {IDLE_S}; b=$(ticks); echo $((b - a))");
            let ticks: f64 = self.0.sh(server, &script)?.trim().parse().context("clock ticks")?;
            let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
            most = most.max(100.0 * ticks / ticks_per_s / f64::from(IDLE_S));
        }
        Ok(most)
    }

    /// MiB that a daemon with nothing but a device of 100 GB has in memory, while all of the device is written to.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        self.0.attach_of_size(HUGE_GB, HUGE, HUGE, "raw", "/dev/xvdg")?;
        self.0.sh(HUGE, "drbdadm create-md --force r4 && drbdadm up r4 && drbdadm primary --force r4")?;
        self.0.sh(
            HUGE,
            "fio --name=bench --filename=/dev/drbd4 --rw=randwrite --bs=4k --iodepth=32 --ioengine=libaio \
             --direct=1 --time_based --runtime=3 --norandommap",
        )?;
        let kib: f64 = self.0.sh(HUGE, RESIDENT_KIB)?.trim().parse().context("a size")?;
        Ok(kib / 1024.0)
    }

    fn await_state(&self, resource: &str, connection: &str, disks: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let found =
                self.0.sh("drbd0", &format!("drbdadm cstate {resource}; drbdadm dstate {resource}"))?;
            if found.split_whitespace().eq([connection, disks]) {
                return Ok(());
            }
            if begun.elapsed() > SYNC_TIME_MAX {
                let found = found.trim().replace('\n', " ");
                bail!("{resource} is {found} and never became {connection} {disks}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A child that is waited for.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

fn slow_volume(lab: &Lab, server: &str, name: &str, device: &str) -> anyhow::Result<()> {
    lab.attach(server, name, "SATA", device)?;
    lab.slow_down(name, SLOW_MS)
}

/// A function of the shell: the clock ticks that all our processes of the server have taken.
const DAEMON_TICKS: &str = r#"ticks() {
  for p in /proc/[0-9]*; do
    case "$(readlink $p/exe)" in */lockstep) cut -d ' ' -f 14,15 $p/stat;; esac
  done | awk '{ sum += $1 + $2 } END { print sum + 0 }'
}"#;

/// What all our processes of the server have in memory.
const RESIDENT_KIB: &str = r#"for p in /proc/[0-9]*; do
  case "$(readlink $p/exe)" in */lockstep) grep VmRSS $p/status;; esac
done | awk '{ sum += $2 } END { print sum + 0 }'"#;

const CONFIGURATION: &str = "\
resource r0 {
  device /dev/drbd0; disk /dev/xvdb; meta-disk internal;
  disk { resync-rate 4G; c-plan-ahead 0; }
  on drbd0 { address 172.16.16.4:7788; }
  on drbd1 { address 172.16.16.3:7788; }
}
resource r1 {
  device /dev/drbd1; disk /dev/xvdc; meta-disk internal;
  on drbd0 { address 172.16.16.4:7789; }
  on drbd1 { address 172.16.16.3:7789; }
}
resource r2 {
  device /dev/drbd2; disk /dev/xvde; meta-disk internal;
  disk { resync-rate 4G; c-plan-ahead 0; }
  on drbd0 { address 172.16.16.4:7790; }
  on drbd1 { address 172.16.16.3:7790; }
}
resource r3 {
  device /dev/drbd3; disk /dev/xvdf; meta-disk internal;
  on drbd0 { address 172.16.16.4:7791; }
  on drbd1 { address 172.16.16.3:7791; }
}
resource r4 {
  device /dev/drbd4; disk /dev/xvdg; meta-disk internal;
  on huge { address 172.16.16.2:7792; }
  on drbd1 { address 172.16.16.3:7792; }
}
";
