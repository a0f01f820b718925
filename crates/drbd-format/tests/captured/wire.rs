//! Packets against what two kernels sent each other, and against nonsense.

use std::collections::BTreeSet;

use crate::capture::{packet_files, packets};
use drbd_format::wire::{
    Agreed, BlockRequest, Command, Data, DataFlags, Features, Header, HeaderForm, Packet, Protocol, Sizes,
    SyncParam, body_bytes,
};
use proptest::prelude::*;

const LATEST: Agreed = Agreed { protocol: 101, features: 0xf };

#[test]
fn every_captured_packet_is_decoded_and_encoded_to_the_same_bytes() {
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for file in packet_files() {
        for (index, captured) in packets(&file).iter().enumerate() {
            let at = format!("{file}, packet {index}");
            let (header, header_bytes) = Header::decode(&captured.bytes).expect(&at).expect(&at);
            let body_bytes = body_bytes(header.command, header.length, &LATEST).expect(&at);
            assert_eq!(header_bytes + body_bytes, captured.bytes.len(), "{at}");
            assert_eq!(body_bytes + captured.payload_bytes, header.length as usize, "{at}");
            let packet = Packet::decode(header.command, &captured.bytes[header_bytes..], &LATEST).expect(&at);
            assert_eq!(packet.command(), header.command, "{at}");
            let mut again = Vec::new();
            packet.encode(header.volume, captured.payload_bytes, &LATEST, &mut again);
            assert_eq!(again, without_padding(header_bytes, &packet, &captured.bytes), "{at}: {packet:?}");
            seen.insert(header.command);
            count += 1;
        }
    }
    // 39,220 packets of 39 kinds were captured; a file that got lost must not go unnoticed.
    assert_eq!((count, seen.len()), (39_220, 39), "{seen:?}");
}

/// The kernel leaves in padding what its socket buffer last held; ours is zero.
fn without_padding(header_bytes: usize, packet: &Packet, bytes: &[u8]) -> Vec<u8> {
    let padding = match packet {
        Packet::Barrier { .. } => 4..8,
        Packet::OutOfSync { .. } | Packet::RsDeallocated { .. } => 12..16,
        Packet::DataRequest(_) | Packet::RsDataRequest(_) | Packet::RsThinReq(_) => 20..24,
        Packet::OvRequest(_) | Packet::OvReply(_) | Packet::CsumRsRequest(_) => 20..24,
        _ => 0..0,
    };
    let mut bytes = bytes.to_vec();
    bytes[header_bytes..][padding].fill(0);
    bytes
}

#[test]
fn the_handshake_says_what_the_decoded_capture_says() {
    let mut all = packets("01a-connect-fullsync.packets.zst").into_iter().map(|captured| {
        let (header, header_bytes) = Header::decode(&captured.bytes).expect("header").expect("complete");
        Packet::decode(header.command, &captured.bytes[header_bytes..], &LATEST).expect("packet")
    });
    let features = Features { protocol_min: 86, feature_flags: 0xf, protocol_max: 101 };
    assert_eq!(all.next(), Some(Packet::InitialData));
    assert_eq!(all.next(), Some(Packet::InitialMeta));
    assert_eq!(all.next(), Some(Packet::ConnectionFeatures(features)));
    assert_eq!(Agreed::from_features(&features, &features), Some(LATEST));
    let protocol = Protocol {
        protocol: 3,
        after_sb_0p: 0,
        after_sb_1p: 0,
        after_sb_2p: 0,
        conn_flags: 0,
        two_primaries: 0,
        integrity_alg: String::new(),
    };
    assert_eq!(all.find(|p| p.command() == Command::Protocol), Some(Packet::Protocol(protocol)));
    let param = SyncParam {
        resync_rate_kib_per_s: 61_440,
        verify_alg: String::new(),
        csums_alg: String::new(),
        c_plan_ahead_ds: 0,
        c_delay_target_ds: 10,
        c_fill_target_sectors: 100,
        c_max_rate_kib_per_s: 102_400,
    };
    assert_eq!(all.next(), Some(Packet::SyncParam(param)));
    let Some(Packet::Sizes(sizes)) = all.next() else { panic!("sizes follow") };
    assert_eq!((sizes.d_size, sizes.c_size, sizes.max_bio_size), (130_992, 130_992, 130_560));
    assert_eq!(sizes.limits.map(|l| (l.logical_block_size, l.discard_enabled)), Some((512, 1)));
    let Some(Packet::Uuids(uuids)) = all.next() else { panic!("UUIDs follow") };
    assert_eq!((uuids.current, uuids.dirty_bits), (4, 16_374));
    let Some(Packet::State(state)) = all.next() else { panic!("state follows") };
    let text =
        format!("{}/{} {} {}/{}", state.role(), state.peer(), state.conn(), state.disk(), state.pdsk());
    assert_eq!(text, "Secondary/Unknown WFConnection Inconsistent/DUnknown");
}

