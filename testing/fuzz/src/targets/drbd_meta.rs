//! A superblock, as the last 4 KiB of a disk hold it.

use drbd_format::meta::{SUPER_BLOCK_BYTES, SuperBlock};

/// Short inputs are filled up with zeroes, as a disk would.
pub fn run(input: &[u8]) {
    let mut block = [0; SUPER_BLOCK_BYTES];
    let length = input.len().min(SUPER_BLOCK_BYTES);
    block[..length].copy_from_slice(&input[..length]);
    let _ = SuperBlock::decode(input);
    if let Ok(read) = SuperBlock::decode(&block) {
        assert_eq!(SuperBlock::decode(&read.encode()).as_ref(), Ok(&read));
    }
}
