//! The content of a disk, sector by sector: a stamp where a front's data are, bytes where they are something else.
//!
//! A disk of stamps is a thirtieth of its bytes: it stays in the processor's cache, and a write is copied to it once.

use std::rc::Rc;

use crate::stamp::{self, SECTOR};

/// What one sector holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sector {
    /// What [`stamp::fill`] writes there.
    Stamp(u64),
    /// Anything else: meta-data.
    Bytes(Rc<[u8; SECTOR]>),
}

impl Sector {
    /// The content of this sector.
    fn of(bytes: &[u8; SECTOR], sector: u64) -> Self {
        stamp::of(bytes, sector).map_or_else(|| Self::Bytes(Rc::new(*bytes)), Self::Stamp)
    }

    /// Whose content it is; none if nobody's.
    pub fn stamp(&self) -> Option<u64> {
        match self {
            Self::Stamp(stamp) => Some(*stamp),
            Self::Bytes(_) => None,
        }
    }

    /// A number that stands for the content.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Stamp(stamp) => *stamp,
            Self::Bytes(bytes) => bytes.as_chunks().0.iter().fold(1, |hash: u64, word| {
                (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3)
            }),
        }
    }
}

/// What is written somewhere.
#[derive(Debug)]
pub enum Content {
    /// So many sectors of one stamp.
    Run(u64, usize),
    /// Each its own.
    Sectors(Vec<Sector>),
}

impl Content {
    /// Bytes for the sectors from `first_sector` on.
    pub fn of(bytes: &[u8], first_sector: u64) -> Self {
        let (sectors, rest) = bytes.as_chunks();
        assert!(rest.is_empty(), "whole sectors are written, not {} bytes", bytes.len());
        let mut numbered = (first_sector..).zip(sectors);
        let first = sectors.first().and_then(|bytes| stamp::of(bytes, first_sector));
        match first {
            Some(first) if numbered.all(|(sector, bytes)| stamp::of(bytes, sector) == Some(first)) => {
                Self::Run(first, sectors.len())
            }
            _ => Self::Sectors(
                (first_sector..).zip(sectors).map(|(sector, bytes)| Sector::of(bytes, sector)).collect(),
            ),
        }
    }

    /// Number of sectors.
    pub fn len(&self) -> usize {
        match self {
            Self::Run(_, len) => *len,
            Self::Sectors(sectors) => sectors.len(),
        }
    }

    /// One of them.
    pub fn sector(&self, index: usize) -> Sector {
        match self {
            Self::Run(stamp, _) => Sector::Stamp(*stamp),
            Self::Sectors(sectors) => sectors[index].clone(),
        }
    }
}

/// All sectors of a disk.
#[derive(Clone, Debug)]
pub struct Image(Vec<Sector>);

impl Image {
    /// So many zero bytes.
    pub fn new(bytes: usize) -> Self {
        Self(vec![Sector::Stamp(0); bytes / SECTOR])
    }

    /// The sectors, in their order.
    pub fn sectors(&self) -> &[Sector] {
        &self.0
    }

    /// Fills `bytes` from a byte offset on.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let first = offset as usize / SECTOR;
        for (number, to) in (first..).zip(bytes.chunks_exact_mut(SECTOR)) {
            match &self.0[number] {
                Sector::Stamp(stamp) => stamp::fill(to, *stamp, number as u64),
                Sector::Bytes(bytes) => to.copy_from_slice(&bytes[..]),
            }
        }
    }

    /// Replaces the sectors from `first` on.
    pub fn write(&mut self, first: usize, content: &Content) {
        let target = &mut self.0[first..first + content.len()];
        match content {
            Content::Run(stamp, _) => target.fill(Sector::Stamp(*stamp)),
            Content::Sectors(sectors) => target.clone_from_slice(sectors),
        }
    }

    /// Replaces one sector.
    pub fn write_sector(&mut self, number: usize, sector: Sector) {
        self.0[number] = sector;
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Image, SECTOR, stamp};

    /// Whatever is written is read: stamps, zeroes, mixtures and stamps of another place.
    #[test]
    fn an_image_returns_what_was_written() {
        let mut bytes = vec![0; 6 * SECTOR];
        stamp::fill(&mut bytes[..2 * SECTOR], 7, 3);
        stamp::fill(&mut bytes[3 * SECTOR..4 * SECTOR], 7, 3);
        stamp::fill(&mut bytes[4 * SECTOR..], 8, 7);
        bytes[5 * SECTOR + 77] ^= 1;
        for range in [0..6, 0..2, 2..3, 3..4, 4..6] {
            let bytes = &bytes[range.start * SECTOR..range.end * SECTOR];
            let mut image = Image::new(16 * SECTOR);
            let first = 3 + range.start;
            image.write(first, &Content::of(bytes, first as u64));
            let mut found = vec![1; bytes.len()];
            image.read((first * SECTOR) as u64, &mut found);
            assert!(found == bytes, "sectors {range:?}");
        }
    }
}
