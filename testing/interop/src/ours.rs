//! Our own node on a seat: a host name, a network card, a /dev and a /run of its own on this kernel.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::lockstep;
use crate::program::{self, Finished, output};
use crate::side::Side;
use crate::tutorial::Seat;
use crate::uml::Segment;

/// What the node's first process does; then it waits for its end. `$1` is the host name, `$2` the program.
const FIRST_PROCESS: &str = r#"set -e
hostname "$1"
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/bin /run/dev /run/lock /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work etc /etc
mount -t tmpfs -o mode=755 log /var/log
mount -t tmpfs -o mode=755,size=16m dev /run/dev
for node in null zero full random urandom tty fuse loop-control; do cp -a /dev/$node /run/dev/; done
for index in $(seq 0 127); do mknod -m 660 /run/dev/loop$index b 7 $index; done
mount --move /run/dev /dev
for name in drbdadm lockstep; do ln -s "$2" /run/bin/$name; done
mkdir -p /etc/drbd.d
rm -f /etc/drbd.d/*
printf 'include "drbd.d/global_common.conf";\ninclude "drbd.d/*.res";\n' >/etc/drbd.conf
ip link set lo up
echo ready
exec sleep infinity"#;

/// The node. Dropping it ends all its processes, as a power cut would but for what the disk's page cache holds.
pub struct Ours {
    seat: Seat,
    /// `unshare`, which takes the first process with it.
    holder: Child,
    /// The first process.
    init: u32,
    /// Loop device of the disk.
    device: String,
    /// Its files.
    folder: PathBuf,
    /// The highest version of the protocol that its daemon offers, if that is started from now on.
    protocol_max: Option<u32>,
}

impl Ours {
    /// Sits down with this disk, and with a folder for files. Nothing is configured.
    pub fn sit(segment: &Segment, seat: Seat, folder: &Path, disk: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(disk))?.trim().to_owned();
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-c", FIRST_PROCESS, "sh", seat.name()])
            .arg(lockstep::path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run `unshare`")?;
        let mut said = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        let init = child_of(holder.id());
        let (init, folder) = (init.unwrap_or_default(), folder.to_owned());
        let mut node = Self { seat, holder, init, device, folder, protocol_max: None };
        ensure!(
            said.trim() == "ready" && node.init != 0,
            "{}'s first process did not get ready",
            seat.name()
        );
        segment.plug_namespace(&cable(seat), node.init)?;
        node.run(&format!(
            "ip addr add {}/24 dev eth0; ip -6 addr add {}/64 dev eth0 nodad; ip link set eth0 up\n\
             ln -s {} {}",
            seat.address(),
            seat.address_v6(),
            node.device,
            seat.disk()
        ))?;
        Ok(node)
    }

    /// A path of the node's, as this process reaches it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// The unix socket on which the daemon serves /dev/drbd0 over NBD while it is primary.
    pub fn nbd_socket(&mut self) -> anyhow::Result<String> {
        let found = self.run("find /run/lockstep -name drbd0.nbd -type s")?;
        let inside =
            found.lines().next().context("the daemon has no socket drbd0.nbd below /run/lockstep")?;
        Ok(self.path(inside).display().to_string())
    }
}

impl Side for Ours {
    fn seat(&self) -> Seat {
        self.seat
    }

    fn shelf(&self) -> &Path {
        &self.folder
    }

    fn shelf_inside(&self) -> String {
        self.folder.display().to_string()
    }

    fn finish(&mut self, script: &str, limit: Duration) -> anyhow::Result<Finished> {
        let init = self.init.to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &init, "--net", "--mount", "--uts", "--pid", "sh", "-c", script])
            .env("PATH", "/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C");
        if let Some(version) = self.protocol_max {
            command.env("LOCKSTEP_PROTOCOL_MAX", version.to_string());
        }
        program::finish(&mut command, limit).with_context(|| format!("on our side: {script}"))
    }

    fn limit_protocol(&mut self, version: Option<u32>) {
        self.protocol_max = version;
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // A namespace may outlive its processes for as long as a socket of theirs lingers.
        Segment::unplug(&cable(self.seat));
        // With `unshare` goes the node's first process, and with that all others.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = output(Command::new("losetup").args(["--detach", &self.device]));
    }
}

/// The bridge's end of a seat's cable.
pub fn cable(seat: Seat) -> String {
    format!("o-{}", seat.name())
}

/// The one child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
