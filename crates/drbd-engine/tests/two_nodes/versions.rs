//! Lower versions of the protocol: what is sent, and in how many pieces.

use drbd_engine::event::{Event, FrontId, FrontOp, Order, Payload};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{DataFlags, Packet};
use units::SectorRange;

use crate::pair::Pair;

/// A pair in sync; node 1 offers no more than this version.
fn in_sync(seed: u64, version: u32) -> Pair {
    let mut pair = Pair::sound(seed);
    pair.nodes[1].engine.limit_protocol(version);
    pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
    pair.order(0, Order::Primary { force: true });
    pair.until((C::Connected, D::UpToDate, D::UpToDate));
    assert_eq!(pair.agreed.protocol, version);
    pair.seen.clear();
    pair
}

fn submit(pair: &mut Pair, number: u64, op: FrontOp) {
    let request = FrontId(number);
    let payload = matches!(op, FrontOp::Write { .. }).then_some(Payload(Payload::FROM_SHELL | number));
    pair.happens(0, Event::Submit { volume: 0, request, op, payload });
}

fn let_go(pair: &mut Pair) {
    for _ in 0..400 {
        pair.step(0);
        pair.step(1);
    }
}

/// A write of 300 KiB in packets of 32 KiB, of 128 KiB, and in one.
#[test]
fn a_write_goes_in_packets_that_the_version_can_carry() {
    for (version, packets) in [(86, 10), (94, 10), (95, 3), (99, 3), (100, 1), (101, 1)] {
        let mut pair = in_sync(u64::from(version), version);
        let range = SectorRange::new(8, 600);
        submit(&mut pair, 1_000_001, FrontOp::Write { range, fua: true });
        let_go(&mut pair);
        let sent: Vec<_> = pair
            .seen
            .iter()
            .filter_map(|(who, packet)| match packet {
                Packet::Data(data) if *who == 0 => Some(*data),
                _ => None,
            })
            .collect();
        assert_eq!(sent.len(), packets, "version {version}");
        assert_eq!(sent[0].sector, 8);
        let has = |flag: DataFlags| sent[0].flags.has(flag);
        assert_eq!(has(DataFlags::FUA), version >= 95, "version {version}");
        assert_eq!(has(DataFlags::SEND_WRITE_ACK), version >= 100, "version {version}");
        let acks = pair.seen.iter().filter(|(who, p)| *who == 1 && matches!(p, Packet::WriteAck(_)));
        assert_eq!(acks.count(), packets, "version {version}");
        assert_eq!(pair.nodes[0].engine.leftovers(), None, "version {version}");
    }
}

/// Without the feature a discard is told as zeroes; with it, as what it is.
#[test]
fn a_discard_reaches_a_peer_that_knows_none() {
    for (version, data, trims) in [(86, 4, 0), (100, 1, 0), (101, 0, 1)] {
        let mut pair = in_sync(u64::from(version), version);
        submit(&mut pair, 1_000_001, FrontOp::Discard(SectorRange::new(0, 256)));
        let_go(&mut pair);
        let count = |wanted: fn(&Packet) -> bool| pair.seen.iter().filter(|(_, p)| wanted(p)).count();
        assert_eq!(count(|p| matches!(p, Packet::Data(_))), data, "version {version}");
        assert_eq!(count(|p| matches!(p, Packet::Trim { .. })), trims, "version {version}");
    }
}

/// A Primary without disk asks for a long range in pieces.
#[test]
fn a_read_through_the_peer_is_put_together() {
    for (version, questions) in [(86, 4), (95, 1), (101, 1)] {
        let mut pair = in_sync(u64::from(version), version);
        pair.order(0, Order::Detach { volume: 0 });
        let_go(&mut pair);
        pair.seen.clear();
        submit(&mut pair, 1_000_001, FrontOp::Read(SectorRange::new(16, 256)));
        let_go(&mut pair);
        let asked = pair.seen.iter().filter(|(who, p)| *who == 0 && matches!(p, Packet::DataRequest(_)));
        assert_eq!(asked.count(), questions, "version {version}");
        assert_eq!(pair.nodes[0].engine.leftovers(), None, "version {version}");
    }
}

/// Before there were requests about the connection, a node that leaves asks about its device.
#[test]
fn who_leaves_asks_in_words_of_the_version() {
    for (version, by_device) in [(86, true), (99, true), (100, false)] {
        let mut pair = in_sync(u64::from(version), version);
        pair.order(1, Order::Disconnect { force: false });
        let_go(&mut pair);
        let said = |wanted: fn(&Packet) -> bool| pair.seen.iter().any(|(_, p)| wanted(p));
        assert_eq!(said(|p| matches!(p, Packet::StateChgReq { .. })), by_device, "version {version}");
        assert_eq!(said(|p| matches!(p, Packet::StateChgReply(1))), by_device, "version {version}");
        assert_eq!(said(|p| matches!(p, Packet::ConnStChgReq { .. })), !by_device, "version {version}");
        assert_eq!(pair.state(1).0, C::StandAlone, "version {version}");
        assert!(pair.state(0).0 < C::Connected && pair.state(0).0 != C::StandAlone, "version {version}");
    }
}

/// One volume is all that the older versions can name.
#[test]
fn volumes_need_a_version_that_names_them() {
    for (version, connects) in [(99, false), (100, true)] {
        let mut pair = Pair::sound(1);
        pair.nodes[0].engine.limit_protocol(version);
        assert!(pair.nodes[1].engine.add_volume(1, 1));
        if connects {
            pair.until_said("Agreed network protocol version 100");
        } else {
            pair.until_said("knows no volumes but 0");
            assert_eq!(pair.state(1).0, C::StandAlone);
        }
    }
}
