//! Who says what in which order, as the original did, and how much a resync sends.

use std::net::SocketAddr;

use drbd_engine::admin::NetOptions;
use drbd_engine::event::{Action, Event, FrontId, FrontOp, Order, Payload, SocketId, Ticket};
use drbd_engine::{Instant, Resource};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{Features, Packet};
use units::SectorRange;

use crate::pair::Pair;

const BLOCK_SECTORS: u64 = 8;

impl Pair {
    /// Names of the packets that a node has sent, without pings.
    fn said(&self, n: usize) -> Vec<String> {
        let said =
            self.seen.iter().filter(|(who, p)| *who == n && !matches!(p, Packet::Ping | Packet::PingAck));
        said.map(|(_, packet)| packet.command().to_string()).collect()
    }
}

/// Capture 01a: connect.
#[test]
fn the_two_introduce_themselves_in_the_captured_order() {
    for seed in 0..50 {
        let mut pair = Pair::sound(seed);
        pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
        for n in 0..2 {
            let said: Vec<String> =
                pair.said(n).into_iter().filter(|name| !name.starts_with("P_INITIAL")).collect();
            let captured = [
                "P_CONNECTION_FEATURES",
                "P_PROTOCOL",
                "P_SYNC_PARAM89",
                "P_SIZES",
                "P_UUIDS",
                "P_STATE",
                "P_STATE",
            ];
            assert_eq!(said, captured, "node {n}, seed {seed}");
        }
    }
}

/// Capture 01a: `primary --force`, and the full sync that follows.
#[test]
fn a_forced_promotion_and_its_sync_go_in_the_captured_order() {
    for seed in 0..50 {
        let mut pair = Pair::sound(seed);
        pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
        pair.seen.clear();
        pair.order(0, Order::Primary { force: true });
        pair.until((C::Connected, D::UpToDate, D::UpToDate));
        let without_repeats = |mut said: Vec<String>| {
            said.dedup();
            said
        };
        let source = without_repeats(pair.said(0));
        let captured = [
            "P_STATE_CHG_REQ",
            "P_UUIDS",
            "P_STATE",
            "P_COMPRESSED_BITMAP",
            "P_SYNC_UUID",
            "P_RS_DATA_REPLY",
        ];
        assert_eq!(source, captured, "seed {seed}");
        let target = without_repeats(pair.said(1));
        assert_eq!(
            target[..4],
            ["P_STATE_CHG_REPLY", "P_UUIDS", "P_STATE", "P_COMPRESSED_BITMAP"],
            "seed {seed}"
        );
        assert_eq!(target.last().map(String::as_str), Some("P_STATE"), "seed {seed}");
        let between = &target[4..target.len() - 1];
        assert!(
            between.iter().all(|name| name == "P_RS_DATA_REQUEST" || name == "P_RS_WRITE_ACK"),
            "{between:?}"
        );
    }
}

/// After a lost connection only what was written since is sent.
#[test]
fn a_resync_is_no_larger_than_what_was_written_alone() {
    for (seed, blocks) in [(1, 1), (2, 3), (3, 40), (4, 200)] {
        let mut pair = Pair::in_sync(seed);
        for _ in 0..100 {
            pair.step(0);
            pair.step(1);
        }
        let socket = pair.nodes[0].data.expect("connected");
        for n in 0..2 {
            pair.happens(n, Event::Closed { socket });
        }
        for block in 0..blocks {
            let range = SectorRange::new(block * 5 * BLOCK_SECTORS, BLOCK_SECTORS);
            let request = FrontId(1_000_000 + block);
            let payload = Some(Payload(Payload::FROM_SHELL | request.0));
            let op = FrontOp::Write { range, fua: false };
            pair.happens(0, Event::Submit { volume: 0, request, op, payload });
        }
        pair.log.clear();
        pair.until((C::Connected, D::UpToDate, D::UpToDate));
        let expected =
            format!("Began resync as SyncSource (will sync {} KB [{blocks} bits set]).", blocks * 4);
        assert!(pair.log.iter().any(|line| line.ends_with(&expected)), "{expected} {:#?}", pair.log);
    }
}

/// A disk that comes while the two introduce themselves would be in one's word and not in the other's: it waits.
#[test]
fn a_disk_attached_in_the_middle_of_an_introduction_is_synced() {
    for seed in 0..50 {
        let mut pair = Pair::in_sync(seed);
        pair.order(0, Order::Secondary);
        pair.order(1, Order::Detach { volume: 0 });
        pair.until_holds(|pair| pair.state(0).2 == D::Diskless && pair.state(1).1 == D::Diskless);
        let socket = pair.nodes[1].data.expect("connected");
        pair.closes(0, socket);
        pair.happens(0, Event::Closed { socket });
        let late = pair.rng.below(3);
        pair.until_holds(|pair| pair.state(1).0 == C::WFReportParams);
        for _ in 0..late {
            pair.step(0);
        }
        pair.attach_newer(1);
        pair.until((C::Connected, D::UpToDate, D::UpToDate));
    }
}

