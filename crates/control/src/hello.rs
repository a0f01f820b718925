//! The greeting.

use std::fmt;

use crate::error::ControlError;

const MAGIC: [u8; 8] = *b"LKSTPctl";

/// Bytes of the client's greeting.
pub const CLIENT_HELLO_BYTES: usize = 12;

/// Bytes of the server's greeting.
pub const SERVER_HELLO_BYTES: usize = 16;

/// The versions of the control protocol that a program speaks, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// The lowest.
    pub oldest: u16,
    /// The highest.
    pub newest: u16,
}

impl Versions {
    /// What this release speaks. A release keeps the newest version of the one before it.
    pub const OURS: Self = Self { oldest: 1, newest: 1 };

    /// The highest version that both speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    fn encode(self) -> [u8; CLIENT_HELLO_BYTES] {
        let mut bytes = [0; CLIENT_HELLO_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.oldest.to_be_bytes());
        bytes[10..].copy_from_slice(&self.newest.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; CLIENT_HELLO_BYTES]) -> Result<Self, ControlError> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, o0, o1, n0, n1] = *bytes;
        let magic = [m0, m1, m2, m3, m4, m5, m6, m7];
        if magic != MAGIC {
            return Err(ControlError::ForeignPeer { magic });
        }
        Ok(Self { oldest: u16::from_be_bytes([o0, o1]), newest: u16::from_be_bytes([n0, n1]) })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "version {}", self.newest)
        } else {
            write!(f, "versions {} to {}", self.oldest, self.newest)
        }
    }
}

/// What the server thinks of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Verdict {
    /// Requests may follow.
    Welcome = 0,
    /// No version in common.
    Version = 1,
    /// The client's user may not command.
    NotPermitted = 2,
    /// The bound on clients is reached.
    TooManyClients = 3,
}

/// The client's greeting.
pub fn client_hello(versions: Versions) -> [u8; CLIENT_HELLO_BYTES] {
    versions.encode()
}

/// The server's greeting.
pub fn server_hello(versions: Versions, verdict: Verdict) -> [u8; SERVER_HELLO_BYTES] {
    let mut bytes = [0; SERVER_HELLO_BYTES];
    bytes[..CLIENT_HELLO_BYTES].copy_from_slice(&versions.encode());
    bytes[CLIENT_HELLO_BYTES..].copy_from_slice(&(verdict as u32).to_be_bytes());
    bytes
}

/// The server's view of a client's greeting.
pub fn judge_client(ours: Versions, bytes: &[u8; CLIENT_HELLO_BYTES]) -> Result<Verdict, ControlError> {
    let theirs = Versions::decode(bytes)?;
    Ok(if ours.common(theirs).is_some() { Verdict::Welcome } else { Verdict::Version })
}

/// The client's view of the server's greeting.
pub fn judge_server(ours: Versions, bytes: &[u8; SERVER_HELLO_BYTES]) -> Result<(), ControlError> {
    let (greeting, verdict) = bytes.split_first_chunk().expect("the greeting is the front of the array");
    let theirs = Versions::decode(greeting)?;
    let verdict = <[u8; 4]>::try_from(verdict).map(u32::from_be_bytes).expect("four bytes are left");
    match verdict {
        v if v == Verdict::NotPermitted as u32 => Err(ControlError::NotPermitted),
        v if v == Verdict::TooManyClients as u32 => Err(ControlError::TooManyClients),
        v if v == Verdict::Welcome as u32 && ours.common(theirs).is_some() => Ok(()),
        _ => Err(ControlError::Version { theirs, ours }),
    }
}
