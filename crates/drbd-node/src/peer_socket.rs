//! The shell's sockets: what is queued goes out in as few calls as possible.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use drbd_engine::event::SocketOptions;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::ring::Interest;
use crate::shell::Chunk;

/// Pieces given to one writev(2).
const PIECES_MAX: usize = 64;

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
    /// The engine was told that something waits.
    told_to_wait: bool,
    /// Bytes were taken since it was told.
    has_moved: bool,
}

impl PeerSocket {
    /// Around a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            queue: VecDeque::new(),
            sent: 0,
            draining: false,
            full: false,
            watched: Interest::READ,
            told_to_wait: false,
            has_moved: false,
        }
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

    /// What the engine is to hear of it: something waits (again, after some was taken), or nothing does any more.
    pub fn news(&mut self) -> Option<bool> {
        let waits = self.full && !self.queue.is_empty();
        let is_news = waits != self.told_to_wait || (waits && self.has_moved);
        self.told_to_wait = waits;
        self.has_moved = false;
        is_news.then_some(waits)
    }

    /// Sends as much as the kernel takes; false: it is full, and a poll for room is needed. `corks`: what takes several
    /// calls goes out in full segments (`tcp-cork`).
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn flush(&mut self, corks: bool) -> io::Result<bool> {
        let cork = corks && self.queue.len() > PIECES_MAX;
        if cork {
            rustix::net::sockopt::set_tcp_cork(&self.fd, true)?;
        }
        let sent = self.flush_queue();
        if cork {
            rustix::net::sockopt::set_tcp_cork(&self.fd, false)?;
        }
        let is_empty = sent?;
        self.full = !is_empty;
        Ok(is_empty)
    }

    fn flush_queue(&mut self) -> io::Result<bool> {
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
        self.has_moved |= written > 0;
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

/// Buffers as the kernel's DRBD sets them, before the connection is made: to these sizes, whatever the limits for others.
fn set_buffers(socket: &Socket, options: SocketOptions) -> io::Result<()> {
    // The system doubles what it is told here, for what it needs beside the bytes.
    let (send, receive) = (options.send_buffer_bytes / 2, options.receive_buffer_bytes / 2);
    if send != 0 && rustix::net::sockopt::set_socket_send_buffer_size_force(socket, send as usize).is_err() {
        socket.set_send_buffer_size(send as usize)?;
    }
    if receive != 0
        && rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, receive as usize).is_err()
    {
        socket.set_recv_buffer_size(receive as usize)?;
    }
    Ok(())
}

/// Begins to connect from one address to another; writable when decided.
///
/// # Errors
/// If it fails at once.
pub fn dial(local: SocketAddr, peer: SocketAddr, options: SocketOptions) -> io::Result<Socket> {
    let socket = new_socket(peer)?;
    set_buffers(&socket, options)?;
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
pub fn listen(local: SocketAddr, options: SocketOptions) -> io::Result<Socket> {
    let socket = new_socket(local)?;
    set_buffers(&socket, options)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(local))?;
    socket.listen(5)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_the_sizes_of_the_options() {
        let options =
            SocketOptions { send_buffer_bytes: 128 << 10, receive_buffer_bytes: 64 << 10, dial_s: 1 };
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), options).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let dialled = dial(SocketAddr::from(([127, 0, 0, 1], 0)), address, options).unwrap();
        for socket in [listener, dialled] {
            assert_eq!(socket.send_buffer_size().unwrap(), 128 << 10);
            assert_eq!(socket.recv_buffer_size().unwrap(), 64 << 10);
        }
    }
}
