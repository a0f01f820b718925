//! The holder's own program: start the worker, keep what it hands over, start it again when it dies.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};
use thiserror::Error;

use super::ENVIRONMENT;
use super::message::{self, Kind, Message};

const KEPT_MAX: usize = 1024;

/// A worker that ran for so long died of something new: its deaths are counted from the start.
const STEADY: Duration = Duration::from_secs(10);

/// Deaths in quick succession after which the holder gives up.
const QUICK_DEATHS_MAX: u32 = 10;

const DELAY_MAX: Duration = Duration::from_secs(5);

/// What a panic ends a Rust program with.
const EXIT_PANIC: i32 = 101;

/// How the worker ended of its own accord or as it was told to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// With this exit status.
    Exited(i32),
    /// By the signal that was passed on to it, or by another one after it.
    Stopped,
}

/// Why there is no worker any more although there should be. What was kept is closed.
#[derive(Debug, Error)]
pub enum Lost {
    /// It did not start.
    #[error("start `{program}`")]
    Start {
        /// The worker's program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It died again and again.
    #[error("`{program}` died {deaths} times, each within {} s of its start, last by {last}", STEADY.as_secs())]
    Dying {
        /// The worker's program.
        program: PathBuf,
        /// How often.
        deaths: u32,
        /// How in the end.
        last: ExitStatus,
    },
    /// The holder itself cannot go on.
    #[error("holder")]
    Holder(#[from] io::Error),
}

/// What the holder keeps: data and descriptors by name.
type Store = BTreeMap<String, (Vec<u8>, Vec<OwnedFd>)>;

/// Runs `program` with `arguments` until it ends in an orderly way: it exits (with any status but a panic's), or it ends
/// after SIGTERM or SIGINT, which are passed on. When it dies otherwise it is started again, at once the first time and
/// then with growing delays. The program is looked up each time, so a replaced file is what runs next.
///
/// To be called from a process with one thread that does nothing else.
///
/// # Errors
/// See `Lost`.
pub fn supervise(program: &Path, arguments: &[OsString]) -> Result<Ended, Lost> {
    let mut signals = Signals::new()?;
    let mut store = Store::new();
    let mut deaths = 0;
    loop {
        let started = Instant::now();
        let start = |source| Lost::Start { program: program.to_owned(), source };
        let (mut child, socket) = spawn(program, arguments).map_err(start)?;
        let status = attend(&mut child, &socket, &mut signals, &mut store)?;
        match status.code() {
            Some(code) if code != EXIT_PANIC => return Ok(Ended::Exited(code)),
            _ if signals.told_to_stop => return Ok(Ended::Stopped),
            _ => {}
        }
        deaths = if started.elapsed() >= STEADY { 1 } else { deaths + 1 };
        if deaths >= QUICK_DEATHS_MAX {
            return Err(Lost::Dying { program: program.to_owned(), deaths, last: status });
        }
        let delay = delay_after(deaths);
        tracing::error!(program = %program.display(), %status, signal = status.signal(), ?delay, "the worker died");
        if signals.wait(delay)? {
            return Ok(Ended::Stopped);
        }
    }
}

/// None after the first death, then 100 ms, doubled each time.
fn delay_after(deaths: u32) -> Duration {
    if deaths <= 1 {
        Duration::ZERO
    } else {
        (Duration::from_millis(100) * (1 << (deaths - 2).min(16))).min(DELAY_MAX)
    }
}

fn spawn(program: &Path, arguments: &[OsString]) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    // Inherited by the child only: this process has one thread, so no other child starts in between.
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
    let child =
        Command::new(program).args(arguments).env(ENVIRONMENT, theirs.as_raw_fd().to_string()).spawn()?;
    Ok((child, ours))
}

/// Serves the worker until it is dead, and takes what it had sent before that.
fn attend(
    child: &mut Child,
    socket: &OwnedFd,
    signals: &mut Signals,
    store: &mut Store,
) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let death = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut connected = true;
    loop {
        let mut fds = vec![PollFd::new(&death, PollFlags::IN)];
        fds.extend(signals.poll_fds());
        if connected {
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        let died = !fds[0].revents().is_empty();
        for signal in signals.taken()? {
            // A worker that is dead already is found below.
            let _ = rustix::process::pidfd_send_signal(&death, signal);
        }
        while connected {
            connected = match answer_one(socket, store) {
                Ok(()) => true,
                Err(e) if Errno::from_io_error(&e) == Some(Errno::AGAIN) => break,
                Err(_) => false,
            };
        }
        if died {
            return child.wait();
        }
    }
}

/// Takes one message and answers it.
///
/// # Errors
/// `WouldBlock` where there is none; anything else ends the connection.
fn answer_one(socket: &OwnedFd, store: &mut Store) -> io::Result<()> {
    let mut bytes = Vec::new();
    let fds = message::receive(socket, &mut bytes)?;
    let plain = |kind, data| Message { kind, index: 0, name: "", data };
    let asked = match Message::decode(&bytes) {
        Ok(asked) => asked,
        Err(why) => return message::send(socket, &plain(Kind::REFUSED, why.to_string().as_bytes()), &[]),
    };
    match asked.kind {
        Kind::STORE if store.len() >= KEPT_MAX && !store.contains_key(asked.name) => {
            let why = format!("{KEPT_MAX} names are kept already");
            message::send(socket, &plain(Kind::REFUSED, why.as_bytes()), &[])
        }
        Kind::STORE => {
            let fds = fds.into_iter().map(numbered).collect();
            store.insert(asked.name.to_owned(), (asked.data.to_vec(), fds));
            message::send(socket, &plain(Kind::DONE, &[]), &[])
        }
        Kind::FORGET => {
            store.remove(asked.name);
            message::send(socket, &plain(Kind::DONE, &[]), &[])
        }
        Kind::FETCH => match store.iter().nth(asked.index as usize) {
            Some((name, (data, fds))) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                message::send(socket, &Message { kind: Kind::KEPT, index: asked.index, name, data }, &fds)
            }
            None => message::send(socket, &plain(Kind::END, &[]), &[]),
        },
        _ => message::send(socket, &plain(Kind::REFUSED, b"unknown kind of message"), &[]),
    }
}

