//! Process 1 of a server: makes the server's root and addresses, reaps, and ends it in an orderly way.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, test_kill_process, wait};

use crate::cgroup;
use crate::error::{Doing, Error, Result};
use crate::interfaces;
use crate::mountinfo::{self, Mount};
use crate::place::Lab;
use crate::power::Leftovers;
use crate::root;
use crate::state::{Init, Records};
use crate::systemd;

/// Exit status of an init that wants to be booted again.
pub const REBOOT: u8 = 3;

/// In the server: says that it goes down, as systemd's file of that name does.
pub const NOLOGIN: &str = "/run/nologin";

/// Time for the command that asked for the reboot to end with its own exit status.
const FAREWELL: Duration = Duration::from_millis(100);

/// Time that processes get between SIGTERM and SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(5);

/// What ends a server in an orderly way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It boots again.
    Reboot,
    /// It stays off.
    PowerOff,
}

impl End {
    /// How a process 1 ended; none if it was killed. Our own tells by its exit status; reboot(2) in a pid namespace
    /// ends process 1 by a signal of its own for each: reboot(2), "Behavior inside PID namespaces".
    pub fn of(status: WaitStatus) -> Option<Self> {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) if status == i32::from(REBOOT) => Some(Self::Reboot),
            (_, Some(libc::SIGHUP)) => Some(Self::Reboot),
            (Some(_), _) | (_, Some(libc::SIGINT)) => Some(Self::PowerOff),
            _ => None,
        }
    }

    /// The signal that tells init, from inside or from the host.
    pub fn signal(self) -> Signal {
        match self {
            Self::Reboot => Signal::INT,
            Self::PowerOff => Signal::TERM,
        }
    }
}

/// Runs as process 1 until the server ends, or becomes systemd; the supervisor is at the other end of `supervisor`.
///
/// # Errors
/// The step of booting that was refused.
pub fn run(lab: &Lab, server_id: uuid::Uuid, supervisor: UnixStream) -> Result<End> {
    let records = Records::load(lab)?;
    let server = records
        .server_by_id(server_id)
        .ok_or_else(|| Error::refused(format!("no server {server_id} in lab {}", lab.name())))?;
    // The kernel must not choose init when the server's memory runs out.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Seen from the host: the server has none of its mounts.
    let tracking = cgroup::tracking();
    root::enter(lab, server)?;
    rustix::system::sethostname(server.name.as_bytes()).doing(|| "set the host name".into())?;
    let mut talk = BufReader::new(supervisor);
    let told = |error| Error::System { doing: "talk to the supervisor".into(), source: error };
    talk.get_mut().write_all(b"rooted\n").map_err(told)?;
    let told_to_go = |talk: &mut BufReader<UnixStream>| -> Result<()> {
        let mut line = String::new();
        talk.read_line(&mut line).map_err(told)?;
        if line == "go\n" { Ok(()) } else { Err(Error::refused("the supervisor gave this boot up")) }
    };
    told_to_go(&mut talk)?;
    interfaces::set_up(&records, server)?;
    let with_systemd = server.init == Init::Systemd;
    if with_systemd {
        systemd::own_cgroups(tracking)?;
    }
    let signals = (!with_systemd).then(blocked_signals);
    talk.get_mut().write_all(b"up\n").map_err(told)?;
    // Its limits are on.
    told_to_go(&mut talk)?;
    drop(talk);
    let Some(signals) = signals else { return Err(systemd::exec(server, tracking)) };
    let end = reap_until_told(&signals);
    go_down();
    Ok(end)
}

/// Blocks what init waits for. A blocked signal reaches process 1 even without a handler.
fn blocked_signals() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before use; all pointers are to live locals.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        for signal in [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM] {
            libc::sigaddset(&raw mut signals, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        signals
    }
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn reap_until_told(signals: &libc::sigset_t) -> End {
    loop {
        // SAFETY: both pointers may be used as given: a live set, and no place for details.
        match unsafe { libc::sigwaitinfo(signals, std::ptr::null_mut()) } {
            libc::SIGINT => return End::Reboot,
            libc::SIGTERM => return End::PowerOff,
            _ => reap(),
        }
    }
}

/// Ends everything in the order of a real shutdown: programs, file systems, then our own daemons, which may serve
/// the block devices below those file systems.
fn go_down() {
    // So that nobody enters while it goes down; on a read-only or full /run they just may.
    let _ = fs::write(NOLOGIN, "System is going down.\n");
    std::thread::sleep(FAREWELL);
    end_processes(|pid| !is_ours(pid));
    unmount_all();
    end_processes(|_| true);
    let_go();
}

/// Unmounts all that is not the server's base, and unbinds loop devices that its processes left.
pub fn let_go() {
    unmount_all();
    if let Err(error) = Leftovers::of(1).clear() {
        eprintln!("{error}");
    }
}

/// Whether a process runs this very program.
fn is_ours(pid: i32) -> bool {
    let program = |pid: &str| {
        fs::metadata(format!("/proc/{pid}/exe")).map(|file| {
            use std::os::unix::fs::MetadataExt;
            (file.dev(), file.ino())
        })
    };
    matches!((program(&pid.to_string()), program("self")), (Ok(theirs), Ok(own)) if theirs == own)
}

fn end_processes(chosen: impl Fn(i32) -> bool) {
    let alive = || -> BTreeSet<i32> {
        reap();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid| pid != 1 && chosen(pid) && !is_kernel_or_dead(pid))
            .collect()
    };
    for signal in [Signal::TERM, Signal::KILL] {
        for pid in alive() {
            // It may have ended meanwhile.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        }
        let patience_ends = Instant::now() + TERM_PATIENCE;
        while !alive().is_empty() && Instant::now() < patience_ends {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_kernel_or_dead(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Unmounts every file system on a block device, and leaves systemd what it lives on.
pub fn unmount_disks() {
    unmount_where(|mount| mount.device.0 != 0);
}

/// Unmounts everything but the server's own base.
fn unmount_all() {
    unmount_where(|mount| mount.kind != "overlay");
}

/// Unmounts what is chosen and not the server's own base, last mounted first; what is busy stays for the next round.
fn unmount_where(chosen: impl Fn(&Mount) -> bool) {
    let base =
        ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", root::PROGRAM, "/var/lib/lockstep"];
    loop {
        let mounts = mountinfo::of(1).unwrap_or_default();
        let unmounted = mounts
            .iter()
            .rev()
            .filter(|mount| !base.contains(&mount.point.as_str()) && chosen(mount))
            .filter(|mount| unmount(mount.point.as_str(), UnmountFlags::empty()).is_ok())
            .count();
        if unmounted == 0 {
            break;
        }
    }
}

/// `reboot`, `poweroff`, `halt` and `shutdown` typed in a server.
///
/// # Errors
/// Not in a server: this word must never end the host.
pub fn ask(word: &str, words: &[String]) -> Result<()> {
    let cmdline = fs::read("/proc/1/cmdline").unwrap_or_default();
    if !cmdline.split(|&b| b == 0).any(|word| word == b"server-init") {
        return Err(Error::refused(format!("{word}: not in a server of a lab")));
    }
    let reboots = word == "reboot" || (word == "shutdown" && words.iter().any(|word| word == "-r"));
    let end = if reboots { End::Reboot } else { End::PowerOff };
    fs::write(Path::new(NOLOGIN), "System is going down.\n").doing(|| format!("write {NOLOGIN}"))?;
    test_kill_process(Pid::INIT)
        .and_then(|()| kill_process(Pid::INIT, end.signal()))
        .doing(|| "tell init".into())
}
