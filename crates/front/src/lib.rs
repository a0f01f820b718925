//! Front ends of a block device: a FUSE file under a loop device, and NBD.
//!
//! A front turns what a client asks into [`Request`]s and what became of them into the client's answer. It owns no
//! thread: whoever serves the device polls it when its descriptor is readable.

mod extent;
mod fuse_file;
pub mod holder;
mod inflight;
mod loop_device;
pub mod nbd;
mod request;

pub use extent::Access;
pub use fuse_file::FuseFile;
pub use loop_device::{LoopDevice, LoopError, LoopSizer, NotReleased};
pub use request::{Fault, Front, Op, Request, RequestId};
