//! Doing a thing in a network namespace: sockets made there stay there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};

/// Runs `work` in the network namespace of the process that `pidfd` names, on a thread of its own, which ends with it.
///
/// # Errors
/// The process is gone, or what `work` says.
pub fn inside<T: Send>(pidfd: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_a_thread(|| {
        rustix::thread::move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::NETWORK)?;
        work()
    })
}

/// Runs `work` in the network namespace that is kept at `path`, on a thread of its own, which ends with it.
///
/// # Errors
/// No namespace is there, or what `work` says.
pub fn inside_path<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_a_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace broke off")))
    })
}
