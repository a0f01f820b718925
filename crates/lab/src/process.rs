//! Processes named so that a recycled process id is never taken for the one that was meant.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process by id and start time (`/proc/PID/stat`, field 22, in clock ticks since boot).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Process {
    /// Process id as the host sees it.
    pub pid: i32,
    /// Clock ticks between the system's start and this process's.
    pub start_ticks: u64,
}

impl Process {
    /// The process that has this id now.
    ///
    /// # Errors
    /// `NotFound` if none has, or if it is dead and only waits to be reaped.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command's name may contain blanks and parentheses: fields count from behind the last one.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let dead = || io::Error::new(io::ErrorKind::NotFound, format!("process {pid} is gone"));
        if matches!(fields.next(), None | Some("Z" | "X")) {
            return Err(dead());
        }
        let start_ticks = fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(dead)?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether it lives. A zombie does not.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }

    /// A descriptor of this very process, or none if it is gone.
    pub fn pidfd(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: from here on the descriptor names this process whatever becomes of the id.
        self.is_alive().then_some(pidfd)
    }

    /// Sends a signal; nothing happens if the process is gone.
    pub fn signal(self, signal: Signal) {
        if let Some(pidfd) = self.pidfd() {
            // The process may end in between: then there is nobody to tell.
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }

    /// Waits until it has ended (reaped or not); false if it has not after `timeout`.
    pub fn wait_gone(self, timeout: Duration) -> bool {
        let Some(pidfd) = self.pidfd() else { return true };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                ready => return ready.is_ok_and(|count| count > 0),
            }
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pid.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_recycled_id_is_another_process() {
        let me = Process::of(std::process::id() as i32).expect("this process is there");
        assert!(me.is_alive());
        let other = Process { start_ticks: me.start_ticks + 1, ..me };
        assert!(!other.is_alive());
        assert!(other.pidfd().is_none());
    }

    #[test]
    fn a_zombie_is_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let process = Process { pid: child.id() as i32, start_ticks: 0 };
        let now = Process::of(process.pid);
        if let Ok(now) = now {
            assert!(now.wait_gone(std::time::Duration::from_secs(10)));
            assert!(!now.is_alive());
        }
        assert!(child.wait().expect("child is ours").success());
    }
}
