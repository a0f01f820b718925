//! Reads the files of `tests/captures`; their README describes the form.

use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of `tests/captures`, uncompressed.
pub fn capture(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(file)
        .expect("a zstd frame")
        .read_to_end(&mut bytes)
        .expect("complete");
    bytes
}

/// Names of all files of captured packets.
pub fn packet_files() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("tests/captures");
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"));
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".packets.zst")).collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

/// One packet as it was sent.
pub struct Captured {
    /// Direction of a connection.
    pub stream: u8,
    /// Header and body.
    pub bytes: Vec<u8>,
    /// Length of the payload that followed.
    pub payload_bytes: usize,
}

/// The packets of one file, in order.
pub fn packets(name: &str) -> Vec<Captured> {
    let all = capture(name);
    let mut rest = &all[..];
    let mut packets = Vec::new();
    while let [stream, k0, k1, p0, p1, p2, p3, tail @ ..] = rest {
        let (bytes, after) = tail.split_at(usize::from(u16::from_le_bytes([*k0, *k1])));
        let payload_bytes = u32::from_le_bytes([*p0, *p1, *p2, *p3]) as usize;
        packets.push(Captured { stream: *stream, bytes: bytes.to_vec(), payload_bytes });
        rest = after;
    }
    assert!(rest.is_empty(), "{name} is complete");
    packets
}
