//! DRBD 8.4 on disk and on the wire: pure, total, no IO; one place per layout.

pub mod bitmap;
mod malformed;
pub mod meta;
pub mod names;
pub mod wire;

pub use malformed::Malformed;
