//! A disk with a volatile write cache.
//!
//! A completed write is visible at once and stable only when a flush that was issued after its completion has ended, or
//! if it was forced. A power cut keeps of the rest what the seed says, down to single sectors of a write.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use block::Buffer;
use drbd_engine::event::IoFault;
use drbd_node::shell::{Area, Chunk, DiskOp};

use crate::image::{Content, Image, Sector};
use crate::rng::Rng;
use crate::stamp::SECTOR;

#[derive(Debug)]
struct Change {
    number: u64,
    first_sector: usize,
    content: Content,
    forced: bool,
}

impl Change {
    fn apply(&self, image: &mut Image) {
        image.write(self.first_sector, &self.content);
    }
}

#[derive(Debug)]
enum InFlight {
    Read(u64, Buffer),
    /// Bytes, and whether they are to be stable when it ends.
    Write(u64, Chunk, bool),
    Zero(u64, u64),
    /// Covers changes up to this number.
    Flush(u64),
}

/// What an operation does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Reads data.
    Read,
    /// Writes or zeroes data.
    Write,
    /// Writes meta-data.
    Meta,
    /// Makes stable.
    Flush,
}

impl Kind {
    fn of(area: Area, op: &DiskOp) -> Self {
        match op {
            DiskOp::Flush => Self::Flush,
            DiskOp::Read { .. } => Self::Read,
            _ if area == Area::Meta => Self::Meta,
            _ => Self::Write,
        }
    }
}

/// Which operations fail.
#[derive(Debug, Default)]
pub struct Failures {
    /// So many of ten thousand.
    pub per_10000: u64,
    /// The next ones of a kind.
    pub next: Option<(Kind, u32)>,
}

impl Failures {
    fn strike(&mut self, kind: Kind, rng: &mut Rng) -> bool {
        if let Some((fails, count)) = &mut self.next
            && *fails == kind
        {
            *count -= 1;
            if *count == 0 {
                self.next = None;
            }
            return true;
        }
        self.per_10000 != 0 && rng.below(10_000) < self.per_10000
    }
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
    visible: Image,
    stable: Image,
    unflushed: Vec<Change>,
    in_flight: BTreeMap<u64, (Kind, InFlight)>,
    submitted: u64,
    completed: u64,
    /// How large it is.
    pub size_bytes: Rc<Cell<u64>>,
    /// Which operations fail.
    pub failures: Failures,
}

