//! `nova ssh`: a command or a shell in a server, with this terminal.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::catalog::IMAGES;
use crate::cgroup;
use crate::clock;
use crate::error::{Doing, Error, Result};
use crate::init;
use crate::life::{Life, Status};
use crate::place::Lab;
use crate::state::{Init, Server};
use crate::systemd;
use crate::terminal;

/// What ssh answers when the connection, not the command, failed.
const CONNECTION_LOST: u8 = 255;

/// Time for a server that reboots to come back.
const REBOOT_PATIENCE: Duration = Duration::from_secs(30);

/// What the command's process needs, prepared before the fork.
struct Command {
    /// Program and arguments, for execve.
    argv: Vec<CString>,
    /// `NAME=value`.
    environment: Vec<CString>,
    /// Move whoever writes to them into the server's cgroups.
    cgroups: Vec<File>,
}

impl Command {
    fn new(lab: &Lab, server: &Server, words: &[String]) -> Result<Self> {
        let shell: Vec<String> = if words.is_empty() {
            let login = if PathBuf::from("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
            vec![login.into(), "-l".into()]
        } else {
            vec!["/bin/sh".into(), "-c".into(), words.join(" ")]
        };
        let mut environment = vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "HOME=/root".to_owned(),
            "USER=root".to_owned(),
            "LOGNAME=root".to_owned(),
            "SHELL=/bin/bash".to_owned(),
        ];
        environment.extend(std::env::var("TERM").map(|term| format!("TERM={term}")));
        environment.extend(std::env::var("LANG").map(|lang| format!("LANG={lang}")));
        let era = IMAGES.iter().find(|image| image.id == server.image).and_then(|image| image.era);
        environment.extend(era.map(|era| format!("LOCKSTEP_ERA={era}")));
        environment.extend(clock::environment(lab, server));
        let strings = |texts: Vec<String>| -> Result<Vec<CString>> {
            let nul = |_| Error::refused("ssh: a word contains a NUL byte");
            texts.into_iter().map(|text| CString::new(text).map_err(nul)).collect()
        };
        let open = |path: &PathBuf| {
            OpenOptions::new().write(true).open(path).doing(|| format!("open {}", path.display()))
        };
        let cgroups = cgroup::entrances(lab, server.id).iter().map(open).collect::<Result<_>>()?;
        Ok(Self { argv: strings(shell)?, environment: strings(environment)?, cgroups })
    }

