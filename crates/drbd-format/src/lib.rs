//! DRBD 8.4 on disk and on the wire: pure, total, no IO; one place per layout.

pub mod activity_log;
pub mod auth;
pub mod bitmap;
mod malformed;
pub mod meta;
pub mod names;
pub mod wire;

pub use malformed::Malformed;
