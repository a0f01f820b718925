//! A block that says which write it is from.
//!
//! Its first 24 bytes are a magic number, the block's number on the device and the stamp; the rest follows from
//! those two. So a block from elsewhere, or one of two writes' halves, is told from a whole one.

use crate::random::SplitMix64;

/// Size of a stamped block.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: u64 = u64::from_le_bytes(*b"stampedB");

/// What a block holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// All zeroes.
    Nothing,
    /// The whole of the write with this stamp.
    Stamp(u64),
    /// Neither.
    Torn,
}

/// Fills one block.
///
/// # Panics
/// If `bytes` is not of one block's size.
pub fn fill(bytes: &mut [u8], block: u64, stamp: u64) {
    assert_eq!(bytes.len(), BLOCK_BYTES);
    let mut random = SplitMix64(block.rotate_left(32) ^ stamp);
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    for (at, value) in [MAGIC, block, stamp].into_iter().enumerate() {
        bytes[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// Reads one block.
pub fn find(bytes: &[u8], block: u64) -> Found {
    if bytes.iter().all(|&byte| byte == 0) {
        return Found::Nothing;
    }
    let Some(stamp) = bytes.get(16..24).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes)
    else {
        return Found::Torn;
    };
    let mut whole = vec![0; BLOCK_BYTES];
    fill(&mut whole, block, stamp);
    if whole == bytes { Found::Stamp(stamp) } else { Found::Torn }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Found, fill, find};

    #[test]
    fn only_a_whole_block_in_its_place_has_a_stamp() {
        let mut bytes = vec![0; BLOCK_BYTES];
        assert_eq!(find(&bytes, 7), Found::Nothing);
        fill(&mut bytes, 7, 42);
        assert_eq!(find(&bytes, 7), Found::Stamp(42));
        assert_eq!(find(&bytes, 8), Found::Torn, "from elsewhere");
        let mut later = bytes.clone();
        fill(&mut later, 7, 43);
        bytes[BLOCK_BYTES / 2..].copy_from_slice(&later[BLOCK_BYTES / 2..]);
        assert_eq!(find(&bytes, 7), Found::Torn, "two halves");
    }
}
