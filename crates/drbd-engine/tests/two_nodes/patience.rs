//! How long each waits for the other: `ping-int`, `ping-timeout`, `timeout`, `ko-count`, and how much it takes:
//! `max-buffers`. All of it changed while the two are connected.

use drbd_engine::admin::{NetOptions, ReplicationProtocol};
use drbd_engine::event::{Event, FrontId, FrontOp, Order, Payload, SocketId};
use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{Packet, StateWord};
use units::SectorRange;

use crate::pair::Pair;

/// A pair in sync whose node 0 has these options from now on.
fn with_options(seed: u64, options: NetOptions) -> Pair {
    let mut pair = Pair::in_sync(seed);
    settle(&mut pair);
    pair.order(0, Order::NetOptions(options));
    settle(&mut pair);
    pair.log.clear();
    pair.seen.clear();
    pair
}

fn settle(pair: &mut Pair) {
    for _ in 0..300 {
        pair.step(0);
        pair.step(1);
    }
}

fn write(pair: &mut Pair, number: u64, sectors: u64) {
    let request = FrontId(1_000_000 + number);
    let payload = Some(Payload(Payload::FROM_SHELL | request.0));
    let range = SectorRange::new(number * sectors % 17_600, sectors);
    pair.happens(0, Event::Submit { volume: 0, request, op: FrontOp::Write { range, fua: false }, payload });
}

fn said(pair: &Pair, text: &str) -> bool {
    pair.log.iter().any(|line| line.contains(text))
}

/// Milliseconds until node 0 has left the connection, for so long at most. Both go on.
fn ms_until_lost(pair: &mut Pair, ms_max: u64) -> Option<u64> {
    let begun = pair.now();
    while pair.now().since(begun).as_millis() < u128::from(ms_max) {
        pair.step(0);
        pair.step(1);
        if pair.state(0).0 < C::Connected {
            return Some(pair.now().since(begun).as_millis() as u64);
        }
    }
    None
}

/// The same, and nothing that either sends arrives.
fn ms_until_lost_in_silence(pair: &mut Pair, ms_max: u64) -> Option<u64> {
    let begun = pair.now();
    while pair.now().since(begun).as_millis() < u128::from(ms_max) {
        pair.pass(10);
        pair.happens(0, Event::Timeout);
        if pair.state(0).0 < C::Connected {
            return Some(pair.now().since(begun).as_millis() as u64);
        }
    }
    None
}

#[test]
fn a_silent_peer_is_pinged_and_then_left() {
    for (ping_int_s, ping_timeout_ds) in [(3, 5), (10, 30)] {
        let options = NetOptions { ping_int_s, ping_timeout_ds, ..NetOptions::default() };
        let mut pair = with_options(1, options);
        let socket = pair.nodes[0].meta.expect("connected");
        pair.happens(0, Event::Received { socket, volume: 0, packet: Packet::PingAck, payload: None });
        let expected = u64::from(ping_int_s) * 1000 + u64::from(ping_timeout_ds) * 100;
        let lost = ms_until_lost_in_silence(&mut pair, 60_000).expect("it is left");
        assert!((expected..=expected + 20).contains(&lost), "{lost} ms, expected {expected}");
        assert!(said(&pair, "PingAck did not arrive in time."), "{:#?}", pair.log);
        assert!(said(&pair, "conn( Connected -> NetworkFailure )"), "{:#?}", pair.log);
    }
}

#[test]
fn a_peer_that_answers_pings_has_ko_count_timeouts_for_a_request() {
    for protocol in [ReplicationProtocol::C, ReplicationProtocol::A] {
        let options =
            NetOptions { timeout_ds: 10, ko_count: 3, ping_int_s: 1, protocol, ..NetOptions::default() };
        let mut pair = with_options(2, options);
        pair.hung = Some(1);
        write(&mut pair, 1, 8);
        let lost = ms_until_lost(&mut pair, 20_000).expect("it is left");
        assert!((3000..3500).contains(&lost), "{protocol:?}: {lost} ms");
        let what = match protocol {
            ReplicationProtocol::A => "Remote failed to answer a P_BARRIER within ",
            _ => "Remote failed to finish a request within ",
        };
        assert!(
            said(&pair, what) && said(&pair, "ms > ko-count (3) * timeout (10 * 0.1s)"),
            "{:#?}",
            pair.log
        );
        assert!(said(&pair, "conn( Connected -> Timeout )"), "{:#?}", pair.log);
    }
}

#[test]
fn without_ko_count_a_request_may_take_for_ever() {
    let options = NetOptions { timeout_ds: 10, ko_count: 0, ping_int_s: 1, ..NetOptions::default() };
    let mut pair = with_options(3, options);
    pair.hung = Some(1);
    write(&mut pair, 1, 8);
    assert_eq!(ms_until_lost(&mut pair, 20_000), None, "{:#?}", pair.log);
}

