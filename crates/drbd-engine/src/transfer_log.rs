//! What the peer may lose if its power fails: writes it has, but has not yet said to be stable.
//!
//! A write that is sent belongs to the current epoch. A barrier closes the epoch; the peer's barrier acknowledgement says
//! that all its writes are on stable storage. Until then their extents stay hot, and if the connection is lost they are
//! out of sync. Upstream: `tl_release`, `tl_clear` (drbd_main.c).

use std::collections::VecDeque;

use units::SectorRange;

/// A write in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Of which volume.
    pub volume: u16,
    /// Where.
    pub range: SectorRange,
    /// Activity-log extents it references here, empty without a local disk.
    pub extents: Vec<u32>,
}

#[derive(Debug, Default)]
struct Epoch {
    number: u32,
    writes: Vec<Sent>,
}

/// The peer acknowledged what it was not asked, or in another order.
#[derive(Debug, PartialEq)]
pub struct WrongBarrier {
    /// What was expected: number and writes of the oldest closed epoch.
    pub expected: Option<(u32, usize)>,
}

/// Epochs that the peer has not confirmed, oldest first; the last one is open.
#[derive(Debug)]
pub struct TransferLog {
    closed: VecDeque<Epoch>,
    open: Epoch,
}

impl TransferLog {
    /// Nothing was sent.
    pub fn new() -> Self {
        Self { closed: VecDeque::new(), open: Epoch { number: 1, writes: Vec::new() } }
    }

    /// Number of writes in the open epoch.
    pub fn open_len(&self) -> usize {
        self.open.writes.len()
    }

    /// Number of unconfirmed epochs that hold something.
    pub fn len(&self) -> usize {
        self.closed.len() + usize::from(!self.open.writes.is_empty())
    }

    /// Whether every write is confirmed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A write goes out now.
    pub fn sent(&mut self, write: Sent) {
        self.open.writes.push(write);
    }

    /// Closes the open epoch; the number to send in the barrier, none if it is empty.
    pub fn close(&mut self) -> Option<u32> {
        if self.open.writes.is_empty() {
            return None;
        }
        let number = self.open.number;
        let next = Epoch { number: number.wrapping_add(1), writes: Vec::new() };
        self.closed.push_back(std::mem::replace(&mut self.open, next));
        Some(number)
    }

    /// The newest closed epoch that is not confirmed.
    pub fn newest_closed(&self) -> Option<u32> {
        self.closed.back().map(|epoch| epoch.number)
    }

    /// Whether the epoch is confirmed (or was never there).
    pub fn is_confirmed(&self, number: u32) -> bool {
        self.open.number != number && !self.closed.iter().any(|epoch| epoch.number == number)
    }

    /// The peer confirms an epoch: its writes are stable there.
    ///
    /// # Errors
    /// If it is not the oldest closed one, or the count differs: the two sides no longer agree on what was sent.
    pub fn confirmed(&mut self, number: u32, count: u32) -> Result<Vec<Sent>, WrongBarrier> {
        match self.closed.front() {
            Some(oldest) if oldest.number == number && oldest.writes.len() == count as usize => {
                Ok(self.closed.pop_front().map_or_else(Vec::new, |epoch| epoch.writes))
            }
            other => Err(WrongBarrier { expected: other.map(|e| (e.number, e.writes.len())) }),
        }
    }

    /// The disk of a volume is gone, and its activity log with it.
    pub fn forget_extents(&mut self, volume: u16) {
        let epochs = self.closed.iter_mut().chain([&mut self.open]);
        for sent in epochs.flat_map(|e| &mut e.writes).filter(|w| w.volume == volume) {
            sent.extents.clear();
        }
    }

    /// The connection is lost: everything unconfirmed, which is out of sync from now on.
    pub fn lost(&mut self) -> Vec<Sent> {
        let next = Epoch { number: self.open.number.wrapping_add(1), writes: Vec::new() };
        let open = std::mem::replace(&mut self.open, next);
        self.closed.drain(..).chain([open]).flat_map(|epoch| epoch.writes).collect()
    }
}

impl Default for TransferLog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(start: u64) -> Sent {
        Sent { volume: 0, range: SectorRange::new(start, 8), extents: vec![0] }
    }

    #[test]
    fn epochs_are_confirmed_in_order_and_whole() {
        let mut log = TransferLog::new();
        log.sent(write(0));
        log.sent(write(8));
        assert_eq!(log.close(), Some(1));
        assert_eq!(log.close(), None, "an empty epoch is not closed");
        log.sent(write(16));
        assert_eq!(log.close(), Some(2));
        assert_eq!(log.confirmed(2, 1), Err(WrongBarrier { expected: Some((1, 2)) }));
        assert_eq!(log.confirmed(1, 1), Err(WrongBarrier { expected: Some((1, 2)) }));
        assert_eq!(log.confirmed(1, 2), Ok(vec![write(0), write(8)]));
        log.sent(write(24));
        assert_eq!(log.lost(), vec![write(16), write(24)]);
        assert!(log.is_empty());
    }
}
