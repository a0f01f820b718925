//! A writer of pcapng, with one interface a file (draft-ietf-opsawg-pcapng; the numbers are its own).

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Tells a reader the order of bytes; this writer's is little-endian on every machine.
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

/// `if_tsresol`: units of 10^-9 s.
const NANOSECONDS: u8 = 9;

/// `shb_userappl`, and the other options by their own names.
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_USRDELIV: u16 = 8;

/// Which way a frame went, as the interface's owner sees it (the low bits of `epb_flags`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To the owner.
    Inbound,
    /// From the owner.
    Outbound,
}

impl Direction {
    fn flags(self) -> u32 {
        match self {
            Self::Inbound => 1,
            Self::Outbound => 2,
        }
    }
}

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Nanoseconds since 1970.
    pub at_unix_ns: u64,
    /// Which way.
    pub direction: Direction,
    /// Its length in bytes before it was cut to `bytes`.
    pub wire_bytes: u32,
    /// From the Ethernet header on.
    pub bytes: &'a [u8],
}

/// What one interface is called in the file.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// `if_name`.
    pub name: &'a str,
    /// `if_description`.
    pub description: &'a str,
    /// The longest frame that is kept whole, in bytes.
    pub frame_bytes_max: u32,
}

/// A capture of one interface.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
    written_bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(out: W, program: &str, interface: &Interface<'_>) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::new(), written_bytes: 0 };
        writer.block(SECTION_HEADER, |body| {
            body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
            // Version 1.0, and a section whose length is not known in advance.
            body.extend([1, 0, 0, 0]);
            body.extend(u64::MAX.to_le_bytes());
            option(body, SHB_USERAPPL, program.as_bytes());
            end_of_options(body);
        })?;
        writer.block(INTERFACE_DESCRIPTION, |body| {
            body.extend(ETHERNET.to_le_bytes());
            body.extend([0, 0]);
            body.extend(interface.frame_bytes_max.to_le_bytes());
            option(body, IF_NAME, interface.name.as_bytes());
            option(body, IF_DESCRIPTION, interface.description.as_bytes());
            option(body, IF_TSRESOL, &[NANOSECONDS]);
            end_of_options(body);
        })?;
        Ok(writer)
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// The writer's.
    pub fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        self.block(ENHANCED_PACKET, |body| {
            body.extend([0; 4]);
            timestamp(body, frame.at_unix_ns);
            body.extend((frame.bytes.len() as u32).to_le_bytes());
            body.extend(frame.wire_bytes.to_le_bytes());
            padded(body, frame.bytes);
            option(body, EPB_FLAGS, &frame.direction.flags().to_le_bytes());
            end_of_options(body);
        })
    }

    /// Closes the file with when it began and ended and how many frames it has.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(&mut self, begin_unix_ns: u64, end_unix_ns: u64, frames: u64) -> io::Result<()> {
        self.block(INTERFACE_STATISTICS, |body| {
            body.extend([0; 4]);
            timestamp(body, end_unix_ns);
            for (code, at) in [(ISB_STARTTIME, begin_unix_ns), (ISB_ENDTIME, end_unix_ns)] {
                let mut value = Vec::new();
                timestamp(&mut value, at);
                option(body, code, &value);
            }
            option(body, ISB_USRDELIV, &frames.to_le_bytes());
            end_of_options(body);
        })?;
        self.flush()
    }

    /// Hands what was written so far to the file: whole blocks, which a reader can use.
    ///
    /// # Errors
    /// The writer's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Bytes of the file so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// A block: its type and length before, the length again behind.
    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.block.clear();
        self.block.extend(kind.to_le_bytes());
        self.block.extend([0; 4]);
        fill(&mut self.block);
        let length = (self.block.len() as u32 + 4).to_le_bytes();
        self.block[4..8].copy_from_slice(&length);
        self.block.extend(length);
        self.written_bytes += self.block.len() as u64;
        self.out.write_all(&self.block)
    }
}

/// The two halves of a time, the high one first.
fn timestamp(body: &mut Vec<u8>, at_unix_ns: u64) {
    body.extend(((at_unix_ns >> 32) as u32).to_le_bytes());
    body.extend((at_unix_ns as u32).to_le_bytes());
}

/// Bytes, and zeroes up to a multiple of four.
fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A name that is too long for the field is cut, not wrapped around.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

#[cfg(test)]
mod tests {
    use super::{Direction, Frame, Interface, Writer};

    /// Block types with their bodies; fails on anything that is not a sequence of whole blocks.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |at: &[u8]| u32::from_le_bytes(at[..4].try_into().expect("four bytes"));
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let (kind, length) = (word(file), word(&file[4..]) as usize);
            assert_eq!(length % 4, 0, "blocks are multiples of four bytes");
            assert_eq!(word(&file[length - 4..]) as usize, length, "the length stands at both ends");
            blocks.push((kind, file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn blocks_are_whole_and_in_order() {
        let interface = Interface { name: "drbd0:eth0", description: "storage", frame_bytes_max: 2048 };
        let mut writer = Writer::new(Vec::new(), "lockstep 1", &interface).expect("a Vec takes all");
        let at_unix_ns = 0x0123_4567_89AB_CDEF;
        for (direction, bytes) in
            [(Direction::Outbound, &b"12345"[..]), (Direction::Inbound, &b"12345678"[..])]
        {
            writer.frame(&Frame { at_unix_ns, direction, wire_bytes: 9, bytes }).expect("a Vec takes all");
        }
        writer.finish(at_unix_ns, at_unix_ns + 1, 2).expect("a Vec takes all");
        let blocks = blocks(&writer.out);
        assert_eq!(writer.written_bytes(), writer.out.len() as u64);
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [0x0A0D_0D0A, 1, 6, 6, 5]);
        assert_eq!(blocks[0].1[..4], [0x4D, 0x3C, 0x2B, 0x1A]);
        let expected = [
            &[0, 0, 0, 0][..],
            &[0x67, 0x45, 0x23, 0x01, 0xEF, 0xCD, 0xAB, 0x89],
            &[5, 0, 0, 0, 9, 0, 0, 0],
            b"12345\0\0\0",
            &[2, 0, 4, 0, 2, 0, 0, 0],
            &[0, 0, 0, 0],
        ];
        assert_eq!(blocks[2].1, expected.concat());
    }
}
