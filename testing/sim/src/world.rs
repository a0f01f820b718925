//! The world of one run: a clock, a queue of events, two servers, a network between them, and what was promised.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use drbd_engine::Resource;
use drbd_engine::admin::ResourceOptions;
use drbd_engine::event::Event as EngineEvent;
use drbd_engine::event::Order;
use drbd_engine::handlers::{Handler, HandlerRun};
use drbd_format::names::ConnectionState as C;
use drbd_node::shell::{DiskToken, Shell};

use crate::check::{self, Fault};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::model::Model;
use crate::network::Connection;
use crate::node::Node;
use crate::plan::Plan;
use crate::ports::{Effect, SimPorts};
use crate::rng::Rng;
use crate::workload::Workload;

/// A microsecond in the clock's nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000 * US;
/// A second.
pub const S: u64 = 1_000 * MS;

/// The one volume of the one resource.
pub const VOLUME: u16 = 0;

/// Turns of the timer at one instant before that counts as a loop.
const TIMER_TURNS_MAX: u32 = 1000;

/// What happens in the world.
#[derive(Debug)]
pub enum Event {
    /// A disk has ended an operation.
    Disk { node: usize, life: u64, token: DiskToken, number: u64 },
    /// The engine's deadline.
    Timer { node: usize, life: u64, at: u64 },
    /// A dial reaches the other node.
    DialArrives { from: usize, life: u64 },
    /// The answer to a dial reaches the dialler.
    DialDone { from: usize, life: u64, connection: usize },
    /// A dial has failed.
    DialFails { from: usize, life: u64 },
    /// The next item on the wire to an end.
    Arrives { connection: usize, side: usize },
    /// A program of the administrator ends.
    HandlerEnds { node: usize, life: u64, run: HandlerRun, status: Option<u8> },
    /// The workload submits.
    Work { node: usize, generation: u64 },
}

/// Everything.
pub struct World {
    /// Nanoseconds.
    pub now: Rc<Cell<u64>>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// What the seed decided once.
    pub plan: Plan,
    /// The two servers.
    pub nodes: [Node; 2],
    /// All connections ever.
    pub connections: Vec<Connection>,
    /// Whose bytes do not arrive.
    pub cut: [bool; 2],
    /// So many dials will succeed for the dialler only.
    pub lost_accepts: u32,
    /// What every other connection is slower by.
    pub lag: [u64; 2],
    /// Randomness of disks.
    pub disk_rng: Rng,
    /// Randomness of the network.
    pub net_rng: Rng,
    /// Randomness of the administrator.
    pub rng: Rng,
    /// Randomness of the administrator's programs, and of what came to the simulation later.
    pub handler_rng: Rng,
    /// The front's requests.
    pub work: Workload,
    /// What it was promised.
    pub model: Option<Model>,
    /// After a split brain: the node that the front did not follow, and the promises that count if it wins.
    pub rival: Option<(usize, Model)>,
    /// Both acknowledge to their fronts what the other does not know, since they parted as primaries.
    pub acked_alone: [bool; 2],
    /// A split brain was noticed, or one side was given up by order, since both were in sync.
    pub parting_known: bool,
    /// The model's instant at which the first of the two found the other.
    pub met_at: u64,
    /// Both sides believed to be in sync after the last turn.
    pub was_in_sync: bool,
    /// `discard-my-data` was given since both were in sync.
    pub discarding: bool,
    /// Since the last power cut of this primary nobody else was promoted.
    pub unsucceeded: [bool; 2],
    /// This primary was lost since both were in sync, or somebody was promoted.
    pub lost_primaries: [bool; 2],
    /// Packets that were altered on the wire, and those found to be.
    pub altered: u64,
    pub found_altered: u64,
    /// Handlers may forbid a resync: not the first one.
    pub handlers_refuse: bool,
    /// The first thing that went wrong.
    pub fault: Option<Fault>,
    /// Print what happens.
    pub tracing: bool,
    hash: u64,
    /// Events handled.
    pub events: u64,
}

