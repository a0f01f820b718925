//! What the front was promised: which stamps a sector may hold.
//!
//! A write is *firm* once it was acknowledged, as long as a node holds it that must not have lost it. Firm writes replace
//! what ended before they began; everything else may or may not be there.

use units::SectorRange;

/// Bit of a node in a set of nodes.
pub fn bit(node: usize) -> u8 {
    1 << node
}

/// Both nodes.
pub const BOTH: u8 = 3;

/// What a sector holds that nothing was written to: the first of all writes.
const ORIGINAL: [u32; 1] = [0];

/// A write, discard or zeroing of the front.
#[derive(Clone, Debug)]
pub struct Write {
    /// The node whose front it is of.
    pub by: usize,
    /// Its mark in the data; 0 for zeroes.
    pub stamp: u64,
    /// Where.
    pub range: SectorRange,
    /// When it was submitted, by the model's count of events.
    pub submitted: u64,
    /// When it ended, one way or another.
    pub ended: Option<u64>,
    /// It was acknowledged.
    pub acked: bool,
    /// Nodes that hold it and have not lost it since.
    pub held_by: u8,
    /// Nodes on which it is on stable storage.
    pub stable_on: u8,
}

impl Write {
    /// It must be there.
    pub fn is_firm(&self) -> bool {
        self.acked && self.held_by != 0
    }
}

/// The promises of one device.
#[derive(Clone, Debug)]
pub struct Model {
    writes: Vec<Write>,
    /// For each sector its writes, in the order of their submission; empty where nothing was written.
    sectors: Vec<Vec<u32>>,
    clock: u64,
    /// When the oldest read began that is not answered: it may still see what was replaced since.
    pub oldest_read: u64,
    /// When the power of each node failed last.
    power_failed: [u64; 2],
}