/// `prepare_header` of drbd_main.c.
#[test]
fn the_header_follows_version_and_length() {
    let data = Packet::Data(Data { sector: 8, block_id: 1, seq_num: 2, flags: DataFlags::SYNC });
    for (protocol, payload_bytes, form, start) in [
        (94, 4096, HeaderForm::H80, [0x83, 0x74, 0x02, 0x67]),
        (94, 32_768, HeaderForm::H80, [0x83, 0x74, 0x02, 0x67]),
        (95, 32_768 - 24, HeaderForm::H80, [0x83, 0x74, 0x02, 0x67]),
        (95, 32_768 - 23, HeaderForm::H95, [0x83, 0x5a, 0x00, 0x00]),
        (99, 131_072, HeaderForm::H95, [0x83, 0x5a, 0x00, 0x00]),
        (100, 512, HeaderForm::H100, [0x86, 0x20, 0xec, 0x20]),
    ] {
        let agreed = Agreed { protocol, features: 0 };
        let mut out = vec![0xff];
        data.encode(5, payload_bytes, &agreed, &mut out);
        assert_eq!(out.len(), 1 + form.bytes() + 24, "{protocol} {payload_bytes}");
        assert_eq!(out[1..5], start, "{protocol} {payload_bytes}");
        let (header, header_bytes) = Header::decode(&out[1..]).expect("ours").expect("complete");
        let volume = if form == HeaderForm::H100 { 5 } else { 0 };
        let length = 24 + payload_bytes as u32;
        assert_eq!((header, header_bytes), (Header { volume, command: Command::Data, length }, form.bytes()));
    }
    let mut out = Vec::new();
    Packet::InitialMeta.encode(0, 0, &LATEST, &mut out);
    assert_eq!(out, [0x83, 0x74, 0x02, 0x67, 0xff, 0xf1, 0, 0]);
}

/// Lengths as `drbd_send_sync_param`, `__drbd_send_protocol` and `drbd_send_sizes` choose them.
#[test]
fn lengths_follow_version_and_features() {
    let param = SyncParam { verify_alg: "md5".into(), csums_alg: "sha1".into(), ..SyncParam::default() };
    let protocol = Protocol {
        protocol: 3,
        after_sb_0p: 0,
        after_sb_1p: 0,
        after_sb_2p: 0,
        conn_flags: 0,
        two_primaries: 0,
        integrity_alg: "crc32c".into(),
    };
    let encoded = |packet: &Packet, protocol, features| {
        let agreed = Agreed { protocol, features };
        let mut out = Vec::new();
        packet.encode(0, 0, &agreed, &mut out);
        let (header, header_bytes) = Header::decode(&out).expect("ours").expect("complete");
        let back = Packet::decode(header.command, &out[header_bytes..], &agreed).expect("ours");
        (header.command, header.length, back)
    };
    let param = Packet::SyncParam(param);
    for (version, command, length) in [
        (86, Command::SyncParam, 4),
        (88, Command::SyncParam, 8),
        (89, Command::SyncParam89, 132),
        (94, Command::SyncParam89, 132),
        (95, Command::SyncParam89, 148),
        (101, Command::SyncParam89, 148),
    ] {
        let (found, found_length, back) = encoded(&param, version, 0);
        assert_eq!((found, found_length), (command, length), "protocol {version}");
        assert_eq!(back == param, version >= 89, "protocol {version} carries both names");
    }
    let protocol = Packet::Protocol(protocol);
    assert_eq!(encoded(&protocol, 86, 0).1, 24);
    assert_eq!(encoded(&protocol, 87, 0), (Command::Protocol, 31, protocol));
    let sizes = Sizes {
        d_size: 1,
        u_size: 2,
        c_size: 3,
        max_bio_size: 4096,
        queue_order_type: 0,
        dds_flags: 1,
        limits: None,
    };
    assert_eq!(encoded(&Packet::Sizes(sizes), 101, 0), (Command::Sizes, 32, Packet::Sizes(sizes)));
    assert_eq!(encoded(&Packet::Sizes(sizes), 101, Features::WSAME).1, 56);
}

