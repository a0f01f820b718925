//! A process that outlives its worker and keeps the descriptors that must not be closed with it.
//!
//! [`supervise`] is the keeper's whole program; [`Holder`] is what the worker sees of it. The keeper opens nothing,
//! locks no memory and knows nothing of what it keeps.

mod message;
mod supervise;

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};

use message::{Kind, Message};
pub use supervise::{Ended, Lost, supervise};

/// Tells the worker the number of its descriptor to the holder.
const ENVIRONMENT: &str = "LOCKSTEP_HOLDER";

/// The holder only copies a few bytes: one that does not answer for so long is stopped or gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One kept thing.
#[derive(Debug)]
pub struct Kept {
    /// Under what it was stored.
    pub name: String,
    /// What its owner must know of it.
    pub data: Vec<u8>,
    /// Its descriptors, in the order they were stored.
    pub fds: Vec<OwnedFd>,
}

/// The worker's connection to its holder.
#[derive(Debug)]
pub struct Holder {
    socket: OwnedFd,
}

impl Holder {
    /// The holder that started this process; None where none did. To be asked once, early: the descriptor is taken over.
    ///
    /// # Errors
    /// `InvalidInput` where the environment names a descriptor that is no connection to the parent process.
    pub fn from_env() -> io::Result<Option<Self>> {
        let Ok(value) = std::env::var(ENVIRONMENT) else { return Ok(None) };
        let bad = |why: &str| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("environment `{ENVIRONMENT}={value}`: {why}"))
        };
        let number: RawFd = value.parse().map_err(|_| bad("not a descriptor's number"))?;
        if number <= libc::STDERR_FILENO {
            return Err(bad("not a descriptor of its own"));
        }
        // SAFETY: F_GETFD looks only at the number; whether such a descriptor is open is what is asked.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return Err(bad("not open"));
        }
        // SAFETY: the descriptor is open (just asked) and, by the holder's contract, for this process to own: nothing
        // else in it knows the number.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        match Self::of_parent(&socket) {
            Ok(true) => {
                sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
                Ok(Some(Self { socket }))
            }
            // An environment inherited from further up: the descriptor is somebody else's.
            Ok(false) | Err(_) => {
                std::mem::forget(socket);
                Err(bad("no connection to the parent process"))
            }
        }
    }

    fn of_parent(socket: &OwnedFd) -> io::Result<bool> {
        let peer = sockopt::socket_peercred(socket)?.pid;
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(rustix::process::getppid() == Some(peer))
    }

    fn ask(&mut self, message: &Message<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        message::send(&self.socket, message, fds)?;
        let mut bytes = Vec::new();
        let fds = message::receive(&self.socket, &mut bytes)?;
        Ok((bytes, fds))
    }

    /// The answer must say that it was done.
    fn order(&mut self, message: &Message<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let (bytes, _) = self.ask(message, fds)?;
        let answer = Message::decode(&bytes)?;
        if answer.kind == Kind::DONE { Ok(()) } else { Err(answer.refusal()) }
    }

    /// Keeps copies of `fds` with `data` under `name`, in place of what was there. When this returns they survive the
    /// worker.
    ///
    /// # Errors
    /// `InvalidInput` beyond the limits (name 255 bytes, data 64 KiB, 16 descriptors, 1024 names); from the socket where
    /// the holder is gone.
    pub fn store(&mut self, name: &str, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.order(&Message { kind: Kind::STORE, index: 0, name, data }, fds)
    }

    /// Closes what is kept under `name`, if anything.
    ///
    /// # Errors
    /// From the socket.
    pub fn forget(&mut self, name: &str) -> io::Result<()> {
        self.order(&Message { kind: Kind::FORGET, index: 0, name, data: &[] }, &[])
    }

    /// Everything kept, in the order of the names; the holder goes on keeping it.
    ///
    /// # Errors
    /// From the socket.
    pub fn restore(&mut self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for index in 0.. {
            let fetch = Message { kind: Kind::FETCH, index, name: "", data: &[] };
            let (bytes, fds) = self.ask(&fetch, &[])?;
            let answer = Message::decode(&bytes)?;
            match answer.kind {
                Kind::KEPT => {
                    all.push(Kept { name: answer.name.to_owned(), data: answer.data.to_vec(), fds })
                }
                Kind::END => break,
                _ => return Err(answer.refusal()),
            }
        }
        Ok(all)
    }
}
