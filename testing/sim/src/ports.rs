//! The shell's ports: what it wants is noted, and done by the world when the turn is over.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use drbd_engine::Instant;
use drbd_engine::admin::Refusal;
use drbd_engine::event::{FrontFault, FrontId, Level, SocketId, SocketOptions, Ticket};
use drbd_engine::handlers::HandlerCall;
use drbd_format::meta::DiskSizes;
use drbd_node::shell::{Area, Chunk, DiskOp, DiskToken, Ports};

use crate::clock::Clock;

/// What a shell wants done.
#[derive(Debug)]
pub enum Effect {
    /// An operation at the disk.
    Disk(Area, DiskToken, DiskOp),
    /// The disk is let go.
    DropDisk,
    /// Accept connections or not.
    Listen(bool),
    /// Try to connect.
    Dial,
    /// Bytes for a socket.
    Send(SocketId, Vec<u8>, Option<Chunk>),
    /// The end of a socket.
    Close(SocketId, bool),
    /// An answer to the front.
    Complete(FrontId, Result<Option<Chunk>, FrontFault>),
    /// The size is known.
    Resized(u64),
    /// An answer to the administrator.
    Answer(Ticket, Result<Vec<String>, Refusal>),
    /// A program of the administrator.
    RunHandler(HandlerCall),
    /// A line of the log.
    Log(Level, String),
}

/// The ports of one node.
#[derive(Debug)]
pub struct SimPorts {
    /// How large the disk is.
    pub disk_bytes: Rc<Cell<u64>>,
    /// The node's clock.
    pub clock: Clock,
    /// What is to be done, in order.
    pub effects: VecDeque<Effect>,
}

impl Ports for SimPorts {
    fn now(&self) -> Instant {
        self.clock.now()
    }
    fn disk(&mut self, _volume: u16, area: Area, token: DiskToken, op: DiskOp) {
        self.effects.push_back(Effect::Disk(area, token, op));
    }
    fn measure(&mut self, _volume: u16) -> Option<DiskSizes> {
        Some(DiskSizes::of_one(self.disk_bytes.get()))
    }
    fn drop_disk(&mut self, _volume: u16) {
        self.effects.push_back(Effect::DropDisk);
    }
    fn listen(&mut self, _local: SocketAddr, _peer: SocketAddr, _sockets: SocketOptions) {
        self.effects.push_back(Effect::Listen(true));
    }
    fn stop_listening(&mut self) {
        self.effects.push_back(Effect::Listen(false));
    }
    fn dial(&mut self, _local: SocketAddr, _peer: SocketAddr, _sockets: SocketOptions) {
        self.effects.push_back(Effect::Dial);
    }
    fn send(&mut self, socket: SocketId, head: Vec<u8>, data: Option<Chunk>) {
        self.effects.push_back(Effect::Send(socket, head, data));
    }
    fn close(&mut self, socket: SocketId, drain: bool) {
        self.effects.push_back(Effect::Close(socket, drain));
    }
    fn complete(&mut self, _volume: u16, request: FrontId, outcome: Result<Option<Chunk>, FrontFault>) {
        self.effects.push_back(Effect::Complete(request, outcome));
    }
    fn resized(&mut self, _volume: u16, sectors: u64) {
        self.effects.push_back(Effect::Resized(sectors));
    }
    fn answer(&mut self, ticket: Ticket, outcome: Result<Vec<String>, Refusal>) {
        self.effects.push_back(Effect::Answer(ticket, outcome));
    }
    fn run_handler(&mut self, call: HandlerCall) {
        self.effects.push_back(Effect::RunHandler(call));
    }
    fn log(&mut self, level: Level, text: String) {
        self.effects.push_back(Effect::Log(level, text));
    }
}
