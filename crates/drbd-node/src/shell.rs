//! Executes what the engine wants done, over ports: the same code serves a resource and its simulation.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use block::Buffer;
use drbd_engine::event::{
    Action, Event, Finding, FrontFault, FrontId, Integrity, IoFault, Level, MetaBlock, MetaStep, Payload,
    Question, Slice, SocketId, SocketOptions, Tag, Ticket,
};
use drbd_engine::handlers::HandlerCall;
use drbd_engine::{Instant, Resource, admin::Refusal};
use drbd_format::activity_log::ring_block;
use drbd_format::meta::{DiskSizes, Layout};
use drbd_format::wire::{Agreed, Packet};

use crate::incoming::{Incoming, Received};

/// Names an operation that was given to a disk.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DiskToken(pub u64);

impl DiskToken {
    const META: u64 = 1;

    fn data(tag: Tag) -> Self {
        Self(tag.0 << 1)
    }

    fn meta(tag: Tag) -> Self {
        Self(tag.0 << 1 | Self::META)
    }
}

/// Which of a volume's devices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Area {
    /// The data.
    Data,
    /// The meta-data, on the same device if they are internal.
    Meta,
}

/// Part of a shared buffer.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The bytes.
    pub buffer: Rc<Buffer>,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
}

impl Chunk {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.offset..self.offset + self.len]
    }

    /// The whole buffer, without a copy if nobody else has it.
    pub fn into_buffer(self) -> Buffer {
        match Rc::try_unwrap(self.buffer) {
            Ok(buffer) if self.offset == 0 && self.len == buffer.len() => buffer,
            Ok(buffer) => Buffer::copy_of(&buffer[self.offset..self.offset + self.len]),
            Err(shared) => Buffer::copy_of(&shared[self.offset..self.offset + self.len]),
        }
    }

    /// All of a buffer.
    pub fn whole(buffer: Buffer) -> Self {
        let len = buffer.len();
        Self { buffer: Rc::new(buffer), offset: 0, len }
    }
}

/// A change of a disk.
#[derive(Debug)]
pub enum DiskOp {
    /// Fill the buffer from this byte offset on.
    Read {
        /// Where.
        offset: u64,
        /// As long as what is wanted.
        buffer: Buffer,
    },
    /// Write from this byte offset on.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Chunk,
        /// Complete when stable.
        fua: bool,
    },
    /// Make stable what completed before.
    Flush,
    /// Zero a range of bytes.
    Zero {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
        /// Space may be given back.
        may_unmap: bool,
    },
}

/// What the shell needs of the world. Nothing here blocks; what ends later is reported to the shell.
pub trait Ports {
    /// The time.
    fn now(&self) -> Instant;
    /// Gives an operation to a disk; it ends with [`Shell::disk_done`].
    fn disk(&mut self, volume: u16, area: Area, token: DiskToken, op: DiskOp);
    /// How large the disks of a volume are now; none without disks, or where that cannot be told.
    fn measure(&mut self, volume: u16) -> Option<DiskSizes>;
    /// The volume's disk is to be closed once its operations have ended.
    fn drop_disk(&mut self, volume: u16);
    /// Accept connections.
    fn listen(&mut self, local: SocketAddr, peer: SocketAddr, sockets: SocketOptions);
    /// No longer.
    fn stop_listening(&mut self);
    /// Try to connect once: ends with [`Shell::opened`] or an [`Event::DialFailed`].
    fn dial(&mut self, local: SocketAddr, peer: SocketAddr, sockets: SocketOptions);
    /// Queue bytes for a socket.
    fn send(&mut self, socket: SocketId, head: Vec<u8>, data: Option<Chunk>);
    /// Close a socket; with `drain` once its queue is sent.
    fn close(&mut self, socket: SocketId, drain: bool);
    /// Answer the front.
    fn complete(&mut self, volume: u16, request: FrontId, outcome: Result<Option<Chunk>, FrontFault>);
    /// The device's size is known.
    fn resized(&mut self, volume: u16, sectors: u64);
    /// Answer the administrator.
    fn answer(&mut self, ticket: Ticket, outcome: Result<Vec<String>, Refusal>);
    /// Run a program; it ends with an [`Event::HandlerEnded`].
    fn run_handler(&mut self, call: HandlerCall);
    /// For the log.
    fn log(&mut self, level: Level, text: String);
}

#[derive(Debug)]
struct Job {
    volume: u16,
    steps: VecDeque<MetaStep>,
    outstanding: u32,
    failed: bool,
}

