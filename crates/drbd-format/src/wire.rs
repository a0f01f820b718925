//! The packets of DRBD protocol 86 to 101. Upstream: `drbd_protocol.h`, `drbd.h`.
//!
//! Headers are decoded apart from bodies, and bodies apart from payload: payload (a write's data, a resync block)
//! follows the body on the same socket and never passes through this crate.

mod packet;

pub use packet::{
    BlockAck, BlockRequest, Data, DataFlags, Features, Packet, Protocol, QueueLimits, Sizes, StateWord,
    SyncParam, UuidFlags, Uuids,
};
