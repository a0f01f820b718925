//! Two engines that talk to each other over perfect wires and disks, in an order by seed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use drbd_engine::admin::{DiskOptions, NetOptions, Refusal};
use drbd_engine::event::{
    Action, Event, Finding, FoundDisk, FrontId, FrontOp, IoFault, MetaStep, Order, Payload, Question,
    SocketId, Tag, Ticket,
};
use drbd_engine::handlers::HandlerRun;
use drbd_engine::{Instant, Resource};
use drbd_format::meta::MetaFlags;
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{Agreed, Packet};
use units::SectorRange;

use crate::fresh_disk::fresh_disk;

const DISK_BYTES: u64 = 9 << 20;

/// More than any packet of a peer may set off at once on a disk of this size.
const ACTIONS_MAX: usize = 10_000;

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What waits to happen at one of the two.
pub enum Due {
    Io(Tag),
    Inspection(Tag, Question),
    Handler(HandlerRun),
    Dialled(SocketId),
    Packet(SocketId, u16, Packet, Option<(Payload, u32)>),
}

pub struct Node {
    pub engine: Resource,
    pub due: VecDeque<Due>,
    pub data: Option<SocketId>,
    pub meta: Option<SocketId>,
    pub closed: usize,
}

pub struct Pair {
    pub nodes: [Node; 2],
    pub rng: Rng,
    now: Instant,
    pub agreed: Agreed,
    numbers: u64,
    /// What either sent, in this order, with its number.
    pub seen: Vec<(usize, Packet)>,
    /// What the engines said.
    pub log: Vec<String>,
    /// No operation at a disk fails.
    pub sound: bool,
    /// Sizes that the fronts were told.
    pub resized: Vec<(usize, u64)>,
    /// How orders were answered.
    pub answers: BTreeMap<Ticket, Result<Vec<String>, Refusal>>,
    /// What was written of meta-data, by node.
    pub written: Vec<(usize, Vec<MetaStep>)>,
    /// The node whose disk answers nothing.
    pub hung: Option<usize>,
}

impl Pair {
    pub fn new(seed: u64) -> Self {
        let node = |n: u64| {
            let mut stream = Rng(seed ^ (n << 32));
            let entropy = Box::new(move |bytes: &mut [u8]| bytes.fill_with(|| stream.next() as u8));
            let mut engine = Resource::new("r0", entropy);
            assert!(engine.add_volume(0, 0));
            Node { engine, due: VecDeque::new(), data: None, meta: None, closed: 0 }
        };
        let nodes = [node(1), node(2)];
        let (rng, now, agreed) = (Rng(seed), Instant(0), Agreed::NOTHING);
        let mut pair = Self {
            nodes,
            rng,
            now,
            agreed,
            numbers: 1,
            seen: Vec::new(),
            log: Vec::new(),
            sound: false,
            resized: Vec::new(),
            answers: BTreeMap::new(),
            written: Vec::new(),
            hung: None,
        };
        for n in 0..2 {
            pair.attach(n);
            let address = |n: usize| SocketAddr::from(([127, 0, 0, 1], n as u16 + 1));
            let options = NetOptions { verify_alg: "crc32c".into(), ..NetOptions::default() };
            let (local, peer) = (address(n), address(1 - n));
            pair.order(n, Order::Connect { local, peer, options, discard_my_data: false });
        }
        pair
    }

    /// The same, and no disk fails.
    pub fn sound(seed: u64) -> Self {
        let mut pair = Self::new(seed);
        pair.sound = true;
        pair
    }

    /// The same, after the first sync; node 0 is primary.
    pub fn in_sync(seed: u64) -> Self {
        let mut pair = Self::sound(seed);
        pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
        pair.order(0, Order::Primary { force: true });
        pair.until((C::Connected, D::UpToDate, D::UpToDate));
        pair
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn state(&self, n: usize) -> (C, D, D) {
        let device = &self.nodes[n].engine.status().devices[0];
        (device.connection, device.disk, device.peer_disk)
    }

    /// Lets everything happen until something holds.
    pub fn until_holds(&mut self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if holds(self) {
                return;
            }
            let n = self.rng.below(2);
            self.step(n);
        }
        panic!("stuck in {:?} and {:?}: {:#?}", self.state(0), self.state(1), self.log);
    }

