//! The DRBD daemon: events in, actions out.
//!
//! One thread a resource serves front, engine, disks and peer ([`worker`] around [`shell`]); the control threads
//! configure it. A holder process above keeps the descriptors of mounted devices, so that a worker that dies or is
//! upgraded is replaced beneath them.

pub mod attach;
mod backing;
mod daemon;
mod fronts;
mod handlers;
mod incoming;
mod kept;
mod links;
mod peer_socket;
mod readiness;
mod registry;
mod ring;
pub mod shell;
pub mod worker;

pub use daemon::{USAGE, daemon};
pub use incoming::{Incoming, Received};
