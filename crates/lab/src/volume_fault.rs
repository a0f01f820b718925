//! Faults of volumes: `lockstep lab fault volume …`.
//!
//! A fault is part of the volume's record, so it outlives the store, the server and every attachment until it is
//! healed. The store does what it says ([`crate::store`]); only a flipped bit is on the medium itself.

mod command;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use command::{VolumeFaultCommand, run};

use crate::error::{Doing, Error, Result};
use crate::place::{Lab, LabLock};
use crate::random::SplitMix64;
use crate::state::{Records, Volume, VolumeKind};
use crate::store;

/// Faults that one volume may have at a time: each request looks at all of them.
pub const FAULTS_MAX: usize = 32;

/// The longest that `slow` may make a request take.
pub const SLOW_US_MAX: u64 = 600_000_000;

/// Bytes of a volume, the end not included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ByteRange {
    /// First byte.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// Requests fail with EIO.
    Error,
    /// Requests wait until the fault is healed or the server's power is cut.
    Hang,
    /// Requests take longer, each by itself.
    Slow {
        /// By so many microseconds.
        us: u64,
    },
    /// Writes to parts that hold no data yet fail with ENOSPC.
    Full,
    /// Writes fail with EROFS, which a loop device tells as EIO.
    ReadOnly,
    /// A bit of the medium is not what was written.
    Flip {
        /// Byte of the volume.
        at: u64,
        /// Which of its bits, 0 to 7.
        bit: u8,
        /// What the byte was before.
        was: u8,
    },
}

/// One fault of a volume.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct VolumeFault {
    /// What is wrong.
    #[serde(flatten)]
    pub kind: Kind,
    /// Whether reads meet it.
    pub reads: bool,
    /// Whether writes, discards and flushes meet it.
    pub writes: bool,
    /// Which part of the volume has it; none: all of it, and flushes too.
    pub range: Option<ByteRange>,
}

/// As people write it: 20, 0.2.
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl fmt::Display for VolumeFault {
    /// The words behind `fault volume NAME` that make it again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Error => f.write_str("error"),
            Kind::Hang => f.write_str("hang"),
            Kind::Slow { us } => write!(f, "slow {}", milliseconds(us)),
            Kind::Full => f.write_str("full"),
            Kind::ReadOnly => f.write_str("read-only"),
            Kind::Flip { at, bit, .. } => write!(f, "flip --at {at} --bit {bit}"),
        }?;
        if matches!(self.kind, Kind::Error | Kind::Hang | Kind::Slow { .. }) {
            match (self.reads, self.writes) {
                (true, false) => f.write_str(" --read")?,
                (false, true) => f.write_str(" --write")?,
                _ => {}
            }
        }
        self.range.map_or(Ok(()), |range| write!(f, " --range {}-{}", range.from, range.to))
    }
}

impl VolumeFault {
    /// What it means for the volume of this name, in a sentence.
    pub fn meaning(&self, volume: &str) -> String {
        let requests = match (self.reads, self.writes) {
            (true, false) => "reads",
            (false, true) => "writes",
            _ => "requests",
        };
        let place = self.range.map_or_else(
            || volume.to_owned(),
            |range| format!("bytes {} to {} of {volume}", range.from, range.to),
        );
        match self.kind {
            Kind::Error => format!("{requests} of {place} fail"),
            Kind::Hang => format!("{requests} of {place} wait"),
            Kind::Slow { us } => format!("{requests} of {place} take {} ms longer", milliseconds(us)),
            Kind::Full => format!("what would fill {place} fails for want of space"),
            Kind::ReadOnly => format!("writes of {place} fail"),
            Kind::Flip { at, bit, .. } => format!("bit {bit} of byte {at} of {volume} is flipped"),
        }
    }
}

/// Adds a fault to a volume.
///
/// # Errors
/// A volume of type raw, too many faults, or what the store says; then the volume is as before.
pub fn add(lab: &Lab, lock: &LabLock, records: &mut Records, volume: Uuid, fault: VolumeFault) -> Result<()> {
    let record = record(records, volume)?;
    refuse_raw(record)?;
    if record.faults.len() >= FAULTS_MAX {
        return Err(Error::refused(format!(
            "fault volume: volume {} has {FAULTS_MAX} faults, the most there may be; heal some",
            record.called()
        )));
    }
    record.faults.push(fault);
    apply(lab, lock, records, volume)
}

