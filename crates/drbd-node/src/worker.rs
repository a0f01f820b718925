//! The thread of one resource: front, engine, disks and peer in one loop.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant as Clock};

use drbd_engine::admin::Refusal;
use drbd_engine::event::{
    Event, FrontFault, FrontId, FrontOp, IoFault, Level, Order, SocketId, SocketOptions, Ticket,
};
use drbd_engine::handlers::{HandlerCall, HandlerRun};
use drbd_engine::status::ResourceStatus;
use drbd_engine::{Instant, Resource};
use drbd_format::meta::{DiskSizes, Layout};
use drbd_format::wire::{PROTOCOL_MAX, PROTOCOL_MIN};
use front::{Fault, Front, LoopSizer, Op, Request, RequestId};
use rustix::event::{EventfdFlags, eventfd};
use socket2::Socket;

use crate::handlers::Handlers;
use crate::peer_socket::{self, PeerSocket};
use crate::ring::{Completion, Interest, Ring};
use crate::shell::{Area, Chunk, DiskOp, DiskToken, Ports, Shell};

/// Bytes read from one socket in a turn, so that the other sources get theirs.
const READ_BYTES_PER_TURN: usize = 4 << 20;

/// Keys of descriptors in the ring.
mod key {
    pub const COMMANDS: u64 = 0;
    pub const LISTENER: u64 = 1;
    pub const DIAL: u64 = 2;
    pub const FRONT: u64 = 1 << 32;
    pub const SOCKET: u64 = 2 << 32;
    pub const KIND: u64 = 0xffff_ffff << 32;
}

/// Devices of a volume.
#[derive(Debug)]
pub struct OpenDisk {
    /// The data.
    pub data: OwnedFd,
    /// The meta-data, if they are on another device.
    pub meta: Option<OwnedFd>,
    /// Where they are.
    pub layout: Layout,
}

/// How an order ended.
pub type Outcome = Result<Vec<String>, Refusal>;

/// What other threads ask of the worker.
#[allow(clippy::large_enum_variant, reason = "a person's orders: one at a time, moved once")]
pub enum Command {
    /// Add a volume.
    AddVolume {
        /// Number within the resource.
        volume: u16,
        /// Number of the device.
        minor: u32,
        /// Answer.
        reply: Sender<bool>,
    },
    /// Forget a volume; answered whether it could be.
    RemoveVolume {
        /// Number within the resource.
        volume: u16,
        /// Answer.
        reply: Sender<bool>,
    },
    /// An order for the engine; a disk to go with an attach.
    Order {
        /// What.
        order: Order,
        /// The devices of an attach.
        disk: Option<(u16, OpenDisk)>,
        /// Answer.
        reply: Sender<Outcome>,
    },
    /// Serve a front from now on.
    AddFront {
        /// Of which volume.
        volume: u16,
        /// Number by which it is taken away again.
        number: u32,
        /// The front.
        front: Box<dyn Front + Send>,
        /// Answered when it is served.
        reply: Sender<()>,
    },
    /// The loop device of a volume takes over the size of its file, from now on when that changes.
    SizeLoop {
        /// Of which volume.
        volume: u16,
        /// How.
        sizer: LoopSizer,
    },
    /// Serve it no longer; answered with the front once nothing of it is under way.
    RemoveFront {
        /// Which.
        number: u32,
        /// Answer.
        reply: Sender<Option<Box<dyn Front + Send>>>,
    },
    /// A program of the administrator has ended.
    HandlerEnded {
        /// Which.
        run: HandlerRun,
        /// Its exit code.
        status: u8,
    },
    /// State.
    Status(Sender<ResourceStatus>),
    /// Take nothing more from the fronts; answered when nothing of theirs is under way.
    Drain(Sender<()>),
    /// End the thread; the sender is dropped when it has ended.
    Stop(Sender<()>),
}

/// The way to a worker.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Sender<Command>,
    wake: std::sync::Arc<OwnedFd>,
}

