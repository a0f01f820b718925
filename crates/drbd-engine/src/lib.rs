//! DRBD's decisions: a state machine without IO.

pub mod admin;
pub mod status;