/// Node of the smaller address: when two data sockets cross, it takes the peer's.
fn dialler() -> Resource {
    let mut engine = Resource::new("r0", Box::new(|bytes| bytes.fill(7)));
    assert!(engine.add_volume(0, 0));
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (local, peer, options) = (address(1), address(2), NetOptions::default());
    let order = Order::Connect { local, peer, options, discard_my_data: false };
    engine.handle(Instant(0), Event::Admin { ticket: Ticket(1), order }, &mut Vec::new());
    engine
}

/// What an engine says to an event: packets by socket, and sockets it closes.
fn answers(engine: &mut Resource, event: Event) -> Vec<String> {
    let mut actions = Vec::new();
    engine.handle(Instant(1), event, &mut actions);
    let said = actions.into_iter().filter_map(|action| match action {
        Action::Send { socket, packet, .. } => Some(format!("{}: {}", socket.0, packet.command())),
        Action::Close { socket, .. } => Some(format!("close {}", socket.0)),
        _ => None,
    });
    said.collect()
}

/// The peer died and came back: what was said on the socket of its earlier life is said again on the new one.
#[test]
fn features_are_told_on_the_socket_that_both_know() {
    let mut engine = dialler();
    let opened = |socket, outgoing| Event::Opened { socket: SocketId(socket), outgoing };
    let received =
        |socket, packet| Event::Received { socket: SocketId(socket), volume: 0, packet, payload: None };
    assert_eq!(answers(&mut engine, opened(1, true)), ["1: P_INITIAL_DATA"]);
    assert_eq!(answers(&mut engine, opened(2, false)), [""; 0]);
    assert_eq!(answers(&mut engine, opened(3, false)), [""; 0]);
    let said = answers(&mut engine, opened(4, true));
    assert_eq!(said, ["4: P_INITIAL_META", "1: P_CONNECTION_FEATURES"]);
    let said = answers(&mut engine, received(2, Packet::InitialData));
    assert_eq!(said, ["close 1", "2: P_CONNECTION_FEATURES"]);
    let theirs =
        Packet::ConnectionFeatures(Features { protocol_min: 86, protocol_max: 101, feature_flags: 15 });
    let said = answers(&mut engine, received(2, theirs));
    assert_eq!(said.first().map(String::as_str), Some("2: P_PROTOCOL"));
    // Whoever names his socket now is too late.
    assert_eq!(answers(&mut engine, received(3, Packet::InitialMeta)), ["close 3"]);
}

/// Otherwise the peer's disk, whose failure came after its new generation, would look like the newer one.
#[test]
fn a_primary_that_gets_its_disk_back_while_the_peer_has_none_begins_a_generation() {
    let mut pair = Pair::in_sync(1);
    let uuids = |pair: &Pair| pair.nodes[0].engine.status().devices[0].uuids;
    let before = uuids(&pair);
    pair.log.clear();
    pair.fail_disk(0);
    pair.until_said("new current UUID");
    // Nobody hears of it: disk and connection fail at once.
    pair.nodes[0].due.clear();
    pair.fail_disk(1);
    let socket = pair.nodes[1].data.expect("connected");
    pair.closes(1, socket);
    pair.happens(1, Event::Closed { socket });
    pair.until((C::Connected, D::Diskless, D::Diskless));
    pair.attach_generation(0, before);
    pair.until_holds(|pair| pair.state(0).1 == D::UpToDate);
    let after = uuids(&pair);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1] & !1, before[0] & !1, "what it was before is what the peer has");
}

/// What it says of itself is not what the front has seen, and the source's own disk may come back.
#[test]
fn a_source_without_its_disk_does_not_believe_an_inconsistent_target() {
    for seed in 0..20 {
        let mut pair = Pair::sound(seed);
        pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
        pair.order(0, Order::Primary { force: true });
        pair.until_holds(|pair| pair.state(0).0 == C::SyncSource && pair.state(1).0 == C::SyncTarget);
        let uuids = pair.nodes[0].engine.status().devices[0].uuids;
        for _ in 0..2 {
            pair.fail_disk(0);
            (0..40).for_each(|n| pair.step(n % 2));
            pair.attach_generation(0, uuids);
        }
        pair.until((C::Connected, D::UpToDate, D::UpToDate));
    }
}
