//! What a successor must know of a bound loop device, as bytes that a holder keeps.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: [u8; 4] = *b"LSlo";
const VERSION: u16 = 1;

/// Followed by the node's path.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    number: U32,
}

pub(super) fn encode(number: u32, node: &Path) -> Vec<u8> {
    let head =
        Head { magic: MAGIC, version: U16::new(VERSION), reserved: U16::ZERO, number: U32::new(number) };
    [head.as_bytes(), node.as_os_str().as_bytes()].concat()
}

pub(super) fn decode(kept: &[u8]) -> io::Result<(u32, PathBuf)> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("kept state: {what}"));
    let (head, node) = Head::read_from_prefix(kept).map_err(|_| bad("too short".into()))?;
    if head.magic != MAGIC {
        return Err(bad("wrong magic".into()));
    }
    if head.version.get() != VERSION {
        return Err(bad(format!("version {}, only {VERSION} is known", head.version)));
    }
    Ok((head.number.get(), PathBuf::from(OsString::from_vec(node.to_vec()))))
}
