//! Disks and peers that are lost at awkward moments.

use drbd_engine::admin::ResourceOptions;
use drbd_engine::event::{Action, Event, FrontId, FrontOp, Order, Payload, Ticket};
use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{Packet, StateWord};
use units::SectorRange;

use crate::pair::Pair;

/// The source's disk fails while the target says that it prepares: nobody has current data within reach then.
#[test]
fn a_target_is_not_current_when_its_source_has_just_lost_its_disk() {
    for disk in [D::Outdated, D::Consistent] {
        let mut pair = Pair::in_sync(1);
        pair.ordered(0, Order::Detach { volume: 0 });
        pair.until_holds(|pair| pair.state(0).1 == D::Diskless);
        let word = StateWord::new(Role::Secondary, Role::Primary, C::WFBitMapT, disk, D::UpToDate);
        let socket = pair.nodes[0].data.expect("they are connected");
        let packet = Packet::State(word);
        pair.happens(0, Event::Received { socket, volume: 0, packet, payload: None });
        assert_eq!(pair.state(0), (C::Connected, D::Diskless, D::Inconsistent), "the peer's was {disk}");
    }
}

/// Upstream is Secondary from the order on, and one that is waits neither for data nor for the peer.
#[test]
fn a_demotion_ends_though_the_last_data_are_lost_meanwhile() {
    let mut pair = Pair::in_sync(1);
    let options = ResourceOptions { on_no_data_accessible: 1, ..ResourceOptions::default() };
    pair.ordered(0, Order::ResourceOptions(options));
    pair.ordered(0, Order::Detach { volume: 0 });
    let op = FrontOp::Write { range: SectorRange::new(0, 8), fua: false };
    let payload = Some(Payload(Payload::FROM_SHELL));
    pair.happens(0, Event::Submit { volume: 0, request: FrontId(1), op, payload });
    let mut actions = Vec::new();
    let now = pair.now();
    let order = Order::Secondary;
    pair.nodes[0].engine.handle(now, Event::Admin { ticket: Ticket(1 << 40), order }, &mut actions);
    assert!(!actions.iter().any(|a| matches!(a, Action::Answer { .. })), "the write is under way");
    let socket = pair.nodes[0].data.expect("they are connected");
    pair.nodes[0].engine.handle(now, Event::Closed { socket }, &mut actions);
    assert!(actions.iter().any(|a| matches!(a, Action::Complete { outcome: Err(_), .. })), "{actions:?}");
    assert!(actions.iter().any(|a| matches!(a, Action::Answer { outcome: Ok(_), .. })), "{actions:?}");
    assert_eq!(pair.nodes[0].engine.role(), Role::Secondary);
}

/// A peer that has agreed to our detaching no longer writes to our disk: what is read meanwhile comes from the peer's.
#[test]
fn the_front_waits_while_a_disk_is_let_go() {
    let mut pair = Pair::in_sync(1);
    pair.order(0, Order::Detach { volume: 0 });
    let op = FrontOp::Read(SectorRange::new(0, 8));
    let mut actions = Vec::new();
    let now = pair.now();
    let read = Event::Submit { volume: 0, request: FrontId(1), op, payload: None };
    pair.nodes[0].engine.handle(now, read, &mut actions);
    assert!(!actions.iter().any(|a| matches!(a, Action::Read { .. })), "{actions:?}");
    pair.until_holds(|pair| pair.seen.iter().any(|(n, p)| *n == 0 && matches!(p, Packet::DataRequest(_))));
    assert_eq!(pair.state(0).1, D::Diskless);
}
