//! A peer that sends anything: real packets at the wrong time, packets with changed bytes, bodies of random bytes. The
//! engine may drop the connection; it may not panic, nor do more than a turn's worth.

use std::collections::BTreeSet;

use drbd_engine::event::{Event, Order, Payload};
use drbd_format::wire::{Command, Header, Packet};

use crate::pair::Pair;

impl Pair {
    /// A packet that the peer might send, and what might follow it.
    fn nonsense(&mut self) -> Option<(Packet, Option<(Payload, u32)>)> {
        let known = if self.seen.is_empty() || self.rng.below(8) == 0 {
            None
        } else {
            let at = self.rng.below(self.seen.len());
            Some(self.seen[at].1.clone())
        };
        let packet = match known {
            Some(packet) if self.rng.below(4) == 0 => packet,
            Some(packet) => {
                let mut bytes = Vec::new();
                packet.encode(0, 0, &self.agreed, &mut bytes);
                let (_, head) = Header::decode(&bytes).ok()??;
                let mut body = bytes.split_off(head.min(bytes.len()));
                for _ in 0..=self.rng.below(3) {
                    let at = self.rng.below(body.len().max(1));
                    if let Some(byte) = body.get_mut(at) {
                        *byte = [0, 1, 2, 4, 8, 255, self.rng.next() as u8][self.rng.below(7)];
                    }
                }
                Packet::decode(packet.command(), &body, &self.agreed).ok()?
            }
            None => {
                let len = self.rng.below(80);
                let body: Vec<u8> =
                    (0..len).map(|_| [0, 0, 0, 0, 0, 1, 2, 8, 255][self.rng.below(9)]).collect();
                Packet::decode(Command(self.rng.below(0x40) as u16), &body, &self.agreed).ok()?
            }
        };
        let carries =
            packet.is_protected() || matches!(packet, Packet::OvReply(_) | Packet::CsumRsRequest(_));
        let number = Payload(Payload::FROM_SHELL | self.number());
        let len = [0, 512, 4096, 4097, 512 << 10, 2 << 20][self.rng.below(6)];
        Some((packet, carries.then_some((number, len))))
    }
}

/// One run: how far the two come before the one begins to send nonsense is by seed. Packets sent, connections dropped, and
/// the state that the first of the packets met.
fn run(seed: u64) -> (usize, usize, String) {
    let (mut dropped, mut sent) = (0, 0);
    let verifies = seed % 20 == 7;
    let mut pair = if verifies { Pair::in_sync(seed) } else { Pair::new(seed) };
    if verifies {
        let order = Order::Verify { volume: 0, start_sector: None, stop_sector: None };
        let who = pair.rng.below(2);
        pair.order(who, order);
    }
    let honest = pair.rng.below(if verifies { 60 } else { 600 });
    for step in 0..honest {
        let n = pair.rng.below(2);
        pair.step(n);
        match step {
            60 => pair.order(seed as usize % 2, Order::Primary { force: true }),
            200 if seed.is_multiple_of(5) => pair.order(0, Order::Detach { volume: 0 }),
            200 if seed % 5 == 1 => pair.order(1, Order::Detach { volume: 0 }),
            260 if seed % 10 < 2 => pair.attach(seed as usize % 5),
            400 if seed.is_multiple_of(7) => pair.order(seed as usize % 2, Order::Secondary),
            _ if step % 9 == 0 => pair.front(),
            _ => {}
        }
    }
    let device = &pair.nodes[0].engine.status().devices[0];
    let met = format!("{} {}", device.connection, device.disk);
    for _ in 0..60 {
        let before = pair.nodes[0].closed;
        let (data, meta) = (pair.nodes[0].data, pair.nodes[0].meta);
        let socket = if pair.rng.below(3) == 0 { meta } else { data };
        if let (Some(socket), Some((packet, payload))) = (socket, pair.nonsense()) {
            let volume = u16::from(pair.rng.below(40) == 0);
            sent += 1;
            pair.happens(0, Event::Received { socket, volume, packet, payload });
        }
        if pair.rng.below(3) == 0 {
            pair.front();
        }
        for _ in 0..3 {
            let n = pair.rng.below(2);
            pair.step(n);
        }
        dropped += usize::from(pair.nodes[0].closed > before);
    }
    (sent, dropped, met)
}

#[test]
fn nothing_that_a_peer_sends_panics() {
    let (mut sent, mut dropped) = (0, 0);
    let mut failed = Vec::new();
    let mut states = BTreeSet::new();
    for seed in 0..3_000 {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(counts) => {
                sent += counts.0;
                dropped += counts.1;
                states.insert(counts.2);
            }
            Err(_) => failed.push(seed),
        }
    }
    assert_eq!(failed, Vec::<u64>::new(), "seeds that panic");
    for state in [
        "WFConnection Inconsistent",
        "Connected UpToDate",
        "SyncSource UpToDate",
        "SyncTarget Inconsistent",
        "VerifyS UpToDate",
        "VerifyT UpToDate",
    ] {
        assert!(states.contains(state), "no packet met {state}: {states:?}");
    }
    assert!(sent > 50_000 && dropped > 1_000, "{sent} packets, {dropped} dropped connections");
}
