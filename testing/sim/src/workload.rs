//! The front of the primary: submits at random, checks what comes back.

use std::collections::BTreeMap;

use block::Buffer;
use drbd_engine::event::{Event as EngineEvent, FrontFault, FrontId, FrontOp};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_node::shell::Chunk;
use units::SectorRange;

use crate::check;
use crate::model::bit;
use crate::rng::Rng;
use crate::stamp;
use crate::world::{Event, MS, VOLUME, World};

/// Requests that come at full speed after a start; then it is only a trickle, so that long waits stay cheap.
const BURST: u64 = 100;

/// A request that is not answered.
#[derive(Debug)]
pub enum Pending {
    /// Reads; the model's instant of its submission.
    Read(SectorRange, u64),
    /// Changes; the model's index, and whether it was forced.
    Change(usize, bool),
    /// Flushes; the model's instant.
    Flush(u64),
}

/// What the front has under way.
#[derive(Debug)]
pub struct Workload {
    rng: Rng,
    /// The node it runs on.
    pub node: usize,
    /// Unanswered requests.
    pub pending: BTreeMap<FrontId, Pending>,
    next_request: u64,
    next_stamp: u64,
    /// Counts starts; events of an earlier one are stale.
    generation: u64,
    running: bool,
    /// The next request waits for an answer to one of those under way.
    stalled: bool,
    /// Requests since the start.
    submitted: u64,
    /// Acknowledged changes.
    pub acked: u64,
    /// Checked reads.
    pub reads: u64,
}

impl Workload {
    /// Nothing runs.
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            node: 0,
            pending: BTreeMap::new(),
            next_request: 1,
            next_stamp: 1000,
            generation: 0,
            running: false,
            stalled: false,
            submitted: 0,
            acked: 0,
            reads: 0,
        }
    }
}

impl World {
    /// Lets requests come on a node.
    pub fn start_work(&mut self, node: usize) {
        self.work.node = node;
        self.work.running = true;
        self.work.generation += 1;
        self.work.submitted = 0;
        self.work.stalled = false;
        let generation = self.work.generation;
        self.after(0, Event::Work { generation });
    }

    /// No more come; those under way go on.
    pub fn stop_work(&mut self) {
        self.work.running = false;
    }

    /// The front is gone with its node: nobody waits for answers.
    pub fn front_is_gone(&mut self) {
        self.stop_work();
        for (_, pending) in std::mem::take(&mut self.work.pending) {
            if let (Pending::Change(index, _), Some(model)) = (pending, &mut self.model) {
                model.ended(index);
            }
        }
    }

    pub(crate) fn work(&mut self, generation: u64) {
        if !self.work.running || self.work.generation != generation {
            return;
        }
        let node = self.work.node;
        self.work.stalled = self.work.pending.len() >= self.plan.depth;
        if self.work.stalled {
            return;
        }
        if self.nodes[node].is_primary() {
            self.submit_something(node);
        }
        self.next_work();
    }

    fn next_work(&mut self) {
        let generation = self.work.generation;
        let (low, high) = self.plan.pause_ns;
        let pause = self.work.rng.within(low, high);
        let pause = if self.work.submitted < BURST { pause } else { pause.max(MS) * 500 };
        self.after(pause, Event::Work { generation });
    }

    /// A range somewhere, more often where others are.
    fn somewhere(&mut self, sectors_max: u64) -> SectorRange {
        let size = self.nodes[self.work.node].size_sectors;
        let rng = &mut self.work.rng;
        let count = (rng.within(1, sectors_max / 8 + 1) * 8).min(size);
        let count = if rng.chance(15) { rng.within(1, count + 1) } else { count };
        let reach =
            if rng.chance(80) { self.plan.hot_sectors.min(size - count + 1) } else { size - count + 1 };
        let start = rng.below(reach);
        let start = if rng.chance(85) { start / 8 * 8 } else { start };
        SectorRange::new(start.min(size - count), count)
    }

    /// Where a read or a write goes: most are short, which leaves time for more of them.
    fn somewhere_short(&mut self) -> SectorRange {
        let longest = if self.work.rng.chance(25) { 128 } else { 24 };
        self.somewhere(longest)
    }