/// Block devices stay low, everything else goes high: should the holder be killed, what serves a block device is let go
/// before the device (see `fuse::Device`).
fn numbered(fd: OwnedFd) -> OwnedFd {
    let is_block = rustix::fs::fstat(&fd).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::BlockDevice
    });
    if is_block { fd } else { fuse::raise(fd) }
}

/// SIGTERM and SIGINT, each as a socket that becomes readable.
struct Signals {
    of: [(Signal, UnixStream); 2],
    told_to_stop: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let of = |signal: Signal| -> io::Result<(Signal, UnixStream)> {
            let (end, other) = UnixStream::pair()?;
            end.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal.as_raw(), other)?;
            Ok((signal, end))
        };
        Ok(Self { of: [of(Signal::TERM)?, of(Signal::INT)?], told_to_stop: false })
    }

    fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.of.iter().map(|(_, end)| PollFd::new(end, PollFlags::IN))
    }

    /// The signals that came since the last call.
    fn taken(&mut self) -> io::Result<Vec<Signal>> {
        let mut taken = Vec::new();
        for (signal, end) in &mut self.of {
            match end.read(&mut [0; 64]) {
                Ok(_) => taken.push(*signal),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        self.told_to_stop |= !taken.is_empty();
        Ok(taken)
    }

    /// Waits for `delay`; true when told to stop meanwhile.
    fn wait(&mut self, delay: Duration) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) };
        let mut fds: Vec<_> = self.poll_fds().collect();
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))?;
        self.taken().map(|taken| !taken.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DELAY_MAX, delay_after};

    #[test]
    fn the_first_restart_is_at_once_and_delays_are_bounded() {
        assert_eq!(delay_after(1), Duration::ZERO);
        assert_eq!(delay_after(2), Duration::from_millis(100));
        assert_eq!(delay_after(3), Duration::from_millis(200));
        assert_eq!(delay_after(u32::MAX), DELAY_MAX);
    }
}