    /// Lets everything happen until both are in a state.
    pub fn until(&mut self, state: (C, D, D)) {
        self.until_holds(|pair| (0..2).all(|n| pair.state(n) == state));
    }

    /// Lets everything happen until one of them says something.
    pub fn until_said(&mut self, text: &str) {
        self.until_holds(|pair| pair.log.iter().any(|line| line.contains(text)));
    }

    pub fn attach(&mut self, n: usize) {
        self.attach_disk(n, fresh_disk(DISK_BYTES));
    }

    /// A disk that was primary without the peer since the peer's current generation.
    pub fn attach_newer(&mut self, n: usize) {
        let peer = self.nodes[1 - n].engine.status().devices[0].uuids[0];
        self.attach_generation(n, [0x77aa_0000, peer & !1, 0, 0]);
    }

    /// A disk whose data are of this generation, and current.
    pub fn attach_generation(&mut self, n: usize, uuids: [u64; 4]) {
        let mut disk = fresh_disk(DISK_BYTES);
        disk.superblock.uuids = uuids;
        disk.superblock.flags = MetaFlags(MetaFlags::CONSISTENT.0 | MetaFlags::WAS_UP_TO_DATE.0);
        self.attach_disk(n, disk);
    }

    /// The next thing a disk is asked fails.
    pub fn fail_disk(&mut self, n: usize) {
        let tag = loop {
            let io = self.nodes[n].due.iter().position(|due| matches!(due, Due::Io(_)));
            match io.and_then(|at| self.nodes[n].due.remove(at)) {
                Some(Due::Io(tag)) => break tag,
                _ => {
                    self.front();
                    (0..2).for_each(|n| self.step(n));
                }
            }
        };
        self.happens(n, Event::IoDone { tag, outcome: Err(IoFault) });
    }