impl Handle {
    /// Gives a command; false: the worker is gone.
    pub fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        sent
    }

    /// Ends the thread, and returns when it has ended and its disks are closed.
    pub fn stop(&self) {
        let (ended, wait) = channel();
        if self.send(Command::Stop(ended)) {
            let _ = wait.recv();
        }
    }

    /// Takes nothing more from the fronts, and returns when nothing of theirs is under way.
    pub fn drain(&self) {
        let _ = self.ask(Command::Drain);
    }

    /// Gives a command and waits for its answer.
    pub fn ask<R>(&self, command: impl FnOnce(Sender<R>) -> Command) -> Option<R> {
        let (reply, answer) = channel();
        if !self.send(command(reply)) {
            return None;
        }
        answer.recv().ok()
    }
}

struct ServedFront {
    volume: u16,
    front: Box<dyn Front + Send>,
    under_way: u32,
    leaving: Option<Sender<Option<Box<dyn Front + Send>>>>,
}

#[derive(Clone, Debug)]
struct Files {
    data: Rc<OwnedFd>,
    meta: Option<Rc<OwnedFd>>,
}

/// A connection attempt under way.
struct Dialling {
    socket: Socket,
    since: Clock,
    patience: Duration,
}

impl Dialling {
    fn time_left(&self) -> Duration {
        self.patience.saturating_sub(self.since.elapsed())
    }
}

/// What the shell sees of this thread.
struct World {
    started: Clock,
    ring: Ring,
    disks: HashMap<u16, Files>,
    sockets: BTreeMap<u64, PeerSocket>,
    sockets_made: u64,
    listener: Option<Socket>,
    listening: Option<(SocketAddr, SocketAddr, SocketOptions)>,
    dialling: Option<Dialling>,
    fronts: BTreeMap<u32, ServedFront>,
    /// What tells the loop device of a volume its size.
    sizers: HashMap<u16, LoopSizer>,
    requests: HashMap<FrontId, (u32, RequestId)>,
    requests_made: u64,
    tickets: HashMap<Ticket, Sender<Outcome>>,
    tickets_made: u64,
    /// Ended at once: reported after the turn.
    ended: VecDeque<(DiskToken, Result<(), IoFault>)>,
    dial_failed: bool,
    handlers: Handlers,
    /// The way to this thread, for those that wait for handlers.
    handle: Handle,
}

impl Ports for World {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn disk(&mut self, volume: u16, area: Area, token: DiskToken, op: DiskOp) {
        let Some(files) = self.disks.get(&volume) else {
            return self.ended.push_back((token, Err(IoFault)));
        };
        let file = match (area, &files.meta) {
            // One device: its flush as data device counts for both.
            (Area::Meta, None) if matches!(op, DiskOp::Flush) => {
                return self.ended.push_back((token, Ok(())));
            }
            (Area::Meta, Some(meta)) => meta,
            _ => &files.data,
        };
        self.ring.disk(token, Rc::clone(file), op);
    }

