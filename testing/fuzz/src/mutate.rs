//! Changes that decoders trip over.

use crate::random::Random;

/// Values at the edges of lengths, counts and signs.
const INTERESTING: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    511,
    512,
    4095,
    4096,
    4097,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Makes inputs from a corpus.
pub struct Mutator {
    random: Random,
    bytes_max: usize,
}

impl Mutator {
    /// The mutations of that seed; no input gets longer than `bytes_max`.
    pub fn new(seed: u64, bytes_max: usize) -> Self {
        Self { random: Random::new(seed), bytes_max }
    }

    /// Replaces `input` by a mutation of one of the `seeds`, or by noise if there is none.
    pub fn next(&mut self, seeds: &[&[u8]], input: &mut Vec<u8>) {
        input.clear();
        match self.random.pick(seeds) {
            Some(seed) => input.extend_from_slice(&seed[..seed.len().min(self.bytes_max)]),
            None => (0..self.random.below(64)).for_each(|_| input.push(0)),
        }
        for _ in 0..=self.random.below(6) {
            self.change(seeds, input);
        }
        input.truncate(self.bytes_max);
    }

    fn change(&mut self, seeds: &[&[u8]], input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        match self.random.below(8) {
            0 => self.flip_bit(input),
            1 => self.write_integer(input),
            2 => input.truncate(at),
            3 => {
                let count = 1 + self.random.below(16);
                let byte = self.random.next() as u8;
                drop(input.splice(at..at, std::iter::repeat_n(byte, count)));
            }
            4 => self.remove(input),
            5 => self.repeat(input),
            6 => self.splice(seeds, input),
            _ => self.nudge(input),
        }
    }

    fn flip_bit(&mut self, input: &mut [u8]) {
        let at = self.random.below(input.len());
        let bit = self.random.below(8);
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    /// An interesting value of 1, 2, 4 or 8 bytes in either byte order.
    fn write_integer(&mut self, input: &mut [u8]) {
        let value = self.random.pick(INTERESTING).copied().unwrap_or_default();
        let width = 1 << self.random.below(4);
        let Some(last) = input.len().checked_sub(width) else { return };
        let at = self.random.below(last + 1);
        let field = &mut input[at..at + width];
        if self.random.below(2) == 0 {
            field.copy_from_slice(&value.to_le_bytes()[..width]);
        } else {
            field.copy_from_slice(&value.to_be_bytes()[8 - width..]);
        }
    }

    fn remove(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len());
        let count = self.random.below(1 + (input.len() - at).min(64));
        input.drain(at..at + count);
    }

    fn repeat(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len());
        let count = self.random.below(1 + (input.len() - at).min(256));
        let piece = input[at..at + count].to_vec();
        let times = 1 + self.random.below(4);
        for _ in 0..times {
            drop(input.splice(at..at, piece.iter().copied()));
        }
    }

    /// The end of another seed behind the beginning of this input.
    fn splice(&mut self, seeds: &[&[u8]], input: &mut Vec<u8>) {
        let Some(other) = self.random.pick(seeds) else { return };
        input.truncate(self.random.below(input.len() + 1));
        let from = self.random.below(other.len() + 1);
        input.extend_from_slice(&other[from..][..(other.len() - from).min(self.bytes_max)]);
    }

    /// A byte a little larger or smaller.
    fn nudge(&mut self, input: &mut [u8]) {
        let at = self.random.below(input.len());
        let by = self.random.below(33) as u8;
        if let Some(byte) = input.get_mut(at) {
            *byte = byte.wrapping_add(by).wrapping_sub(16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mutator;

    #[test]
    fn the_same_seed_makes_the_same_inputs_within_the_limit() {
        let seeds: [&[u8]; 2] = [b"0123456789", &[0; 300]];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, 256);
            let mut input = Vec::new();
            (0..2000)
                .map(|_| {
                    mutator.next(&seeds, &mut input);
                    assert!(input.len() <= 256);
                    input.clone()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }
}
