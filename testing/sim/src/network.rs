//! Byte streams between the two nodes: in order, late, in odd pieces, and sometimes not at all.

use std::collections::VecDeque;

use drbd_engine::event::SocketId;
use drbd_node::shell::Chunk;

/// Bytes on their way.
#[derive(Debug)]
pub enum Segment {
    /// A header and body.
    Head(Vec<u8>, usize),
    /// Payload.
    Payload(Chunk, usize),
}

impl Segment {
    /// What was not yet read of it.
    pub fn rest(&self) -> &[u8] {
        match self {
            Self::Head(bytes, read) => &bytes[*read..],
            Self::Payload(chunk, read) => &chunk.bytes()[*read..],
        }
    }

    /// So many bytes were read.
    pub fn consume(&mut self, bytes: usize) {
        match self {
            Self::Head(_, read) | Self::Payload(_, read) => *read += bytes,
        }
    }
}

/// Something that travels to one end.
#[derive(Debug)]
pub enum Item {
    /// Bytes.
    Bytes(Segment),
    /// The other end has closed, in order or not.
    End,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    /// Its node.
    pub node: usize,
    /// Its name there.
    pub socket: SocketId,
    /// Nobody holds it any more.
    pub closed: bool,
    /// On the way to this end.
    pub wire: VecDeque<Item>,
    /// When the last item that was sent to this end will be here: nothing overtakes.
    pub last_arrival: u64,
    /// Arrived, not read.
    pub inbox: VecDeque<Segment>,
    /// Nothing follows the inbox.
    pub ended: bool,
    /// Arrivals that a cut holds back.
    pub held: u32,
    /// Whatever is sent to it vanishes, and nobody is told.
    pub mute: bool,
}

impl End {
    /// An open end.
    pub fn new(node: usize, socket: SocketId) -> Self {
        Self {
            node,
            socket,
            closed: false,
            wire: VecDeque::new(),
            last_arrival: 0,
            inbox: VecDeque::new(),
            ended: false,
            held: 0,
            mute: false,
        }
    }
}

/// A connection: the dialler's end and the acceptor's.
pub type Connection = [End; 2];
