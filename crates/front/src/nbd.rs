//! An NBD server on a unix socket: fixed newstyle, structured replies.

mod connection;
mod handshake;
mod output;
mod proto;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::extent::Access;
use crate::inflight::InFlight;
use crate::request::{Fault, Front, Op, Request, RequestId};
use connection::{Command, Connection, Cookie, Interest};
use proto::NbdError;

/// The longest READ or WRITE that is carried out, and the maximum block size that clients are told.
const PAYLOAD_BYTES_MAX: u32 = 1 << 20;

/// Clients at once; more are turned away.
const CONNECTIONS_MAX: usize = 64;

const NAME_BYTES_MAX: usize = 4096;

/// Epoll keys of what is no connection.
const LISTENER: u64 = 0;
const FOLLOW_UPS: u64 = 1;

/// What the server offers.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its name, at most 4096 bytes; clients may also ask for the empty name.
    pub name: String,
    /// Size in bytes, a positive multiple of 512.
    pub size_bytes: u64,
    /// Whether clients may write.
    pub access: Access,
}

impl Export {
    fn is_named(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }
}

/// What an answer needs to know of its request.
#[derive(Debug)]
struct Asked {
    connection: u64,
    cookie: Cookie,
    op: Op,
    /// A flush must come before the answer.
    flush_after: bool,
}

/// One export on one listening socket, with any number of clients up to a limit.
#[derive(Debug)]
pub struct NbdServer {
    epoll: OwnedFd,
    listener: UnixListener,
    export: Export,
    connections: BTreeMap<u64, (Connection, Interest)>,
    next_connection: u64,
    in_flight: InFlight<Asked>,
    /// Flushes that follow a completed request, for the next turn; `wake` is readable while there are any.
    follow_ups: Vec<Request>,
    wake: OwnedFd,
}

/// A socket at `path` that listens, in place of one that a server which is gone left there. Only the owner may connect.
///
/// # Errors
/// `AlreadyExists` where something else is at the path or a server answers there; from bind(2).
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    if let Ok(found) = path.symlink_metadata() {
        if !found.file_type().is_socket() || UnixStream::connect(path).is_ok() {
            let what = format!("`{}` is in use", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener.into())
}

impl NbdServer {
    /// Serves `export` on a listening stream socket.
    ///
    /// # Errors
    /// `InvalidInput` where the export's name or size is out of its limits; from epoll_create(2) and eventfd(2).
    pub fn new(listener: OwnedFd, export: Export) -> io::Result<Self> {
        if export.name.len() > NAME_BYTES_MAX
            || export.size_bytes == 0
            || !export.size_bytes.is_multiple_of(units::SECTOR_BYTES)
        {
            let what = "an NBD export needs a name of at most 4096 bytes and a size of whole sectors";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, &wake, EventData::new_u64(FOLLOW_UPS), EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            export,
            connections: BTreeMap::new(),
            next_connection: FOLLOW_UPS + 1,
            in_flight: InFlight::new(),
            follow_ups: Vec::new(),
            wake,
        })
    }

    /// The listening socket, for a holder to keep.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A client that went away at once, or no descriptor free just now: the next turn tries again.
                Err(e) => {
                    tracing::warn!(export = self.export.name, why = %e, "an NBD client was not accepted");
                    return Ok(());
                }
            };
            if self.connections.len() >= CONNECTIONS_MAX {
                tracing::warn!(
                    export = self.export.name,
                    "an NBD client was turned away: {CONNECTIONS_MAX} are served"
                );
                continue;
            }
            socket.set_nonblocking(true)?;
            let key = self.next_connection;
            self.next_connection += 1;
            let interest = Interest { readable: true, writable: true };
            epoll::add(&self.epoll, &socket, EventData::new_u64(key), flags(interest))?;
            self.connections.insert(key, (Connection::new(socket), interest));
        }
    }

    fn advance(&mut self, key: u64, requests: &mut Vec<Request>) {
        let Some((connection, _)) = self.connections.get_mut(&key) else { return };
        let mut commands = Vec::new();
        let advanced = connection.advance(&self.export, &mut commands);
        for Command { cookie, op, payload, flush_after } in commands {
            let id = self.in_flight.insert(Asked { connection: key, cookie, op, flush_after });
            requests.push(Request { id, op, payload });
        }
        self.settle(key, advanced);
    }

    /// After anything was done with a connection: drops it where it is over, or waits for what it needs next.
    fn settle(&mut self, key: u64, done: io::Result<()>) {
        let Some((connection, waited_for)) = self.connections.get_mut(&key) else { return };
        if let Err(why) = &done {
            tracing::debug!(export = self.export.name, %why, "an NBD client is gone");
        }
        let interest = connection.interest();
        let over = done.is_err() || connection.is_over();
        if !over && (interest == *waited_for || self.wait_for(key, interest)) {
            return;
        }
        // Requests on their way stay there; their answers find no connection.
        self.connections.remove(&key);
    }

    fn wait_for(&mut self, key: u64, interest: Interest) -> bool {
        let Some((connection, waited_for)) = self.connections.get_mut(&key) else { return false };
        *waited_for = interest;
        epoll::modify(&self.epoll, &*connection, EventData::new_u64(key), flags(interest)).is_ok()
    }
}

/// A hang-up is always reported, so a client without interest costs no turns unless it is gone.
fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.readable);
    flags.set(EventFlags::OUT, interest.writable);
    flags
}

fn nbd_error(fault: Fault) -> NbdError {
    match fault {
        Fault::Io => NbdError::IO,
        Fault::NoSpace => NbdError::NOSPC,
        Fault::NotSupported => NbdError::NOTSUP,
        Fault::ReadOnly => NbdError::PERM,
    }
}

impl AsFd for NbdServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Front for NbdServer {
    /// Clients that come from now on see it; the protocol tells those that are there nothing.
    fn resize(&mut self, size_bytes: u64) {
        self.export.size_bytes = size_bytes;
    }

    fn poll(&mut self, requests: &mut Vec<Request>) -> io::Result<()> {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; CONNECTIONS_MAX];
        let count = match epoll::wait(&self.epoll, &mut events[..], Some(&Timespec::default())) {
            Err(Errno::INTR) => return Ok(()),
            count => count?,
        };
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => self.accept()?,
                FOLLOW_UPS => {
                    rustix::io::read(&self.wake, &mut [0; 8])?;
                    requests.append(&mut self.follow_ups);
                }
                key => {
                    let flags = event.flags;
                    let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                    let readable = self
                        .connections
                        .get(&key)
                        .is_some_and(|(connection, _)| connection.interest().readable);
                    if hung_up && !readable {
                        // Nothing it could still want to say is listened to, and nobody is there to be answered.
                        self.settle(key, Err(io::ErrorKind::ConnectionReset.into()));
                    } else {
                        self.advance(key, requests);
                    }
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, id: RequestId, outcome: Result<Option<block::Buffer>, Fault>) {
        let Some(asked) = self.in_flight.remove(id) else {
            tracing::error!(?id, "a request was completed that is not on its way");
            return;
        };
        if asked.flush_after && outcome.is_ok() {
            let id = self.in_flight.insert(Asked { flush_after: false, ..asked });
            self.follow_ups.push(Request { id, op: Op::Flush, payload: None });
            if let Err(why) = rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
                tracing::error!(%why, "an NBD follow-up was not announced");
            }
            return;
        }
        let Some((connection, _)) = self.connections.get_mut(&asked.connection) else { return };
        let answered = connection.answer(asked.cookie, &asked.op, outcome.map_err(nbd_error));
        self.settle(asked.connection, answered);
    }
}
