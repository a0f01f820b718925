//! A stream of packets: first byte chooses what was agreed, then header, body, payload, again and again.

use drbd_format::wire::{Agreed, Features, Header, Packet, Sizes, body_bytes};

/// Reads packets until one is refused or the bytes end. What is accepted must come back the same when it is written
/// and read again.
pub fn run(input: &[u8]) {
    let Some((choice, mut bytes)) = input.split_first() else { return };
    let features = |protocol| Features { protocol_min: 86, feature_flags: 15, protocol_max: protocol };
    let protocol = 86 + u32::from(choice % 16);
    let Some(agreed) = Agreed::from_features(&features(101), &features(protocol)) else { return };
    while let Ok(Some((header, header_bytes))) = Header::decode(bytes) {
        bytes = &bytes[header_bytes..];
        let Ok(body_length) = body_bytes(header.command, header.length, &agreed) else { return };
        let Some((body, rest)) = bytes.split_at_checked(body_length) else { return };
        let payload_length = header.length as usize - body_length;
        let packet = Packet::decode(header.command, body, &agreed);
        // Headers of every form are understood; written is the agreed one, which may be for shorter payloads.
        if let Ok(packet) = packet
            && payload_length <= agreed.bio_bytes_max() as usize
        {
            again(&packet, &header, payload_length, &agreed);
        }
        let Some((_, rest)) = rest.split_at_checked(payload_length) else { return };
        bytes = rest;
    }
}

fn again(packet: &Packet, header: &Header, payload_length: usize, agreed: &Agreed) {
    let mut written = Vec::new();
    packet.encode(header.volume, payload_length, agreed, &mut written);
    let (second, header_bytes) =
        Header::decode(&written).expect("our own header").expect("a whole header was written");
    let body_length = body_bytes(second.command, second.length, agreed).expect("our own length");
    let body = &written[header_bytes..][..body_length];
    match (packet, Packet::decode(second.command, body, agreed)) {
        // Where WSAME was agreed, sizes are written with their limits, also if they came without.
        (Packet::Sizes(sent), Ok(Packet::Sizes(read))) if sent.limits.is_none() => {
            assert_eq!(Sizes { limits: None, ..read }, *sent);
        }
        (_, read) => assert_eq!(read.as_ref(), Ok(packet)),
    }
}
