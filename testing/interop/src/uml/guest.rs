//! The first process of a node: makes a root that is the host's with a layer of its own over it, then runs what it is
//! told over the serial line.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use crate::program::{output, words};

/// The kernel hands a parameter that it does not know to its first process as a variable.
pub const GUEST_VARIABLE: &str = "lockstep_guest";

/// Where `in` and `out` are, and what the host shares.
pub const MAILBOX: &str = "/mailbox";

/// Modules that the node needs.
const MODULES: &[&str] = &["drbd", "loop", "ipv6"];

/// Is the node; when it cannot go on, the node is switched off.
pub fn guest_main(name: &OsStr) -> ! {
    // SAFETY: no thread has been started; nothing else reads the environment.
    unsafe {
        std::env::set_var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        std::env::set_var("LC_ALL", "C");
        std::env::set_var("HOME", "/root");
        // What is run here is not the first process.
        std::env::remove_var(GUEST_VARIABLE);
    }
    if let Err(error) = live(&name.to_string_lossy()) {
        eprintln!("node: {error:#}");
    }
    let _ = Command::new("poweroff").arg("-f").status();
    std::process::exit(1)
}

fn live(name: &str) -> anyhow::Result<()> {
    output(&mut words("mount -t proc proc /proc"))?;
    let parameters = fs::read_to_string("/proc/cmdline").context("the kernel's parameters")?;
    let parameter = |key: &str| {
        let value = parameters.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.map(str::to_owned).with_context(|| format!("no parameter {key}"))
    };
    let modules = format!("{}/{}/kernel", parameter("lockstep_modules")?, kernel_release()?);
    enter_root(&modules, &parameter("lockstep_mailbox")?)?;
    output(&mut words(&format!("hostname {name}")))?;
    let address = parameter("lockstep_address")?;
    fs::write("/etc/hosts", format!("127.0.0.1 localhost\n{address} {name}\n"))?;
    // Where modprobe looks: the kernel asks it for digests.
    let release = kernel_release()?;
    fs::create_dir_all("/lib/modules")?;
    std::os::unix::fs::symlink(
        format!("{}/{release}", parameter("lockstep_modules")?),
        format!("/lib/modules/{release}"),
    )?;
    for module in MODULES {
        output(&mut words(&format!("modprobe {module}")))?;
    }
    for line in
        ["ip link set lo up", &format!("ip addr add {address}/24 brd + dev vec0"), "ip link set vec0 up"]
    {
        output(&mut words(line))?;
    }
    for link in ["/dev/xvdb1", "/dev/xvdf1"] {
        // The tutorial's disks, on either server; no udev makes them here.
        std::os::unix::fs::symlink("ubda", link)?;
    }
    if !Path::new("/dev/drbd0").exists() {
        output(&mut words("mknod /dev/drbd0 b 147 0"))?;
    }
    output(&mut words("stty -F /dev/ttyS0 raw -echo"))?;
    serve()
}

fn kernel_release() -> anyhow::Result<String> {
    Ok(rustix::system::uname().release().to_str()?.to_owned())
}

/// The host's root, read-only, below a file system in memory.
fn enter_root(modules: &str, mailbox: &str) -> anyhow::Result<()> {
    for line in [
        "mount -t sysfs sysfs /sys",
        &format!("insmod {modules}/fs/overlayfs/overlay.ko"),
        "mount -t tmpfs -o mode=755 tmpfs /mnt",
        "mkdir /mnt/upper /mnt/work /mnt/root",
        "mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work node /mnt/root",
        "mount -t proc proc /mnt/root/proc",
        "mount -t sysfs sysfs /mnt/root/sys",
        "mount -t devtmpfs devtmpfs /mnt/root/dev",
        "mkdir -p /mnt/root/mailbox /mnt/root/var/lib/drbd /mnt/root/etc/drbd.d",
        "mount -t tmpfs -o mode=755 tmpfs /mnt/root/run",
        "mount -t tmpfs -o mode=1777 tmpfs /mnt/root/tmp",
        "mount -t tmpfs -o mode=755 tmpfs /mnt/root/var/lib/drbd",
        "mkdir -p /mnt/root/run/lock /mnt/root/run/drbd",
        &format!("mount -t hostfs -o {mailbox} mailbox /mnt/root{MAILBOX}"),
    ] {
        output(&mut words(line))?;
    }
    std::os::unix::fs::chroot("/mnt/root").context("entering the root")?;
    std::env::set_current_dir("/root").context("entering the root's home")?;
    Ok(())
}

/// A line `ID` on the serial line: run the script `in/ID`; answer `ID STATUS` when its output is in the mailbox.
fn serve() -> anyhow::Result<()> {
    let line = OpenOptions::new().read(true).write(true).open("/dev/ttyS0").context("the serial line")?;
    let answers = Arc::new(Mutex::new(line.try_clone()?));
    answer(&answers, "ready")?;
    for id in BufReader::new(line).lines() {
        let id = id.context("reading the serial line")?;
        if id.is_empty() {
            continue;
        }
        let answers = Arc::clone(&answers);
        // One thread a script; the node's end is the end of all of them.
        std::thread::spawn(move || {
            let status = script(&id).unwrap_or_else(|error| {
                eprintln!("node: {error:#}");
                127
            });
            answer(&answers, &format!("{id} {status}"))
        });
    }
    Ok(())
}

fn answer(line: &Mutex<File>, text: &str) -> anyhow::Result<()> {
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    line.write_all(format!("{text}\n").as_bytes()).context("writing to the serial line")
}

fn script(id: &str) -> anyhow::Result<i32> {
    let out = File::create(format!("{MAILBOX}/out/{id}.out"))?;
    let err = File::create(format!("{MAILBOX}/out/{id}.err"))?;
    let status = Command::new("setsid")
        .args(["--wait", "sh", &format!("{MAILBOX}/in/{id}")])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()?;
    Ok(status.code().unwrap_or(128))
}
