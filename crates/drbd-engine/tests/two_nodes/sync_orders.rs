//! What an administrator orders about resyncs, and what the two say to each other then.

use drbd_engine::event::{Action, Event, Order, Ticket};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::Packet;

use crate::pair::Pair;

const NEW: (C, D, D) = (C::Connected, D::Inconsistent, D::Inconsistent);
const WHOLE: (C, D, D) = (C::Connected, D::UpToDate, D::UpToDate);

#[test]
fn invalidate_brings_everything_again_from_the_other_side() {
    for seed in 0..5 {
        for (who, remote, source) in [(0, false, 1), (1, false, 0), (0, true, 0), (1, true, 1)] {
            let mut pair = Pair::in_sync(seed);
            pair.log.clear();
            pair.seen.clear();
            let order = match remote {
                false => Order::Invalidate { volume: 0 },
                true => Order::InvalidateRemote { volume: 0 },
            };
            pair.order(who, order);
            pair.until_said("Began resync as SyncTarget");
            pair.until(WHOLE);
            let bitmaps = pair.seen.iter().filter(|(_, p)| matches!(p, Packet::Bitmap(_)));
            assert_eq!(bitmaps.count(), 0, "every bit is set on both sides: none is told");
            let replies = pair.seen.iter().filter(|(_, p)| matches!(p, Packet::RsDataReply(_)));
            assert!(replies.clone().count() > 1, "{:#?}", pair.log);
            assert!(replies.clone().all(|(n, _)| *n == source), "order to {who}, remote {remote}");
        }
    }
}

#[test]
fn a_paused_resync_asks_for_nothing() {
    for seed in 0..5 {
        for who in 0..2 {
            let mut pair = Pair::sound(seed);
            pair.until(NEW);
            pair.order(who, Order::PauseSync { volume: 0, paused: true });
            pair.order(0, Order::Primary { force: true });
            pair.until_said("-> PausedSyncT )");
            for _ in 0..500 {
                pair.step(0);
                pair.step(1);
            }
            let asked = pair.seen.iter().filter(|(_, p)| matches!(p, Packet::RsDataRequest(_))).count();
            assert_eq!(asked, 0, "paused by node {who}, seed {seed}");
            assert_eq!((pair.state(0).0, pair.state(1).0), (C::PausedSyncS, C::PausedSyncT));
            pair.order(who, Order::PauseSync { volume: 0, paused: false });
            pair.until(WHOLE);
        }
    }
}

#[test]
fn a_cleared_bitmap_spares_the_first_resync() {
    for seed in 0..5 {
        let mut pair = Pair::sound(seed);
        pair.until(NEW);
        pair.order(0, Order::NewCurrentUuid { volume: 0, clear_bitmap: true });
        pair.until(WHOLE);
        let generations = |n: usize| pair.nodes[n].engine.status().devices[0].uuids;
        assert_eq!(generations(0)[..2], generations(1)[..2], "seed {seed}");
        assert_eq!(pair.nodes[0].engine.status().devices[0].counters.out_of_sync_kib, 0);
        assert!(!pair.log.iter().any(|line| line.contains("Began resync")));
    }
}

/// Numbers as drbdsetup prints them.
#[test]
fn refusals_have_the_kernels_numbers() {
    let refusal = |pair: &mut Pair, n: usize, order: Order| {
        let mut actions = Vec::new();
        let event = Event::Admin { ticket: Ticket(u64::MAX), order };
        let now = pair.now();
        pair.nodes[n].engine.handle(now, event, &mut actions);
        actions.into_iter().find_map(|action| match action {
            Action::Answer { outcome: Err(refusal), .. } => Some(refusal.code),
            _ => None,
        })
    };
    let mut pair = Pair::in_sync(1);
    let paused = |paused| Order::PauseSync { volume: 0, paused };
    assert_eq!(refusal(&mut pair, 0, paused(false)), Some(135), "Sync-pause flag is already cleared");
    assert_eq!(refusal(&mut pair, 0, paused(true)), None);
    assert_eq!(refusal(&mut pair, 0, paused(true)), Some(134), "Sync-pause flag is already set");
    let new_generation = Order::NewCurrentUuid { volume: 0, clear_bitmap: true };
    assert_eq!(refusal(&mut pair, 0, new_generation.clone()), Some(151), "Operation is invalid with a peer");
    pair.order(1, Order::Disconnect { force: true });
    pair.order(1, Order::Detach { volume: 0 });
    pair.until_said("disk( Failed -> Diskless )");
    assert_eq!(refusal(&mut pair, 1, Order::Invalidate { volume: 0 }), Some(138), "no disk");
    assert_eq!(refusal(&mut pair, 1, new_generation), Some(138), "no disk");
    let ours = Order::Invalidate { volume: 0 };
    assert_eq!(refusal(&mut pair, 0, ours), Some(-15), "Need a connection to start verify or resync");
    // The kernel looks at the peer's unknown disk first.
    let remote = Order::InvalidateRemote { volume: 0 };
    assert_eq!(refusal(&mut pair, 0, remote), Some(-6), "Refusing to be Outdated while Connected");
}
