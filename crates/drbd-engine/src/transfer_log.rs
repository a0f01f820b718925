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
    /// Writes that the peer did not take because of its own in the same place.
    contested: usize,
}

impl Epoch {
    fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Whether a confirmation with this count is of this epoch: peers differ in whether they count what they did not take.
    fn has(&self, count: usize) -> bool {
        (self.writes.len() - self.contested..=self.writes.len()).contains(&count)
    }
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
        Self { closed: VecDeque::new(), open: Epoch::new(1) }
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

    /// A write goes out now; the number of its epoch.
    pub fn sent(&mut self, write: Sent) -> u32 {
        self.open.writes.push(write);
        self.open.number
    }

    /// The peer did not take a write of this epoch.
    pub fn contested(&mut self, number: u32) {
        let epochs = self.closed.iter_mut().chain([&mut self.open]);
        if let Some(epoch) = epochs.into_iter().find(|epoch| epoch.number == number) {
            epoch.contested += 1;
        }
    }

    /// Closes the open epoch; the number to send in the barrier, none if it is empty.
    pub fn close(&mut self) -> Option<u32> {
        if self.open.writes.is_empty() {
            return None;
        }
        let number = self.open.number;
        let next = Epoch::new(number.wrapping_add(1));
        self.closed.push_back(std::mem::replace(&mut self.open, next));
        Some(number)
    }

    /// Whether there is a closed epoch that the peer is to confirm.
    pub fn awaits_confirmation(&self) -> bool {
        self.closed.iter().any(|epoch| epoch.contested == 0)
    }

    /// The newest closed epoch that is not confirmed.
    pub fn newest_closed(&self) -> Option<u32> {
        self.closed.back().map(|epoch| epoch.number)
    }

    /// Whether nothing more will be heard of the epoch: it is confirmed (or was never there), or it and what is left before
    /// it contain writes that the peer did not take. DRBD 8.4 never confirms such an epoch, and goes on with the next.
    pub fn is_settled(&self, number: u32) -> bool {
        match self.closed.iter().position(|epoch| epoch.number == number) {
            Some(at) => self.closed.iter().take(at + 1).all(|epoch| epoch.contested > 0),
            None => self.open.number != number,
        }
    }

    /// The peer confirms an epoch: its writes are stable there, and those of the epochs before that it will not confirm.
    ///
    /// # Errors
    /// If another should have come first, or the count differs: the two sides no longer agree on what was sent.
    pub fn confirmed(&mut self, number: u32, count: u32) -> Result<Vec<Sent>, WrongBarrier> {
        let skipped = self.closed.iter().take_while(|e| e.number != number && e.contested > 0).count();
        match self.closed.get(skipped) {
            Some(epoch) if epoch.number == number && epoch.has(count as usize) => {
                Ok(self.closed.drain(..=skipped).flat_map(|epoch| epoch.writes).collect())
            }
            _ => Err(WrongBarrier { expected: self.closed.front().map(|e| (e.number, e.writes.len())) }),
        }
    }

    /// The writes of closed epochs that the peer may never confirm: their extents are needed, and given back with this.
    pub fn give_up_extents(&mut self) -> Vec<Sent> {
        let epochs = self.closed.iter_mut().take_while(|epoch| epoch.contested > 0);
        let writes = epochs.flat_map(|epoch| &mut epoch.writes).filter(|sent| !sent.extents.is_empty());
        writes.map(|sent| Sent { extents: std::mem::take(&mut sent.extents), ..*sent }).collect()
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
        let next = Epoch::new(self.open.number.wrapping_add(1));
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

    /// Capture 04b: the kernel confirmed #271 where #269 was expected. It had not taken all writes of #269 and #270.
    #[test]
    fn an_epoch_with_writes_that_were_not_taken_is_confirmed_by_a_later_one() {
        let mut log = TransferLog::new();
        let first = log.sent(write(0));
        log.sent(write(8));
        log.close();
        let second = log.sent(write(16));
        log.close();
        log.contested(first);
        assert!(log.is_settled(first), "nobody will confirm it");
        assert!(!log.is_settled(second));
        assert_eq!(log.confirmed(second, 1).map(|sent| sent.len()), Ok(3));
        let third = log.sent(write(24));
        log.sent(write(32));
        log.close();
        log.contested(third);
        assert_eq!(log.confirmed(third, 0), Err(WrongBarrier { expected: Some((third, 2)) }));
        assert_eq!(log.give_up_extents().len(), 2);
        assert_eq!(log.confirmed(third, 1).map(|sent| sent.len()), Ok(2), "a peer that does not count it");
        assert_eq!(log.confirmed(third, 1), Err(WrongBarrier { expected: None }));
    }
}