/// Undoes the faults of one volume, or of all, and gives how many there were. A flipped bit is put back unless its
/// byte was written since.
///
/// # Errors
/// What the store or a volume's file says.
pub fn heal(lab: &Lab, lock: &LabLock, records: &mut Records, only: Option<Uuid>) -> Result<usize> {
    let chosen: Vec<Volume> = (records.volumes.iter())
        .filter(|volume| !volume.faults.is_empty() && only.is_none_or(|only| only == volume.id))
        .cloned()
        .collect();
    let mut healed = 0;
    for volume in chosen {
        for fault in volume.faults.iter().rev() {
            if let Kind::Flip { at, bit, was } = fault.kind {
                store::exchange_byte(lab, volume.id, at, was ^ (1 << bit), was)?;
            }
            healed += 1;
        }
        record(records, volume.id)?.faults.clear();
        apply(lab, lock, records, volume.id)?;
    }
    Ok(healed)
}

fn record(records: &mut Records, volume: Uuid) -> Result<&mut Volume> {
    let found = records.volumes.iter_mut().find(|record| record.id == volume);
    found.ok_or_else(|| Error::refused(format!("fault volume: volume {volume} is gone")))
}

fn refuse_raw(volume: &Volume) -> Result<()> {
    if volume.kind != VolumeKind::Raw {
        return Ok(());
    }
    Err(Error::refused(format!(
        "fault volume: volume {} is of type raw: its loop device is on the file itself, and nobody is in between to \
         break it; use a volume of type SATA, SSD or volatile",
        volume.called()
    )))
}

/// Records first: a store that starts now reads them.
fn apply(lab: &Lab, lock: &LabLock, records: &Records, volume: Uuid) -> Result<()> {
    records.save(lab, lock)?;
    store::read_faults(lab, volume)
}

/// A place for a bit to flip, chosen by `seed`: where the volume holds data, if it holds any in `range`.
fn choose(lab: &Lab, volume: &Volume, range: Option<ByteRange>, seed: u64) -> Result<(u64, u8)> {
    let path = lab.volume_file(volume.id);
    let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
    let whole = ByteRange { from: 0, to: volume.size_gib << 30 };
    let range = range.unwrap_or(whole);
    let mut parts = data(&file, range);
    if parts.is_empty() {
        parts.push(range);
    }
    let total: u64 = parts.iter().map(|part| part.to - part.from).sum();
    // Two numbers of one seed: the generator's first and second.
    let mut random = SplitMix64(seed);
    let mut offset = random.bits() % total.max(1);
    for part in parts {
        let length = part.to - part.from;
        if offset < length {
            return Ok((part.from + offset, (random.bits() % 8) as u8));
        }
        offset -= length;
    }
    Ok((range.from, 0))
}

/// The parts of a sparse file that hold data.
fn data(file: &File, range: ByteRange) -> Vec<ByteRange> {
    let mut parts = Vec::new();
    let mut at = range.from;
    while let Ok(from) = seek(file, SeekFrom::Data(at))
        && from < range.to
    {
        let to = seek(file, SeekFrom::Hole(from)).unwrap_or(range.to).min(range.to);
        if to <= from {
            break;
        }
        parts.push(ByteRange { from, to });
        at = to;
    }
    parts
}

/// Flips a bit of the volume, and gives what the byte was.
fn flip(lab: &Lab, volume: Uuid, at: u64, bit: u8) -> Result<u8> {
    let path = lab.volume_file(volume);
    let mut byte = [0];
    let file = OpenOptions::new().read(true).open(&path).doing(|| format!("open {}", path.display()))?;
    loop {
        file.read_exact_at(&mut byte, at).doing(|| format!("read {} at {at}", path.display()))?;
        // Somebody may write it at this moment: then what it was is to be asked again.
        if store::exchange_byte(lab, volume, at, byte[0], byte[0] ^ (1 << bit))? {
            return Ok(byte[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{ByteRange, Kind, VolumeFault, data};

    #[test]
    fn words_make_it_again() {
        let range = Some(ByteRange { from: 4096, to: 8192 });
        let slow = VolumeFault { kind: Kind::Slow { us: 20_200 }, reads: false, writes: true, range };
        assert_eq!(slow.to_string(), "slow 20.2 --write --range 4096-8192");
        let json =
            r#"{"kind":"slow","us":20200,"reads":false,"writes":true,"range":{"from":4096,"to":8192}}"#;
        assert_eq!(serde_json::to_string(&slow).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<VolumeFault>(json).expect("its own"), slow);
        let full = VolumeFault { kind: Kind::Full, reads: false, writes: true, range: None };
        assert_eq!(full.to_string(), "full");
    }

    #[test]
    fn a_bit_flips_where_data_is() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 24).expect("16 MiB");
        file.write_all_at(&[1; 8192], 1 << 20).expect("write");
        let found = data(&file, ByteRange { from: 0, to: 1 << 24 });
        // A file system without holes has one part: the whole.
        assert!(found.iter().any(|part| part.from <= 1 << 20 && part.to >= (1 << 20) + 8192), "{found:?}");
        let half = data(&file, ByteRange { from: (1 << 20) + 4096, to: 1 << 24 });
        assert!(half.first().is_some_and(|part| part.from == (1 << 20) + 4096), "{half:?}");
    }
}
