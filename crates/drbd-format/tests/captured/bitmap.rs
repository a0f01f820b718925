//! The bitmap against captured transfers and against a plain set of blocks.

use std::collections::BTreeSet;

use crate::capture::{capture, packets};
use drbd_format::bitmap::{Bitmap, BitmapReceiver, BitmapSender};
use drbd_format::wire::{Agreed, Command, Header, Packet};
use proptest::prelude::*;
use units::SectorRange;

const LATEST: Agreed = Agreed { protocol: 101, features: 0xf };
const BITS: u64 = 16_374;

/// The bitmap packets of a file by stream.
fn bitmap_packets(file: &str) -> Vec<(u8, Packet)> {
    let decoded = packets(file).into_iter().filter_map(|captured| {
        let (header, used) = Header::decode(&captured.bytes).expect("header").expect("complete");
        let is_bitmap = matches!(header.command, Command::Bitmap | Command::CompressedBitmap);
        is_bitmap.then(|| {
            (
                captured.stream,
                Packet::decode(header.command, &captured.bytes[used..], &LATEST).expect("packet"),
            )
        })
    });
    decoded.collect()
}

/// Receives what one side sent and sends it again.
fn exchange(sent: &[Packet], use_rle: bool) -> Bitmap {
    let mut bitmap = Bitmap::of_device(130_992);
    let mut receiver = BitmapReceiver::new();
    for (index, packet) in sent.iter().enumerate() {
        let last = receiver.receive(&mut bitmap, packet, &LATEST).expect("a packet of the kernel");
        assert_eq!(last, index + 1 == sent.len());
    }
    let mut sender = BitmapSender::new();
    let again: Vec<_> = std::iter::from_fn(|| sender.next_packet(&bitmap, &LATEST, use_rle)).collect();
    assert_eq!(again, sent);
    bitmap
}

#[test]
fn captured_transfers_are_read_and_written_as_the_kernel_does() {
    for (file, use_rle, source_bits) in [
        ("01a-connect-fullsync.packets.zst", true, BITS),
        ("03-reconnect-rle-no.packets.zst", false, 167),
        ("03-reconnect-rle-yes.packets.zst", true, 167),
    ] {
        let sent = bitmap_packets(file);
        let streams: BTreeSet<u8> = sent.iter().map(|(stream, _)| *stream).collect();
        assert_eq!(streams.len(), 2, "{file}: both sides send");
        let counts: Vec<u64> = streams
            .iter()
            .map(|side| {
                let packets: Vec<_> =
                    sent.iter().filter(|(s, _)| s == side).map(|(_, p)| p.clone()).collect();
                exchange(&packets, use_rle).count()
            })
            .collect();
        assert!(counts.contains(&source_bits), "{file}: {counts:?}");
    }
}

#[test]
fn the_captured_code_is_17_bytes_for_167_blocks() {
    let sent = bitmap_packets("03-reconnect-rle-yes.packets.zst");
    let lengths = sent.iter().map(|(_, packet)| match packet {
        Packet::CompressedBitmap { code, .. } => 1 + code.len(),
        other => panic!("{other:?}"),
    });
    assert!(lengths.into_iter().any(|length| length == 17));
}

#[test]
fn pages_are_what_lies_on_disk() {
    let raw = capture("md-01-drbd0.raw.zst");
    let mut bitmap = Bitmap::of_device(130_992);
    bitmap.set_all();
    assert_eq!(bitmap.page(0)[2040..2056], [255, 255, 255, 255, 255, 255, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bitmap.load_page(0, &raw[..4096]);
    assert_eq!((bitmap.count(), bitmap.dirty_pages().count()), (0, 0));
    bitmap.load_page(0, &[0xff; 4096]);
    assert_eq!(bitmap.count(), BITS, "bits beyond the end are not taken");
    bitmap.load_page(7, &[0xff; 4096]);
    assert_eq!(bitmap.count(), BITS, "there is no such page");
}

#[test]
fn only_whole_blocks_become_clean() {
    let mut bitmap = Bitmap::of_device(8 * 5 + 3);
    assert_eq!(bitmap.bits(), 6);
    assert_eq!(bitmap.set_range(SectorRange::new(7, 2)), 2, "two blocks are touched");
    assert_eq!(bitmap.clear_range(SectorRange::new(1, 14)), 0, "none is covered");
    assert_eq!(bitmap.clear_range(SectorRange::new(1, 15)), 1, "the second is covered");
    bitmap.set_all();
    assert_eq!(bitmap.clear_range(SectorRange::new(40, 2)), 0);
    assert_eq!(bitmap.clear_range(SectorRange::new(40, 3)), 1, "the last block ends with the device");
    assert_eq!(bitmap.set_range(SectorRange::new(u64::MAX - 1, u64::MAX)), 0);
    assert_eq!(bitmap.clear_range(SectorRange::new(41, u64::MAX)), 0);
}

#[test]
fn pages_are_dirty_until_taken() {
    let mut bitmap = Bitmap::new(3 * 32_768);
    bitmap.set_range(SectorRange::new(8 * 32_768, 8));
    bitmap.set_range(SectorRange::new(16 * 32_768, 8));
    bitmap.set_range(SectorRange::new(16 * 32_768, 8));
    assert_eq!(bitmap.dirty_pages().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        [bitmap.take_dirty_page(), bitmap.take_dirty_page(), bitmap.take_dirty_page()],
        [Some(1), Some(2), None]
    );
    assert_eq!(bitmap.set_range(SectorRange::new(16 * 32_768, 8)), 0);
    assert_eq!(bitmap.take_dirty_page(), None, "nothing changed");
}

#[test]
fn a_bitmap_of_an_empty_device_transfers() {
    let bitmap = Bitmap::new(0);
    let mut sender = BitmapSender::new();
    assert_eq!(sender.next_packet(&bitmap, &LATEST, true), Some(Packet::Bitmap(Vec::new())));
    assert_eq!(sender.next_packet(&bitmap, &LATEST, true), None);
}

fn runs() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
    let run = (1u64..400_000, prop_oneof![1u64..4, 1u64..100, 1u64..50_000]);
    (1u64..400_000, proptest::collection::vec(run, 0..60))
}

/// Bits without any pattern: the code does not pay.
fn noise() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(any::<u64>(), 0..1500)
}

