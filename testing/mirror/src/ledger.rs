//! What a writer was promised, and whether a disk holds it.
//!
//! The lines of `mirror-load stamps`: `w BLOCK COUNT STAMP` a write was acknowledged; `s NUMBER` a flush begins;
//! `f NUMBER` it was acknowledged. Writes whose line precedes a flush's `s` are durable with its `f`. Stamps grow,
//! and a block belongs to one thread of the writer: so a block may hold its last acknowledged stamp or a later one.

use std::collections::HashMap;

use crate::stamp::{BLOCK_BYTES, Found, find};

/// Acknowledged writes, and which of them are durable on a disk that forgets.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    acknowledged: HashMap<u64, u64>,
    flushed: HashMap<u64, u64>,
    /// Copies at the beginning of flushes that have no answer yet.
    flushing: HashMap<u64, HashMap<u64, u64>>,
    /// Acknowledged writes and flushes.
    pub counts: (u64, u64),
}

impl Ledger {
    /// Takes a line of the writer.
    ///
    /// # Panics
    /// If it is not one: then the test does not know what was promised. A last line without its end is never given.
    #[track_caller]
    pub fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| -> u64 {
            words
                .get(at)
                .and_then(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("the writer says {line:?}"))
        };
        match words[0] {
            "w" => {
                for block in number(1)..number(1) + number(2) {
                    self.acknowledged.insert(block, number(3));
                }
                self.counts.0 += 1;
            }
            "s" => drop(self.flushing.insert(number(1), self.acknowledged.clone())),
            "f" => {
                for (block, stamp) in self.flushing.remove(&number(1)).expect("a flush begins before it ends")
                {
                    let known = self.flushed.entry(block).or_default();
                    *known = stamp.max(*known);
                }
                self.counts.1 += 1;
            }
            _ => panic!("the writer says {line:?}"),
        }
    }

    /// All that lost power at once owe no more than what was flushed.
    pub fn forget_unflushed(&mut self) {
        self.acknowledged = self.flushed.clone();
        self.flushing.clear();
    }

    /// What is wrong with a disk that has to hold all that was acknowledged; empty if nothing is.
    pub fn faults(&self, disk: &[u8]) -> Vec<String> {
        let mut faults = Vec::new();
        for (&block, &owed) in &self.acknowledged {
            let at = usize::try_from(block).expect("a disk in memory") * BLOCK_BYTES;
            let found = disk.get(at..at + BLOCK_BYTES).map_or(Found::Nothing, |bytes| find(bytes, block));
            match found {
                Found::Stamp(stamp) if stamp >= owed => {}
                found => faults.push(format!("block {block}: {owed:#x} was acknowledged, found {found:x?}")),
            }
        }
        faults.sort();
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use crate::stamp::{BLOCK_BYTES, fill};

    fn disk(stamps: [u64; 2]) -> Vec<u8> {
        let mut disk = vec![0; 2 * BLOCK_BYTES];
        for (block, bytes) in (0..).zip(disk.chunks_exact_mut(BLOCK_BYTES)) {
            fill(bytes, block, stamps[usize::try_from(block).expect("small")]);
        }
        disk
    }

    #[test]
    fn an_older_stamp_is_a_loss_and_a_later_one_is_not() {
        let mut ledger = Ledger::default();
        for line in ["w 0 2 5", "s 1", "w 1 1 6", "f 1", "s 2"] {
            ledger.take(line);
        }
        assert_eq!(ledger.faults(&disk([5, 6])), Vec::<String>::new());
        assert_eq!(ledger.faults(&disk([9, 9])), Vec::<String>::new());
        assert_eq!(ledger.faults(&disk([4, 6])).len(), 1);
        assert_eq!(ledger.faults(&disk([5, 5])).len(), 1);
        assert_eq!(ledger.faults(&disk([5, 6])[..BLOCK_BYTES]).len(), 1, "beyond the end");
        ledger.forget_unflushed();
        assert_eq!(ledger.faults(&disk([5, 5])), Vec::<String>::new());
        assert_eq!(ledger.faults(&disk([5, 4])).len(), 1);
    }
}
