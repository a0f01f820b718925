//! Those whom ours is measured beside, each on a file of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::fio::{REGION_MIB, Subject};
use crate::program::output;

/// How long a server may take until it serves.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Somebody who serves a file; what serves it ends when this is dropped.
pub struct Contender {
    /// As printed.
    pub name: &'static str,
    /// Where fio finds it.
    pub subject: Subject,
    server: Server,
}

enum Server {
    Loop(String),
    Process(Child),
}

impl Contender {
    /// A loop device with direct I/O over the file: what every front here stands on.
    pub fn raw(folder: &Path) -> anyhow::Result<Self> {
        let file = backing(folder, "raw")?;
        let mut losetup = Command::new("losetup");
        let device =
            output(losetup.args(["--find", "--show", "--direct-io=on"]).arg(&file))?.trim().to_owned();
        Ok(Self { name: "raw disk", subject: Subject::Path(device.clone()), server: Server::Loop(device) })
    }

    /// qemu-storage-daemon's NBD export on a unix socket.
    pub fn qemu_nbd(folder: &Path) -> anyhow::Result<Self> {
        let file = backing(folder, "qemu-nbd")?;
        let socket = folder.join("qemu-nbd.sock");
        let server = qemu(&file)
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())])
            .args(["--export", "nbd,id=e,node-name=disk,name=disk,writable=on"])
            .spawn()
            .context("cannot run qemu-storage-daemon")?;
        let subject = Subject::Nbd { socket: socket.display().to_string(), export: "disk".to_owned() };
        Self { name: "qemu NBD", subject, server: Server::Process(server) }.serving(|| socket.exists())
    }

    /// nbdkit's plugin `file` on a unix socket. It reads and writes through the page cache; there is none without.
    pub fn nbdkit(folder: &Path) -> anyhow::Result<Self> {
        let file = backing(folder, "nbdkit")?;
        let socket = folder.join("nbdkit.sock");
        let server = Command::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run nbdkit")?;
        let subject = Subject::Nbd { socket: socket.display().to_string(), export: String::new() };
        Self { name: "nbdkit, cached", subject, server: Server::Process(server) }.serving(|| socket.exists())
    }

    /// qemu-storage-daemon's FUSE export over the file itself.
    pub fn qemu_fuse(folder: &Path) -> anyhow::Result<Self> {
        let file = backing(folder, "qemu-fuse")?;
        let mount = folder.join("qemu-fuse.mount");
        File::create(&mount)?;
        let server = qemu(&file)
            .args([
                "--export",
                &format!("fuse,id=e,node-name=disk,mountpoint={},writable=on", mount.display()),
            ])
            .spawn()
            .context("cannot run qemu-storage-daemon")?;
        let subject = Subject::Path(mount.display().to_string());
        let size = u64::from(REGION_MIB) << 20;
        Self { name: "qemu FUSE", subject, server: Server::Process(server) }
            .serving(|| mount.metadata().is_ok_and(|found| found.len() == size))
    }

    fn serving(mut self, ready: impl Fn() -> bool) -> anyhow::Result<Self> {
        let begun = Instant::now();
        while !ready() {
            if let Server::Process(child) = &mut self.server
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended with {status}", self.name);
            }
            if begun.elapsed() > START_TIME_MAX {
                bail!("{} does not serve after {} s", self.name, START_TIME_MAX.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        match &mut self.server {
            Server::Loop(device) => drop(output(Command::new("losetup").args(["--detach", device]))),
            Server::Process(child) => {
                // SIGTERM, so that it unmounts its export.
                if let Ok(pid) = i32::try_from(child.id())
                    && let Some(pid) = rustix::process::Pid::from_raw(pid)
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                let _ = child.wait();
            }
        }
    }
}

fn qemu(file: &Path) -> Command {
    let mut qemu = Command::new("qemu-storage-daemon");
    let disk = format!("driver=file,node-name=disk,filename={},cache.direct=on,aio=io_uring", file.display());
    qemu.args(["--blockdev", &disk]).stdin(Stdio::null()).stdout(Stdio::null());
    qemu
}

fn backing(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{name}.img"));
    File::create(&path)?.set_len(u64::from(REGION_MIB) << 20)?;
    Ok(path)
}
