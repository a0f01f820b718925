//! The process beside a server: boots it, waits for its end, boots it again if that was a reboot.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use uuid::Uuid;

use crate::catalog;
use crate::cgroup;
use crate::error::{Doing, Error, Result};
use crate::events::{self, Kind};
use crate::fabric;
use crate::init::End;
use crate::life::{Disk, Life};
use crate::place::{Lab, LabLock};
use crate::process::Process;
use crate::state::{Records, Server};
use crate::store;
use crate::{disk, power, wire};

/// Where init finds its end of the line to its supervisor.
pub const INIT_SOCKET: RawFd = 3;

/// Time for each step of a boot; a healthy one takes a few milliseconds.
const BOOT_PATIENCE: Duration = Duration::from_secs(30);

/// Starts a supervisor for a server that is off, and waits until the server is up. The caller must not hold the lock.
///
/// # Errors
/// Why the server did not come up.
pub fn start(lab: &Lab, server: &Server) -> Result<()> {
    let directory = lab.server_dir(server.id);
    std::fs::create_dir_all(&directory).doing(|| format!("create {}", directory.display()))?;
    let log = log_file(&directory.join("console.log"))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("lockstep")
        .args(["lab", "server", "--lab", lab.name(), "--id", &server.id.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .doing(|| "start the supervisor".into())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).doing(|| "listen to the supervisor".into())?;
    }
    match line.trim() {
        "up" => Ok(()),
        "" => Err(Error::refused(format!(
            "server {} did not boot; see {}/console.log",
            server.name,
            directory.display()
        ))),
        why => Err(Error::refused(format!("server {} did not boot: {why}", server.name))),
    }
}

/// A file for what a daemon says, kept across its lives.
///
/// # Errors
/// The system's refusal.
pub fn log_file(path: &std::path::Path) -> Result<File> {
    File::options().create(true).append(true).open(path).doing(|| format!("open {}", path.display()))
}

