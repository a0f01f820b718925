//! The ring of transactions as a crash leaves it.

use drbd_format::activity_log::{BLOCK_BYTES, Transaction, replay};

/// Blocks of a ring as drbdmeta makes it: one stripe of 32 KiB.
const BLOCKS: usize = 8;

/// Offset of `crc32c` in `struct al_transaction_on_disk`.
const CHECKSUM_AT: usize = 8;

/// Replays the ring as it is, then with checksums that fit, so that what lies behind them is reached too.
pub fn run(input: &[u8]) {
    let mut ring = vec![0; BLOCKS * BLOCK_BYTES];
    let length = input.len().min(ring.len());
    ring[..length].copy_from_slice(&input[..length]);
    let _ = replay(&ring, 1, BLOCKS as u32);
    for block in ring.chunks_exact_mut(BLOCK_BYTES) {
        block[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        let checksum = crc32c::crc32c(block);
        block[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_be_bytes());
        if let Ok(transaction) = Transaction::decode(block) {
            assert_eq!(Transaction::decode(&transaction.encode()), Ok(transaction));
        }
    }
    let _ = replay(&ring, 1, BLOCKS as u32);
    let _ = replay(&ring, 2, BLOCKS as u32 / 2);
}
