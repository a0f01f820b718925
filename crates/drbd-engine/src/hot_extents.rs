//! The activity log in memory: which 4 MiB extents may differ between the disks if this node crashes.
//!
//! An extent is hot while it has a slot. Writes hold a reference until both disks have them stable; only extents without
//! references give up their slot, and only by a transaction that is stable before the new extent's first write.
//! Upstream: `lru_cache`, `drbd_actlog.c`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use drbd_format::activity_log::{CONTEXT_MAX, EXTENT_FREE, Kind, Transaction, UPDATES_MAX};

use crate::time::Instant;

#[derive(Clone, Copy, Debug)]
struct Slot {
    extent: u32,
    references: u32,
    /// Its place in `idle`: when the last reference went.
    idle_since: u64,
}

/// An extent that nothing has touched for so long is cold: after a crash it would only be synced in vain.
const COLD_AFTER: Duration = Duration::from_secs(5);

/// Cooling costs a transaction; so often at most.
const COOLING_INTERVAL: Duration = Duration::from_secs(1);

/// A change of slots that is being written.
#[derive(Debug)]
struct Planned<T> {
    updates: Vec<(u16, u32)>,
    admitted: Vec<T>,
}

/// What must be written before more extents are hot.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The transaction.
    pub transaction: Transaction,
    /// Extents that lose their slot: their bits must be stable before the transaction is.
    pub evicted: Vec<u32>,
}

/// The hot extents, and who waits for one to become hot.
#[derive(Debug)]
pub struct HotExtents<T> {
    slots: Vec<Slot>,
    by_extent: BTreeMap<u32, u16>,
    free: Vec<u16>,
    /// Idle slots in the order they became idle, and when.
    idle: BTreeMap<u64, (u16, Instant)>,
    clock: u64,
    cooled_at: Instant,
    next_number: u32,
    context_start: u16,
    planned: Option<Planned<T>>,
    waiting: VecDeque<(Vec<u32>, T)>,
}

impl<T> HotExtents<T> {
    /// No extent is hot. `slots` is `al-extents`, `next_number` that of the next transaction.
    pub fn new(slots: u16, next_number: u32) -> Self {
        Self {
            slots: vec![Slot { extent: EXTENT_FREE, references: 0, idle_since: 0 }; usize::from(slots)],
            by_extent: BTreeMap::new(),
            free: (0..slots).collect(),
            idle: BTreeMap::new(),
            clock: 0,
            cooled_at: Instant(0),
            next_number,
            context_start: 0,
            planned: None,
            waiting: VecDeque::new(),
        }
    }

    fn transaction(&mut self, updates: Vec<(u16, u32)>) -> Transaction {
        let start = usize::from(self.context_start);
        let context: Vec<u32> =
            self.slots[start..].iter().take(CONTEXT_MAX).map(|slot| slot.extent).collect();
        let transaction = Transaction {
            number: self.next_number,
            kind: Kind::UPDATE,
            updates,
            context_size: self.slots.len() as u16,
            context_start: self.context_start,
            context,
        };
        self.next_number = self.next_number.wrapping_add(1);
        let next = start + CONTEXT_MAX;
        self.context_start = if next < self.slots.len() { next as u16 } else { 0 };
        transaction
    }

    /// Transactions without updates that fill a ring of `blocks`, so that nothing older in it counts.
    pub fn fresh_ring(&mut self, blocks: u32) -> Vec<Transaction> {
        (0..blocks).map(|_| self.transaction(Vec::new())).collect()
    }

    fn reference(&mut self, extent: u32) {
        let slot = &mut self.slots[usize::from(self.by_extent[&extent])];
        if slot.references == 0 {
            self.idle.remove(&slot.idle_since);
        }
        slot.references += 1;
    }

    /// References the extents if all are hot; otherwise `who` waits until `committed` returns it.
    pub fn take(&mut self, extents: &[u32], who: T) -> Option<T> {
        let all_hot = extents.iter().all(|e| self.by_extent.contains_key(e));
        if all_hot && self.waiting.is_empty() && !self.being_written(extents) {
            for &extent in extents {
                self.reference(extent);
            }
            return Some(who);
        }
        self.waiting.push_back((extents.to_vec(), who));
        None
    }

    fn being_written(&self, extents: &[u32]) -> bool {
        self.planned.as_ref().is_some_and(|p| p.updates.iter().any(|(_, e)| extents.contains(e)))
    }

    /// What to write next so that the first waiters may go on; none if nobody waits, if a transaction is under way, or if
    /// every slot is referenced (see `starves`).
    pub fn plan(&mut self) -> Option<Plan> {
        if self.planned.is_some() || self.waiting.is_empty() {
            return None;
        }
        let mut updates: Vec<(u16, u32)> = Vec::new();
        let mut evicted = Vec::new();
        let mut admitted = Vec::new();
        while let Some((extents, _)) = self.waiting.front() {
            let cold: Vec<u32> =
                extents.iter().copied().filter(|e| !self.by_extent.contains_key(e)).collect();
            let hot_and_idle = extents
                .iter()
                .filter_map(|e| self.by_extent.get(e))
                .filter(|&&slot| self.slots[usize::from(slot)].references == 0)
                .count();
            let room = self.free.len() + self.idle.len() - hot_and_idle;
            if cold.len() > room || updates.len() + cold.len() > UPDATES_MAX {
                break;
            }
            let (extents, who) = self.waiting.pop_front().expect("there is a front");
            for &extent in extents.iter().filter(|e| !cold.contains(e)) {
                self.reference(extent);
            }
            for extent in cold {
                let slot = self.free.pop().unwrap_or_else(|| {
                    let (_, (slot, _)) = self.idle.pop_first().expect("room was counted");
                    let old = self.slots[usize::from(slot)].extent;
                    self.by_extent.remove(&old);
                    evicted.push(old);
                    slot
                });
                self.by_extent.insert(extent, slot);
                self.slots[usize::from(slot)] = Slot { extent, references: 1, idle_since: 0 };
                updates.push((slot, extent));
            }
            admitted.push(who);
        }
        if admitted.is_empty() {
            return None;
        }
        let transaction = self.transaction(updates.clone());
        self.planned = Some(Planned { updates, admitted });
        Some(Plan { transaction, evicted })
    }