    /// A disk with what is on it.
    pub fn attach_disk(&mut self, n: usize, disk: Box<FoundDisk>) {
        let options = DiskOptions { al_extents: 7, ..DiskOptions::default() };
        self.order(n, Order::Attach { volume: 0, disk, options });
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn order(&mut self, n: usize, order: Order) {
        let ticket = Ticket(self.number());
        self.happens(n, Event::Admin { ticket, order });
    }

    /// Gives an order and waits for its answer: 0, or the number of a refusal.
    pub fn ordered(&mut self, n: usize, order: Order) -> i32 {
        let ticket = Ticket(self.number());
        self.happens(n, Event::Admin { ticket, order });
        self.until_holds(|pair| pair.answers.contains_key(&ticket));
        self.answers[&ticket].as_ref().map_or_else(|refusal| refusal.code, |_| 0)
    }

    pub fn happens(&mut self, n: usize, event: Event) {
        let mut actions = Vec::new();
        let node = &mut self.nodes[n];
        node.engine.handle(self.now, event, &mut actions);
        assert!(actions.len() < ACTIONS_MAX, "{} actions in one turn", actions.len());
        for action in actions {
            match action {
                Action::Write { tag, .. }
                | Action::Read { tag, .. }
                | Action::Flush { tag, .. }
                | Action::WriteZeroes { tag, .. } => self.nodes[n].due.push_back(Due::Io(tag)),
                Action::Meta { tag, steps, .. } => {
                    self.written.push((n, steps));
                    self.nodes[n].due.push_back(Due::Io(tag));
                }
                Action::Resized { sectors, .. } => self.resized.push((n, sectors)),
                Action::Answer { ticket, outcome } => {
                    self.answers.insert(ticket, outcome);
                }
                Action::Inspect { tag, question, .. } => {
                    self.nodes[n].due.push_back(Due::Inspection(tag, question));
                }
                Action::Dial { .. } => {
                    self.numbers += 1;
                    self.nodes[n].due.push_back(Due::Dialled(SocketId(self.numbers)));
                }
                Action::RunHandler(call) => self.nodes[n].due.push_back(Due::Handler(call.run)),
                Action::Agree { agreed } => self.agreed = agreed,
                Action::Close { socket, .. } => self.closes(n, socket),
                Action::Send { socket, volume, packet, data } => {
                    let payload = data.map(|d| (Payload(Payload::FROM_SHELL | self.numbers), d.len));
                    self.numbers += 1;
                    self.seen.push((n, packet.clone()));
                    self.nodes[1 - n].due.push_back(Due::Packet(socket, volume, packet, payload));
                }
                Action::Log { text, .. } => self.log.push(text),
                _ => {}
            }
        }
    }

    /// A node closes a socket, and the other sees it.
    pub fn closes(&mut self, n: usize, socket: SocketId) {
        self.nodes[n].closed += 1;
        self.nodes[1 - n].due.retain(|due| !matches!(due, Due::Packet(s, ..) if *s == socket));
        self.happens(1 - n, Event::Closed { socket });
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        self.now = self.now + std::time::Duration::from_millis(ms);
    }

    /// One thing that was due happens; packets of one node keep their order.
    pub fn step(&mut self, n: usize) {
        self.pass(1);
        let hung = self.hung == Some(n);
        let due =
            self.nodes[n].due.iter().enumerate().filter(|(_, due)| !(hung && matches!(due, Due::Io(_))));
        let first = due.clone().next().map(|(i, _)| i);
        let io: Vec<usize> = due
            .filter(|(i, due)| Some(*i) == first || matches!(due, Due::Io(_) | Due::Handler(_)))
            .map(|(i, _)| i)
            .take(4)
            .collect();
        if io.is_empty() {
            return self.happens(n, Event::Timeout);
        }
        let at = io[self.rng.below(io.len())];
        match self.nodes[n].due.remove(at) {
            Some(Due::Io(tag)) => {
                let outcome = if !self.sound && self.rng.below(300) == 0 { Err(IoFault) } else { Ok(()) };
                self.happens(n, Event::IoDone { tag, outcome });
            }
            Some(Due::Handler(run)) => self.happens(n, Event::HandlerEnded { run, status: 0 }),
            Some(Due::Inspection(tag, question)) => {
                self.numbers += 1;
                let finding = match question {
                    Question::Digest(alg) => {
                        let digest = Payload(Payload::FROM_SHELL | self.numbers);
                        Finding::Digest(digest, alg.bytes() as u32)
                    }
                    Question::HasDigest(..) | Question::IsZero => Finding::Is(self.rng.below(2) == 0),
                };
                self.happens(n, Event::Inspected { tag, finding });
            }
            Some(Due::Dialled(socket)) => {
                self.happens(1 - n, Event::Opened { socket, outgoing: false });
                self.happens(n, Event::Opened { socket, outgoing: true });
            }
            Some(Due::Packet(socket, volume, packet, payload)) => {
                match packet {
                    Packet::InitialData => self.sockets(|node| &mut node.data, socket),
                    Packet::InitialMeta => self.sockets(|node| &mut node.meta, socket),
                    _ => {}
                }
                self.happens(n, Event::Received { socket, volume, packet, payload });
            }
            None => {}
        }
    }

    fn sockets(&mut self, which: impl Fn(&mut Node) -> &mut Option<SocketId>, socket: SocketId) {
        for node in &mut self.nodes {
            *which(node) = Some(socket);
        }
    }

    pub fn front(&mut self) {
        let range = SectorRange::new(self.rng.next() % 16_000, 1 + self.rng.next() % 64);
        let op = match self.rng.below(4) {
            0 => FrontOp::Read(range),
            1 => FrontOp::Flush,
            2 => FrontOp::Discard(range),
            _ => FrontOp::Write { range, fua: false },
        };
        let request = FrontId(self.number());
        let payload = matches!(op, FrontOp::Write { .. }).then(|| Payload(Payload::FROM_SHELL | request.0));
        self.happens(0, Event::Submit { volume: 0, request, op, payload });
    }
}
