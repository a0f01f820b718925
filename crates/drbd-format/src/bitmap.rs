//! The bitmap: one bit for every 4 KiB of the device, set = out of sync.
//!
//! On disk and on the wire it is the same: little-endian words of 64 bits, block 0 in the lowest bit of word 0.
//! Upstream: `drbd_bitmap.c`, `__drbd_change_sync` of drbd_actlog.c.

mod run_length;
mod transfer;

use units::SectorRange;

use crate::Malformed;

pub use run_length::RunLengthCode;
pub use transfer::{BitmapReceiver, BitmapSender};

/// Sectors that one bit stands for (`BM_SECT_PER_BIT`).
pub const SECTORS_PER_BIT: u64 = 8;

/// The unit in which the bitmap is written to disk.
pub const PAGE_BYTES: usize = 4096;

const WORDS_PER_PAGE: usize = PAGE_BYTES / 8;

/// A device's bitmap, and which of its pages changed since they were last taken for writing.
///
/// Invariants: bits from `bits` on are zero; `set` is the number of ones; a page that differs from its last
/// `load_page` or `take_dirty_page` is marked in `dirty`.
#[derive(Clone)]
pub struct Bitmap {
    words: Vec<u64>,
    bits: u64,
    device_sectors: u64,
    set: u64,
    dirty: Vec<bool>,
    /// No page before this one is dirty.
    dirty_from: usize,
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitmap({} of {} bits set)", self.set, self.bits)
    }
}

impl Bitmap {
    /// An all-clear bitmap of so many bits, for a device that is a multiple of 4 KiB.
    pub fn new(bits: u64) -> Self {
        Self::of_device(bits * SECTORS_PER_BIT)
    }

    /// An all-clear bitmap for a device of so many sectors. The last block may be a partial one.
    pub fn of_device(sectors: u64) -> Self {
        let bits = sectors.div_ceil(SECTORS_PER_BIT);
        let words = bits.div_ceil(64) as usize;
        let pages = words.div_ceil(WORDS_PER_PAGE);
        let dirty = vec![false; pages];
        Self { words: vec![0; words], bits, device_sectors: sectors, set: 0, dirty, dirty_from: pages }
    }

    /// Number of bits.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Number of 64-bit words.
    pub fn words(&self) -> u64 {
        self.words.len() as u64
    }

    /// Number of set bits: blocks out of sync.
    pub fn count(&self) -> u64 {
        self.set
    }

    /// Whether a block is out of sync; false beyond the end.
    pub fn is_set(&self, bit: u64) -> bool {
        self.words.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    /// The first set bit not before `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        self.next(from, 0)
    }

    /// The first clear bit not before `from`.
    pub fn next_clear(&self, from: u64) -> Option<u64> {
        self.next(from, !0)
    }

    /// The first one after exclusive-or with `invert`.
    fn next(&self, from: u64, invert: u64) -> Option<u64> {
        if from >= self.bits {
            return None;
        }
        let first = (from / 64) as usize;
        let head = (self.words[first] ^ invert) & (!0 << (from % 64));
        let (at, word) = if head != 0 {
            (first, head)
        } else {
            let rest = self.words[first + 1..].iter().position(|&word| word ^ invert != 0)?;
            (first + 1 + rest, self.words[first + 1 + rest] ^ invert)
        };
        Some(at as u64 * 64 + u64::from(word.trailing_zeros())).filter(|&bit| bit < self.bits)
    }

    /// Marks every block that the range touches. Returns how many were in sync.
    pub fn set_range(&mut self, range: SectorRange) -> u64 {
        let end = range.start.saturating_add(range.count).min(self.device_sectors);
        if range.start >= end {
            return 0;
        }
        self.set_bits(range.start / SECTORS_PER_BIT, end.div_ceil(SECTORS_PER_BIT))
    }

    /// Unmarks the blocks that the range covers completely; the device's last block may be a partial one.
    /// Returns how many were out of sync.
    pub fn clear_range(&mut self, range: SectorRange) -> u64 {
        let end = range.start.saturating_add(range.count);
        let end_bit = if end >= self.device_sectors { self.bits } else { end / SECTORS_PER_BIT };
        self.change_bits(range.start.div_ceil(SECTORS_PER_BIT), end_bit, |word, mask| word & !mask)
    }

    /// Marks the bits from `from` up to but not including `to`.
    fn set_bits(&mut self, from: u64, to: u64) -> u64 {
        self.change_bits(from, to, |word, mask| word | mask)
    }

    /// Applies `change` to the words of a run of bits and returns how many bits differ afterwards.
    fn change_bits(&mut self, from: u64, to: u64, change: impl Fn(u64, u64) -> u64) -> u64 {
        let to = to.min(self.bits);
        if from >= to {
            return 0;
        }
        let (first, last) = ((from / 64) as usize, ((to - 1) / 64) as usize);
        let mut changed = 0;
        for at in first..=last {
            let low = if at == first { !0 << (from % 64) } else { !0 };
            let high = if at == last { !0 >> (63 - (to - 1) % 64) } else { !0 };
            changed += self.replace(at, change(self.words[at], low & high));
        }
        changed
    }

    /// Puts a word in place, keeps the invariants and returns how many bits differ.
    fn replace(&mut self, at: usize, word: u64) -> u64 {
        let old = std::mem::replace(&mut self.words[at], word);
        let changed = u64::from((old ^ word).count_ones());
        if changed != 0 {
            self.set = self.set - u64::from(old.count_ones()) + u64::from(word.count_ones());
            self.mark_dirty(at / WORDS_PER_PAGE);
        }
        changed
    }

