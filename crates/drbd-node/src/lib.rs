//! The DRBD daemon: events in, actions out.

pub mod attach;
mod incoming;
pub mod shell;

pub use incoming::{Incoming, Received};
