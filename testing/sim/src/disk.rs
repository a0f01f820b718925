//! A disk with a volatile write cache.
//!
//! A completed write is visible at once and stable only when a flush that was issued after its completion has ended, or
//! if it was forced. A power cut keeps of the rest what the seed says, down to single sectors of a write.

use std::collections::BTreeMap;

use block::Buffer;
use drbd_engine::event::IoFault;
use drbd_node::shell::{Chunk, DiskOp};

use crate::rng::Rng;
use crate::stamp::SECTOR;

#[derive(Debug)]
enum Content {
    Bytes(Chunk),
    Zeroes(u64),
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(chunk) => chunk.len,
            Self::Zeroes(len) => *len as usize,
        }
    }

    /// Copies a part of the content.
    fn put(&self, from: usize, to: &mut [u8]) {
        match self {
            Self::Bytes(chunk) => to.copy_from_slice(&chunk.bytes()[from..from + to.len()]),
            Self::Zeroes(_) => to.fill(0),
        }
    }
}

#[derive(Debug)]
struct Change {
    number: u64,
    offset: usize,
    content: Content,
    forced: bool,
}

impl Change {
    fn apply(&self, bytes: &mut [u8]) {
        self.content.put(0, &mut bytes[self.offset..self.offset + self.content.len()]);
    }
}

#[derive(Debug)]
enum InFlight {
    Read(u64, Buffer),
    Change(Change),
    /// Covers changes up to this number.
    Flush(u64),
}

/// How much of what is not stable a power cut leaves.
#[derive(Clone, Copy)]
enum Survival {
    Nothing,
    Everything,
    Writes,
    Sectors,
}

/// A disk of one node.
#[derive(Debug)]
pub struct Disk {
    visible: Vec<u8>,
    stable: Vec<u8>,
    unflushed: Vec<Change>,
    in_flight: BTreeMap<u64, InFlight>,
    submitted: u64,
    completed: u64,
    /// In so many of ten thousand operations it fails.
    pub failures_per_10000: u64,
}

impl Disk {
    /// So many zero bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            visible: vec![0; bytes],
            stable: vec![0; bytes],
            unflushed: Vec::new(),
            in_flight: BTreeMap::new(),
            submitted: 0,
            completed: 0,
            failures_per_10000: 0,
        }
    }

    /// What a read returns now.
    pub fn bytes(&self) -> &[u8] {
        &self.visible
    }

    /// Changes the disk behind everybody's back, stable.
    pub fn overwrite(&mut self, change: impl Fn(&mut [u8])) {
        change(&mut self.visible);
        change(&mut self.stable);
    }

    /// Number of operations that have not ended.
    pub fn busy(&self) -> usize {
        self.in_flight.len()
    }

    /// Begins an operation; its number.
    pub fn submit(&mut self, op: DiskOp) -> u64 {
        self.submitted += 1;
        let change = |offset: u64, content, forced| {
            InFlight::Change(Change { number: 0, offset: offset as usize, content, forced })
        };
        let op = match op {
            DiskOp::Read { offset, buffer } => InFlight::Read(offset, buffer),
            DiskOp::Write { offset, data, fua } => change(offset, Content::Bytes(data), fua),
            DiskOp::Zero { offset, len, .. } => change(offset, Content::Zeroes(len), false),
            DiskOp::Flush => InFlight::Flush(self.completed),
        };
        self.in_flight.insert(self.submitted, op);
        self.submitted
    }

    /// Ends an operation; a read brings its buffer.
    pub fn finish(&mut self, number: u64, rng: &mut Rng) -> Option<Result<Option<Buffer>, IoFault>> {
        let op = self.in_flight.remove(&number)?;
        let fails = self.failures_per_10000 != 0 && rng.below(10_000) < self.failures_per_10000;
        Some(match op {
            _ if fails => Err(IoFault),
            InFlight::Read(offset, mut buffer) => {
                let from = offset as usize;
                let len = buffer.len();
                buffer.copy_from_slice(&self.visible[from..from + len]);
                Ok(Some(buffer))
            }
            InFlight::Change(mut change) => {
                change.apply(&mut self.visible);
                self.completed += 1;
                change.number = self.completed;
                self.unflushed.push(change);
                Ok(None)
            }
            InFlight::Flush(covers) => {
                let covered = self.unflushed.partition_point(|change| change.number <= covers);
                for change in self.unflushed.drain(..covered) {
                    change.apply(&mut self.stable);
                }
                Ok(None)
            }
        })
    }

    /// The daemon is gone, the system below it is not: what is under way ends sometime, unseen.
    pub fn abandon(&mut self) {
        for (_, op) in std::mem::take(&mut self.in_flight) {
            if let InFlight::Change(mut change) = op {
                change.apply(&mut self.visible);
                self.completed += 1;
                change.number = self.completed;
                change.forced = false;
                self.unflushed.push(change);
            }
        }
    }

    /// The power is gone.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let how = rng.pick(&[Survival::Nothing, Survival::Everything, Survival::Writes, Survival::Sectors]);
        for change in std::mem::take(&mut self.unflushed) {
            survive(&change, if change.forced { Survival::Everything } else { how }, &mut self.stable, rng);
        }
        for (_, op) in std::mem::take(&mut self.in_flight) {
            if let InFlight::Change(change) = op {
                let how = rng.pick(&[Survival::Nothing, Survival::Everything, Survival::Sectors]);
                survive(&change, how, &mut self.stable, rng);
            }
        }
        self.visible.copy_from_slice(&self.stable);
    }
}

fn survive(change: &Change, how: Survival, stable: &mut [u8], rng: &mut Rng) {
    match how {
        Survival::Nothing => {}
        Survival::Everything => change.apply(stable),
        Survival::Writes => {
            if rng.chance(50) {
                change.apply(stable);
            }
        }
        Survival::Sectors => {
            for from in (0..change.content.len()).step_by(SECTOR) {
                if rng.chance(50) {
                    let at = change.offset + from;
                    change.content.put(from, &mut stable[at..at + SECTOR]);
                }
            }
        }
    }
}
