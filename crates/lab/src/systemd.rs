//! Servers that systemd runs: what it finds in them, how it is started, and when it is up.
//!
//! The host's programs and units are the server's, but what the host had enabled is not; what makes no sense without
//! hardware is masked. Units for commands from the host and for the last steps of a shutdown are ours.

pub mod manager;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};
use uuid::Uuid;

use crate::catalog;
use crate::cgroup::Tracking;
use crate::enter;
use crate::error::{Doing, Error, Result};
use crate::life::{Life, Status};
use crate::place::Lab;
use crate::root::PROGRAM;
use crate::state::Server;

/// Where systemd is, on Debian and its kin.
pub const PROGRAM_FILE: &str = "/lib/systemd/systemd";

/// In the server: there as long as commands from the host are taken.
pub const SESSIONS_FILE: &str = "/run/lockstep/sessions";

/// Units that are found before the distribution's.
const UNITS: &str = "usr/local/lib/systemd/system";

/// Time for a server to take commands. It boots programs from a disk, beside others that do.
const SESSIONS_PATIENCE: Duration = Duration::from_secs(60);

/// Seconds that `nova boot` waits for what is still being started, such as a mirror that waits for its peer.
const RUNNING_PATIENCE_S: u32 = 10;

/// Units that are for hardware, for other people's terminals, or for what belongs to the host's kernel.
const MASKED: &[&str] = &[
    "console-getty.service",
    "dev-hugepages.mount",
    "getty-static.service",
    "getty.target",
    "hwclock.service",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journald-audit.socket",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-rfkill.socket",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
];

/// Mounts that a shutdown leaves alone: its last steps need them.
const BASE_MOUNTS: &[&str] = &[
    "run-lockstep-cgroup.procs.mount",
    "run-lockstep-cgroup.cpu.procs.mount",
    "usr-local-bin-lockstep.mount",
    "var-lib-lockstep.mount",
];

/// Files of ours in every server that systemd runs: path in it, mode, text.
const FILES: &[(&str, u32, &str)] = &[
    (
        "usr/local/lib/systemd/system/lab-sessions.service",
        0o644,
        include_str!("systemd/lab-sessions.service"),
    ),
    (
        "usr/local/lib/systemd/system/lab-sessions-end.service",
        0o644,
        include_str!("systemd/lab-sessions-end.service"),
    ),
    ("usr/local/lib/systemd/system/lab-unmount.service", 0o644, include_str!("systemd/lab-unmount.service")),
    ("usr/local/lib/systemd/system-generators/lab-fstab", 0o755, include_str!("systemd/lab-fstab")),
    ("usr/lib/systemd/system-shutdown/lab-last", 0o755, include_str!("systemd/lab-last")),
    ("usr/local/sbin/chkconfig", 0o755, include_str!("systemd/chkconfig")),
    ("usr/local/sbin/update-rc.d", 0o755, include_str!("systemd/update-rc.d")),
    ("run/systemd/system.conf.d/lab.conf", 0o644, include_str!("systemd/system.conf")),
    ("run/systemd/journald.conf.d/lab.conf", 0o644, include_str!("systemd/journald.conf")),
];

/// What is started whatever is enabled, and by what: ours, and what every installation has enabled.
const STARTED: &[(&str, &str)] = &[
    ("/usr/local/lib/systemd/system/lab-sessions.service", "multi-user.target"),
    ("/usr/local/lib/systemd/system/lab-sessions-end.service", "multi-user.target"),
    ("/usr/local/lib/systemd/system/lab-unmount.service", "sysinit.target"),
    ("/lib/systemd/system/remote-fs.target", "multi-user.target"),
];

/// Whether this system has what servers with systemd need; why not.
///
/// # Errors
/// What is missing.
pub fn available() -> Result<()> {
    if Path::new(PROGRAM_FILE).exists() {
        return Ok(());
    }
    Err(Error::refused(format!("no {PROGRAM_FILE} here; install systemd, or boot with --init tiny")))
}

/// Removes what the host has enabled from the root of a server that lives for the first time.
///
/// # Errors
/// The step that the system refused.
pub fn first_life(root: &Path, server: &Server) -> Result<()> {
    let enabled = root.join("etc/systemd/system");
    for entry in fs::read_dir(&enabled).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let done = if name.ends_with(".wants") || name.ends_with(".requires") {
            fs::remove_dir_all(&path)
        } else if path.is_symlink() {
            fs::remove_file(&path)
        } else {
            Ok(())
        };
        done.doing(|| format!("disable {name} in the server"))?;
    }
    for level in "0123456S".chars() {
        let directory = root.join(format!("etc/rc{level}.d"));
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            fs::remove_file(entry.path()).doing(|| format!("remove {}", entry.path().display()))?;
        }
    }
    write(root, "etc/fstab", 0o644, "# A server's root is mounted when it boots.\n")?;
    write(root, "etc/machine-id", 0o444, &format!("{}\n", server.id.simple()))?;
    let bus = root.join("var/lib/dbus/machine-id");
    if bus.is_file() && !bus.is_symlink() {
        write(root, "var/lib/dbus/machine-id", 0o444, &format!("{}\n", server.id.simple()))?;
    }
    let journal = root.join("var/log/journal");
    fs::create_dir_all(&journal).doing(|| format!("create {}", journal.display()))
}

