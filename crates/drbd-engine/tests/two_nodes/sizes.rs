//! Sizes that change: who says what, what is written, what is synced.

use drbd_engine::admin::SizeWish;
use drbd_engine::event::{Event, MetaBlock, MetaStep, Order};
use drbd_format::meta::{DiskSizes, Layout, MetaFlags};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::Packet;

use crate::pair::Pair;

const WHOLE: (C, D, D) = (C::Connected, D::UpToDate, D::UpToDate);

/// What every disk has at first, and what it has grown to.
const SMALL: u64 = 9 << 20;
const LARGE: u64 = 17 << 20;

const PLAIN: SizeWish = SizeWish {
    size_sectors: 0,
    assume_peer_has_space: false,
    assume_clean: false,
    al_stripes: None,
    al_stripe_size_kib: None,
};

fn usable(bytes: u64) -> u64 {
    Layout::internal(bytes).expect("large enough").usable_sectors
}

fn resize(wish: SizeWish) -> Order {
    Order::Resize { volume: 0, wish }
}

impl Pair {
    fn disk_is(&mut self, n: usize, bytes: u64) {
        self.happens(n, Event::DiskMeasured { volume: 0, sizes: DiskSizes::of_one(bytes) });
    }

    fn sizes(&self) -> [u64; 2] {
        [0, 1].map(|n| self.nodes[n].engine.status().devices[0].size_sectors)
    }

    /// Sectors that were asked for in a resync.
    fn synced(&self) -> u64 {
        let asked = self.seen.iter().filter_map(|(_, packet)| match packet {
            Packet::RsDataRequest(ask) => Some(u64::from(ask.blksize) / 512),
            _ => None,
        });
        asked.sum()
    }
}

#[test]
fn both_grow_and_only_what_is_new_is_synced() {
    for seed in 0..20 {
        for (who, clean) in [(0, false), (1, false), (0, true)] {
            let mut pair = Pair::in_sync(seed);
            pair.disk_is(0, LARGE);
            pair.disk_is(1, LARGE);
            pair.seen.clear();
            pair.written.clear();
            pair.resized.clear();
            pair.log.clear();
            assert_eq!(pair.ordered(who, resize(SizeWish { assume_clean: clean, ..PLAIN })), 0);
            if clean {
                pair.until_said("suppressed with --assume-clean");
            } else {
                pair.until_said("Began resync as SyncTarget");
            }
            pair.until_holds(|pair| pair.resized.len() == 2);
            pair.until(WHOLE);
            assert_eq!(pair.sizes(), [usable(LARGE); 2], "seed {seed}");
            let mut told = pair.resized.clone();
            told.sort_unstable();
            assert_eq!(told, [(0, usable(LARGE)), (1, usable(LARGE))]);
            let new = if clean { 0 } else { usable(LARGE) - usable(SMALL) };
            assert_eq!(pair.synced(), new, "seed {seed}, by node {who}");
            let sources = pair.seen.iter().filter(|(_, p)| matches!(p, Packet::RsDataReply(_)));
            assert!(sources.clone().all(|(n, _)| *n == 0), "the primary's is the copy that counts");
        }
    }
}

/// At no instant do the meta-data claim more than is so.
#[test]
fn while_they_move_the_meta_data_say_that_nothing_is_certain() {
    let mut pair = Pair::in_sync(1);
    pair.disk_is(0, LARGE);
    pair.disk_is(1, LARGE);
    pair.written.clear();
    assert_eq!(pair.ordered(0, resize(PLAIN)), 0);
    let layout = Layout::internal(LARGE).expect("large enough");
    let moved = pair.written.iter().find(|(n, steps)| *n == 0 && steps.contains(&MetaStep::Move(layout)));
    let (_, steps) = moved.expect("the meta-data moved");
    let blocks = steps.iter().map(|step| match step {
        MetaStep::Flush => "flush",
        MetaStep::Move(_) => "move",
        MetaStep::Write(blocks) => match &blocks[0] {
            MetaBlock::SuperBlock(block) if block.flags.has(MetaFlags::FULL_SYNC) => "uncertain",
            MetaBlock::SuperBlock(block) => {
                // The device grows when the peer has said that its disk has, too.
                assert_eq!(block.la_size_sectors, usable(SMALL));
                assert_eq!(block.md_size_sectors, layout.md_size_sectors);
                "certain"
            }
            MetaBlock::ActivityLog(_) => "log",
            MetaBlock::BitmapPage { .. } => "bitmap",
        },
    });
    let order: Vec<&str> = blocks.collect();
    let expected = ["flush", "move", "uncertain", "flush", "log", "bitmap", "flush", "certain", "flush"];
    assert_eq!(order, expected);
}

