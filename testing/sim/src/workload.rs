//! The fronts of the primaries: they submit at random, and check what comes back.

use std::collections::BTreeMap;

use block::Buffer;
use drbd_engine::event::{Event as EngineEvent, FrontFault, FrontId, FrontOp};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_node::shell::Chunk;
use units::SectorRange;

use crate::check;
use crate::model::{BOTH, Model, bit};
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

/// What the front of one node has under way.
#[derive(Debug, Default)]
pub struct Front {
    /// Unanswered requests.
    pub pending: BTreeMap<FrontId, Pending>,
    /// Counts starts; events of an earlier one are stale.
    generation: u64,
    running: bool,
    /// The next request waits for an answer to one of those under way.
    stalled: bool,
    /// Requests since the start.
    submitted: u64,
}

/// What both fronts do.
#[derive(Debug)]
pub struct Workload {
    rng: Rng,
    /// By node.
    pub fronts: [Front; 2],
    next_request: u64,
    next_stamp: u64,
    /// Acknowledged changes.
    pub acked: u64,
    /// Checked reads.
    pub reads: u64,
}

impl Workload {
    /// Nothing runs.
    pub fn new(rng: Rng) -> Self {
        let fronts = [Front::default(), Front::default()];
        Self { rng, fronts, next_request: 1, next_stamp: 1000, acked: 0, reads: 0 }
    }

    /// Unanswered requests.
    pub fn pending(&self) -> usize {
        self.fronts.iter().map(|front| front.pending.len()).sum()
    }
}

impl World {
    /// Lets requests come on a node.
    pub fn start_work(&mut self, node: usize) {
        let front = &mut self.work.fronts[node];
        front.running = true;
        front.generation += 1;
        front.submitted = 0;
        front.stalled = false;
        let generation = front.generation;
        self.after(0, Event::Work { node, generation });
    }

    /// No more come; those under way go on.
    pub fn stop_work(&mut self) {
        self.stop_work_on(0);
        self.stop_work_on(1);
    }

    /// No more come on this node.
    pub fn stop_work_on(&mut self, node: usize) {
        self.work.fronts[node].running = false;
    }

    /// What the front of this node was promised: after a split brain each has its own.
    pub fn promises(&mut self, node: usize) -> Option<&mut Model> {
        match &mut self.rival {
            Some((rival, model)) if *rival == node => Some(model),
            _ => self.model.as_mut(),
        }
    }

    /// The front of a node is gone with it: nobody waits for answers.
    pub fn front_is_gone(&mut self, node: usize) {
        self.stop_work_on(node);
        for (_, pending) in std::mem::take(&mut self.work.fronts[node].pending) {
            if let (Pending::Change(index, _), Some(model)) = (pending, self.promises(node)) {
                model.ended(index);
            }
        }
    }

    pub(crate) fn work(&mut self, node: usize, generation: u64) {
        let front = &self.work.fronts[node];
        if !front.running || front.generation != generation {
            return;
        }
        let stalled = front.pending.len() >= self.plan.depth;
        self.work.fronts[node].stalled = stalled;
        if stalled {
            return;
        }
        if self.nodes[node].is_primary() {
            self.submit_something(node);
        }
        self.next_work(node);
    }

    fn next_work(&mut self, node: usize) {
        let generation = self.work.fronts[node].generation;
        let (low, high) = self.plan.pause_ns;
        let pause = self.work.rng.within(low, high);
        let in_burst = self.work.fronts[node].submitted < BURST;
        let pause = if in_burst { pause } else { pause.max(MS) * 500 };
        self.after(pause, Event::Work { node, generation });
    }