#[test]
fn nonsense_is_refused_by_name() {
    let error = Header::decode(&[0x86, 0x21]).expect_err("no header starts so");
    assert_eq!(error.field, "magic");
    assert_eq!(Header::decode(&[0x83]).expect("could become one"), None);
    assert_eq!(Header::decode(&[]).expect("could become one"), None);
    for (command, length) in [
        (Command::Data, 23),
        (Command::Data, 24 + (1 << 20) + 65),
        (Command::Ping, 1),
        (Command::WriteAck, 25),
        (Command::Sizes, 40),
        (Command::Bitmap, 4097),
        (Command::CompressedBitmap, 1),
        (Command::AuthChallenge, 63),
        (Command::AuthResponse, 65),
        (Command(0x25), 0),
        (Command(0x100), 0),
    ] {
        let error = body_bytes(command, length, &LATEST).expect_err("must be refused");
        assert!(error.to_string().starts_with(command.name().unwrap_or("packet header")), "{error}");
    }
    let body = [0xff; 40];
    let error = Packet::decode(Command::Protocol, &body, &LATEST).expect_err("not a name");
    assert_eq!(error.field, "integrity_alg");
}

#[test]
fn padding_and_reserved_bytes_are_ignored() {
    let mut body = [0; 24];
    body[20..].fill(0xff);
    let request = BlockRequest { sector: 0, block_id: 0, blksize: 0 };
    assert_eq!(Packet::decode(Command::DataRequest, &body, &LATEST), Ok(Packet::DataRequest(request)));
}

fn any_agreed() -> impl Strategy<Value = Agreed> {
    (86u32..=101, 0u32..16).prop_map(|(protocol, features)| Agreed { protocol, features })
}

fn known_commands() -> Vec<Command> {
    (0..=u16::MAX).map(Command).filter(|command| command.name().is_some()).collect()
}

proptest! {
    #[test]
    fn headers_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..20), magic in 0usize..4) {
        let magics: [&[u8]; 4] = [&[], &[0x83, 0x74, 2, 0x67], &[0x83, 0x5a], &[0x86, 0x20, 0xec, 0x20]];
        let bytes = [magics[magic], &bytes].concat();
        if let Ok(Some((header, used))) = Header::decode(&bytes) {
            prop_assert!(used <= bytes.len());
            let forms = [HeaderForm::H80, HeaderForm::H95, HeaderForm::H100];
            let same = forms.into_iter().filter(|form| form.bytes() == used).any(|form| {
                let mut again = Vec::new();
                if form == HeaderForm::H80 && header.length > 32_768 { return false; }
                header.encode_into(form, &mut again);
                again == bytes[..used]
            });
            prop_assert!(same || header.length > 32_768);
        }
    }

    /// What is accepted means the same after one round through our encoder.
    #[test]
    fn accepted_bodies_survive_a_round_trip(
        command in proptest::sample::select(known_commands()),
        body in proptest::collection::vec(any::<u8>(), 0..160),
        length in 0usize..160,
        agreed in any_agreed(),
    ) {
        let likely = [0, 4, 8, 16, 24, 28, 32, 48, 56, 72, 132, 148];
        for length in likely.into_iter().chain([length]) {
            let mut body = body.clone();
            body.resize(length, 0);
            let Ok(packet) = Packet::decode(command, &body, &agreed) else { continue };
            let mut out = Vec::new();
            packet.encode(3, 0, &agreed, &mut out);
            let (header, used) = Header::decode(&out).expect("ours").expect("complete");
            let again = Packet::decode(header.command, &out[used..], &agreed).expect("ours");
            match (&packet, &again) {
                // The limits are dropped towards a peer that did not agree on them.
                (Packet::Sizes(a), Packet::Sizes(b)) => prop_assert_eq!(Sizes { limits: None, ..*a }, Sizes { limits: None, ..*b }),
                _ => prop_assert_eq!(&again, &packet),
            }
        }
    }

    #[test]
    fn lengths_are_bounded(command: u16, length: u32, agreed in any_agreed()) {
        if let Ok(body) = body_bytes(Command(command), length, &agreed) {
            prop_assert!(body <= 4096);
            prop_assert!(length as usize - body <= (1 << 20) + 64);
        }
    }
}
