//! The exchange of bitmaps before a resync, packet by packet.
//!
//! Upstream: `struct bm_xfer_ctx`, `send_bitmap_rle_or_plain`, `receive_bitmap`. Position is implied: both ends count.
//! A transfer ends with the code that reaches the last bit, or with an empty plain packet. A plain packet after a
//! code starts with the word that the code ended in, from that word's first bit.

use super::Bitmap;
use crate::Malformed;
use crate::wire::{Agreed, Packet};

/// Protocol that brought run-length encoded bitmaps.
const RUNS_SINCE_PROTOCOL: u32 = 90;

/// Cuts a bitmap into packets.
#[derive(Clone, Debug, Default)]
pub struct BitmapSender {
    next_bit: u64,
    done: bool,
}

impl BitmapSender {
    /// From the first bit on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next packet; `None` after the last one. `use_rle` as in drbd.conf(5); what does not get shorter by it is
    /// sent plain anyway.
    pub fn next_packet(&mut self, bitmap: &Bitmap, agreed: &Agreed, use_rle: bool) -> Option<Packet> {
        if self.done {
            return None;
        }
        let may_encode = use_rle && agreed.protocol >= RUNS_SINCE_PROTOCOL;
        let runs =
            may_encode.then(|| bitmap.encode_runs(self.next_bit, agreed.bitmap_code_bytes_max())).flatten();
        if let Some(runs) = runs {
            self.next_bit = runs.next_bit;
            self.done = self.next_bit >= bitmap.bits();
            return Some(Packet::CompressedBitmap { encoding: runs.encoding, code: runs.code });
        }
        let word = plain_word(self.next_bit, bitmap);
        let bytes = bitmap.words_bytes(word, agreed.bitmap_chunk_bytes());
        self.done = bytes.is_empty();
        self.next_bit = ((word + bytes.len() as u64 / 8) * 64).min(bitmap.bits());
        Some(Packet::Bitmap(bytes))
    }
}

/// Puts a peer's bitmap together, marking in ours what the peer has marked.
#[derive(Clone, Debug, Default)]
pub struct BitmapReceiver {
    next_bit: u64,
}

impl BitmapReceiver {
    /// From the first bit on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next packet; true: it was the last one.
    pub fn receive(
        &mut self,
        bitmap: &mut Bitmap,
        packet: &Packet,
        agreed: &Agreed,
    ) -> Result<bool, Malformed> {
        match packet {
            Packet::Bitmap(bytes) => {
                let word = plain_word(self.next_bit, bitmap);
                let left = (bitmap.words() - word) * 8;
                let expected = left.min(agreed.bitmap_chunk_bytes() as u64);
                if bytes.len() as u64 != expected {
                    return Err(Malformed::new("P_BITMAP", "length", bytes.len(), expected));
                }
                self.next_bit = (bitmap.or_words(word, bytes)? * 64).min(bitmap.bits());
                Ok(bytes.is_empty())
            }
            Packet::CompressedBitmap { encoding, code } => {
                self.next_bit = bitmap.or_runs(self.next_bit, *encoding, code)?;
                Ok(self.next_bit >= bitmap.bits())
            }
            other => Err(Malformed::new(
                "bitmap transfer",
                "command",
                other.command(),
                "P_BITMAP or P_COMPRESSED_BITMAP",
            )),
        }
    }
}

/// The word that a plain packet starts with when `next_bit` is due.
fn plain_word(next_bit: u64, bitmap: &Bitmap) -> u64 {
    if next_bit >= bitmap.bits() { bitmap.words() } else { next_bit / 64 }
}
