//! The three headers.
//!
//! ```text
//! H80   | 83740267 | command u16 | length u16 |
//! H95   | 835a | command u16 | length u32     |
//! H100  | 8620ec20 | volume u16 | command u16 | length u32 | 0 u32 |
//! ```

use super::{Agreed, Command, DIGEST_BYTES_MAX};
use crate::Malformed;

/// Length of `struct p_header80` and `struct p_header95`.
pub const H80_BYTES: usize = 8;

/// Length of `struct p_header100`.
pub const H100_BYTES: usize = 16;

/// `DRBD_MAGIC`.
const MAGIC_80: [u8; 4] = [0x83, 0x74, 0x02, 0x67];
/// `DRBD_MAGIC_BIG`.
const MAGIC_95: [u8; 2] = [0x83, 0x5a];
/// `DRBD_MAGIC_100`.
const MAGIC_100: [u8; 4] = [0x86, 0x20, 0xec, 0x20];

/// `DRBD_MAX_SIZE_H80_PACKET`: protocols 95 to 99 use the newer form above it.
const H80_LENGTH_LIMIT: u32 = 1 << 15;

/// Which of the three.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeaderForm {
    /// `struct p_header80`.
    H80,
    /// `struct p_header95`.
    H95,
    /// `struct p_header100`.
    H100,
}

impl HeaderForm {
    /// The form upstream sends for a packet of `length` bytes after the header (`prepare_header`).
    pub fn of(command: Command, length: u32, agreed: &Agreed) -> Self {
        if command.precedes_agreement() {
            Self::H80
        } else if agreed.protocol >= 100 {
            Self::H100
        } else if agreed.protocol >= 95 && length > H80_LENGTH_LIMIT {
            Self::H95
        } else {
            Self::H80
        }
    }

    /// Length of a header of this form.
    pub const fn bytes(self) -> usize {
        match self {
            Self::H80 | Self::H95 => H80_BYTES,
            Self::H100 => H100_BYTES,
        }
    }
}

/// What every packet starts with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The device; 0 in forms that have no such field.
    pub volume: u16,
    /// What follows.
    pub command: Command,
    /// Bytes of body and payload.
    pub length: u32,
}

impl Header {
    /// Appends the header in a form.
    ///
    /// # Panics
    /// If the length does not fit the form: the sender split its requests by another limit than
    /// [`Agreed::bio_bytes_max`].
    pub fn encode_into(&self, form: HeaderForm, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + form.bytes(), 0);
        self.write(form, &mut out[at..]);
    }

    pub(super) fn write(&self, form: HeaderForm, at: &mut [u8]) {
        let command = self.command.0.to_be_bytes();
        match form {
            HeaderForm::H80 => {
                assert!(
                    self.length <= H80_LENGTH_LIMIT + (H80_BYTES + 24 + DIGEST_BYTES_MAX) as u32,
                    "{} of {} bytes in a header for 32 KiB",
                    self.command,
                    self.length
                );
                at[..4].copy_from_slice(&MAGIC_80);
                at[4..6].copy_from_slice(&command);
                at[6..8].copy_from_slice(&(self.length as u16).to_be_bytes());
            }
            HeaderForm::H95 => {
                at[..2].copy_from_slice(&MAGIC_95);
                at[2..4].copy_from_slice(&command);
                at[4..8].copy_from_slice(&self.length.to_be_bytes());
            }
            HeaderForm::H100 => {
                at[..4].copy_from_slice(&MAGIC_100);
                at[4..6].copy_from_slice(&self.volume.to_be_bytes());
                at[6..8].copy_from_slice(&command);
                at[8..12].copy_from_slice(&self.length.to_be_bytes());
                at[12..16].fill(0);
            }
        }
    }

    /// Reads a header, recognised by its magic, and says how long it was. `None`: more bytes are needed; what
    /// cannot become a header is refused as soon as that is certain.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let form = if begins(bytes, &MAGIC_100) {
            HeaderForm::H100
        } else if begins(bytes, &MAGIC_80) {
            HeaderForm::H80
        } else if begins(bytes, &MAGIC_95) {
            HeaderForm::H95
        } else {
            let found = format!("{:02x?}", &bytes[..bytes.len().min(4)]);
            return Err(Malformed::new("packet header", "magic", found, "83740267, 835a or 8620ec20"));
        };
        let Some(b) = bytes.get(..form.bytes()) else {
            return Ok(None);
        };
        let (volume, command, length) = match form {
            HeaderForm::H80 => (0, short(b, 4), u32::from(short(b, 6))),
            HeaderForm::H95 => (0, short(b, 2), long(b, 4)),
            HeaderForm::H100 => (short(b, 4), short(b, 6), long(b, 8)),
        };
        if form == HeaderForm::H100 && long(b, 12) != 0 {
            return Err(Malformed::new("packet header", "pad", long(b, 12), 0));
        }
        Ok(Some((Self { volume, command: Command(command), length }, form.bytes())))
    }
}

/// Whether the two agree as far as there are bytes.
fn begins(bytes: &[u8], magic: &[u8]) -> bool {
    let known = bytes.len().min(magic.len());
    bytes[..known] == magic[..known]
}

fn short(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn long(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