/// The shell of one resource.
#[derive(Debug)]
pub struct Shell<P> {
    /// The decisions.
    pub engine: Resource,
    /// The world.
    pub ports: P,
    layouts: HashMap<u16, Layout>,
    payloads: HashMap<Payload, Rc<Buffer>>,
    payloads_made: u64,
    jobs: HashMap<Tag, Job>,
    /// A volume's jobs, the running one first: of two that write the same block the later must be the last.
    job_order: HashMap<u16, VecDeque<Tag>>,
    sockets: HashMap<SocketId, Incoming>,
    agreed: Agreed,
    integrity: Integrity,
    events: VecDeque<Event>,
}

impl<P: Ports> Shell<P> {
    /// Around an engine.
    pub fn new(engine: Resource, ports: P) -> Self {
        Self {
            engine,
            ports,
            layouts: HashMap::new(),
            payloads: HashMap::new(),
            payloads_made: 0,
            jobs: HashMap::new(),
            job_order: HashMap::new(),
            sockets: HashMap::new(),
            agreed: Agreed::NOTHING,
            integrity: Integrity::default(),
            events: VecDeque::new(),
        }
    }

    /// Where a volume's meta-data are; before its `Attach`.
    pub fn set_layout(&mut self, volume: u16, layout: Layout) {
        self.layouts.insert(volume, layout);
    }

    /// Keeps bytes under a handle.
    pub fn keep(&mut self, buffer: Buffer) -> Payload {
        self.payloads_made += 1;
        let payload = Payload(Payload::FROM_SHELL | self.payloads_made);
        self.payloads.insert(payload, Rc::new(buffer));
        payload
    }

    /// Number of buffers the engine has not released.
    pub fn kept(&self) -> usize {
        self.payloads.len()
    }

    /// A socket stands.
    pub fn opened(&mut self, socket: SocketId, outgoing: bool) {
        self.sockets.insert(socket, Incoming::new(Agreed::NOTHING));
        self.handle(Event::Opened { socket, outgoing });
    }

