//! The ring against what the kernel and drbdmeta left on disks.

use crate::capture::capture;
use drbd_format::activity_log::{
    BLOCK_BYTES, CONTEXT_MAX, EXTENT_FREE, Kind, Replay, Transaction, UPDATES_MAX, replay, ring_block,
};
use proptest::prelude::*;

/// The 32 KiB below the superblock.
fn log(file: &str) -> Vec<u8> {
    let raw = capture(file);
    raw[raw.len() - 9 * 4096..raw.len() - 4096].to_vec()
}

#[test]
fn transactions_of_kernel_and_drbdmeta_survive_a_round_trip() {
    for (file, first_number) in
        [("md-01-drbd0.raw.zst", 8), ("md-03d-drbd0-after-crash.raw.zst", 16), ("md-1GiB-fresh.raw.zst", 0)]
    {
        let mut numbers = Vec::new();
        for block in log(file).chunks(BLOCK_BYTES) {
            let transaction = Transaction::decode(block).expect(file);
            assert_eq!(transaction.encode(), block, "{file}: transaction {}", transaction.number);
            numbers.push(transaction.number);
        }
        assert!(numbers.contains(&first_number), "{file}: {numbers:?}");
    }
    assert_eq!(Transaction::initialized().encode(), log("md-1GiB-fresh.raw.zst")[..BLOCK_BYTES]);
}

/// `drbdmeta apply-al` of drbd-utils 9.22 on the same bytes: "Marked additional 60 MB as out-of-sync based on AL".
#[test]
fn a_crashed_primarys_hot_extents_are_found() {
    let replay = replay(&log("md-03d-drbd0-after-crash.raw.zst"), 1, 8).expect("a ring");
    let mut extents: Vec<u32> = replay.slots.values().copied().collect();
    extents.sort_unstable();
    assert_eq!(extents, (0..15).collect::<Vec<_>>());
    assert!(replay.slots.keys().all(|&slot| slot > 1200), "slots are handed out from 1236 down");
}

#[test]
fn a_fresh_ring_says_nothing() {
    assert_eq!(replay(&log("md-1GiB-fresh.raw.zst"), 1, 8), Ok(Replay::default()));
    let mut torn = log("md-1GiB-fresh.raw.zst");
    torn[100] = 1;
    assert_eq!(replay(&torn, 1, 8), Ok(Replay::default()), "torn at its first transaction");
    torn[5 * BLOCK_BYTES] = 1;
    assert!(replay(&torn, 1, 8).is_err());
    assert!(replay(&[0; 8 * BLOCK_BYTES], 1, 8).is_err(), "no activity log at all");
    assert!(replay(&torn, 1, 9).is_err());
    assert!(replay(&[], 0, 0).is_err());
}

