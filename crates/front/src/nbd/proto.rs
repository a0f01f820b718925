//! Numbers and layouts of the NBD protocol (doc/proto.md of the NBD project), big-endian.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `NBDMAGIC`.
pub(super) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags, the server's (16 bits) and the client's (32 bits) alike.
pub(super) const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
pub(super) const FLAG_NO_ZEROES: u16 = 1 << 1;

/// `NBD_OPT_*`.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// `NBD_REP_*`.
pub(super) mod reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const ERR_UNSUP: u32 = 1 << 31 | 1;
    pub(in super::super) const ERR_INVALID: u32 = 1 << 31 | 3;
    pub(in super::super) const ERR_UNKNOWN: u32 = 1 << 31 | 6;
}

/// `NBD_INFO_*`.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// `NBD_FLAG_*`: transmission flags.
pub(super) mod transmission {
    pub(in super::super) const HAS_FLAGS: u16 = 1 << 0;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// `NBD_CMD_*`.
pub(super) mod command {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISC: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
}

/// `NBD_CMD_FLAG_*`.
pub(super) mod command_flag {
    pub(in super::super) const FUA: u16 = 1 << 0;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
}

/// `NBD_REPLY_FLAG_DONE`.
pub(super) const CHUNK_DONE: u16 = 1;
/// `NBD_REPLY_TYPE_OFFSET_DATA`.
pub(super) const CHUNK_OFFSET_DATA: u16 = 1;
/// `NBD_REPLY_TYPE_ERROR`.
pub(super) const CHUNK_ERROR: u16 = 1 << 15 | 1;

/// An error's number in an answer: the protocol fixes the values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NbdError(pub(super) u32);

impl NbdError {
    pub(super) const PERM: Self = Self(1);
    pub(super) const IO: Self = Self(5);
    pub(super) const INVAL: Self = Self(22);
    pub(super) const NOSPC: Self = Self(28);
    pub(super) const NOTSUP: Self = Self(95);
}

macro_rules! layouts {
    ($($(#[$meta:meta])* $name:ident = $bytes:literal { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $kind),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    )*};
}

layouts! {
    /// What the server begins with.
    Greeting = 18 { init_magic: U64, option_magic: U64, flags: U16 }
    /// Followed by `length` bytes.
    OptionHead = 16 { magic: U64, option: U32, length: U32 }
    /// Followed by `length` bytes.
    OptionReply = 20 { magic: U64, option: U32, kind: U32, length: U32 }
    /// Answer to EXPORT_NAME, followed by 124 zeroes unless the client can do without.
    ExportReply = 10 { size_bytes: U64, flags: U16 }
    /// `NBD_INFO_EXPORT`.
    InfoExport = 12 { kind: U16, size_bytes: U64, flags: U16 }
    /// `NBD_INFO_BLOCK_SIZE`, in bytes.
    InfoBlockSize = 14 { kind: U16, minimum: U32, preferred: U32, maximum: U32 }
    /// A command; WRITE's is followed by `length` bytes.
    RequestHead = 28 { magic: U32, flags: U16, command: U16, cookie: [u8; 8], offset: U64, length: U32 }
    /// Followed by the data of a successful READ.
    SimpleReply = 16 { magic: U32, error: U32, cookie: [u8; 8] }
    /// A chunk of a structured reply, followed by `length` bytes.
    Chunk = 20 { magic: U32, flags: U16, kind: U16, cookie: [u8; 8], length: U32 }
    /// `NBD_REPLY_TYPE_OFFSET_DATA`, followed by the data.
    DataChunk = 28 { chunk: Chunk, offset: U64 }
    /// `NBD_REPLY_TYPE_ERROR` without a message.
    ErrorChunk = 26 { chunk: Chunk, error: U32, message_length: U16 }
}
