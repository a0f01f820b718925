//! Run lengths of clear and set bits in a code of variable length: the content of `P_COMPRESSED_BITMAP`.
//!
//! Upstream: `drbd_vli.h`, `fill_bitmap_rle_bits`, `recv_bm_rle_bits`. A run of n bits is written as the prefix of
//! the shortest level that reaches n, then n less the first value of that level; lowest bit first, over all bytes:
//!
//! ```text
//! level  bits  prefix (read from the lowest bit)   runs
//!   0      2   0                                   1 to 2
//!   1      3   10                                  3 to 4
//!   2      5   110                                 5 to 8
//!   3      7   1110                                9 to 16
//!   4     10   11110                               17 to 48
//!   5     14   111110                              49 to 304
//!   6     21   11111100                            305 to 8496
//!   7     29   11111110                            8497 to 2105648
//!   8     42   11111101                            2105649 to 17181974832
//!   9     64   11111111                            up to 2^56 more
//! ```

use super::Bitmap;
use crate::Malformed;

/// `RLE_VLI_Bits`: the only code there is.
const RLE_VLI_BITS: u8 = 2;

/// Bit 7 of the encoding byte: the first run is one of set bits.
const FIRST_RUN_IS_SET: u8 = 0x80;

struct Level {
    bits: u32,
    prefix_bits: u32,
    prefix: u64,
}

const fn level(bits: u32, prefix_bits: u32, prefix: u64) -> Level {
    Level { bits, prefix_bits, prefix }
}

const LEVELS: [Level; 10] = [
    level(2, 1, 0x00),
    level(3, 2, 0x01),
    level(5, 3, 0x03),
    level(7, 4, 0x07),
    level(10, 5, 0x0f),
    level(14, 6, 0x1f),
    level(21, 8, 0x3f),
    level(29, 8, 0x7f),
    level(42, 8, 0xbf),
    level(64, 8, 0xff),
];

/// `struct p_compressed_bm`, and how far it reaches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunLengthCode {
    /// Code in bits 0 to 3, number of pad bits in 4 to 6, polarity of the first run in 7.
    pub encoding: u8,
    /// The bit stream.
    pub code: Vec<u8>,
    /// The bit after the last one that the code describes.
    pub next_bit: u64,
}

/// The code of a run and its length in bits; `None` for runs longer than any bitmap.
fn encode_run(run: u64) -> Option<(u64, u32)> {
    let mut first = 1;
    for level in &LEVELS {
        let reach = 1u64 << (level.bits - level.prefix_bits);
        if run - first < reach {
            return Some(((run - first) << level.prefix_bits | level.prefix, level.bits));
        }
        first += reach;
    }
    None
}

/// The run at the beginning of a stream and the length of its code in bits.
fn decode_run(stream: u64) -> (u64, u32) {
    let mut first = 1;
    for level in &LEVELS[..LEVELS.len() - 1] {
        if stream & ((1 << level.prefix_bits) - 1) == level.prefix {
            let value = stream & (!0 >> (64 - level.bits));
            return ((value >> level.prefix_bits) + first, level.bits);
        }
        first += 1 << (level.bits - level.prefix_bits);
    }
    // The prefixes are complete: what is none of the others is the last one.
    let last = &LEVELS[LEVELS.len() - 1];
    ((stream >> last.prefix_bits) + first, last.bits)
}

struct Writer {
    code: Vec<u8>,
    bits: usize,
    max_bytes: usize,
}

impl Writer {
    /// Appends the low `bits` of `value`, or nothing if they do not fit.
    fn put(&mut self, value: u64, bits: u32) -> bool {
        let end = self.bits + bits as usize;
        if end.div_ceil(8) > self.max_bytes {
            return false;
        }
        self.code.resize(end.div_ceil(8), 0);
        let shifted = (u128::from(value) << (self.bits % 8)).to_le_bytes();
        for (out, byte) in self.code[self.bits / 8..].iter_mut().zip(shifted) {
            *out |= byte;
        }
        self.bits = end;
        true
    }
}

/// The next 64 bits from `at` on, zero beyond `end`.
fn peek(code: &[u8], at: usize, end: usize) -> u64 {
    let mut window = [0; 16];
    let from = &code[(at / 8).min(code.len())..];
    let bytes = from.len().min(9);
    window[..bytes].copy_from_slice(&from[..bytes]);
    let stream = (u128::from_le_bytes(window) >> (at % 8)) as u64;
    match end.saturating_sub(at) {
        0 => 0,
        left @ 1..64 => stream & (!0 >> (64 - left)),
        _ => stream,
    }
}

impl Bitmap {
    /// Encodes as many runs from `from_bit` on as `max_code_bytes` take. `None` if the code would be longer than
    /// the bits themselves, or if there are none left: then plain words must go.
    pub fn encode_runs(&self, from_bit: u64, max_code_bytes: usize) -> Option<RunLengthCode> {
        if from_bit >= self.bits() {
            return None;
        }
        let starts_set = self.is_set(from_bit);
        let mut writer = Writer { code: Vec::new(), bits: 0, max_bytes: max_code_bytes };
        let (mut bit, mut in_set) = (from_bit, starts_set);
        while bit < self.bits() {
            let end = if in_set { self.next_clear(bit) } else { self.next_set(bit) }.unwrap_or(self.bits());
            let (code, bits) = encode_run(end - bit)?;
            if !writer.put(code, bits) {
                break;
            }
            bit = end;
            in_set = !in_set;
        }
        if bit - from_bit < writer.code.len() as u64 * 8 {
            return None;
        }
        let pad_bits = (writer.code.len() * 8 - writer.bits) as u8;
        let polarity = if starts_set { FIRST_RUN_IS_SET } else { 0 };
        Some(RunLengthCode {
            encoding: RLE_VLI_BITS | pad_bits << 4 | polarity,
            code: writer.code,
            next_bit: bit,
        })
    }

    /// Marks what a code from the peer marks from `from_bit` on, and says which bit comes next. Nothing is marked
    /// beyond the end, and at most the runs before an error are.
    pub fn or_runs(&mut self, from_bit: u64, encoding: u8, code: &[u8]) -> Result<u64, Malformed> {
        let place = "P_COMPRESSED_BITMAP";
        if encoding & 0x0f != RLE_VLI_BITS {
            return Err(Malformed::new(place, "encoding", encoding & 0x0f, RLE_VLI_BITS));
        }
        let pad_bits = usize::from(encoding >> 4 & 7);
        let end = (code.len() * 8).saturating_sub(pad_bits);
        let mut in_set = encoding & FIRST_RUN_IS_SET != 0;
        let (mut bit, mut at) = (from_bit, 0);
        while at < end {
            let (run, bits) = decode_run(peek(code, at, end));
            at += bits as usize;
            if at > end {
                return Err(Malformed::new(place, "code", format!("{end} bits"), format!("at least {at}")));
            }
            let Some(next) = bit.checked_add(run).filter(|&next| next <= self.bits()) else {
                let found = format!("{run} from bit {bit} on");
                return Err(Malformed::new(place, "run", found, format!("none beyond bit {}", self.bits())));
            };
            if in_set {
                self.set_bits(bit, next);
            }
            bit = next;
            in_set = !in_set;
        }
        Ok(bit)
    }
}