#[test]
fn a_full_data_socket_has_ko_count_timeouts_and_each_is_said() {
    let options = NetOptions { timeout_ds: 10, ko_count: 3, ping_int_s: 1, ..NetOptions::default() };
    let mut pair = with_options(4, options);
    let socket = pair.nodes[0].data.expect("connected");
    pair.happens(0, Event::Sending { socket, waits: true });
    assert_eq!(ms_until_lost(&mut pair, 900), None);
    // Some bytes are taken: the time begins anew.
    pair.happens(0, Event::Sending { socket, waits: true });
    let lost = ms_until_lost(&mut pair, 20_000).expect("it is left");
    assert!((3000..3300).contains(&lost), "{lost} ms");
    for left in ["ko = 2", "ko = 1"] {
        assert!(said(&pair, &format!("sock_sendmsg time expired, {left}")), "{:#?}", pair.log);
    }
    assert!(said(&pair, "conn( Connected -> Timeout )"), "{:#?}", pair.log);
    // Everything is taken: nobody waits.
    let mut pair = with_options(5, NetOptions { timeout_ds: 10, ko_count: 3, ..NetOptions::default() });
    let socket = pair.nodes[0].data.expect("connected");
    pair.happens(0, Event::Sending { socket, waits: true });
    pair.happens(0, Event::Sending { socket, waits: false });
    assert_eq!(ms_until_lost(&mut pair, 8_000), None);
}

#[test]
fn a_full_meta_socket_has_one_timeout() {
    let options = NetOptions { timeout_ds: 10, ko_count: 3, ping_int_s: 1, ..NetOptions::default() };
    let mut pair = with_options(6, options);
    let socket = pair.nodes[0].meta.expect("connected");
    pair.happens(0, Event::Sending { socket, waits: true });
    assert!(!pair.nodes[0].engine.wants_data(), "a peer that reads no acknowledgements is not read either");
    let lost = ms_until_lost(&mut pair, 20_000).expect("it is left");
    assert!((1000..1300).contains(&lost), "{lost} ms");
}

#[test]
fn who_pings_and_reads_no_answers_is_left() {
    let mut pair = with_options(7, NetOptions::default());
    let socket = pair.nodes[0].meta.expect("connected");
    pair.happens(0, Event::Sending { socket, waits: true });
    for _ in 0..2_000 {
        pair.happens(0, Event::Received { socket, volume: 0, packet: Packet::Ping, payload: None });
    }
    assert!(said(&pair, "peer misbehaved: more pings than it reads answers"), "{:#?}", pair.log);
    let answers = pair.seen.iter().filter(|(n, p)| *n == 0 && *p == Packet::PingAck).count();
    assert!(answers <= 1_000, "{answers} answers");
}

/// A connection that does not say what it is goes after four ping timeouts; a few at a time are held.
#[test]
fn connections_that_say_nothing_are_closed() {
    let mut pair = Pair::sound(8);
    for n in 0..6 {
        pair.happens(0, Event::Opened { socket: SocketId(900 + n), outgoing: false });
    }
    assert_eq!(pair.nodes[0].closed, 2, "four may wait");
    for _ in 0..19 {
        pair.pass(100);
        pair.happens(0, Event::Timeout);
    }
    assert_eq!(pair.nodes[0].closed, 2);
    pair.pass(100);
    pair.happens(0, Event::Timeout);
    assert_eq!(pair.nodes[0].closed, 6);
}

/// `max-buffers` bounds what a peer's writes hold here, whatever it sends.
#[test]
fn no_more_is_read_than_max_buffers_hold() {
    for (max_buffers, at_least) in [(32, 16), (2048, 1024)] {
        let mut pair = with_options(9, NetOptions::default());
        pair.order(1, Order::NetOptions(NetOptions { max_buffers, ..NetOptions::default() }));
        pair.hung = Some(1);
        let mut taken = 0;
        while pair.nodes[1].engine.wants_data() && taken < 3_000 {
            // 8 KiB each: two buffers
            write(&mut pair, taken, 16);
            pair.step(0);
            pair.step(0);
            pair.step(1);
            let read = pair.nodes[1].engine.wants_data();
            taken += 1;
            if !read {
                break;
            }
        }
        let sent = pair.seen.iter().filter(|(_, p)| matches!(p, Packet::Data(_))).count();
        assert!(taken < 3_000, "it never stops reading: {sent} sent, {:#?}", pair.log);
        assert!(taken >= at_least, "{taken} writes of two buffers each fill {max_buffers}");
    }
}

/// A peer that pulls ahead names what it writes, and syncs it without a bitmap.
#[test]
fn who_is_told_what_it_misses_falls_behind_and_catches_up() {
    let mut pair = with_options(10, NetOptions::default());
    let socket = pair.nodes[1].data.expect("connected");
    let tell = |pair: &mut Pair, packet| {
        pair.happens(1, Event::Received { socket, volume: 0, packet, payload: None });
    };
    let word = StateWord::new(Role::Primary, Role::Secondary, C::Ahead, D::UpToDate, D::Consistent);
    tell(&mut pair, Packet::State(word));
    assert_eq!(pair.state(1), (C::Behind, D::Outdated, D::UpToDate));
    for sector in [0, 800] {
        tell(&mut pair, Packet::OutOfSync { sector, blksize: 8192 });
    }
    tell(&mut pair, Packet::SyncUuid(0x1234_5678_9abc_def0));
    // The handler that goes before a target's resync has its say.
    for _ in 0..20 {
        pair.step(1);
    }
    assert_eq!(pair.state(1), (C::SyncTarget, D::Inconsistent, D::UpToDate));
    assert!(said(&pair, "Began resync as SyncTarget (will sync 16 KB [4 bits set])."), "{:#?}", pair.log);
}