    /// Lets `read` put a socket's next bytes where they belong, and takes what is whole by then: how many bytes came and
    /// whether they filled the space. None if the socket is closed or the engine has enough to do.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn receive(
        &mut self,
        socket: SocketId,
        read: impl FnOnce(&mut P, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<(usize, bool)>> {
        if !self.engine.wants_data() && !self.engine.is_meta_socket(socket) {
            return Ok(None);
        }
        let Some(incoming) = self.sockets.get_mut(&socket) else { return Ok(None) };
        let space = incoming.space();
        let room = space.len();
        let bytes = read(&mut self.ports, space)?;
        incoming.filled(bytes);
        self.take_packets(socket);
        Ok(Some((bytes, bytes == room)))
    }

    fn take_packets(&mut self, socket: SocketId) {
        // Packets are understood one at a time: each may change how the next is to be read.
        loop {
            let Some(incoming) = self.sockets.get_mut(&socket) else { return };
            match incoming.next_packet() {
                Ok(None) => return,
                Ok(Some(Received { volume, packet, payload, is_altered: true })) => {
                    let bytes = payload.map_or(0, |buffer| buffer.len() as u32);
                    self.handle(Event::Altered { socket, volume, packet, bytes });
                }
                Ok(Some(received)) => {
                    let payload = received.payload.map(|buffer| {
                        let len = buffer.len() as u32;
                        (self.keep(buffer), len)
                    });
                    let (volume, packet) = (received.volume, received.packet);
                    match &packet {
                        Packet::Sizes(_) => self.measure(volume),
                        Packet::ConnectionFeatures(_) => self.measure_all(),
                        _ => {}
                    }
                    self.handle(Event::Received { socket, volume, packet, payload });
                }
                Err(malformed) => {
                    self.handle(Event::Malformed { socket, why: malformed.to_string() });
                    return;
                }
            }
        }
    }

    /// Looks how large the disks of a volume are, and tells the engine.
    pub fn measure(&mut self, volume: u16) {
        if let Some(sizes) = self.ports.measure(volume) {
            self.handle(Event::DiskMeasured { volume, sizes });
        }
    }

    fn measure_all(&mut self) {
        let volumes: Vec<u16> = self.layouts.keys().copied().collect();
        for volume in volumes {
            self.measure(volume);
        }
    }

    /// A socket has ended.
    pub fn ended(&mut self, socket: SocketId) {
        if self.sockets.remove(&socket).is_some() {
            self.handle(Event::Closed { socket });
        }
    }

    /// A disk is done with an operation; a read brings its buffer.
    pub fn disk_done(&mut self, token: DiskToken, outcome: Result<Option<Buffer>, IoFault>) {
        let tag = Tag(token.0 >> 1);
        if token.0 & DiskToken::META != 0 {
            return self.step_done(tag, outcome.is_ok());
        }
        let outcome = outcome.map(|buffer| {
            if let Some(buffer) = buffer {
                self.payloads.insert(Payload(tag.0), Rc::new(buffer));
            }
        });
        self.handle(Event::IoDone { tag, outcome });
    }

    fn step_done(&mut self, tag: Tag, succeeded: bool) {
        let Some(job) = self.jobs.get_mut(&tag) else { return };
        job.outstanding -= 1;
        job.failed |= !succeeded;
        if job.outstanding == 0 {
            self.next_step(tag);
        }
    }

    /// Begins the next step of a meta-data job; the job ends with its last step or its first failure.
    fn next_step(&mut self, tag: Tag) {
        let Some(job) = self.jobs.get_mut(&tag) else { return };
        let volume = job.volume;
        let step = if job.failed { None } else { job.steps.pop_front() };
        let Some(step) = step else {
            let outcome = if job.failed { Err(IoFault) } else { Ok(()) };
            self.jobs.remove(&tag);
            self.events.push_back(Event::IoDone { tag, outcome });
            let order = self.job_order.entry(volume).or_default();
            order.pop_front();
            if outcome.is_err() {
                // What comes after relies on it: an activity log is not begun anew over bits that were not written.
                for later in order.iter() {
                    if let Some(job) = self.jobs.get_mut(later) {
                        job.failed = true;
                    }
                }
            }
            if let Some(&next) = order.front() {
                self.next_step(next);
            }
            return self.run();
        };
        let Some(layout) = self.layouts.get(&volume).copied() else {
            job.failed = true;
            return self.next_step(tag);
        };
        let token = DiskToken::meta(tag);
        match step {
            // With external meta-data the two devices are flushed side by side.
            MetaStep::Flush => {
                job.outstanding = 2;
                self.ports.disk(volume, Area::Data, token, DiskOp::Flush);
                self.ports.disk(volume, Area::Meta, token, DiskOp::Flush);
            }
            MetaStep::Move(layout) => {
                self.layouts.insert(volume, layout);
                self.next_step(tag);
            }
            MetaStep::Write(blocks) => {
                job.outstanding = blocks.len() as u32;
                for block in blocks {
                    let (offset, bytes) = place(&layout, block);
                    let data = Chunk::whole(bytes);
                    self.ports.disk(volume, Area::Meta, token, DiskOp::Write { offset, data, fua: false });
                }
            }
        }
    }

    /// One event and everything that follows from it at once.
    pub fn handle(&mut self, event: Event) {
        self.events.push_back(event);
        self.run();
    }

    fn run(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let mut actions = Vec::new();
            self.engine.handle(self.ports.now(), event, &mut actions);
            for action in actions {
                self.execute(action);
            }
        }
    }

    fn chunk(&self, slice: Slice) -> Option<Chunk> {
        let buffer = Rc::clone(self.payloads.get(&slice.payload)?);
        Some(Chunk { buffer, offset: slice.offset as usize, len: slice.len as usize })
    }

    fn take_chunk(&mut self, slice: Slice) -> Option<Chunk> {
        let buffer = self.payloads.remove(&slice.payload)?;
        Some(Chunk { buffer, offset: slice.offset as usize, len: slice.len as usize })
    }