/// Writes what each life of the server needs; its file systems of the kernel are mounted below `root`.
///
/// # Errors
/// The step that the system refused.
pub fn furnish(root: &Path, server: &Server) -> Result<()> {
    for (path, mode, text) in FILES {
        write(root, path, *mode, text)?;
    }
    let image = catalog::IMAGES.iter().find(|image| image.id == server.image);
    if let Some(era) = image.and_then(|image| image.era) {
        let text = format!("[Manager]\nDefaultEnvironment=LOCKSTEP_ERA={era}\n");
        write(root, "run/systemd/system.conf.d/lab-era.conf", 0o644, &text)?;
    }
    let masks = root.join("run/systemd/system");
    fs::create_dir_all(&masks).doing(|| format!("create {}", masks.display()))?;
    for unit in MASKED {
        symlink("/dev/null", masks.join(unit)).doing(|| format!("mask {unit}"))?;
    }
    for mount in BASE_MOUNTS {
        let path = format!("run/systemd/system/{mount}.d/lab.conf");
        write(root, &path, 0o644, "[Unit]\nDefaultDependencies=no\n")?;
    }
    // A file system that cannot be mounted leaves a server that can be repaired from the host: it has no console.
    write(root, "run/systemd/system/local-fs.target.d/lab.conf", 0o644, "[Unit]\nOnFailure=\n")?;
    for (unit, target) in STARTED {
        let wants = root.join(format!("run/systemd/system/{target}.wants"));
        fs::create_dir_all(&wants).doing(|| format!("create {}", wants.display()))?;
        let name = Path::new(unit).file_name().unwrap_or_default();
        symlink(unit, wants.join(name)).doing(|| format!("have {target} start {unit}"))?;
    }
    read_only(root)
}

/// systemd takes no device for its own if it cannot write to /sys, and leaves the kernel's settings, which are the
/// host's, as they are. Those of the network are the server's own.
fn read_only(root: &Path) -> Result<()> {
    let settings = root.join("proc/sys");
    let network = settings.join("net");
    // The journal tells lives apart by this; the kernel's own is that of the host's life.
    let boot_id = root.join("run/lockstep/boot_id");
    write(root, "run/lockstep/boot_id", 0o444, &format!("{}\n", Uuid::new_v4()))?;
    mount_bind(&boot_id, settings.join("kernel/random/boot_id"))
        .doing(|| "bind the server's boot id".into())?;
    mount_bind_recursive(&settings, &settings).doing(|| "bind /proc/sys".into())?;
    mount_bind(&network, &network).doing(|| "bind /proc/sys/net".into())?;
    let flags =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for path in [settings, root.join("sys")] {
        mount_remount(&path, flags, "").doing(|| format!("make {} read-only", path.display()))?;
    }
    Ok(())
}

/// Installs Lockstep's own units, which the program lists and prints (`--units`), before the distribution's. In the
/// server.
///
/// # Errors
/// The step that the system refused.
pub fn install_units() -> Result<()> {
    let run = |words: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new(PROGRAM).args(words).output();
        output.map(|output| output.stdout).doing(|| format!("run {PROGRAM} {}", words.join(" ")))
    };
    for name in String::from_utf8_lossy(&run(&["--units"])?).lines() {
        let text = run(&["--units", name])?;
        write(Path::new("/"), &format!("{UNITS}/{name}"), 0o644, &String::from_utf8_lossy(&text))?;
    }
    Ok(())
}

fn write(root: &Path, path: &str, mode: u32, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = root.join(path);
    let put = || -> io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        // A file of the host's may be read-only, and a link may lead anywhere.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    put().doing(|| format!("write {}", path.display()))
}

