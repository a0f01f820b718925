//! The FUSE session: the kernel's ABI, and nothing more.
//!
//! [`Mount`] attaches a file system and gives its [`Device`]; [`Session`] speaks over it (or over any other
//! [`Transport`]): INIT first, then one [`Message`] after the other, each seen through a [`Request`] and answered by
//! its [`Unique`]. A session whose process died goes on from its kept descriptor with [`Session::resume`] and
//! [`Session::resend`]. The crate owns no thread and no tree of inodes.

pub mod abi;
mod device;
mod directory;
mod mount;
mod request;
mod session;

pub use device::{Device, Transport, raise};
pub use directory::{Directory, Entry};
pub use mount::{Mount, detach, unmount};
pub use request::{Malformed, Offer, Operation, Request, Unique};
pub use session::{Agreed, Message, Received, Session, WRITE_HEADROOM_BYTES, Wishes};