    /// Becomes the command. Runs in the forked child, in the server's process namespace already.
    fn exec(self, namespaces: &OwnedFd) -> io::Error {
        let enter = || -> io::Result<()> {
            for mut cgroup in self.cgroups {
                cgroup.write_all(b"0")?;
            }
            let rest = ThreadNameSpaceType::MOUNT
                | ThreadNameSpaceType::NETWORK
                | ThreadNameSpaceType::CONTROL_GROUP
                | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
                | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
            move_into_thread_name_spaces(namespaces.as_fd(), rest)?;
            std::env::set_current_dir("/root").or_else(|_| std::env::set_current_dir("/"))?;
            // The language's runtime ignores it, and a command that is not told when its reader has gone complains.
            // SAFETY: restores the default; no handler of ours is lost.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            // A command that outlives its caller's terminal must not wait for ever on it.
            rustix::process::set_parent_process_death_signal(Some(Signal::HUP))?;
            Ok(())
        };
        if let Err(error) = enter() {
            return error;
        }
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, environment) = (pointers(&self.argv), pointers(&self.environment));
        // SAFETY: both vectors end with a null pointer and point to strings that live until the call succeeds.
        unsafe { libc::execve(argv[0], argv.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// A server that ends has no root any more; one that was told to reboot still runs for a moment.
fn takes_commands(server: &Server, life: &Life) -> bool {
    match server.init {
        Init::Systemd => systemd::takes_commands(life),
        Init::Tiny => !life.path_in(init::NOLOGIN).exists() && life.path_in("run").exists(),
    }
}

/// Waits until the server is up if it is on its way, and gives its life.
fn life_of(lab: &Lab, server: &Server, patience_ends: Instant) -> Result<Life> {
    loop {
        let life = Life::load(lab, server.id)?;
        let status = Life::status(life.as_ref());
        match (status, life) {
            (Status::Active, Some(life)) if takes_commands(server, &life) => {
                return Ok(life);
            }
            (Status::Shutoff, _) => {
                return Err(Error::refused(format!(
                    "ssh: server {} is off; `nova start {}` boots it",
                    server.name, server.name
                )));
            }
            _ if Instant::now() > patience_ends => {
                return Err(Error::refused(format!("ssh: server {} does not come up", server.name)));
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Makes children of this process children of the server's process 1. Gives its life, and what the other
/// namespaces are found by.
fn enter_processes(lab: &Lab, server: &Server) -> Result<(Life, OwnedFd)> {
    let patience_ends = Instant::now() + REBOOT_PATIENCE;
    loop {
        let life = life_of(lab, server, patience_ends)?;
        let Some(namespaces) = life.init.pidfd() else { continue };
        match move_into_thread_name_spaces(namespaces.as_fd(), ThreadNameSpaceType::PROCESS_ID) {
            // It ended in between: `life_of` tells off from rebooting.
            Err(rustix::io::Errno::SRCH) => {}
            entered => {
                entered.doing(|| format!("enter server {}", server.name))?;
                // Nobody answers in a server that is paused.
                let asked = server.init == Init::Systemd && !life.paused;
                if !asked || Instant::now() > patience_ends || !is_stopping(server, &life)? {
                    return Ok((life, namespaces));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Whether the server's systemd has an order to shut down. It answers only to those whom it sees: to a child of this
/// process, which is in the server's process namespace.
fn is_stopping(server: &Server, life: &Life) -> Result<bool> {
    // SAFETY: this process has one thread, so the child may do all that its parent may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // One that does not answer is on its way up or down; what tells that is the file that `takes_commands` sees.
        let stopping = systemd::manager::is_stopping(life).unwrap_or(false);
        // SAFETY: ends the process; no destructor of the parent's state may run in the child.
        unsafe { libc::_exit(i32::from(stopping)) }
    }
    let child = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(|| Error::System {
        doing: format!("ask server {}", server.name),
        source: io::Error::last_os_error(),
    })?;
    Ok(wait_for(child)?.exit_status() == Some(1))
}

/// Runs words (joined by blanks, as ssh does) by /bin/sh in the server, or a login shell if there are none, and
/// gives its exit status; 255 if the server was lost meanwhile.
///
/// # Errors
/// The server is off, or cannot be entered.
pub fn run(lab: &Lab, server: &Server, words: &[String]) -> Result<u8> {
    let interactive = words.is_empty() && io::stdin().is_terminal() && io::stdout().is_terminal();
    let (life, namespaces) = enter_processes(lab, server)?;
    // Only now: each life has a cgroup of its own.
    let command = Command::new(lab, server, words)?;
    let status =
        if interactive { with_terminal(command, &namespaces)? } else { plain(command, &namespaces)? };
    if let Some(code) = status.exit_status() {
        return Ok(code as u8);
    }
    if !life.init.is_alive() {
        eprintln!("Connection to {} closed: the server went down.", server.name);
    }
    Ok(CONNECTION_LOST)
}

/// Forks; the child runs `child`, which returns only if it failed.
fn fork(child: impl FnOnce() -> io::Error) -> Result<Pid> {
    // SAFETY: this process has one thread, so the child may do all that its parent may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        eprintln!("nova ssh: {}", child());
        // SAFETY: ends the process; no destructor of the parent's state may run in the child.
        unsafe { libc::_exit(i32::from(CONNECTION_LOST)) }
    }
    Pid::from_raw(pid)
        .filter(|_| pid > 0)
        .ok_or_else(|| Error::System { doing: "fork".into(), source: io::Error::last_os_error() })
}

fn wait_for(child: Pid) -> Result<rustix::process::WaitStatus> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Ok(Some((_, status))) => return Ok(status),
            Err(error) => return Err(error).doing(|| "wait for the command".into()),
        }
    }
}

fn plain(command: Command, namespaces: &OwnedFd) -> Result<rustix::process::WaitStatus> {
    let child = fork(|| command.exec(namespaces))?;
    // The terminal's interrupt reaches the command too; its status is what counts.
    // SAFETY: ignoring signals touches no memory.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGQUIT, libc::SIG_IGN);
    }
    wait_for(child)
}

/// The command gets a terminal of the server's own; we carry bytes between it and ours.
fn with_terminal(command: Command, namespaces: &OwnedFd) -> Result<rustix::process::WaitStatus> {
    let (ours, theirs) = UnixStream::pair().doing(|| "make a socket pair".into())?;
    let child = fork(|| match terminal::open_and_send(namespaces, &theirs) {
        Ok(()) => command.exec(namespaces),
        Err(error) => error,
    })?;
    drop(theirs);
    let carried = terminal::receive(&ours).and_then(|master| terminal::carry(master.as_fd()));
    let status = wait_for(child)?;
    carried.doing(|| "carry the terminal".into())?;
    Ok(status)
}