    /// A range somewhere, more often where others are.
    fn somewhere(&mut self, node: usize, sectors_max: u64) -> SectorRange {
        let size = self.nodes[node].size_sectors;
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
    fn somewhere_short(&mut self, node: usize) -> SectorRange {
        let longest = if self.work.rng.chance(25) { 128 } else { 24 };
        self.somewhere(node, longest)
    }

    fn submit_something(&mut self, node: usize) {
        let kind = self.work.rng.below(100);
        match kind {
            0..25 => {
                let range = self.somewhere_short(node);
                self.submit(node, FrontOp::Read(range));
            }
            25..35 => self.submit(node, FrontOp::Flush),
            35..40 => {
                let longest = if self.work.rng.chance(20) { 20_000 } else { 256 };
                let range = self.somewhere(node, longest);
                let op = if self.work.rng.chance(50) {
                    FrontOp::Discard(range)
                } else {
                    FrontOp::WriteZeroes { range, may_unmap: self.work.rng.chance(50) }
                };
                self.submit(node, op);
            }
            _ => {
                let range = self.somewhere_short(node);
                let fua = self.work.rng.chance(15);
                self.submit(node, FrontOp::Write { range, fua });
            }
        }
    }

    /// Submits one request.
    pub fn submit(&mut self, node: usize, op: FrontOp) {
        let Self { model, rival, work, .. } = self;
        let model = match rival {
            Some((rival, model)) if *rival == node => Some(model),
            _ => model.as_mut(),
        };
        let Some(model) = model else { return };
        let request = FrontId(work.next_request);
        work.next_request += 1;
        work.fronts[node].submitted += 1;
        let mut bytes = None;
        let pending = match op {
            FrontOp::Read(range) => Pending::Read(range, model.now()),
            FrontOp::Flush => Pending::Flush(model.now()),
            FrontOp::Write { range, fua } => {
                work.next_stamp += 1;
                let mut buffer = Buffer::new(range.bytes() as usize);
                stamp::fill(&mut buffer, work.next_stamp, range.start);
                bytes = Some(buffer);
                Pending::Change(model.begin(node, work.next_stamp, range), fua)
            }
            FrontOp::Discard(range) | FrontOp::WriteZeroes { range, .. } => {
                Pending::Change(model.begin(node, 0, range), false)
            }
        };
        let stamp = self.work.next_stamp;
        self.note(|| format!("node {node}: submits {request:?} {op:?} stamp {stamp}"));
        self.work.fronts[node].pending.insert(request, pending);
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
        let pending = self.work.fronts.iter().flat_map(|front| front.pending.values());
        let reads = pending.filter_map(|pending| match pending {
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
        let Some(pending) = self.work.fronts[node].pending.remove(&request) else {
            return self.expect(Err(("requests_complete_once", format!("node {node}: {request:?} again"))));
        };
        if std::mem::take(&mut self.work.fronts[node].stalled) {
            self.next_work(node);
        }
        let oldest_read = self.oldest_read();
        let synchronous = self.plan.net.protocol == drbd_engine::admin::ReplicationProtocol::C;
        if matches!((&pending, &outcome), (Pending::Change(..), Ok(_))) {
            self.work.acked += 1;
            self.acked_alone[node] |= self.rival.is_some() && self.nodes[node].connection() < C::Connected;
        }
        let tells_fua = self.plan.tells_fua();
        let Some(model) = self.promises(node) else { return };
        model.oldest_read = oldest_read;
        match (pending, outcome) {
            (Pending::Read(range, since), Ok(Some(chunk))) => {
                let checked = check::read_is_permitted(
                    model,
                    since,
                    range.start,
                    check::stamps(chunk.bytes(), range.start),
                );
                self.work.reads += 1;
                self.expect(checked);
            }
            (Pending::Read(range, _), Ok(None)) => {
                self.expect(Err(("read_is_permitted", format!("a read of {range:?} without bytes"))));
            }
            (Pending::Change(index, fua), Ok(_)) => {
                let held_by = if synchronous { holders } else { holders & bit(node) };
                let stable_on = match fua {
                    true if tells_fua => BOTH,
                    true => bit(node),
                    false => 0,
                };
                model.acked(index, held_by, stable_on);
            }
            (Pending::Change(index, _), Err(_)) => model.ended(index),
            (Pending::Flush(since), Ok(_)) => model.flushed(node, since, holders),
            (Pending::Read(..) | Pending::Flush(_), Err(_)) => {}
        }
    }
}