    fn measure(&mut self, volume: u16) -> Option<DiskSizes> {
        let files = self.disks.get(&volume)?;
        let bytes = |file: &OwnedFd| rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).ok();
        let data_bytes = bytes(&files.data)?;
        let meta_bytes = files.meta.as_ref().map_or(Some(data_bytes), |meta| bytes(meta))?;
        Some(DiskSizes { data_bytes, meta_bytes })
    }

    fn drop_disk(&mut self, volume: u16) {
        // Operations under way keep the device open.
        self.disks.remove(&volume);
    }

    fn listen(&mut self, local: SocketAddr, peer: SocketAddr, sockets: SocketOptions) {
        self.listening = Some((local, peer, sockets));
    }

    fn stop_listening(&mut self) {
        self.listening = None;
        self.listener = None;
    }

    fn dial(&mut self, local: SocketAddr, peer: SocketAddr, sockets: SocketOptions) {
        match peer_socket::dial(local, peer, sockets) {
            Ok(socket) => {
                self.dial_failed = self.ring.watch(key::DIAL, &socket, Interest::WRITE).is_err();
                let patience = Duration::from_secs(u64::from(sockets.dial_s));
                self.dialling = Some(Dialling { socket, since: Clock::now(), patience });
            }
            Err(error) => {
                tracing::debug!(%local, %peer, %error, "cannot dial");
                self.dial_failed = true;
            }
        }
    }

    fn send(&mut self, socket: SocketId, head: Vec<u8>, data: Option<Chunk>) {
        if let Some(socket) = self.sockets.get_mut(&socket.0) {
            socket.push(head, data);
        }
    }

    fn close(&mut self, socket: SocketId, drain: bool) {
        if let Some(kept) = self.sockets.get_mut(&socket.0).filter(|s| drain && !s.is_empty()) {
            kept.draining = true;
        } else {
            self.sockets.remove(&socket.0);
        }
    }

    fn complete(&mut self, _volume: u16, request: FrontId, outcome: Result<Option<Chunk>, FrontFault>) {
        let Some((number, id)) = self.requests.remove(&request) else { return };
        let Some(served) = self.fronts.get_mut(&number) else { return };
        served.under_way -= 1;
        let outcome = match outcome {
            Ok(chunk) => Ok(chunk.map(Chunk::into_buffer)),
            Err(FrontFault::Io) => Err(Fault::Io),
            Err(FrontFault::NotPrimary) => Err(Fault::ReadOnly),
        };
        served.front.complete(id, outcome);
    }

    fn resized(&mut self, volume: u16, sectors: u64) {
        if sectors == 0 {
            return;
        }
        for served in self.fronts.values_mut().filter(|served| served.volume == volume) {
            served.front.resize(sectors * units::SECTOR_BYTES);
        }
        let Some(sizer) = self.sizers.get(&volume).cloned() else { return };
        // It asks the file below, which this thread serves.
        let spawned = std::thread::Builder::new().name("size".to_owned()).spawn(move || {
            if let Err(error) = sizer.take_size() {
                tracing::warn!(%error, "a device keeps its size until it is opened anew");
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "a device keeps its size until it is opened anew");
        }
    }

    fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(reply) = self.tickets.remove(&ticket) {
            // Who asked may have gone meanwhile.
            let _ = reply.send(outcome);
        }
    }

    fn run_handler(&mut self, call: HandlerCall) {
        self.handlers.run(call, &self.handle);
    }

    fn log(&mut self, level: Level, text: String) {
        match level {
            Level::Info => tracing::info!("{text}"),
            Level::Warning => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
        }
    }
}

/// The environment variable that names the highest version of DRBD's protocol to offer.
const PROTOCOL_MAX_VARIABLE: &str = "LOCKSTEP_PROTOCOL_MAX";

/// What it says; none if it is not set, or is no version that is spoken here.
fn protocol_max() -> Option<u32> {
    let text = std::env::var(PROTOCOL_MAX_VARIABLE).ok()?;
    let version = text.parse().ok().filter(|version| (PROTOCOL_MIN..=PROTOCOL_MAX).contains(version));
    if version.is_none() {
        let name = PROTOCOL_MAX_VARIABLE;
        tracing::warn!("{name} is {text:?}, which is not between {PROTOCOL_MIN} and {PROTOCOL_MAX}");
    }
    version
}

/// A resource's loop.
pub struct Worker {
    shell: Shell<World>,
    commands: Receiver<Command>,
    wake: std::sync::Arc<OwnedFd>,
    draining: Vec<Sender<()>>,
    stopping: Option<Sender<()>>,
}

