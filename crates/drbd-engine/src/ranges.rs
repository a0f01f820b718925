//! Which sectors are being changed. Overlapping operations take their turns in the order they came.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use units::SectorRange;

/// Locks on ranges of sectors: held ranges are disjoint; who cannot have one waits, first come first served.
#[derive(Debug, Default)]
pub struct RangeLocks<T> {
    held: BTreeMap<u64, u64>,
    waiting: VecDeque<(SectorRange, T)>,
}

impl<T> RangeLocks<T> {
    /// No range is held.
    pub fn new() -> Self {
        Self { held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    fn is_held(&self, range: SectorRange) -> bool {
        self.held.range(..range.end()).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    /// Takes the range if nobody holds or waits for any of it; otherwise `who` waits and gets it from `unlock`.
    pub fn lock(&mut self, range: SectorRange, who: T) -> Option<T> {
        if self.is_held(range) || self.waiting.iter().any(|(w, _)| w.overlaps(range)) {
            self.waiting.push_back((range, who));
            return None;
        }
        self.held.insert(range.start, range.end());
        Some(who)
    }

    /// Takes the range only if it is free at once.
    pub fn try_lock(&mut self, range: SectorRange) -> bool {
        let free = !self.is_held(range) && !self.waiting.iter().any(|(w, _)| w.overlaps(range));
        if free {
            self.held.insert(range.start, range.end());
        }
        free
    }

    /// Lets the range go; returns those whose turn has come, their ranges now held by them.
    ///
    /// # Panics
    /// If the range is not held as it was taken: two writers in one place would follow.
    pub fn unlock(&mut self, range: SectorRange) -> Vec<T> {
        assert_eq!(self.held.remove(&range.start), Some(range.end()), "range {range:?} was not held");
        self.admit()
    }

    fn admit(&mut self) -> Vec<T> {
        let mut admitted = Vec::new();
        if self.waiting.is_empty() {
            return admitted;
        }
        let mut passed_over: Vec<SectorRange> = Vec::new();
        let mut still = VecDeque::with_capacity(self.waiting.len());
        for (range, who) in std::mem::take(&mut self.waiting) {
            if self.is_held(range) || passed_over.iter().any(|p| p.overlaps(range)) {
                passed_over.push(range);
                still.push_back((range, who));
            } else {
                self.held.insert(range.start, range.end());
                admitted.push(who);
            }
        }
        self.waiting = still;
        admitted
    }

    /// Withdraws those who wait and satisfy the predicate; returns them, and whose turn has come by that.
    pub fn withdraw(&mut self, mut gone: impl FnMut(&T) -> bool) -> (Vec<T>, Vec<T>) {
        let mut withdrawn = Vec::new();
        let mut still = VecDeque::with_capacity(self.waiting.len());
        for (range, who) in std::mem::take(&mut self.waiting) {
            if gone(&who) {
                withdrawn.push(who);
            } else {
                still.push_back((range, who));
            }
        }
        self.waiting = still;
        (withdrawn, self.admit())
    }

    /// Whether nothing is held.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(start: u64, count: u64) -> SectorRange {
        SectorRange::new(start, count)
    }

    #[test]
    fn overlapping_ranges_take_turns_in_order() {
        let mut locks = RangeLocks::new();
        assert_eq!(locks.lock(r(0, 8), 'a'), Some('a'));
        assert_eq!(locks.lock(r(8, 8), 'b'), Some('b'));
        assert_eq!(locks.lock(r(4, 8), 'c'), None, "overlaps a and b");
        assert_eq!(locks.lock(r(10, 2), 'd'), None, "overlaps b and waits behind c");
        assert_eq!(locks.lock(r(16, 8), 'e'), Some('e'), "touches nobody");
        assert_eq!(locks.unlock(r(8, 8)), vec![], "c still waits for a, d for c");
        assert_eq!(locks.unlock(r(0, 8)), vec!['c']);
        assert_eq!(locks.unlock(r(4, 8)), vec!['d']);
        assert_eq!(locks.unlock(r(10, 2)), vec![]);
        assert_eq!(locks.unlock(r(16, 8)), vec![]);
        assert!(locks.is_idle());
    }

    #[test]
    fn a_waiter_that_withdraws_lets_the_next_pass() {
        let mut locks = RangeLocks::new();
        locks.lock(r(0, 8), 1);
        locks.lock(r(4, 8), 2);
        locks.lock(r(10, 8), 3);
        assert_eq!(locks.withdraw(|&w| w == 2), (vec![2], vec![3]));
        assert!(!locks.try_lock(r(12, 1)));
        assert!(locks.try_lock(r(30, 1)));
    }

    #[test]
    #[should_panic(expected = "was not held")]
    fn letting_go_what_one_does_not_hold_is_a_bug() {
        let mut locks = RangeLocks::new();
        locks.lock(r(0, 8), ());
        locks.unlock(r(0, 4));
    }
}
