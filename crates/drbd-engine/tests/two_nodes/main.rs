//! Two engines with each other.

mod handshake;
mod hostile;
mod pair;
mod sync_orders;
