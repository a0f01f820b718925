//! The packets of DRBD protocol 86 to 101. Upstream: `drbd_protocol.h`, `drbd.h`.
//!
//! Headers are decoded apart from bodies, and bodies apart from payload: payload (a write's data, a resync block, a
//! digest) follows the body on the same socket and never passes through this crate. A receiver's loop is
//!
//! 1. [`Header::decode`] until it has a header;
//! 2. [`body_bytes`]: how much of `header.length` is body;
//! 3. [`Packet::decode`] of that many bytes;
//! 4. the rest of `header.length` is payload.

mod body;
mod command;
mod decode;
mod encode;
mod header;
mod packet;

pub use command::Command;
pub use decode::body_bytes;
pub use header::{H80_BYTES, H100_BYTES, Header, HeaderForm};
pub use packet::{
    BlockAck, BlockRequest, Data, DataFlags, Features, Packet, Protocol, QueueLimits, Sizes, StateWord,
    SyncParam, UuidFlags, Uuids,
};

/// Lowest protocol version spoken (`PRO_VERSION_MIN`).
pub const PROTOCOL_MIN: u32 = 86;

/// Highest protocol version spoken (`PRO_VERSION_MAX`).
pub const PROTOCOL_MAX: u32 = 101;

/// `DRBD_MAX_BIO_SIZE`: the longest request, and so the longest run of data in one packet.
pub const BIO_BYTES_MAX: usize = 1 << 20;

/// The longest digest in front of data or alone: SHA-512's.
pub const DIGEST_BYTES_MAX: usize = 64;

/// Everything a packet may carry after its body.
pub const PAYLOAD_BYTES_MAX: usize = BIO_BYTES_MAX + DIGEST_BYTES_MAX;

/// `DRBD_SOCKET_BUFFER_SIZE`: header and body together of every packet, bitmaps among them, stay within it.
const SOCKET_BUFFER_BYTES: usize = 4096;

/// What both ends settled on with `ConnectionFeatures`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Agreed {
    /// The lower of the two highest versions.
    pub protocol: u32,
    /// `Features::*` that both have.
    pub features: u32,
}

impl Agreed {
    /// Before the features were exchanged: the lowest version, nothing optional.
    pub const NOTHING: Self = Self { protocol: PROTOCOL_MIN, features: 0 };

    /// What follows from the peer's offer and ours, if there is a version that both speak.
    pub fn from_features(ours: &Features, theirs: &Features) -> Option<Self> {
        let protocol = ours.protocol_max.min(theirs.protocol_max);
        let spoken = protocol >= ours.protocol_min && protocol >= theirs.protocol_min;
        spoken.then_some(Self { protocol, features: ours.feature_flags & theirs.feature_flags })
    }

    /// Whether a `Features::*` flag was agreed.
    pub const fn has(&self, feature: u32) -> bool {
        self.features & feature == feature
    }

    /// The longest request that this version's headers can announce, in bytes.
    pub const fn bio_bytes_max(&self) -> u32 {
        match self.protocol {
            ..=94 => 1 << 15,
            95..=99 => 1 << 17,
            100.. => BIO_BYTES_MAX as u32,
        }
    }

    /// Bytes of bitmap in every plain `Bitmap` packet but the last; both ends must use the same.
    pub const fn bitmap_chunk_bytes(&self) -> usize {
        (SOCKET_BUFFER_BYTES - self.header_bytes()) / 8 * 8
    }

    /// Most bytes of code in a `CompressedBitmap` packet.
    pub const fn bitmap_code_bytes_max(&self) -> usize {
        SOCKET_BUFFER_BYTES - self.header_bytes() - 1
    }

    /// Length of a header (`drbd_header_size`).
    pub const fn header_bytes(&self) -> usize {
        if self.protocol >= 100 { H100_BYTES } else { H80_BYTES }
    }
}
