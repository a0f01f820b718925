//! Two engines with each other.

mod attach;
#[path = "../fresh_disk/mod.rs"]
mod fresh_disk;
mod handshake;
mod hostile;
mod losses;
mod pair;
mod patience;
mod sizes;
mod sync_orders;
mod versions;
