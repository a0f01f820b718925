//! What can happen to the two servers, one file a room. A step is a function of the world and a row in
//! [`crate::scenario::STEPS`].

pub mod disks;
pub mod network;
pub mod orders;
pub mod power;
pub mod split_brain;
pub mod two_primaries;
pub mod verify;
