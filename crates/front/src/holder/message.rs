//! What worker and holder say to each other: one packet each way, descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: [u8; 4] = *b"LSho";
const VERSION: u16 = 1;

const NAME_BYTES_MAX: usize = 255;
const DATA_BYTES_MAX: usize = 64 << 10;
pub(super) const FDS_MAX: usize = 16;

/// Followed by the name and the data.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    version: U16,
    kind: U16,
    index: U32,
    name_bytes: U32,
}

/// What a message is; numbers of a later version stay what they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Kind(u16);

impl Kind {
    /// Worker: keep this.
    pub(super) const STORE: Self = Self(1);
    /// Worker: close this.
    pub(super) const FORGET: Self = Self(2);
    /// Worker: give number `index`.
    pub(super) const FETCH: Self = Self(3);
    /// Holder: done.
    pub(super) const DONE: Self = Self(128);
    /// Holder: this is number `index`.
    pub(super) const KEPT: Self = Self(129);
    /// Holder: there is no number `index`.
    pub(super) const END: Self = Self(130);
    /// Holder: no, and why (text in `data`).
    pub(super) const REFUSED: Self = Self(131);
}

#[derive(Debug, Eq, PartialEq)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    pub(super) index: u32,
    pub(super) name: &'a str,
    pub(super) data: &'a [u8],
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("holder message: {what}"))
}

impl<'a> Message<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = Head {
            magic: MAGIC,
            version: U16::new(VERSION),
            kind: U16::new(self.kind.0),
            index: U32::new(self.index),
            // Bounded by `send`.
            name_bytes: U32::new(self.name.len() as u32),
        };
        [head.as_bytes(), self.name.as_bytes(), self.data].concat()
    }

    pub(super) fn decode(bytes: &'a [u8]) -> io::Result<Self> {
        let (head, rest) = Head::read_from_prefix(bytes).map_err(|_| bad("too short".into()))?;
        if head.magic != MAGIC {
            return Err(bad("wrong magic".into()));
        }
        if head.version.get() != VERSION {
            return Err(bad(format!("version {}, only {VERSION} is spoken", head.version)));
        }
        let (name, data) = rest
            .split_at_checked(head.name_bytes.get() as usize)
            .ok_or_else(|| bad("name cut off".into()))?;
        let name = std::str::from_utf8(name).map_err(|_| bad("name is not UTF-8".into()))?;
        if name.len() > NAME_BYTES_MAX || data.len() > DATA_BYTES_MAX {
            return Err(bad("beyond the limits".into()));
        }
        Ok(Self { kind: Kind(head.kind.get()), index: head.index.get(), name, data })
    }

    /// The error that an answer stands for which is not the one hoped for.
    pub(super) fn refusal(&self) -> io::Error {
        if self.kind == Kind::REFUSED {
            let why = String::from_utf8_lossy(self.data);
            return io::Error::new(io::ErrorKind::InvalidInput, format!("the holder refuses: {why}"));
        }
        bad(format!("unexpected answer {}", self.kind.0))
    }
}

/// Sends one packet, waiting where the socket does.
///
/// # Errors
/// `InvalidInput` beyond the limits; from sendmsg(2).
pub(super) fn send(socket: &OwnedFd, message: &Message<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.name.len() > NAME_BYTES_MAX || message.data.len() > DATA_BYTES_MAX || fds.len() > FDS_MAX {
        let what = format!(
            "keeping `{}`: at most {NAME_BYTES_MAX} bytes of name, {DATA_BYTES_MAX} of data, {FDS_MAX} descriptors",
            message.name
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let bytes = message.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(bad("descriptors do not fit".into()));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one packet into `bytes` and gives its descriptors. An empty packet is the end of the connection.
///
/// # Errors
/// `UnexpectedEof` at the end; `InvalidData` for a packet or descriptors cut off; from recvmsg(2).
pub(super) fn receive(socket: &OwnedFd, bytes: &mut Vec<u8>) -> io::Result<Vec<OwnedFd>> {
    bytes.clear();
    bytes.resize(size_of::<Head>() + NAME_BYTES_MAX + DATA_BYTES_MAX, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fds = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        })
        .collect();
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(bad("cut off".into()));
    }
    bytes.truncate(received.bytes);
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Kind, Message};

    proptest! {
        #[test]
        fn any_message_comes_back(kind in any::<u16>(), index in any::<u32>(), name in "[a-z0/.-]{0,255}",
                                  data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = Message { kind: Kind(kind), index, name: &name, data: &data };
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), valid: bool) {
            if valid && bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"LSho\x01\x00");
            }
            let _ = Message::decode(&bytes);
        }
    }
}
