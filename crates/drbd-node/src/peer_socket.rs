//! The shell's sockets: what is queued goes out in as few calls as possible.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::ring::Interest;
use crate::shell::Chunk;

/// Pieces given to one writev(2).
const PIECES_MAX: usize = 64;

/// A connection attempt takes so long at most.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Piece {
    Head(Vec<u8>),
    Data(Chunk),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Head(bytes) => bytes,
            Self::Data(chunk) => chunk.bytes(),
        }
    }
}

/// A connected socket and its queue.
#[derive(Debug)]
pub struct PeerSocket {
    fd: OwnedFd,
    queue: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    sent: usize,
    /// To be closed once the queue is sent.
    pub draining: bool,
    /// The kernel takes no more for now.
    pub full: bool,
    /// What is watched at present.
    pub watched: Interest,
}

impl PeerSocket {
    /// Around a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, queue: VecDeque::new(), sent: 0, draining: false, full: false, watched: Interest::READ }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Appends to the queue.
    pub fn push(&mut self, head: Vec<u8>, data: Option<Chunk>) {
        self.queue.push_back(Piece::Head(head));
        self.queue.extend(data.map(Piece::Data));
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends as much as the kernel takes; false: a poll for room is needed.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn flush(&mut self) -> io::Result<bool> {
        while !self.queue.is_empty() {
            let mut skip = self.sent;
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            for (slot, piece) in slices.iter_mut().zip(&self.queue) {
                *slot = IoSlice::new(&piece.bytes()[std::mem::take(&mut skip)..]);
            }
            let count = self.queue.len().min(PIECES_MAX);
            match rustix::io::writev(&self.fd, &slices[..count]) {
                Ok(written) => self.advance(written),
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front() {
            let left = first.bytes().len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            written -= left;
            self.sent = 0;
            self.queue.pop_front();
        }
    }

    /// Reads into the space given; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; otherwise the connection is broken.
    pub fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, space)?)
    }
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What every connected socket gets.
///
/// # Errors
/// From setsockopt(2).
pub fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)
}

/// Begins to connect from one address to another; writable when decided.
///
/// # Errors
/// If it fails at once.
pub fn dial(local: SocketAddr, peer: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(peer)?;
    let mut from = local;
    from.set_port(0);
    socket.bind(&SockAddr::from(from))?;
    match socket.connect(&SockAddr::from(peer)) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Listens at an address.
///
/// # Errors
/// From bind(2) and listen(2).
pub fn listen(local: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(local)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(local))?;
    socket.listen(5)?;
    Ok(socket)
}
