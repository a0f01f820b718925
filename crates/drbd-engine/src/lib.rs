//! DRBD's decisions: a state machine without IO.
//!
//! [`Resource::handle`] takes one event and appends actions; it never blocks, never fails, knows no clock, no socket and
//! no byte of data. Payload travels as handles. The order of durability is in the actions: a meta-data job is a list of
//! steps, and what must wait for one waits for its completion.

pub mod admin;
mod application;
mod bitmap_exchange;
mod completion;
mod conflicts;
mod connect;
mod detaching;
pub mod device;
mod disk_faults;
mod dispatch;
mod durability;
pub mod event;
mod fencing;
mod generations;
pub mod handlers;
mod hot_extents;
mod integrity;
mod introduction;
mod link;
mod net_options;
mod orders;
mod pace;
mod parting;
mod patience;
mod peer_io;
mod peer_reads;
pub mod proc_drbd;
mod progress;
mod protocol_version;
mod ranges;
mod remote_reads;
mod replication;
mod resize;
mod resource;
mod resync;
mod resync_savings;
mod secret;
mod sizes;
mod split_brain;
mod state;
mod state_requests;
pub mod status;
mod suspension;
mod sync_handshake;
mod sync_orders;
mod time;
mod transfer_log;
mod transition;
mod turn;
mod verify;
mod verify_orders;
mod verify_source;
mod verify_target;

pub use resource::Resource;
pub use secret::Secret;
pub use state::code;
pub use time::Instant;
pub use turn::Entropy;
