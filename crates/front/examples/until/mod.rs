//! Until when an example serves.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};

pub fn wait_readable(fd: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}

/// Readable once SIGTERM or SIGINT came.
pub fn stop_on_signals() -> io::Result<OwnedFd> {
    let (end, other) = std::os::unix::net::UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, other.try_clone()?)?;
    }
    std::mem::forget(other);
    Ok(end.into())
}