fn transfer(bitmap: &Bitmap, agreed: &Agreed, use_rle: bool) -> Bitmap {
    let mut received = Bitmap::new(bitmap.bits());
    let (mut sender, mut receiver) = (BitmapSender::new(), BitmapReceiver::new());
    let mut complete = false;
    while let Some(packet) = sender.next_packet(bitmap, agreed, use_rle) {
        assert!(!complete, "the receiver knows the end");
        let mut bytes = Vec::new();
        packet.encode(0, 0, agreed, &mut bytes);
        assert!(bytes.len() <= 4096);
        let (header, used) = Header::decode(&bytes).expect("ours").expect("complete");
        let packet = Packet::decode(header.command, &bytes[used..], agreed).expect("ours");
        complete = receiver.receive(&mut received, &packet, agreed).expect("ours");
    }
    assert!(complete);
    received
}

proptest! {
    #[test]
    fn transfers_arrive((bits, runs) in runs(), noise in noise(), protocol in 86u32..=101, use_rle: bool) {
        let agreed = Agreed { protocol, features: 0 };
        let mut bitmap = Bitmap::new(bits + noise.len() as u64 * 64);
        let bytes: Vec<u8> = noise.iter().flat_map(|word| word.to_le_bytes()).collect();
        bitmap.or_words(bits / 64, &bytes).expect("there is room");
        for (start, count) in runs {
            bitmap.set_range(SectorRange::new(start * 8, count * 8));
        }
        let received = transfer(&bitmap, &agreed, use_rle);
        prop_assert_eq!(received.count(), bitmap.count());
        for page in 0..bitmap.pages() {
            prop_assert_eq!(received.page(page), bitmap.page(page));
        }
    }

    /// Against the plainest model there is.
    #[test]
    fn ranges_behave_as_a_set(
        sectors in 1u64..3000,
        steps in proptest::collection::vec((any::<bool>(), 0u64..3100, 0u64..600), 0..30),
    ) {
        let mut bitmap = Bitmap::of_device(sectors);
        let mut model = BTreeSet::new();
        for (set, start, count) in steps {
            let range = SectorRange::new(start, count);
            let blocks = (0..bitmap.bits()).map(|bit| (bit, SectorRange::new(bit * 8, 8.min(sectors - bit * 8))));
            let before = model.len();
            let changed = if set {
                model.extend(blocks.filter(|(_, block)| count > 0 && block.overlaps(range)).map(|(bit, _)| bit));
                bitmap.set_range(range)
            } else {
                for (bit, block) in blocks {
                    if start <= block.start && block.end() <= range.end() { model.remove(&bit); }
                }
                bitmap.clear_range(range)
            };
            prop_assert_eq!(changed as usize, before.abs_diff(model.len()));
            prop_assert_eq!(bitmap.count(), model.len() as u64);
        }
        let mut bits = Vec::new();
        let mut from = 0;
        while let Some(bit) = bitmap.next_set(from) {
            bits.push(bit);
            from = bit + 1;
        }
        prop_assert_eq!(bits, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn codes_from_a_peer_are_total(
        bits in 0u64..5000, from in 0u64..6000, encoding: u8, code in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bitmap = Bitmap::new(bits);
        for encoding in [encoding, encoding & 0xf0 | 2] {
            if let Ok(next) = bitmap.or_runs(from, encoding, &code) {
                prop_assert!(next == from || next <= bits);
            }
        }
        let _ = bitmap.or_words(from, &code);
        prop_assert_eq!((0..bits).filter(|&bit| bitmap.is_set(bit)).count() as u64, bitmap.count());
        prop_assert!((bits..bits + 64).all(|bit| !bitmap.is_set(bit)));
    }
}
