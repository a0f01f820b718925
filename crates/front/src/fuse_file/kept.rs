//! What a successor must know of a mounted file, as bytes that a holder keeps.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use fuse::abi::InitFlags;
use fuse::{Agreed, Device, Session};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FuseFile;
use crate::extent::Access;
use crate::inflight::InFlight;

const MAGIC: [u8; 4] = *b"LSff";
const VERSION: u16 = 1;

/// Followed by the directory and the name.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    version: U16,
    read_only: U16,
    minor: U32,
    max_write_bytes: U32,
    flags: U64,
    size_bytes: U64,
    directory_bytes: U32,
    name_bytes: U32,
}

pub(super) fn encode(file: &FuseFile) -> Vec<u8> {
    let agreed = file.session.agreed();
    let length =
        |name: &OsStr| U32::new(u32::try_from(name.len()).expect("the kernel bounds names and paths"));
    let head = Head {
        magic: MAGIC,
        version: U16::new(VERSION),
        read_only: U16::new(u16::from(file.access == Access::ReadOnly)),
        minor: U32::new(agreed.minor),
        max_write_bytes: U32::new(agreed.max_write_bytes),
        flags: U64::new(agreed.flags.0),
        size_bytes: U64::new(file.size_bytes),
        directory_bytes: length(file.directory.as_os_str()),
        name_bytes: length(&file.name),
    };
    [head.as_bytes(), file.directory.as_os_str().as_bytes(), file.name.as_bytes()].concat()
}

pub(super) fn decode(fd: OwnedFd, kept: &[u8]) -> io::Result<FuseFile> {
    let bad =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("kept state of a FUSE file: {what}"));
    let (head, names) = Head::read_from_prefix(kept).map_err(|_| bad("too short"))?;
    if head.magic != MAGIC {
        return Err(bad("wrong magic"));
    }
    if head.version.get() != VERSION {
        return Err(bad(&format!("version {}, only {VERSION} is known", head.version)));
    }
    let directory_bytes = head.directory_bytes.get() as usize;
    if directory_bytes.checked_add(head.name_bytes.get() as usize) != Some(names.len()) {
        return Err(bad("names do not fill it"));
    }
    let (directory, name) = names.split_at(directory_bytes);
    let agreed = Agreed {
        minor: head.minor.get(),
        flags: InitFlags(head.flags.get()),
        max_write_bytes: head.max_write_bytes.get(),
    };
    Ok(FuseFile {
        session: Session::resume(Device::from_kept(fd), agreed),
        directory: PathBuf::from(OsString::from_vec(directory.to_vec())),
        name: OsString::from_vec(name.to_vec()),
        size_bytes: head.size_bytes.get(),
        access: if head.read_only.get() == 0 { Access::ReadWrite } else { Access::ReadOnly },
        in_flight: InFlight::new(),
    })
}
