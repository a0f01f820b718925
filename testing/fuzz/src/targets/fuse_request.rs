//! A request of the kernel. The kernel hands requests out aligned, so they are here.

use block::Buffer;
use fuse::Request;

/// Parses the input as one request; once as it is, once with the length that its header should have.
pub fn run(input: &[u8]) {
    let mut bytes = Buffer::copy_of(input);
    let _ = Request::parse(&bytes);
    if let Some(length) = bytes.get_mut(..4) {
        length.copy_from_slice(&(input.len() as u32).to_ne_bytes());
        let _ = Request::parse(&bytes);
    }
}
