//! The handshake's proof against what two kernels answered each other.

use crate::capture::packets;
use drbd_format::auth::{CramHmac, Digest};
use drbd_format::wire::{Agreed, Header, Packet};

fn handshake(file: &str) -> Vec<(u8, Packet)> {
    let agreed = Agreed { protocol: 101, features: 0xf };
    let decoded = packets(file).into_iter().map(|captured| {
        let (header, used) = Header::decode(&captured.bytes).expect("header").expect("complete");
        (captured.stream, Packet::decode(header.command, &captured.bytes[used..], &agreed).expect("packet"))
    });
    decoded
        .filter(|(_, packet)| matches!(packet, Packet::AuthChallenge(_) | Packet::AuthResponse(_)))
        .collect()
}

/// How many responses of a file prove the secret.
fn proofs(file: &str, secret: &[u8]) -> usize {
    let hmac = CramHmac::by_name("sha1").expect("known");
    let packets = handshake(file);
    let challenges = packets.iter().filter_map(|(stream, packet)| match packet {
        Packet::AuthChallenge(challenge) => Some((stream, challenge)),
        _ => None,
    });
    challenges
        .filter(|(stream, challenge)| {
            packets.iter().any(|(other, packet)| {
                let Packet::AuthResponse(response) = packet else { return false };
                other != *stream && hmac.accepts(secret, challenge, response)
            })
        })
        .count()
}

#[test]
fn captured_responses_prove_the_secret() {
    assert_eq!(proofs("01a-connect-fullsync.packets.zst", b"dupersupersecret"), 2);
    assert_eq!(proofs("01a-connect-fullsync.packets.zst", b"dupersupersecre"), 0);
    assert_eq!(proofs("05f-wrong-secret.packets.zst", b"dupersupersecret"), 1);
    assert_eq!(proofs("05f-wrong-secret.packets.zst", b"wrongsecret"), 1);
}

/// RFC 2202, RFC 4231: key "Jefe".
#[test]
fn hmacs_are_those_of_the_rfcs() {
    for (name, start) in [
        ("md5", [0x75, 0x0c, 0x78, 0x3e]),
        ("sha1", [0xef, 0xfc, 0xdf, 0x6a]),
        ("sha224", [0xa3, 0x0e, 0x01, 0x09]),
        ("sha256", [0x5b, 0xdc, 0xc1, 0x46]),
        ("sha384", [0xaf, 0x45, 0xd2, 0xe3]),
        ("sha512", [0x16, 0x4b, 0x7a, 0x7b]),
    ] {
        let hmac = CramHmac::by_name(name).expect("known");
        let response = hmac.response(b"Jefe", b"what do ya want for nothing?");
        assert_eq!((&response[..4], response.len()), (&start[..], hmac.bytes()), "{name}");
        assert!(!hmac.accepts(b"Jefe", b"what do ya want for nothing?", &response[1..]), "{name}");
    }
    assert_eq!(CramHmac::by_name("crc32c"), None);
    assert_eq!(CramHmac::by_name("sha3"), None);
}

#[test]
fn digests_have_their_names_and_lengths() {
    for digest in Digest::ALL {
        assert_eq!(Digest::by_name(digest.name()), Some(digest));
        assert_eq!(digest.of(b"123456789").len(), digest.bytes());
    }
    assert_eq!(Digest::Crc32c.of(b"123456789"), [0x83, 0x92, 0x06, 0xe3]);
    assert_eq!(Digest::Md5.of(b"")[..4], [0xd4, 0x1d, 0x8c, 0xd9]);
}