    fn submit_something(&mut self, node: usize) {
        let kind = self.work.rng.below(100);
        match kind {
            0..25 => {
                let range = self.somewhere_short();
                self.submit(node, FrontOp::Read(range));
            }
            25..35 => self.submit(node, FrontOp::Flush),
            35..40 => {
                let longest = if self.work.rng.chance(20) { 20_000 } else { 256 };
                let range = self.somewhere(longest);
                let op = if self.work.rng.chance(50) {
                    FrontOp::Discard(range)
                } else {
                    FrontOp::WriteZeroes { range, may_unmap: self.work.rng.chance(50) }
                };
                self.submit(node, op);
            }
            _ => {
                let range = self.somewhere_short();
                let fua = self.work.rng.chance(15);
                self.submit(node, FrontOp::Write { range, fua });
            }
        }
    }

    /// Submits one request.
    pub fn submit(&mut self, node: usize, op: FrontOp) {
        let Some(model) = &mut self.model else { return };
        let request = FrontId(self.work.next_request);
        self.work.next_request += 1;
        self.work.submitted += 1;
        let mut bytes = None;
        let pending = match op {
            FrontOp::Read(range) => Pending::Read(range, model.now()),
            FrontOp::Flush => Pending::Flush(model.now()),
            FrontOp::Write { range, fua } => {
                self.work.next_stamp += 1;
                let mut buffer = Buffer::new(range.bytes() as usize);
                stamp::fill(&mut buffer, self.work.next_stamp, range.start);
                bytes = Some(buffer);
                Pending::Change(model.begin(self.work.next_stamp, range), fua)
            }
            FrontOp::Discard(range) | FrontOp::WriteZeroes { range, .. } => {
                Pending::Change(model.begin(0, range), false)
            }
        };
        let stamp = self.work.next_stamp;
        self.note(|| format!("node {node}: submits {request:?} {op:?} stamp {stamp}"));
        self.work.pending.insert(request, pending);
        self.turn(node, |shell| {
            let payload = bytes.map(|buffer| shell.keep(buffer));
            shell.handle(EngineEvent::Submit { volume: VOLUME, request, op, payload });
        });
    }

    /// Which nodes must hold what this node acknowledges now, by its own word.
    fn holders(&self, node: usize) -> u8 {
        let Some(status) = self.nodes[node].shell.as_ref().map(|s| s.engine.status()) else { return 0 };
        let Some(device) = status.devices.first() else { return 0 };
        let here = if device.disk == D::UpToDate { bit(node) } else { 0 };
        let there = device.connection >= C::Connected && device.peer_disk == D::UpToDate;
        here | if there { bit(1 - node) } else { 0 }
    }

    /// When the oldest read began that is not answered, by the model's count.
    pub(crate) fn oldest_read(&self) -> u64 {
        let reads = self.work.pending.values().filter_map(|pending| match pending {
            Pending::Read(_, since) => Some(*since),
            _ => None,
        });
        reads.min().unwrap_or(u64::MAX)
    }

    pub(crate) fn completed(
        &mut self,
        node: usize,
        request: FrontId,
        outcome: Result<Option<Chunk>, FrontFault>,
    ) {
        let holders = self.holders(node);
        self.note(|| {
            format!(
                "node {node}: completes {request:?} {} held by {holders:02b}",
                match &outcome {
                    Ok(_) => "ok".to_owned(),
                    Err(e) => format!("{e:?}"),
                }
            )
        });
        let Some(pending) = self.work.pending.remove(&request) else {
            return self.expect(Err(("requests_complete_once", format!("node {node}: {request:?} again"))));
        };
        if std::mem::take(&mut self.work.stalled) {
            self.next_work();
        }
        let oldest_read = self.oldest_read();
        let Some(model) = &mut self.model else { return };
        model.oldest_read = oldest_read;
        let synchronous = self.plan.net.protocol == drbd_engine::admin::ReplicationProtocol::C;
        match (pending, outcome) {
            (Pending::Read(range, since), Ok(Some(chunk))) => {
                self.work.reads += 1;
                let checked = check::read_is_permitted(
                    model,
                    since,
                    range.start,
                    check::stamps(chunk.bytes(), range.start),
                );
                self.expect(checked);
            }
            (Pending::Read(range, _), Ok(None)) => {
                self.expect(Err(("read_is_permitted", format!("a read of {range:?} without bytes"))));
            }
            (Pending::Change(index, fua), Ok(_)) => {
                self.work.acked += 1;
                let held_by = if synchronous { holders } else { holders & bit(node) };
                model.acked(index, held_by, fua);
            }
            (Pending::Change(index, _), Err(_)) => model.ended(index),
            (Pending::Flush(since), Ok(_)) => model.flushed(since, holders),
            (Pending::Read(..) | Pending::Flush(_), Err(_)) => {}
        }
    }
}