/// `al_tr_number_to_on_disk_sector`.
#[test]
fn successive_transactions_go_to_successive_stripes() {
    let places = |stripes, size| (0..7).map(|number| ring_block(number, stripes, size)).collect::<Vec<_>>();
    assert_eq!(places(1, 8), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(places(3, 4), [0, 4, 8, 1, 5, 9, 2]);
    assert_eq!(ring_block(15, 1, 8), 7);
    assert_eq!(ring_block(16, 1, 8), 0);
}

/// A ring and the slots behind it, written as upstream does.
struct Writer {
    log: Vec<u8>,
    stripes: (u32, u32),
    slots: Vec<u32>,
    number: u32,
    cycle: usize,
    history: Vec<Vec<u32>>,
}

impl Writer {
    fn new(slots: u16, stripes: (u32, u32)) -> Self {
        let blocks = (stripes.0 * stripes.1) as usize;
        let log = Transaction::initialized().encode().repeat(blocks);
        let slots = vec![EXTENT_FREE; usize::from(slots)];
        Self { log, stripes, slots, number: 0, cycle: 0, history: Vec::new() }
    }

    fn place(&self) -> usize {
        ring_block(self.number, self.stripes.0, self.stripes.1) as usize * BLOCK_BYTES
    }

    fn commit(&mut self, updates: &[(u16, u32)]) {
        let end = self.slots.len().min(self.cycle + CONTEXT_MAX);
        let transaction = Transaction {
            number: self.number,
            kind: Kind::UPDATE,
            updates: updates.to_vec(),
            context_size: self.slots.len() as u16,
            context_start: self.cycle as u16,
            context: self.slots[self.cycle..end].to_vec(),
        };
        let place = self.place();
        self.log[place..place + BLOCK_BYTES].copy_from_slice(&transaction.encode());
        for &(slot, extent) in updates {
            self.slots[usize::from(slot)] = extent;
        }
        self.number += 1;
        self.cycle = if end == self.slots.len() { 0 } else { end };
        self.history.push(self.slots.clone());
    }

    fn in_use(slots: &[u32]) -> Vec<(u16, u32)> {
        let numbered = (0..).zip(slots.iter().copied());
        numbered.filter(|&(_, extent)| extent != EXTENT_FREE).collect()
    }
}

type Commits = Vec<Vec<(u16, u32)>>;

fn commits(slots: u16) -> impl Strategy<Value = Commits> {
    let update = (0..slots, prop_oneof![3 => 0u32..100_000, 1 => Just(EXTENT_FREE)]);
    proptest::collection::vec(proptest::collection::vec(update, 0..UPDATES_MAX), 0..40)
}

/// Slots, stripes and their size, transactions.
fn any_case() -> impl Strategy<Value = (u16, (u32, u32), Commits)> {
    let stripes = prop_oneof![Just((1, 8)), Just((2, 8)), Just((3, 5)), Just((1, 20))];
    (67u16..3000, stripes).prop_flat_map(|(slots, stripes)| (Just(slots), Just(stripes), commits(slots)))
}

proptest! {
    // A case writes and replays dozens of rings.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// At every moment, and when the next block is torn, the ring tells the slots of the last transaction.
    #[test]
    fn the_ring_tells_the_newest_state((slots, stripes, commits) in any_case()) {
        let mut writer = Writer::new(slots, stripes);
        for updates in commits {
            writer.commit(&updates);
            let mut torn = writer.log.clone();
            let place = writer.place();
            torn[place + 40] ^= 1;
            for log in [&writer.log, &torn] {
                let found = replay(log, stripes.0, stripes.1);
                prop_assert!(found.is_ok(), "{found:?}");
                let found = found.unwrap_or_default();
                prop_assert_eq!(found.next_number, writer.number);
                prop_assert_eq!(found.slots.into_iter().collect::<Vec<_>>(), Writer::in_use(&writer.slots));
            }
        }
    }

    /// A damaged block is noticed or does not matter: the answer is a state that the slots were in.
    #[test]
    fn damage_never_invents_a_state((slots, stripes, commits) in any_case(), at: prop::sample::Index, with in 1u8..) {
        let mut writer = Writer::new(slots, stripes);
        for updates in &commits {
            writer.commit(updates);
        }
        let index = at.index(writer.log.len());
        writer.log[index] ^= with;
        if let Ok(found) = replay(&writer.log, stripes.0, stripes.1) {
            let found: Vec<_> = found.slots.into_iter().collect();
            let known = writer.history.iter().any(|slots| Writer::in_use(slots) == found);
            prop_assert!(known || found.is_empty());
        }
    }

    #[test]
    fn decode_is_total(mut block in proptest::collection::vec(any::<u8>(), BLOCK_BYTES), length in 0..BLOCK_BYTES) {
        prop_assert!(Transaction::decode(&block[..length]).is_err());
        block[..4].copy_from_slice(&0x69cb_65a2u32.to_be_bytes());
        block[8..12].fill(0);
        let crc = !crc32c::crc32c_append(!0, &block);
        block[8..12].copy_from_slice(&crc.to_be_bytes());
        block[12..14].fill(0);
        if let Ok(transaction) = Transaction::decode(&block) {
            prop_assert_eq!(Transaction::decode(&transaction.encode()), Ok(transaction));
        }
        let _ = replay(&block.repeat(2), 1, 2);
    }
}