    /// What to write so that extents that have been idle for long are cold, if there are any and nothing else is to be
    /// written. It costs a transaction a second at most.
    pub fn plan_cooling(&mut self, now: Instant) -> Option<Plan> {
        if self.next_cooling()? > now {
            return None;
        }
        let cold: Vec<(u64, u16)> = self
            .idle
            .iter()
            .take_while(|(_, (_, since))| now.since(*since) >= COLD_AFTER)
            .take(UPDATES_MAX)
            .map(|(&place, &(slot, _))| (place, slot))
            .collect();
        let mut updates = Vec::new();
        let mut evicted = Vec::new();
        for (place, slot) in cold {
            self.idle.remove(&place);
            let old = std::mem::replace(&mut self.slots[usize::from(slot)].extent, EXTENT_FREE);
            self.by_extent.remove(&old);
            self.free.push(slot);
            evicted.push(old);
            updates.push((slot, EXTENT_FREE));
        }
        self.cooled_at = now;
        let transaction = self.transaction(updates.clone());
        self.planned = Some(Planned { updates, admitted: Vec::new() });
        Some(Plan { transaction, evicted })
    }

    /// When `plan_cooling` will have something to write. None while a transaction is under way or somebody waits for one:
    /// what ends that is an event of its own, and an instant that has passed would have the timer run for nothing.
    pub fn next_cooling(&self) -> Option<Instant> {
        if self.planned.is_some() || !self.waiting.is_empty() {
            return None;
        }
        let (_, (_, oldest)) = self.idle.first_key_value()?;
        Some((*oldest + COLD_AFTER).max(self.cooled_at + COOLING_INTERVAL))
    }

    /// The planned transaction is stable: these may go on, their extents referenced.
    pub fn committed(&mut self) -> Vec<T> {
        self.planned.take().map_or_else(Vec::new, |p| p.admitted)
    }

    /// Gives up one reference to each extent.
    pub fn release(&mut self, extents: &[u32], now: Instant) {
        for extent in extents {
            let index = self.by_extent[extent];
            let slot = &mut self.slots[usize::from(index)];
            assert!(slot.references > 0, "extent {extent} was not referenced");
            slot.references -= 1;
            if slot.references == 0 {
                self.clock += 1;
                slot.idle_since = self.clock;
                self.idle.insert(self.clock, (index, now));
            }
        }
    }

    /// Somebody waits and only released references can help.
    pub fn starves(&self) -> bool {
        self.planned.is_none() && !self.waiting.is_empty()
    }

    /// Withdraws everybody who waits and is not yet part of a transaction.
    pub fn withdraw(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, who)| who).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_become_hot_by_a_transaction_and_stay_so() {
        let mut hot = HotExtents::new(4, 7);
        assert_eq!(hot.take(&[1], 'a'), None);
        assert_eq!(hot.take(&[1, 2], 'b'), None);
        let plan = hot.plan().expect("two wait");
        assert_eq!(plan.transaction.number, 7);
        assert_eq!(plan.transaction.updates, vec![(3, 1), (2, 2)], "slots from the last one down");
        assert_eq!(plan.evicted, vec![]);
        assert_eq!(hot.plan(), None, "one transaction at a time");
        assert_eq!(hot.committed(), vec!['a', 'b']);
        assert_eq!(hot.take(&[2], 'c'), Some('c'), "hot: nothing to write");
    }

    #[test]
    fn what_is_idle_for_long_is_cold() {
        let at = |s: u64| Instant(s * 1_000_000_000);
        let mut hot = HotExtents::new(4, 0);
        hot.take(&[1], 'a');
        hot.take(&[2], 'b');
        hot.plan();
        hot.committed();
        hot.release(&[1], at(1));
        assert_eq!(hot.plan_cooling(at(5)), None, "not idle for long enough");
        let plan = hot.plan_cooling(at(6)).expect("extent 1 is idle since 1");
        hot.release(&[2], at(6));
        assert_eq!(hot.next_cooling(), None, "a transaction is under way");
        assert_eq!((plan.evicted, plan.transaction.updates), (vec![1], vec![(3, EXTENT_FREE)]));
        assert_eq!(hot.take(&[1], 'c'), None, "cold");
        assert_eq!(hot.committed(), vec![]);
        assert_eq!(hot.next_cooling(), None, "somebody waits");
        assert_eq!(hot.plan().map(|p| p.transaction.updates), Some(vec![(3, 1)]));
        hot.committed();
        assert_eq!(hot.next_cooling(), Some(at(11)));
    }

    #[test]
    fn only_unreferenced_extents_lose_their_slot_oldest_first() {
        let mut hot = HotExtents::new(2, 0);
        hot.take(&[1], 'a');
        hot.take(&[2], 'b');
        hot.plan();
        hot.committed();
        hot.take(&[3], 'c');
        assert_eq!(hot.plan(), None);
        assert!(hot.starves(), "both slots are referenced");
        hot.release(&[2], Instant(0));
        hot.release(&[1], Instant(0));
        let plan = hot.plan().expect("slots are idle now");
        assert_eq!(plan.evicted, vec![2]);
        assert_eq!(hot.committed(), vec!['c']);
        assert_eq!(hot.take(&[1], 'd'), Some('d'));
    }
}