    /// Looks at bytes for the engine: what it learns of them is bounded, and so is the time, by the requests it has under
    /// way.
    fn inspect(&mut self, data: Option<Slice>, question: Question) -> Finding {
        let chunk = data.and_then(|slice| self.chunk(slice));
        match question {
            Question::Digest(alg) => {
                let digest = chunk.map_or_else(|| vec![0; alg.bytes()], |chunk| alg.of(chunk.bytes()));
                Finding::Digest(self.keep(Buffer::copy_of(&digest)), digest.len() as u32)
            }
            Question::HasDigest(alg, expected) => {
                let expected = self.payloads.get(&expected);
                let has = chunk.zip(expected).is_some_and(|(chunk, expected)| {
                    expected.get(..).is_some_and(|expected| alg.of(chunk.bytes()) == expected)
                });
                Finding::Is(has)
            }
            Question::IsZero => Finding::Is(chunk.is_some_and(|chunk| is_zero(chunk.bytes()))),
        }
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Read { tag, volume, range } => {
                let buffer = Buffer::new(range.bytes() as usize);
                let op = DiskOp::Read { offset: range.byte_offset(), buffer };
                self.ports.disk(volume, Area::Data, DiskToken::data(tag), op);
            }
            Action::Write { tag, volume, range, data, fua } => {
                let data = self.chunk(data).expect("the engine writes only bytes it has not released");
                assert_eq!(data.len as u64, range.bytes(), "a write is as long as its range");
                let op = DiskOp::Write { offset: range.byte_offset(), data, fua };
                self.ports.disk(volume, Area::Data, DiskToken::data(tag), op);
            }
            Action::Flush { tag, volume } => {
                self.ports.disk(volume, Area::Data, DiskToken::data(tag), DiskOp::Flush);
            }
            Action::WriteZeroes { tag, volume, range, may_unmap } => {
                let op = DiskOp::Zero { offset: range.byte_offset(), len: range.bytes(), may_unmap };
                self.ports.disk(volume, Area::Data, DiskToken::data(tag), op);
            }
            Action::Inspect { tag, data, question } => {
                let finding = self.inspect(data, question);
                self.events.push_back(Event::Inspected { tag, finding });
            }
            Action::Meta { tag, volume, steps } => {
                let job = Job { volume, steps: steps.into(), outstanding: 0, failed: false };
                self.jobs.insert(tag, job);
                let order = self.job_order.entry(volume).or_default();
                order.push_back(tag);
                if order.len() == 1 {
                    self.next_step(tag);
                }
            }
            Action::Listen { local, peer, sockets } => self.ports.listen(local, peer, sockets),
            Action::StopListening => self.ports.stop_listening(),
            Action::Dial { local, peer, sockets } => self.ports.dial(local, peer, sockets),
            Action::Send { socket, volume, packet, data } => {
                let data = data.and_then(|slice| self.chunk(slice));
                let bytes = data.as_ref().map_or(0, |chunk| chunk.len);
                // The bytes are ours alone, whoever wrote them: nobody changes them between digest and wire.
                let digest = match (self.integrity.sent, &data) {
                    (Some(alg), Some(chunk)) if packet.is_protected() => alg.of(chunk.bytes()),
                    _ => Vec::new(),
                };
                let mut head = Vec::with_capacity(64 + digest.len());
                packet.encode(volume, digest.len() + bytes, &self.agreed, &mut head);
                head.extend(digest);
                self.ports.send(socket, head, data);
            }
            Action::Agree { agreed } => {
                self.agreed = agreed;
                for incoming in self.sockets.values_mut() {
                    incoming.agreed = agreed;
                }
            }
            Action::Integrity(integrity) => {
                self.integrity = integrity;
                for incoming in self.sockets.values_mut() {
                    incoming.integrity = integrity.received;
                }
            }
            Action::Close { socket, drain } => {
                self.sockets.remove(&socket);
                self.ports.close(socket, drain);
            }
            Action::Complete { volume, request, outcome } => {
                // A read's bytes go to the front for good, so that it can have them without a copy.
                let outcome = outcome.map(|slice| slice.and_then(|slice| self.take_chunk(slice)));
                self.ports.complete(volume, request, outcome);
            }
            Action::Gather { payload, len, slices } => {
                let mut buffer = Buffer::new(len as usize);
                let mut filled = 0;
                for chunk in slices.into_iter().filter_map(|slice| self.chunk(slice)) {
                    buffer[filled..filled + chunk.len].copy_from_slice(chunk.bytes());
                    filled += chunk.len;
                }
                buffer[filled..].fill(0);
                self.payloads.insert(payload, Rc::new(buffer));
            }
            Action::Release { payload } => {
                self.payloads.remove(&payload);
            }
            Action::Answer { ticket, outcome } => self.ports.answer(ticket, outcome),
            Action::DropDisk { volume } => self.ports.drop_disk(volume),
            Action::Resized { volume, sectors } => self.ports.resized(volume, sectors),
            Action::RunHandler(call) => self.ports.run_handler(call),
            Action::Log { level, text } => self.ports.log(level, text),
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// Where a block of meta-data goes, and its bytes.
fn place(layout: &Layout, block: MetaBlock) -> (u64, Buffer) {
    match block {
        MetaBlock::SuperBlock(superblock) => (layout.md_offset_bytes, Buffer::copy_of(&superblock.encode())),
        MetaBlock::ActivityLog(transaction) => {
            let block = ring_block(transaction.number, layout.al_stripes, layout.al_stripe_size_4k);
            (layout.al_offset_bytes + block * 4096, Buffer::copy_of(&transaction.encode()))
        }
        MetaBlock::BitmapPage { page, bytes } => {
            let offset = u64::from(page) * 4096;
            assert!(offset + 4096 <= layout.bm_bytes, "page {page} is beyond the bitmap's place");
            (layout.bm_offset_bytes + offset, Buffer::copy_of(&bytes[..]))
        }
    }
}