impl Disk {
    /// So many zero bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            visible: Image::new(bytes),
            stable: Image::new(bytes),
            unflushed: Vec::new(),
            in_flight: BTreeMap::new(),
            submitted: 0,
            completed: 0,
            size_bytes: Rc::new(Cell::new(bytes as u64)),
            failures: Failures::default(),
        }
    }

    /// What a read returns now, sector by sector.
    pub fn sectors(&self) -> &[Sector] {
        self.visible.sectors()
    }

    /// What a read returns now, from a byte offset on.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.visible.read(offset, bytes);
    }

    /// Changes the disk behind everybody's back, stable.
    pub fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        let content = Content::of(bytes, offset / SECTOR as u64);
        for image in [&mut self.visible, &mut self.stable] {
            image.write(offset as usize / SECTOR, &content);
        }
    }

    /// Fills a disk behind everybody's back with the content of a stamp, stable.
    pub fn fill(&mut self, stamp: u64) {
        let content = Content::Run(stamp, self.visible.sectors().len());
        for image in [&mut self.visible, &mut self.stable] {
            image.write(0, &content);
        }
    }

    /// Number of operations that have not ended.
    pub fn busy(&self) -> usize {
        self.in_flight.len()
    }

    /// Begins an operation; its number.
    pub fn submit(&mut self, area: Area, op: DiskOp) -> u64 {
        self.submitted += 1;
        let kind = Kind::of(area, &op);
        let op = match op {
            DiskOp::Read { offset, buffer } => InFlight::Read(offset, buffer),
            DiskOp::Write { offset, data, fua } => InFlight::Write(offset, data, fua),
            DiskOp::Zero { offset, len, .. } => InFlight::Zero(offset, len),
            DiskOp::Flush => InFlight::Flush(self.completed),
        };
        self.in_flight.insert(self.submitted, (kind, op));
        self.submitted
    }

    /// Ends an operation; a read brings its buffer.
    pub fn finish(&mut self, number: u64, rng: &mut Rng) -> Option<Result<Option<Buffer>, IoFault>> {
        let (kind, op) = self.in_flight.remove(&number)?;
        if self.failures.strike(kind, rng) {
            if let Some(change) = change_of(op).filter(|_| rng.chance(50)) {
                self.tear(&change, rng);
            }
            return Some(Err(IoFault));
        }
        Some(match op {
            InFlight::Read(offset, mut buffer) => {
                self.visible.read(offset, &mut buffer);
                Ok(Some(buffer))
            }
            InFlight::Flush(covers) => {
                let covered = self.unflushed.partition_point(|change| change.number <= covers);
                for change in self.unflushed.drain(..covered) {
                    change.apply(&mut self.stable);
                }
                Ok(None)
            }
            op => {
                self.complete(change_of(op));
                Ok(None)
            }
        })
    }

    /// Part of what was to be written is there.
    fn tear(&mut self, change: &Change, rng: &mut Rng) {
        for index in 0..change.content.len() {
            if rng.chance(50) {
                let content = Content::Sectors(vec![change.content.sector(index)]);
                let first_sector = change.first_sector + index;
                self.complete(Some(Change { number: 0, first_sector, content, forced: false }));
            }
        }
    }

    fn complete(&mut self, change: Option<Change>) {
        let Some(mut change) = change else { return };
        change.apply(&mut self.visible);
        self.completed += 1;
        change.number = self.completed;
        self.unflushed.push(change);
    }

    /// The daemon is gone, the system below it is not: what is under way ends sometime, unseen.
    pub fn abandon(&mut self) {
        for (_, op) in std::mem::take(&mut self.in_flight).into_values() {
            self.complete(change_of(op).map(|change| Change { forced: false, ..change }));
        }
    }

    /// The power is gone.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let how = rng.pick(&[Survival::Nothing, Survival::Everything, Survival::Writes, Survival::Sectors]);
        for change in std::mem::take(&mut self.unflushed) {
            survive(&change, if change.forced { Survival::Everything } else { how }, &mut self.stable, rng);
        }
        for (_, op) in std::mem::take(&mut self.in_flight).into_values() {
            if let Some(change) = change_of(op) {
                let how = rng.pick(&[Survival::Nothing, Survival::Everything, Survival::Sectors]);
                survive(&change, how, &mut self.stable, rng);
            }
        }
        self.visible.clone_from(&self.stable);
    }
}

/// What an operation changes, if anything.
fn change_of(op: InFlight) -> Option<Change> {
    let sector = |offset: u64| offset / SECTOR as u64;
    let (offset, content, forced) = match op {
        InFlight::Read(..) | InFlight::Flush(_) => return None,
        InFlight::Write(offset, data, fua) => (offset, Content::of(data.bytes(), sector(offset)), fua),
        InFlight::Zero(offset, len) => (offset, Content::Run(0, len as usize / SECTOR), false),
    };
    Some(Change { number: 0, first_sector: sector(offset) as usize, content, forced })
}

fn survive(change: &Change, how: Survival, stable: &mut Image, rng: &mut Rng) {
    match how {
        Survival::Nothing => {}
        Survival::Everything => change.apply(stable),
        Survival::Writes => {
            if rng.chance(50) {
                change.apply(stable);
            }
        }
        Survival::Sectors => {
            for index in 0..change.content.len() {
                if rng.chance(50) {
                    stable.write_sector(change.first_sector + index, change.content.sector(index));
                }
            }
        }
    }
}