#[test]
fn the_smaller_disk_decides() {
    let mut pair = Pair::in_sync(2);
    pair.disk_is(0, LARGE);
    assert_eq!(pair.ordered(0, resize(PLAIN)), 0);
    for _ in 0..500 {
        pair.step(0);
        pair.step(1);
    }
    assert_eq!(pair.sizes(), [usable(SMALL); 2]);
    // The meta-data are where they belong all the same, and once the other has grown, both do.
    pair.disk_is(1, LARGE);
    assert_eq!(pair.ordered(1, resize(PLAIN)), 0);
    pair.until_holds(|pair| pair.sizes() == [usable(LARGE); 2]);
    pair.until(WHOLE);
}

#[test]
fn a_size_that_is_asked_for_holds_on_both() {
    for who in 0..2 {
        let mut pair = Pair::in_sync(3);
        assert_eq!(pair.ordered(who, resize(SizeWish { size_sectors: 8000, ..PLAIN })), 0);
        pair.until_holds(|pair| pair.sizes() == [8000, 8000]);
        assert_eq!(pair.ordered(1 - who, resize(PLAIN)), 0);
        pair.until_holds(|pair| pair.sizes() == [usable(SMALL); 2]);
        pair.until(WHOLE);
    }
}

#[test]
fn upstreams_refusals() {
    let mut pair = Pair::sound(4);
    pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
    assert_eq!(pair.ordered(0, resize(PLAIN)), 131, "both are secondary");
    pair.order(0, Order::Primary { force: true });
    pair.until_said("Began resync");
    assert_eq!(pair.ordered(0, resize(PLAIN)), 130, "they sync");
    pair.until(WHOLE);
    let al = |stripes, blocks: u32| SizeWish {
        al_stripes: Some(stripes),
        al_stripe_size_kib: Some(4 * blocks),
        ..PLAIN
    };
    assert_eq!(pair.ordered(0, resize(al(1, 7))), 168);
    assert_eq!(pair.ordered(0, resize(al(1 << 11, (1 << 11) + 1))), 167);
    // No room is left for the data: a larger log would shrink the device.
    assert_eq!(pair.ordered(0, resize(al(4, 64))), 170);
    assert_eq!(pair.ordered(0, resize(SizeWish { size_sectors: 16_000, ..al(4, 64) })), 0);
    pair.until_holds(|pair| pair.sizes() == [16_000, 16_000]);
    pair.until(WHOLE);
    pair.order(1, Order::Disconnect { force: false });
    pair.until_holds(|pair| pair.state(0).0 < C::Connected);
    assert_eq!(pair.ordered(0, resize(SizeWish { size_sectors: 16_000, ..al(1, 8) })), 166);
    pair.order(0, Order::Detach { volume: 0 });
}

#[test]
fn the_front_writes_while_the_size_changes() {
    for seed in 0..40 {
        let mut pair = Pair::in_sync(seed);
        for round in 0..6 {
            for _ in 0..5 {
                pair.front();
            }
            let size_sectors = if round % 2 == 0 { 17_000 } else { 0 };
            let who = (seed as usize + round) % 2;
            let number = pair.ordered(who, resize(SizeWish { size_sectors, ..PLAIN }));
            assert!(number == 0 || number == 130, "{number}");
            pair.until_holds(|pair| pair.sizes()[0] == pair.sizes()[1]);
        }
        pair.until(WHOLE);
        pair.until_holds(|pair| pair.nodes.iter().all(|node| node.engine.leftovers().is_none()));
    }
}