impl World {
    /// Two servers, switched off, with fresh disks.
    pub fn new(seed: u64, tracing: bool) -> Self {
        let plan = Plan::of(seed);
        let address = |node: u8| std::net::SocketAddr::from(([172, 16, 16, 4 - node], 7788));
        let nodes = [0, 1].map(|n| Node::new(address(n), Disk::new(plan.disk_bytes)));
        Self {
            now: Rc::new(Cell::new(0)),
            queue: BTreeMap::new(),
            sequence: 0,
            nodes,
            connections: Vec::new(),
            cut: [false; 2],
            lost_accepts: 0,
            lag: [0; 2],
            disk_rng: Rng::new(seed, 2),
            net_rng: Rng::new(seed, 3),
            rng: Rng::new(seed, 4),
            handler_rng: Rng::new(seed, 7),
            work: Workload::new(Rng::new(seed, 5)),
            model: None,
            rival: None,
            acked_alone: [false; 2],
            parting_known: false,
            met_at: 0,
            was_in_sync: false,
            discarding: false,
            unsucceeded: [false; 2],
            lost_primaries: [false; 2],
            altered: 0,
            found_altered: 0,
            handlers_refuse: false,
            fault: None,
            tracing,
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            plan,
        }
    }

    /// A number for the whole course of events.
    pub fn trace_hash(&self) -> u64 {
        let sectors = self.nodes.iter().flat_map(|n| n.disk.sectors());
        sectors.fold(self.hash, |hash, sector| mixed(hash, sector.hash()))
    }

    fn mix(&mut self, word: u64) {
        self.hash = mixed(self.hash, word);
    }

