//! Control sockets: how a tool commands a daemon on the same machine.
//!
//! A stream socket of the unix domain, mode 0600. Both ends greet with a magic and the versions they speak
//! ([`hello`](self#greeting)), then the client sends requests and the server answers each in turn. A request and an
//! answer are one frame each: length as big-endian `u32`, then that many bytes of JSON.
//!
//! # Greeting
//! Client: 8 bytes magic, `u16` oldest and `u16` newest version spoken, all big-endian. Server: the same, then
//! `u32` verdict (0 welcome, 1 no version in common, 2 not permitted, 3 too many clients). The highest version in
//! common is spoken.
//!
//! Invariants: a peer whose user is neither root nor the daemon's own never reaches the handler; no length a peer
//! names is allocated before its bytes are there; one client that stalls holds one of [`CLIENTS_MAX`] threads.

mod client;
mod error;
pub mod frame;
mod hello;
mod server;

pub use client::Client;
pub use error::ControlError;
pub use frame::FRAME_BYTES_MAX;
pub use hello::Versions;
pub use server::{CLIENTS_MAX, Peer, Server, Stopper};
