//! Who says what in which order, as the original did, and how much a resync sends.

use drbd_engine::event::{Event, FrontId, FrontOp, Order, Payload};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::Packet;
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
