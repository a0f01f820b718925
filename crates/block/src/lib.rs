//! Block ports: aligned buffers and disks.

mod buffer;

pub use buffer::{ALIGNMENT_BYTES, Buffer, HEADROOM_BYTES};