impl Model {
    /// A device that holds on one node a content of this stamp everywhere.
    pub fn new(sectors: u64, stamp: u64, node: usize) -> Self {
        let base = Write {
            by: node,
            stamp,
            range: SectorRange::new(0, sectors),
            submitted: 0,
            ended: Some(0),
            acked: true,
            held_by: bit(node),
            stable_on: bit(node),
        };
        Self {
            writes: vec![base],
            sectors: vec![Vec::new(); sectors as usize],
            clock: 0,
            oldest_read: u64::MAX,
            power_failed: [0; 2],
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The instant, as far as promises are concerned.
    pub fn now(&mut self) -> u64 {
        self.tick()
    }

    /// A write begins; its index.
    pub fn begin(&mut self, by: usize, stamp: u64, range: SectorRange) -> usize {
        let submitted = self.tick();
        let index = self.writes.len();
        self.writes.push(Write {
            by,
            stamp,
            range,
            submitted,
            ended: None,
            acked: false,
            held_by: 0,
            stable_on: 0,
        });
        for sector in range.start..range.end() {
            let writes = &mut self.sectors[sector as usize];
            if writes.is_empty() {
                writes.push(ORIGINAL[0]);
            }
            writes.push(index as u32);
        }
        index
    }

    /// A write is acknowledged, and these nodes have it, some of them on stable storage.
    pub fn acked(&mut self, index: usize, held_by: u8, stable_on: u8) {
        let now = self.tick();
        let write = &mut self.writes[index];
        // An acknowledgement may be on its way while the power fails that the written bytes needed.
        let lost: u8 = (0..2).filter(|&n| self.power_failed[n] > write.submitted).map(bit).sum();
        let held_by = held_by & !lost;
        write.ended = Some(now);
        write.acked = true;
        write.held_by = held_by;
        write.stable_on |= held_by & stable_on;
        self.forget_replaced(index);
    }

    /// A write failed, or whoever wanted it is gone.
    pub fn ended(&mut self, index: usize) {
        let now = self.tick();
        self.writes[index].ended.get_or_insert(now);
    }

    /// What a write that is stable on both nodes has replaced for good need not be remembered.
    fn forget_replaced(&mut self, index: usize) {
        let newest = &self.writes[index];
        if newest.stable_on != BOTH || newest.ended.is_none_or(|ended| ended >= self.oldest_read) {
            return;
        }
        for sector in newest.range.start..newest.range.end() {
            let writes = &self.writes;
            self.sectors[sector as usize]
                .retain(|&old| writes[old as usize].ended.is_none_or(|ended| ended >= newest.submitted));
        }
    }

    /// A flush of a node's front that was submitted at `since` is acknowledged; these nodes took part, and hold from now on
    /// what they did not need to hold for an acknowledgement. Of what another front wrote it flushes this node's disk only:
    /// the other one's flush is for what this front sent there.
    pub fn flushed(&mut self, node: usize, since: u64, by: u8) {
        for index in 0..self.writes.len() {
            let write = &mut self.writes[index];
            if write.acked && write.ended.is_some_and(|ended| ended < since) && write.stable_on != BOTH {
                let by = if write.by == node { by } else { by & bit(node) };
                if write.held_by != 0 {
                    write.held_by |= by;
                    write.stable_on |= by;
                }
                self.forget_replaced(index);
            }
        }
    }

    /// Nothing more comes of what a node's front has under way: whoever has it not yet will not get it.
    pub fn fell_silent(&mut self, node: usize) {
        let now = self.tick();
        for write in self.writes.iter_mut().filter(|write| write.by == node) {
            write.ended.get_or_insert(now);
        }
    }

    /// The power of a node is gone, and what was not stable with it.
    pub fn power_cut(&mut self, node: usize) {
        self.power_failed[node] = self.tick();
        for write in &mut self.writes {
            write.held_by &= write.stable_on | !bit(node);
        }
    }

    /// A node's disk no longer takes part.
    pub fn disk_left(&mut self, node: usize) {
        for write in &mut self.writes {
            write.held_by &= !bit(node);
            write.stable_on &= !bit(node);
        }
    }

    /// Both disks are equal now. A write that ended later than `doubtful_since` may have completed before the peer got it.
    pub fn in_sync(&mut self, doubtful_since: u64) {
        for index in 0..self.writes.len() {
            let write = &mut self.writes[index];
            if write.ended.is_none_or(|ended| ended >= doubtful_since) {
                continue;
            }
            if write.acked && write.held_by != 0 && write.held_by != BOTH {
                write.held_by = BOTH;
            }
            if write.acked && write.stable_on != 0 && write.stable_on != BOTH {
                write.stable_on = BOTH;
                self.forget_replaced(index);
            }
        }
    }

    /// What this node holds counts from now on; unless stable, what only the other holds may be gone.
    pub fn follows(&mut self, node: usize) {
        for write in &mut self.writes {
            if write.held_by & bit(node) == 0 && write.stable_on == 0 {
                write.held_by = 0;
            }
        }
    }

    /// Whatever this node does not hold was given up.
    pub fn surrenders_to(&mut self, node: usize) {
        for write in &mut self.writes {
            write.held_by &= bit(node);
            write.stable_on &= bit(node);
        }
    }

    /// Whether the node holds everything that is firm.
    pub fn is_current(&self, node: usize) -> bool {
        self.writes.iter().all(|w| !w.is_firm() || w.held_by & bit(node) != 0)
    }

    /// Whether a sector may hold this stamp for a reader who began at `since`.
    pub fn permits(&self, sector: u64, since: u64, stamp: u64) -> bool {
        self.permitted(sector, since).any(|write| write.stamp == stamp)
    }

    /// Stamps a sector may hold for a reader who began at `since`.
    pub fn permitted(&self, sector: u64, since: u64) -> impl Iterator<Item = &Write> {
        let touched = &self.sectors[sector as usize];
        let indices = if touched.is_empty() { &ORIGINAL } else { &touched[..] };
        let candidates = indices.iter().map(|&i| &self.writes[i as usize]);
        let firm = candidates.clone().filter(|w| w.is_firm() && w.ended.is_some_and(|ended| ended < since));
        let newest = firm.map(|w| w.submitted).max().unwrap_or(0);
        candidates.filter(move |v| v.ended.is_none_or(|ended| ended >= newest))
    }
}