impl Worker {
    /// Starts the thread of a resource.
    ///
    /// # Errors
    /// If the kernel grants no io_uring, eventfd or thread.
    pub fn spawn(name: &str) -> io::Result<Handle> {
        let (sender, commands) = channel();
        let wake = std::sync::Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let handle = Handle { commands: sender, wake };
        let own = handle.clone();
        let entropy = Box::new(|bytes: &mut [u8]| getrandom::fill(bytes).expect("the system has randomness"));
        let mut engine = Resource::new(name, entropy);
        if let Some(protocol_max) = protocol_max() {
            engine.limit_protocol(protocol_max);
        }
        let (ready, started) = channel();
        std::thread::Builder::new().name(format!("drbd-{name}")).spawn(move || {
            // The ring belongs to the thread that submits to it.
            let worker = Ring::new().map(|ring| Self::new(engine, ring, commands, own));
            match worker {
                Ok(worker) => {
                    let _ = ready.send(Ok(()));
                    worker.run();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        started.recv().map_err(|_| io::Error::other("the resource's thread did not start"))??;
        Ok(handle)
    }

    fn new(engine: Resource, ring: Ring, commands: Receiver<Command>, handle: Handle) -> Self {
        let wake = std::sync::Arc::clone(&handle.wake);
        let world = World {
            started: Clock::now(),
            ring,
            disks: HashMap::new(),
            sockets: BTreeMap::new(),
            sockets_made: 0,
            listener: None,
            listening: None,
            dialling: None,
            fronts: BTreeMap::new(),
            sizers: HashMap::new(),
            requests: HashMap::new(),
            requests_made: 0,
            tickets: HashMap::new(),
            tickets_made: 0,
            ended: VecDeque::new(),
            dial_failed: false,
            handlers: Handlers::default(),
            handle,
        };
        Self { shell: Shell::new(engine, world), commands, wake, draining: Vec::new(), stopping: None }
    }

    fn run(mut self) {
        if let Err(error) = self.shell.ports.ring.watch(key::COMMANDS, &*self.wake, Interest::READ) {
            tracing::error!(%error, "commands cannot be watched");
            return;
        }
        let mut completions = Vec::new();
        while self.stopping.is_none() {
            self.settle();
            self.arm();
            let timeout = self.timeout();
            if let Err(error) = self.shell.ports.ring.wait(timeout, &mut completions) {
                // Without its ring the resource can do nothing: the holder starts a new worker process.
                tracing::error!(%error, "io_uring failed");
                std::process::abort();
            }
            for completion in completions.drain(..) {
                match completion {
                    Completion::Disk { token, outcome } => self.shell.disk_done(token, outcome),
                    Completion::Ready(key) => self.ready(key),
                }
            }
            self.tick();
            self.let_fronts_go();
        }
        let ended = self.stopping.take();
        // Closes the disks, which others wait for.
        drop(self);
        drop(ended);
    }

    /// Reports what ended at once, until nothing is left, and sends what is queued.
    fn settle(&mut self) {
        loop {
            if let Some((token, outcome)) = self.shell.ports.ended.pop_front() {
                self.shell.disk_done(token, outcome.map(|()| None));
            } else if std::mem::take(&mut self.shell.ports.dial_failed) {
                self.shell.handle(Event::DialFailed);
            } else if !self.flush_sockets() {
                return;
            }
        }
    }

    /// True: a socket broke, which may have led to more.
    fn flush_sockets(&mut self) -> bool {
        let (mut broken, mut news) = (Vec::new(), Vec::new());
        let corks = self.shell.engine.corks();
        let world = &mut self.shell.ports;
        for (&id, socket) in &mut world.sockets {
            if socket.is_empty() || socket.full {
                continue;
            }
            match socket.flush(corks) {
                Ok(_) => news.extend(socket.news().map(|waits| (SocketId(id), waits))),
                Err(_) => broken.push(id),
            }
        }
        world.sockets.retain(|_, socket| !(socket.draining && socket.is_empty()));
        let any = !broken.is_empty() || !news.is_empty();
        for (socket, waits) in news {
            self.shell.handle(Event::Sending { socket, waits });
        }
        for id in broken {
            self.socket_ended(id);
        }
        any
    }

    fn socket_ended(&mut self, id: u64) {
        self.shell.ports.sockets.remove(&id);
        self.shell.ended(SocketId(id));
    }

    /// Watches what is to be watched in the present state.
    fn arm(&mut self) {
        let world = &mut self.shell.ports;
        if let Some((local, _, sockets)) = world.listening
            && world.listener.is_none()
        {
            let listener = peer_socket::listen(local, sockets).and_then(|listener| {
                world.ring.watch(key::LISTENER, &listener, Interest::READ)?;
                Ok(listener)
            });
            match listener {
                Ok(listener) => world.listener = Some(listener),
                Err(error) => tracing::warn!(%local, %error, "cannot listen; trying again"),
            }
        }
        let wants_data = self.shell.engine.wants_data();
        let mut broken = Vec::new();
        for (&id, socket) in &mut world.sockets {
            let wanted = wants_data || self.shell.engine.is_meta_socket(SocketId(id));
            let interest = Interest { readable: wanted && !socket.draining, writable: socket.full };
            if interest == socket.watched {
                continue;
            }
            socket.watched = interest;
            if world.ring.rewatch(key::SOCKET | id, socket.descriptor(), interest).is_err() {
                broken.push(id);
            }
        }
        for id in broken {
            self.socket_ended(id);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let world = &self.shell.ports;
        let now = world.now();
        let engine = self.shell.engine.deadline().map(|at| at.since(now));
        let dial = world.dialling.as_ref().map(Dialling::time_left);
        let listen =
            (world.listening.is_some() && world.listener.is_none()).then_some(Duration::from_secs(1));
        [engine, dial, listen].into_iter().flatten().min()
    }

    /// What time brings.
    fn tick(&mut self) {
        let world = &mut self.shell.ports;
        if world.dialling.as_ref().is_some_and(|dialling| dialling.time_left().is_zero()) {
            world.dialling = None;
            self.shell.handle(Event::DialFailed);
        }
        let now = self.shell.ports.now();
        if self.shell.engine.deadline().is_some_and(|at| at <= now) {
            self.shell.handle(Event::Timeout);
        }
    }

    fn ready(&mut self, key: u64) {
        match key {
            key::COMMANDS => self.take_commands(),
            key::LISTENER => self.accept(),
            key::DIAL => self.dialled(),
            _ => {
                let number = key & !key::KIND;
                match key & key::KIND {
                    key::FRONT => self.poll_front(number as u32),
                    _ => {
                        if let Some(socket) = self.shell.ports.sockets.get_mut(&number) {
                            socket.full = false;
                        }
                        self.read_socket(number);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        loop {
            let world = &mut self.shell.ports;
            let (Some(listener), Some((_, peer, _))) = (&world.listener, world.listening) else { return };
            let Ok((socket, from)) = listener.accept() else { return };
            let from = from.as_socket();
            if from.map(|a| a.ip()) != Some(peer.ip()) {
                tracing::warn!(?from, "a connection from an address that is not the peer's was refused");
                continue;
            }
            self.connected(socket, false);
        }
    }

    fn dialled(&mut self) {
        let Some(Dialling { socket, .. }) = self.shell.ports.dialling.take() else { return };
        match socket.take_error() {
            Ok(None) if socket.peer_addr().is_ok() => self.connected(socket, true),
            _ => self.shell.handle(Event::DialFailed),
        }
    }

    fn connected(&mut self, socket: Socket, outgoing: bool) {
        if peer_socket::prepare(&socket).is_err() {
            if outgoing {
                self.shell.handle(Event::DialFailed);
            }
            return;
        }
        let world = &mut self.shell.ports;
        world.sockets_made += 1;
        let id = world.sockets_made;
        // A dialled socket was watched while it connected.
        let _ = world.ring.forget(&socket);
        if let Err(error) = world.ring.watch(key::SOCKET | id, &socket, Interest::READ) {
            tracing::error!(%error, "a connection cannot be watched");
            if outgoing {
                self.shell.handle(Event::DialFailed);
            }
            return;
        }
        world.sockets.insert(id, PeerSocket::new(socket.into()));
        self.shell.opened(SocketId(id), outgoing);
    }

    fn read_socket(&mut self, id: u64) {
        let mut left = READ_BYTES_PER_TURN;
        while left > 0 {
            let read = |world: &mut World, space: &mut [u8]| match world.sockets.get(&id) {
                Some(socket) => socket.read(space),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            match self.shell.receive(SocketId(id), read) {
                Ok(None) => return,
                Ok(Some((0, _))) => return self.socket_ended(id),
                Ok(Some((_, false))) => return,
                Ok(Some((bytes, true))) => left = left.saturating_sub(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.socket_ended(id),
            }
        }
    }

    fn poll_front(&mut self, number: u32) {
        let mut requests = Vec::new();
        let Some(served) = self.shell.ports.fronts.get_mut(&number) else { return };
        if served.leaving.is_some() || !self.draining.is_empty() {
            return;
        }
        let volume = served.volume;
        if let Err(error) = served.front.poll(&mut requests) {
            tracing::error!(%error, "a front has ended");
            self.shell.ports.fronts.remove(&number);
            return;
        }
        served.under_way += requests.len() as u32;
        for Request { id, op, payload } in requests {
            let world = &mut self.shell.ports;
            world.requests_made += 1;
            let request = FrontId(world.requests_made);
            world.requests.insert(request, (number, id));
            let op = match op {
                Op::Read(range) => FrontOp::Read(range),
                Op::Write { range, fua } => FrontOp::Write { range, fua },
                Op::Flush => FrontOp::Flush,
                Op::Discard(range) => FrontOp::Discard(range),
                Op::WriteZeroes { range, may_unmap } => FrontOp::WriteZeroes { range, may_unmap },
            };
            let payload = payload.map(|buffer| self.shell.keep(buffer));
            self.shell.handle(Event::Submit { volume, request, op, payload });
        }
    }

    /// Gives back fronts that were asked for and have nothing under way.
    fn let_fronts_go(&mut self) {
        let world = &mut self.shell.ports;
        if world.requests.is_empty() {
            // Draining goes on until the process ends; who waits is told once.
            for reply in &self.draining {
                let _ = reply.send(());
            }
        }
        let idle: Vec<u32> = world
            .fronts
            .iter()
            .filter(|(_, served)| served.leaving.is_some() && served.under_way == 0)
            .map(|(&number, _)| number)
            .collect();
        for number in idle {
            if let Some(ServedFront { front, leaving: Some(reply), .. }) = world.fronts.remove(&number) {
                let _ = reply.send(Some(front));
            }
        }
    }

    fn take_commands(&mut self) {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::AddVolume { volume, minor, reply } => {
                let _ = reply.send(self.shell.engine.add_volume(volume, minor));
            }
            Command::RemoveVolume { volume, reply } => {
                let _ = reply.send(self.shell.engine.remove_volume(volume));
            }
            Command::Order { order, disk, reply } => {
                if let Some((volume, disk)) = disk {
                    if self.shell.ports.disks.contains_key(&volume) {
                        let code = drbd_engine::code::DISK_CONFIGURED;
                        let _ = reply.send(Err(Refusal { code, detail: String::new() }));
                        return;
                    }
                    self.shell.set_layout(volume, disk.layout);
                    let files = Files { data: Rc::new(disk.data), meta: disk.meta.map(Rc::new) };
                    self.shell.ports.disks.insert(volume, files);
                }
                if let Order::Resize { volume, .. } = &order {
                    self.shell.measure(*volume);
                }
                let world = &mut self.shell.ports;
                world.tickets_made += 1;
                let ticket = Ticket(world.tickets_made);
                world.tickets.insert(ticket, reply);
                let attached = if let Order::Attach { volume, .. } = &order { Some(*volume) } else { None };
                self.shell.handle(Event::Admin { ticket, order });
                if let Some(volume) = attached.filter(|&v| !self.shell.engine.has_disk(v)) {
                    self.shell.ports.disks.remove(&volume);
                }
            }
            Command::SizeLoop { volume, sizer } => {
                self.shell.ports.sizers.insert(volume, sizer);
            }
            Command::AddFront { volume, number, mut front, reply } => {
                // What made it has asked for the size a while ago, or a worker that is gone has.
                let status = self.shell.engine.status();
                let sectors =
                    status.devices.iter().find(|d| d.volume == volume).map_or(0, |d| d.size_sectors);
                if sectors != 0 {
                    front.resize(sectors * units::SECTOR_BYTES);
                }
                if let Err(error) =
                    self.shell.ports.ring.watch(key::FRONT | u64::from(number), front.as_fd(), Interest::READ)
                {
                    // Without an answer the asker knows that it is not served.
                    tracing::error!(%error, "a front cannot be watched");
                    return;
                }
                let served = ServedFront { volume, front, under_way: 0, leaving: None };
                self.shell.ports.fronts.insert(number, served);
                let _ = reply.send(());
            }
            Command::RemoveFront { number, reply } => match self.shell.ports.fronts.get_mut(&number) {
                Some(served) => {
                    let _ = self.shell.ports.ring.forget(served.front.as_fd());
                    served.leaving = Some(reply);
                }
                None => {
                    let _ = reply.send(None);
                }
            },
            Command::HandlerEnded { run, status } => {
                self.shell.handle(Event::HandlerEnded { run, status });
            }
            Command::Status(reply) => {
                let _ = reply.send(self.shell.engine.status());
            }
            Command::Drain(reply) => {
                let world = &mut self.shell.ports;
                for served in world.fronts.values() {
                    let _ = world.ring.forget(served.front.as_fd());
                }
                self.draining.push(reply);
            }
            Command::Stop(ended) => self.stopping = Some(ended),
        }
    }
}