/// Makes a cgroup namespace of the server's own and mounts it where systemd looks. In the server, as its process 1,
/// which is in its cgroups already.
///
/// # Errors
/// The step that the system refused.
pub fn own_cgroups(tracking: Option<Tracking>) -> Result<()> {
    // SAFETY: a namespace of this process's own; nothing of memory or descriptors is shared or unshared by it.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } != 0 {
        return Err(io::Error::last_os_error()).doing(|| "make a cgroup namespace".into());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let top = Path::new("/sys/fs/cgroup");
    match tracking {
        Some(Tracking::Unified) => {
            return mount("cgroup2", top, "cgroup2", flags, None).doing(|| "mount cgroup2".into());
        }
        Some(Tracking::Named) => {}
        None => {
            return Err(Error::refused(
                "systemd needs cgroup version 2 or the hierarchy name=systemd of version 1, and neither is mounted; \
                 boot with --init tiny",
            ));
        }
    }
    mount("tmpfs", top, "tmpfs", flags, Some(c"mode=755,size=1m")).doing(|| "mount /sys/fs/cgroup".into())?;
    let named = top.join("systemd");
    fs::create_dir(&named).doing(|| format!("create {}", named.display()))?;
    mount("cgroup", &named, "cgroup", flags, Some(c"none,name=systemd")).doing(|| "mount name=systemd".into())
}

/// Becomes systemd; returns only if that fails.
pub fn exec(server: &Server, tracking: Option<Tracking>) -> Error {
    let strings = |texts: &[String]| -> Vec<CString> {
        texts.iter().map(|text| CString::new(text.as_str()).unwrap_or_default()).collect()
    };
    let mut environment = vec![
        "container=lockstep".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    let image = catalog::IMAGES.iter().find(|image| image.id == server.image);
    environment.extend(image.and_then(|image| image.era).map(|era| format!("LOCKSTEP_ERA={era}")));
    let mut words = vec!["systemd".to_owned()];
    if tracking == Some(Tracking::Named) {
        // It would mount version 2 for itself, whose root is the host's.
        words.extend(
            ["unified_cgroup_hierarchy=0", "legacy_systemd_cgroup_controller=1"]
                .map(|w| format!("systemd.{w}")),
        );
    }
    let (words, environment) = (strings(&words), strings(&environment));
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&words), pointers(&environment));
    // SAFETY: both vectors end with a null pointer and point to strings that live until the call succeeds.
    unsafe { libc::execve(c"/lib/systemd/systemd".as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Error::System { doing: format!("run {PROGRAM_FILE}"), source: io::Error::last_os_error() }
}

/// Whether a life of a server takes commands from the host.
pub fn takes_commands(life: &Life) -> bool {
    life.path_in(SESSIONS_FILE).exists()
}

/// Waits until a server that was just started takes commands, and for a moment until all that it starts runs.
///
/// # Errors
/// It ended, or hangs.
pub fn wait_until_up(lab: &Lab, server: &Server) -> Result<()> {
    let patience_ends = Instant::now() + SESSIONS_PATIENCE;
    loop {
        let life = Life::load(lab, server.id)?;
        match life {
            Some(life) if life.init.is_alive() && takes_commands(&life) => break,
            life if Life::status(life.as_ref()) == Status::Shutoff => {
                return Err(did_not(lab, server, "it ended"));
            }
            _ if Instant::now() > patience_ends => {
                return Err(did_not(
                    lab,
                    server,
                    &format!("it takes no commands after {SESSIONS_PATIENCE:?}"),
                ));
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    let wait = format!("timeout {RUNNING_PATIENCE_S} systemctl is-system-running --wait >/dev/null 2>&1");
    // Degraded or still starting: it is there, and systemctl in it says what is missing.
    enter::run(lab, server, &[wait]).map(drop)
}

fn did_not(lab: &Lab, server: &Server, why: &str) -> Error {
    let log: PathBuf = lab.server_dir(server.id).join("console.log");
    // What systemd says before it gives up; it knows which limit of the host was met.
    let console = fs::read(&log).unwrap_or_default();
    let said = last_line(&console).map_or(String::new(), |line| format!(" ({line})"));
    Error::refused(format!("server {} did not boot: {why}{said}; see {}", server.name, log.display()))
}

/// The last line of a console with something in it, without what moves and colours a terminal.
fn last_line(console: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(console);
    let plain = |line: &str| -> String {
        let mut parts = line.split("\x1b[");
        let first = parts.next().unwrap_or_default();
        let rest = parts
            .map(|part| part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or(""));
        std::iter::once(first).chain(rest).collect::<String>().replace(char::is_control, "").trim().to_owned()
    };
    text.lines().rev().map(plain).find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::last_line;

    #[test]
    fn a_console_s_last_words() {
        let console = b"booting\n\x1b[0;1;31mFailed: \x1b[0mToo many open files.\r\n\x1b[0m\r\n";
        assert_eq!(last_line(console).as_deref(), Some("Failed: Too many open files."));
        assert_eq!(last_line(b"\n"), None);
    }
}
