//! Nodes with a kernel of their own: User Mode Linux on a bridge in a namespace of this process.

mod guest;
mod node;
mod segment;

pub use guest::{GUEST_VARIABLE, guest_main};
pub use node::Node;
pub use segment::Segment;

/// The kernel.
pub const KERNEL: &str = "/usr/bin/linux.uml";