    /// A line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            println!("{:>12.6} {}", self.now.get() as f64 / S as f64, line());
        }
    }

    /// Notes the first fault.
    pub fn expect(&mut self, outcome: Result<(), Fault>) {
        if let Err((check, why)) = outcome
            && self.fault.is_none()
        {
            self.note(|| format!("FAULT {check}: {why}"));
            self.fault = Some((check, why));
        }
    }

    /// Something happens at an instant.
    pub fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now.get()), self.sequence), event);
    }

    /// Something happens after a while.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now.get() + delay, event);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: u64) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something holds, for so long at most; whether it holds.
    pub fn run_until(&mut self, limit: u64, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.get() + limit;
        loop {
            if self.fault.is_some() {
                return false;
            }
            if holds(self) {
                return true;
            }
            match self.queue.first_key_value().map(|(key, _)| key.0) {
                Some(time) if time <= end => self.step(),
                _ => {
                    self.now.set(end);
                    return false;
                }
            }
        }
    }

    fn step(&mut self) {
        let Some(((time, _), event)) = self.queue.pop_first() else { return };
        self.now.set(time);
        self.events += 1;
        self.mix(time);
        match event {
            Event::Disk { node, life, token, number } => self.disk_ends(node, life, token, number),
            Event::Timer { node, life, at } => self.timer(node, life, at),
            Event::DialArrives { from, life } => self.dial_arrives(from, life),
            Event::DialDone { from, life, connection } => self.dial_done(from, life, connection),
            Event::DialFails { from, life } => self.dial_fails(from, life),
            Event::Arrives { connection, side } => self.arrives(connection, side),
            Event::HandlerEnds { node, life, run, status } => self.handler_ends(node, life, run, status),
            Event::Work { node, generation } => self.work(node, generation),
        }
    }

    /// Starts the daemon of a server.
    pub fn start_daemon(&mut self, node: usize) {
        let mut entropy = Rng::new(self.disk_rng.next(), 6);
        let entropy = Box::new(move |bytes: &mut [u8]| entropy.fill(bytes));
        let mut engine = Resource::new("r0", entropy);
        engine.add_volume(VOLUME, 0);
        let disk_bytes = Rc::clone(&self.nodes[node].disk.size_bytes);
        engine.limit_protocol(self.plan.protocol_max[node]);
        let clock = self.clock(node);
        let ports = SimPorts { clock, disk_bytes, effects: VecDeque::new() };
        let n = &mut self.nodes[node];
        n.life += 1;
        n.shell = Some(Shell::new(engine, ports));
        self.note(|| format!("node {node}: the daemon starts"));
        self.turn(node, |_| {});
        if self.plan.suspends_without_data {
            let options = ResourceOptions { on_no_data_accessible: 1, ..ResourceOptions::default() };
            self.order(node, Order::ResourceOptions(options));
        }
    }

    fn clock(&self, node: usize) -> Clock {
        Clock::new(Rc::clone(&self.now), self.plan.clock_permille[node])
    }

    fn disk_ends(&mut self, node: usize, life: u64, token: DiskToken, number: u64) {
        if self.nodes[node].life != life || self.nodes[node].shell.is_none() {
            return;
        }
        let Some(outcome) = self.nodes[node].disk.finish(number, &mut self.disk_rng) else { return };
        self.turn(node, |shell| shell.disk_done(token, outcome));
    }

    fn handler_ends(&mut self, node: usize, life: u64, run: HandlerRun, status: Option<u8>) {
        if self.nodes[node].life == life {
            let status = status.unwrap_or_else(|| self.fence_peer(1 - node));
            self.turn(node, |shell| shell.handle(EngineEvent::HandlerEnded { run, status }));
        }
    }

    /// What `fence-peer` does, by a network of its own: the peer is outdated; its exit code.
    fn fence_peer(&mut self, peer: usize) -> u8 {
        if !self.nodes[peer].is_up() {
            return 5;
        }
        if self.nodes[peer].is_primary() {
            return 6;
        }
        let ticket = self.order(peer, Order::Outdate { volume: VOLUME });
        match self.nodes[peer].answers.get(&ticket) {
            Some(Err(_)) => 3,
            _ => 4,
        }
    }

    fn timer(&mut self, node: usize, life: u64, at: u64) {
        let n = &mut self.nodes[node];
        if n.life != life || n.timer != Some(at) {
            return;
        }
        n.timer = None;
        n.timer_turns = if n.timer_turns.0 == at { (at, n.timer_turns.1 + 1) } else { (at, 0) };
        if n.timer_turns.1 > TIMER_TURNS_MAX {
            self.expect(Err((
                "the_timer_makes_progress",
                format!("node {node} asks for the same instant again"),
            )));
            return;
        }
        self.turn(node, |shell| shell.handle(EngineEvent::Timeout));
    }

    /// One turn of a node's shell, and everything that follows from it at once.
    pub fn turn(&mut self, node: usize, what: impl FnOnce(&mut Shell<SimPorts>)) {
        let Some(shell) = &mut self.nodes[node].shell else { return };
        what(shell);
        self.execute(node);
        self.read_sockets(node);
        self.arm_timer(node);
        self.observe(node);
    }

    /// Does what the shell wants.
    pub fn execute(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].shell.as_mut().and_then(|s| s.ports.effects.pop_front()) {
            match effect {
                Effect::Disk(area, token, op) => {
                    let delay = self.plan.disk_delay(&op, &mut self.disk_rng);
                    let life = self.nodes[node].life;
                    let number = self.nodes[node].disk.submit(area, op);
                    self.after(delay, Event::Disk { node, life, token, number });
                }
                Effect::DropDisk => self.disk_left(node),
                Effect::Listen(listening) => self.nodes[node].listening = listening,
                Effect::Dial => self.dials(node),
                Effect::Send(socket, head, data) => self.sends(node, socket, head, data),
                Effect::Close(socket, drain) => self.closes(node, socket, drain),
                Effect::Complete(request, outcome) => self.completed(node, request, outcome),
                Effect::RunHandler(call) => {
                    let (time, status) =
                        self.plan.handler(call.handler, self.handlers_refuse, &mut self.handler_rng);
                    let status = if call.handler == Handler::FencePeer { None } else { Some(status) };
                    let life = self.nodes[node].life;
                    self.after(time, Event::HandlerEnds { node, life, run: call.run, status });
                }
                Effect::Resized(sectors) => self.nodes[node].size_sectors = sectors,
                Effect::Answer(ticket, outcome) => {
                    self.note(|| format!("node {node}: answer {outcome:?}"));
                    self.nodes[node].answers.insert(ticket, outcome);
                }
                Effect::Log(level, text) => {
                    self.mix(text.len() as u64);
                    self.note(|| format!("node {node}: {level:?} {text}"));
                    self.nodes[node].found_differing.extend(differing(&text));
                    self.found_altered += u64::from(text.contains("Digest integrity check FAILED"));
                    self.nodes[node].generations += u32::from(text.contains("new current UUID "));
                    self.parting_known |= text.contains("Split-Brain detected");
                    self.nodes[node].split_brain |= text.contains("Split-Brain detected but unresolved");
                    self.nodes[node].split_brain_solved |= text.contains("automatically solved");
                    if text.contains("misbehaved") || text.contains("malformed") {
                        self.expect(Err(("peers_speak_the_protocol", format!("node {node}: {text}"))));
                    }
                }
            }
        }
    }

    fn arm_timer(&mut self, node: usize) {
        let n = &self.nodes[node];
        let Some(deadline) = n.shell.as_ref().and_then(|s| s.engine.deadline()) else { return };
        let at = self.clock(node).shows(deadline).max(self.now.get());
        if n.timer == Some(at) {
            return;
        }
        let life = n.life;
        self.nodes[node].timer = Some(at);
        self.at(at, Event::Timer { node, life, at });
    }

    /// Compares what the nodes say of themselves with what may be.
    fn observe(&mut self, node: usize) {
        let Some(status) = self.nodes[node].shell.as_ref().map(|s| s.engine.status()) else { return };
        let before = self.nodes[node].connection();
        self.expect(check::state_is_legal(&status));
        self.nodes[node].status = Some(status);
        let after = self.nodes[node].connection();
        if before >= C::Connected && after < C::Connected {
            self.lost_contact(node);
        }
        if before < C::Connected
            && after >= C::Connected
            && self.nodes[1 - node].connection() < C::Connected
            && let Some(model) = &mut self.model
        {
            self.met_at = model.now();
        }
        if before != C::SyncSource && after == C::SyncSource {
            self.became_source(node);
        }
        if !self.plan.net.allow_two_primaries {
            self.expect(check::one_primary(&self.nodes[0], &self.nodes[1]));
        }
        let in_sync = self.nodes.iter().all(Node::believes_in_sync);
        if in_sync && !self.was_in_sync {
            self.became_in_sync();
        }
        self.was_in_sync = in_sync;
    }

    /// A node has lost its peer. If both are primary and have what it takes to go on alone, each front is promised its own
    /// from here on.
    fn lost_contact(&mut self, node: usize) {
        let goes_on = |n: &Node| n.is_primary() && n.disk_state() == drbd_format::names::DiskState::UpToDate;
        if self.rival.is_none() && self.nodes.iter().all(goes_on) {
            self.note(|| format!("node {node}: parts from another primary"));
            self.acked_alone = [false; 2];
            self.rival = self.model.clone().map(|mut model| {
                model.disk_left(1 - node);
                (node, model)
            });
            if let Some(model) = &mut self.model {
                model.disk_left(node);
            }
        }
        // What the other's front had under way came before this, or will not come.
        if self.rival.is_some()
            && let Some(model) = self.promises(node)
        {
            model.fell_silent(1 - node);
        }
    }

    fn became_source(&mut self, node: usize) {
        // The other side of a split brain has won: what its front was promised counts, and nothing else.
        if let Some((_, promises)) = self.rival.take_if(|(rival, _)| *rival == node) {
            self.front_is_gone(1 - node);
            self.model = Some(promises);
        }
        let unsucceeded = self.unsucceeded[node];
        // A split brain that nobody made on purpose, and that a policy has solved, has one winner, too.
        let solved =
            self.nodes.iter().all(|n| n.generations > 0) && self.nodes.iter().any(|n| n.split_brain_solved);
        // Two primaries that are lost before either goes on alone have equal generations: rule 40 has one of them win, and
        // does not know which of the two has lost more.
        let arbitrated = self.lost_primaries == [true; 2] && self.nodes.iter().all(|n| n.generations == 0);
        let discarding = self.discarding || solved || arbitrated;
        if let Some(model) = &mut self.model {
            if discarding {
                model.surrenders_to(node);
            } else if unsucceeded {
                model.follows(node);
            }
        }
    }

    fn became_in_sync(&mut self) {
        self.note(|| "both are in sync".to_owned());
        // With protocols A and B a write completes before the peer has it: only the handshake counted what it misses.
        let synchronous = self.plan.net.protocol == drbd_engine::admin::ReplicationProtocol::C;
        let oldest_read = self.oldest_read();
        if let Some(model) = &mut self.model {
            model.oldest_read = oldest_read;
            model.in_sync(if synchronous { u64::MAX } else { self.met_at });
        }
        if self.acked_alone == [true; 2] && !self.parting_known {
            self.expect(Err(("a_split_brain_is_detected", "both were acknowledged writes alone".into())));
        }
        self.acked_alone = [false; 2];
        self.parting_known = false;
        self.discarding = false;
        self.lost_primaries = [false; 2];
        self.rival = None;
        for node in &mut self.nodes {
            node.generations = 0;
            node.split_brain_solved = false;
        }
    }
}

/// The blocks that a line of the log says to be out of sync.
fn differing(line: &str) -> Vec<u64> {
    let range = line.split_once("Out of sync: start=").and_then(|(_, rest)| {
        let (start, rest) = rest.split_once(", size=")?;
        let size: u64 = rest.split_once(' ')?.0.parse().ok()?;
        Some((start.parse::<u64>().ok()?, size))
    });
    range.map_or_else(Vec::new, |(start, size)| (start / 8..(start + size).div_ceil(8)).collect())
}

fn mixed(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}
