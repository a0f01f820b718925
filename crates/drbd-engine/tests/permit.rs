//! The cluster's word over writes: a permit that runs out, and a peer that was fenced.

mod fresh_disk;

use std::net::SocketAddr;

use drbd_engine::admin::{DiskOptions, NetOptions};
use drbd_engine::event::{Action, Event, FrontFault, FrontId, FrontOp, Order, SocketId, Ticket};
use drbd_engine::{Instant, Resource};
use units::SectorRange;

use crate::fresh_disk::fresh_disk;

const DISK_BYTES: u64 = 16 << 20;

/// A resource whose disk does at once whatever it is asked, and what came of that.
struct Node {
    engine: Resource,
    now: Instant,
    completed: Vec<(FrontId, Result<(), FrontFault>)>,
    answered: Vec<Ticket>,
    dialled: usize,
    closed: Vec<SocketId>,
}

impl Node {
    /// Primary on its own disk, alone.
    fn primary() -> Self {
        let mut counter = 0_u8;
        let entropy = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                counter = counter.wrapping_add(37);
                *byte = counter;
            }
        });
        let mut engine = Resource::new("r0", entropy);
        assert!(engine.add_volume(0, 0));
        let mut node = Self {
            engine,
            now: Instant(0),
            completed: Vec::new(),
            answered: Vec::new(),
            dialled: 0,
            closed: Vec::new(),
        };
        let options = DiskOptions::default();
        node.order(1, Order::Attach { volume: 0, disk: fresh_disk(DISK_BYTES), options });
        node.order(2, Order::Primary { force: true });
        assert_eq!(node.answered, [Ticket(1), Ticket(2)]);
        node
    }

    fn order(&mut self, ticket: u64, order: Order) {
        self.happens(Event::Admin { ticket: Ticket(ticket), order });
    }

    fn write(&mut self, request: u64) {
        // Zeroing changes data and needs no bytes.
        let op = FrontOp::WriteZeroes { range: SectorRange::new(8 * request, 8), may_unmap: false };
        self.happens(Event::Submit { volume: 0, request: FrontId(request), op, payload: None });
    }

    fn happens(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.engine.handle(self.now, event, &mut actions);
            for action in actions {
                match action {
                    Action::Write { tag, .. }
                    | Action::Read { tag, .. }
                    | Action::Flush { tag, .. }
                    | Action::WriteZeroes { tag, .. }
                    | Action::Meta { tag, .. } => events.push(Event::IoDone { tag, outcome: Ok(()) }),
                    Action::Complete { request, outcome, .. } => {
                        self.completed.push((request, outcome.map(drop)));
                    }
                    Action::Answer { ticket, outcome } => {
                        outcome.expect("nothing is refused here");
                        self.answered.push(ticket);
                    }
                    Action::Dial { .. } => self.dialled += 1,
                    Action::Close { socket, .. } => self.closed.push(socket),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn no_write_completes_after_the_permit() {
    let mut node = Node::primary();
    node.happens(Event::Permit { until: Some(Instant(1_000)) });
    node.write(1);
    assert_eq!(node.completed, [(FrontId(1), Ok(()))]);
    node.now = Instant(1_001);
    node.write(2);
    assert_eq!(node.completed.len(), 1, "the permit is out");
    node.happens(Event::Permit { until: Some(Instant(5_000)) });
    assert_eq!(node.completed[1..], [(FrontId(2), Ok(()))]);
    node.now = Instant(9_000);
    node.write(3);
    node.happens(Event::Timeout);
    assert_eq!(node.completed.len(), 2);
    node.happens(Event::Permit { until: None });
    assert_eq!(node.completed[2..], [(FrontId(3), Ok(()))]);
}

#[test]
fn a_write_under_way_when_the_permit_ends_is_withheld() {
    let mut node = Node::primary();
    node.happens(Event::Permit { until: Some(Instant(1_000)) });
    // The disk answers late: after the permit.
    let op = FrontOp::WriteZeroes { range: SectorRange::new(0, 8), may_unmap: false };
    let mut actions = Vec::new();
    let submit = Event::Submit { volume: 0, request: FrontId(1), op, payload: None };
    node.engine.handle(node.now, submit, &mut actions);
    let mut written = false;
    while let Some(action) = actions.pop() {
        let late = matches!(action, Action::WriteZeroes { .. });
        if let Action::WriteZeroes { tag, .. } | Action::Meta { tag, .. } = action {
            written |= late;
            let now = if late { Instant(2_000) } else { node.now };
            node.engine.handle(now, Event::IoDone { tag, outcome: Ok(()) }, &mut actions);
        }
        assert!(!matches!(action, Action::Complete { .. }), "completed after the permit");
    }
    assert!(written, "it did reach the disk");
}

#[test]
fn a_fenced_peer_is_refused_until_the_next_connect() {
    let mut node = Node::primary();
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let connect = || Order::Connect {
        local: address(1),
        peer: address(2),
        options: NetOptions::default(),
        discard_my_data: false,
    };
    node.order(3, connect());
    assert_eq!(node.dialled, 1);
    node.happens(Event::DialFailed);
    node.happens(Event::PeerFenced);
    node.happens(Event::Opened { socket: SocketId(7), outgoing: false });
    assert_eq!(node.closed, [SocketId(7)], "it may not come back by itself");
    node.now = Instant(60_000_000_000);
    node.happens(Event::Timeout);
    assert_eq!(node.dialled, 1, "and is not looked for");
    node.order(4, Order::Disconnect { force: false });
    node.order(5, connect());
    assert_eq!(node.dialled, 2);
}
