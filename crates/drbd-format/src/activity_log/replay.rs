//! What the ring says after a crash.

use std::collections::BTreeMap;

use super::{BLOCK_BYTES, EXTENT_FREE, Kind, Transaction, ring_block};
use crate::Malformed;

/// The state of the slots at the newest transaction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Replay {
    /// Number for the next transaction, if the ring is continued and not initialised anew.
    pub next_number: u32,
    /// The slots in use and their extents.
    pub slots: BTreeMap<u16, u32>,
}

/// Reads a whole activity log, as it lies on disk, and says which extents were hot.
///
/// The newest run of successive transactions counts. It is enough if it goes back to the ring's first use, or far
/// enough for its context to tell every slot: then older blocks do not matter, damaged or not. One damaged block is
/// what a crash during a write leaves: the next transaction, in place of the oldest. Anything worse is refused with
/// the place of the damaged block, and whoever must go on has to take all blocks for out of sync.
pub fn replay(log: &[u8], al_stripes: u32, al_stripe_size_4k: u32) -> Result<Replay, Malformed> {
    let blocks = u64::from(al_stripes) * u64::from(al_stripe_size_4k);
    if blocks == 0 || log.len() as u64 != blocks.saturating_mul(BLOCK_BYTES as u64) {
        return Err(Malformed::new(
            "activity log",
            "length",
            log.len(),
            format!("{blocks} blocks of 4096 bytes"),
        ));
    }
    let ring: Vec<_> = (0..blocks as u32)
        .map(|place| {
            let at = ring_block(place, al_stripes, al_stripe_size_4k) as usize * BLOCK_BYTES;
            Transaction::decode(&log[at..at + BLOCK_BYTES])
        })
        .collect();
    let updates = || ring.iter().enumerate().filter_map(|(place, block)| Some((place, update(block)?)));
    let Some((newest_place, newest)) = updates().reduce(|a, b| if is_newer(b.1, a.1) { b } else { a }) else {
        return unused(&ring);
    };
    let run = newest_run(&ring, newest_place, newest);
    let before = &ring[(newest_place + ring.len() - run.len()) % ring.len()];
    let is_first_use =
        run.len() < ring.len() && before.as_ref().is_ok_and(|block| block.kind == Kind::INITIALIZED);
    if !is_first_use && !tells_every_slot(&run, newest.context_size) {
        let found = match before {
            Err(damage) => format!("damaged ({damage})"),
            Ok(stale) => format!("of transaction {}", stale.number),
        };
        let expected = format!("transaction {}", newest.number.wrapping_sub(run.len() as u32));
        return Err(Malformed::new("activity log", "block before the newest run", found, expected));
    }
    let mut slots = BTreeMap::new();
    for transaction in run.iter().rev() {
        let context = (transaction.context_start..).zip(transaction.context.iter().copied());
        slots.extend(context.chain(transaction.updates.iter().copied()));
    }
    slots.retain(|_, extent| *extent != EXTENT_FREE);
    Ok(Replay { next_number: newest.number.wrapping_add(1), slots })
}

fn update(block: &Result<Transaction, Malformed>) -> Option<&Transaction> {
    block.as_ref().ok().filter(|transaction| transaction.kind == Kind::UPDATE)
}

/// Numbers count around at 2^32.
fn is_newer(a: &Transaction, b: &Transaction) -> bool {
    (a.number.wrapping_sub(b.number) as i32) > 0
}

/// The newest transaction and those before it without a gap, newest first.
fn newest_run<'a>(
    ring: &'a [Result<Transaction, Malformed>],
    newest_place: usize,
    newest: &'a Transaction,
) -> Vec<&'a Transaction> {
    let older = (1..ring.len()).map_while(|back| {
        let place = (newest_place + ring.len() - back) % ring.len();
        update(&ring[place]).filter(|block| block.number == newest.number.wrapping_sub(back as u32))
    });
    std::iter::once(newest).chain(older).collect()
}

/// Whether the contexts of the run cover all slots. A run that changes the number of slots does not.
fn tells_every_slot(run: &[&Transaction], context_size: u16) -> bool {
    let mut told = vec![false; usize::from(context_size)];
    for transaction in run.iter().filter(|transaction| transaction.context_size == context_size) {
        let from = usize::from(transaction.context_start).min(told.len());
        let to = (from + transaction.context.len()).min(told.len());
        told[from..to].fill(true);
    }
    told.iter().all(|&told| told)
}

/// A ring without any update: never used, or torn at the very first one.
fn unused(ring: &[Result<Transaction, Malformed>]) -> Result<Replay, Malformed> {
    let damage = ring.iter().enumerate().find_map(|(place, block)| Some((place, block.as_ref().err()?)));
    match damage {
        None => Ok(Replay::default()),
        Some((0, _)) if ring.len() > 1 && ring[1..].iter().all(|block| block.is_ok()) => {
            Ok(Replay::default())
        }
        Some((place, damage)) => Err(Malformed::new(
            "activity log",
            "ring",
            format!("damaged at place {place} ({damage})"),
            "intact",
        )),
    }
}