    /// Marks everything: a full sync.
    pub fn set_all(&mut self) {
        self.set_bits(0, self.bits);
    }

    /// Marks what the other has marked, as far as both reach.
    pub fn merge(&mut self, other: &Self) {
        for at in 0..self.words.len().min(other.words.len()) {
            self.or_word(at, other.words[at]);
        }
    }

    fn or_word(&mut self, at: usize, word: u64) {
        self.replace(at, self.words[at] | word & self.valid(at));
    }

    /// The bits of a word that lie on the device.
    fn valid(&self, at: usize) -> u64 {
        let beyond = ((at as u64 + 1) * 64).saturating_sub(self.bits);
        !0 >> beyond
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.dirty.len() as u64
    }

    /// Pages that must be written, in order.
    pub fn dirty_pages(&self) -> impl Iterator<Item = u64> {
        self.dirty.iter().enumerate().filter(|(_, dirty)| **dirty).map(|(page, _)| page as u64)
    }

    /// The first page that must be written; from now on it counts as written.
    pub fn take_dirty_page(&mut self) -> Option<u64> {
        self.dirty_from += self.dirty[self.dirty_from..].iter().take_while(|&&dirty| !dirty).count();
        let page = self.dirty_from;
        *self.dirty.get_mut(page)? = false;
        Some(page as u64)
    }

    /// Whether this page must be written; from now on it counts as written.
    pub fn take_dirty(&mut self, page: u64) -> bool {
        self.dirty.get_mut(page as usize).is_some_and(std::mem::take)
    }

    /// Whether any block that the range touches is marked.
    pub fn any_set(&self, range: SectorRange) -> bool {
        let end = range.end().div_ceil(SECTORS_PER_BIT);
        self.next_set(range.start / SECTORS_PER_BIT).is_some_and(|bit| bit < end)
    }

    /// The same marks for a device of another size: what is new is marked, what is gone forgotten, every page dirty.
    pub fn resized(&self, sectors: u64) -> Self {
        let mut new = Self::of_device(sectors);
        new.set_all();
        let kept = self.words.len().min(new.words.len());
        // The last old word may hold the last old block and the first new ones.
        for (at, &word) in self.words[..kept].iter().enumerate() {
            let beyond_old = !self.valid(at);
            new.replace(at, (word | beyond_old) & new.valid(at));
        }
        if self.device_sectors < sectors && self.bits > 0 {
            // A last block that was partial has grown.
            let tail = self.device_sectors / SECTORS_PER_BIT * SECTORS_PER_BIT;
            if tail < self.device_sectors {
                new.set_range(SectorRange::new(tail, sectors.min(tail + SECTORS_PER_BIT) - tail));
            }
        }
        for page in 0..new.dirty.len() {
            new.mark_dirty(page);
        }
        new
    }

    /// The same, but what is new is not marked: both disks have the same there.
    pub fn resized_clean(&self, sectors: u64) -> Self {
        let mut new = self.resized(sectors);
        // A last block that was partial and in sync stays so.
        let tail = self.device_sectors / SECTORS_PER_BIT;
        let first_new = if self.is_set(tail) { tail + 1 } else { tail };
        new.change_bits(first_new, new.bits, |word, mask| word & !mask);
        new
    }

    fn mark_dirty(&mut self, page: usize) {
        self.dirty[page] = true;
        self.dirty_from = self.dirty_from.min(page);
    }

    /// The words of a page; none beyond the end.
    fn page_words(&self, page: u64) -> std::ops::Range<usize> {
        let first = (page as usize).saturating_mul(WORDS_PER_PAGE).min(self.words.len());
        first..self.words.len().min(first + WORDS_PER_PAGE)
    }

    /// A page as it belongs on disk, zero beyond the bitmap's end.
    pub fn page(&self, page: u64) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        for (out, word) in bytes.chunks_exact_mut(8).zip(&self.words[self.page_words(page)]) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Takes a page over from disk, in place of what is here. Bits beyond the device's end are ignored; bytes that
    /// are missing count as zero. The page then counts as written.
    pub fn load_page(&mut self, page: u64, bytes: &[u8]) {
        let mut chunks = bytes.chunks(8).map(word_of);
        for at in self.page_words(page) {
            let word = chunks.next().unwrap_or(0) & self.valid(at);
            self.replace(at, word);
        }
        if let Some(dirty) = self.dirty.get_mut(page as usize) {
            *dirty = false;
        }
    }

    /// The words from `from_word` on, as many as `max_bytes` take; empty at the end.
    pub fn words_bytes(&self, from_word: u64, max_bytes: usize) -> Vec<u8> {
        let from = (from_word.min(self.words())) as usize;
        self.words[from..].iter().take(max_bytes / 8).flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Marks what words from the peer mark, and says which word comes next. Bits beyond the device's end are
    /// ignored, words beyond the bitmap's end refused.
    pub fn or_words(&mut self, from_word: u64, bytes: &[u8]) -> Result<u64, Malformed> {
        let words = bytes.len() as u64 / 8;
        let next = from_word.saturating_add(words);
        if !bytes.len().is_multiple_of(8) || next > self.words() {
            let left = self.words().saturating_sub(from_word) * 8;
            return Err(Malformed::new(
                "P_BITMAP",
                "length",
                bytes.len(),
                format!("a multiple of 8, at most {left}"),
            ));
        }
        for (at, chunk) in (from_word as usize..).zip(bytes.chunks(8)) {
            self.or_word(at, word_of(chunk));
        }
        Ok(next)
    }
}

/// A word from at most 8 bytes.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