/// Runs as the supervisor. Says `up`, or why not, as one line on stdout, which it then closes.
///
/// # Errors
/// The boot that failed.
pub fn run(lab: &Lab, server_id: Uuid) -> Result<()> {
    // Whoever started this must be able to leave with its terminal.
    let _ = rustix::process::setsid();
    let mut first = true;
    loop {
        let booted = lab.lock().and_then(|lock| boot(lab, &lock, server_id));
        if first {
            announce(booted.as_ref().map(|_| ()));
            first = false;
        }
        let init = booted?;
        let status = loop {
            match waitpid(Pid::from_raw(init.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(Some((_, status))) => break status,
                _ => return Ok(()),
            }
        };
        // Killed: whoever cut its power cleans up, in the order that a power cut needs.
        let Some(end) = End::of(status) else { return Ok(()) };
        let lock = lab.lock()?;
        let records = Records::load(lab)?;
        let reboots = end == End::Reboot;
        if let Some(server) = records.server_by_id(server_id) {
            power::clean_up(lab, server, &records)?;
            let how = if reboots { "reboot" } else { "poweroff" };
            events::append(lab, Kind::Shutdown, &[&server.name, how])?;
        }
        if !reboots {
            Life::forget(lab, server_id, &lock);
            return Ok(());
        }
    }
}

/// The starter waits for this line, and then for nothing more of us.
fn announce(booted: std::result::Result<(), &Error>) {
    let line = match booted {
        Ok(()) => "up".to_owned(),
        Err(error) => error.to_string().replace('\n', "; "),
    };
    // A starter that was interrupted does not read it.
    let _ = writeln!(std::io::stdout(), "{line}");
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Boots the server: namespaces, root, cables, disks. On an error nothing of it is left.
fn boot(lab: &Lab, lock: &LabLock, server_id: Uuid) -> Result<Process> {
    let records = Records::load(lab)?;
    let Some(server) = records.server_by_id(server_id) else {
        return Err(Error::refused("it was deleted meanwhile"));
    };
    if Life::load(lab, server_id)?.is_some_and(|life| life.init.is_alive()) {
        return Err(Error::refused("it runs already"));
    }
    power::clean_up(lab, server, &records)?;
    fabric::ensure(
        lab,
        &records,
        records.networks.iter().filter(|n| server.nics.iter().any(|nic| nic.network == n.id)),
    )?;
    let (ours, theirs) = UnixStream::pair().doing(|| "make a socket pair".into())?;
    ours.set_read_timeout(Some(BOOT_PATIENCE)).doing(|| "set a timeout".into())?;
    let pid = spawn_init(lab, server_id, &theirs)?;
    drop(theirs);
    let booted = Process::of(pid)
        .doing(|| "find the server's init".into())
        .and_then(|init| plug_in(lab, lock, &records, server, init, BufReader::new(ours)).map(|()| init));
    if booted.is_err() {
        // Not yet reaped, so the id is still its own.
        let _ =
            Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        let _ = waitpid(Pid::from_raw(pid), WaitOptions::empty());
        power::clean_up(lab, server, &records)?;
        return booted;
    }
    if records.faults.fallen.iter().any(|&(fallen, _)| fallen == server_id) {
        let mut records = records.clone();
        records.faults.fallen.retain(|&(fallen, _)| fallen != server_id);
        records.save(lab, lock)?;
    }
    booted
}

fn plug_in(
    lab: &Lab,
    lock: &LabLock,
    records: &Records,
    server: &Server,
    init: Process,
    mut talk: BufReader<UnixStream>,
) -> Result<()> {
    cgroup::track(lab, server.id, init.pid);
    expect(&mut talk, "rooted")?;
    fabric::plug(lab, records, server, init.pid)?;
    let supervisor = Process::of(std::process::id() as i32).doing(|| "find myself".into())?;
    let mut life = Life::new(supervisor, init);
    store::ensure(lab, lock)?;
    for (volume, device) in records.volumes_of(server.id) {
        let loop_index = disk::bind(lab, volume)?.0;
        life.disks.push(Disk { volume: volume.id, device: device.to_owned(), loop_index });
    }
    life.save(lab, server.id, lock)?;
    store::refresh(lab)?;
    wire::apply(lab, records)?;
    talk.get_mut().write_all(b"go\n").doing(|| "talk to the server's init".into())?;
    expect(&mut talk, "up")?;
    life.limits = Some(cgroup::confine(lab, server.id, catalog::flavor_of(server), init.pid));
    life.up = true;
    life.save(lab, server.id, lock)?;
    talk.get_mut().write_all(b"go\n").doing(|| "talk to the server's init".into())?;
    events::append(lab, Kind::Boot, &[&server.name])
}

/// Reads init's next word.
fn expect(talk: &mut BufReader<UnixStream>, word: &str) -> Result<()> {
    let mut line = String::new();
    talk.read_line(&mut line).doing(|| format!("wait for {word:?} from the server's init"))?;
    if line.trim() == word {
        return Ok(());
    }
    let said = if line.is_empty() { "the server's init ended; see its console.log" } else { line.trim() };
    Err(Error::refused(said))
}

/// Starts process 1 in namespaces of its own, by its id here.
fn spawn_init(lab: &Lab, server: Uuid, socket: &UnixStream) -> Result<i32> {
    let words = ["lockstep", "lab", "server-init", "--lab", lab.name(), "--id", &server.to_string()];
    let words: Vec<CString> = words.iter().map(|word| CString::new(*word).unwrap_or_default()).collect();
    let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let envp = [path.as_ptr(), std::ptr::null()];
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack this is fork; this process has one thread, and the child calls
    // only dup2, execve and _exit on memory prepared above.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0);
        if pid == 0 {
            if libc::dup2(socket.as_raw_fd(), INIT_SOCKET) == INIT_SOCKET {
                // dup2 to itself keeps close-on-exec: take it off in either case.
                libc::fcntl(INIT_SOCKET, libc::F_SETFD, 0);
                // Our stdout is the starter's to read; init has only the log.
                libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO);
                libc::execve(c"/proc/self/exe".as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            libc::_exit(127);
        }
        i32::try_from(pid).ok().filter(|&pid| pid > 0).ok_or_else(|| Error::System {
            doing: "make the server's namespaces".into(),
            source: std::io::Error::last_os_error(),
        })
    }
}
