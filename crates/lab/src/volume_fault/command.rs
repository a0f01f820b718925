//! The command line of `lockstep lab fault volume`.

use clap::{Args, Subcommand};

use super::{ByteRange, FAULTS_MAX, Kind, SLOW_US_MAX, VolumeFault, add, choose, flip, heal, refuse_raw};
use crate::error::{Error, Result};
use crate::events;
use crate::place::Lab;
use crate::state::{Records, Volume};

/// A volume and what becomes of it.
#[derive(Clone, Debug, Args)]
pub struct VolumeFaultCommand {
    /// Id or name of the volume; it may be attached or not
    volume: String,
    #[command(subcommand)]
    what: What,
}

impl VolumeFaultCommand {
    /// Whether the lab knows the volume.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, records: &Records) -> Result<()> {
        records.volume("fault volume", &self.volume).map(drop)
    }
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Requests fail (EIO)
    Error(Requests),
    /// Requests wait until this is healed, or the server's power is cut
    Hang(Requests),
    /// Each request takes so many milliseconds longer, beside the others
    Slow {
        /// How many; 0.2 is 200 microseconds
        #[arg(value_name = "MS", value_parser = milliseconds)]
        us: u64,
        #[command(flatten)]
        requests: Requests,
    },
    /// Writes to parts that hold no data yet fail (ENOSPC), as on a thin volume whose pool is exhausted
    Full(Place),
    /// Writes fail (EROFS, which the server sees as EIO), as on a disk that protects itself
    ReadOnly(Place),
    /// One bit on the medium changes, and nobody says so. Writing the byte puts it right
    Flip {
        /// The byte; without it the seed chooses one where the volume holds data
        #[arg(long, value_name = "BYTE", value_parser = bytes)]
        at: Option<u64>,
        /// The bit, 0 to 7; without it the seed chooses
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..8))]
        bit: Option<u8>,
        /// Chooses; without it the volume's own, and another at each flip
        #[arg(long)]
        seed: Option<u64>,
        #[command(flatten)]
        place: Place,
    },
    /// Undo all faults of this volume
    Heal,
}

#[derive(Clone, Debug, Args)]
struct Requests {
    /// Reads only
    #[arg(long)]
    read: bool,
    /// Writes, discards and flushes only
    #[arg(long, conflicts_with = "read")]
    write: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Debug, Args)]
struct Place {
    /// Only where a request touches these bytes (TO not included), such as 0-4K or 1M-1G
    #[arg(long, value_name = "FROM-TO", value_parser = range)]
    range: Option<ByteRange>,
}

/// A number of bytes, with K, M, G or T for powers of 1024.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    let shift = match text.bytes().last() {
        Some(b'K' | b'k') => 10,
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        Some(b'T' | b't') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let number: Option<u64> = digits.parse().ok();
    let scaled = number.and_then(|number| number.checked_mul(1 << shift));
    scaled.ok_or_else(|| format!("{text:?} is no number of bytes; write 4096, 4K, 1M or 2G"))
}

/// Milliseconds as microseconds.
fn milliseconds(text: &str) -> std::result::Result<u64, String> {
    let parsed: Option<f64> = text.parse().ok();
    let us = parsed.map(|ms| (ms * 1000.0).round()).filter(|us| (1.0..=SLOW_US_MAX as f64).contains(us));
    us.map(|us| us as u64).ok_or_else(|| format!("milliseconds are 0.001 to {}", SLOW_US_MAX / 1000))
}

fn range(text: &str) -> std::result::Result<ByteRange, String> {
    let (from, to) = text.split_once('-').ok_or_else(|| format!("{text:?}: write FROM-TO, such as 0-4K"))?;
    let range = ByteRange { from: bytes(from)?, to: bytes(to)? };
    if range.from < range.to { Ok(range) } else { Err(format!("{text:?} is empty: TO is not included")) }
}

/// Does it.
///
/// # Errors
/// What was refused; then nothing has changed.
pub fn run(lab: &Lab, command: &VolumeFaultCommand) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let volume = records.volume("fault volume", &command.volume)?.clone();
    let name = volume.called();
    if matches!(command.what, What::Heal) {
        heal(lab, &lock, &mut records, Some(volume.id))?;
        events::append(lab, events::Kind::Heal, &["volume", &name, "heal"])?;
    } else {
        let fault = fault(lab, &volume, &command.what)?;
        if let Err(error) = add(lab, &lock, &mut records, volume.id, fault) {
            // No partial change: a bit that is flipped and not recorded could never be healed.
            heal_flip(lab, &volume, fault)?;
            return Err(error);
        }
        let fault = fault.to_string();
        let words: Vec<&str> = ["volume", &name].into_iter().chain(fault.split(' ')).collect();
        events::append(lab, events::Kind::Fault, &words)?;
    }
    Ok(())
}

fn heal_flip(lab: &Lab, volume: &Volume, fault: VolumeFault) -> Result<()> {
    match fault.kind {
        Kind::Flip { at, bit, was } => {
            crate::store::exchange_byte(lab, volume.id, at, was ^ (1 << bit), was).map(drop)
        }
        _ => Ok(()),
    }
}

/// The fault that was ordered. A bit is flipped by this.
fn fault(lab: &Lab, volume: &Volume, what: &What) -> Result<VolumeFault> {
    let size = volume.size_gib << 30;
    let refused = |mistake: String| Err(Error::refused(format!("fault volume: {mistake}")));
    let (kind, requests, range) = match what {
        What::Error(requests) => (Kind::Error, Some(requests), requests.place.range),
        What::Hang(requests) => (Kind::Hang, Some(requests), requests.place.range),
        What::Slow { us, requests } => (Kind::Slow { us: *us }, Some(requests), requests.place.range),
        What::Full(place) => (Kind::Full, None, place.range),
        What::ReadOnly(place) => (Kind::ReadOnly, None, place.range),
        What::Flip { place, .. } => (Kind::Flip { at: 0, bit: 0, was: 0 }, None, place.range),
        What::Heal => return refused("heal is no fault".into()),
    };
    if let Some(range) = range.filter(|range| range.to > size) {
        return refused(format!(
            "range {}-{} is beyond volume {}, which has {size} bytes",
            range.from,
            range.to,
            volume.called()
        ));
    }
    let reads = requests.is_some_and(|requests| !requests.write);
    let writes = requests.is_none_or(|requests| !requests.read);
    let What::Flip { at, bit, seed, .. } = what else {
        return Ok(VolumeFault { kind, reads, writes, range });
    };
    refuse_raw(volume)?;
    if volume.faults.len() >= FAULTS_MAX {
        return refused(format!("volume {} has {FAULTS_MAX} faults, the most there may be", volume.called()));
    }
    let seed = seed.unwrap_or_else(|| volume.seed.wrapping_add(volume.faults.len() as u64));
    let (chosen_at, chosen_bit) = choose(lab, volume, range, seed)?;
    let (at, bit) = (at.unwrap_or(chosen_at), bit.unwrap_or(chosen_bit));
    if at >= size {
        return refused(format!("byte {at} is beyond volume {}, which has {size} bytes", volume.called()));
    }
    let was = flip(lab, volume.id, at, bit)?;
    Ok(VolumeFault { kind: Kind::Flip { at, bit, was }, reads: true, writes: false, range: None })
}

#[cfg(test)]
mod tests {
    use super::{ByteRange, bytes, range};

    #[test]
    fn ranges_in_bytes() {
        assert_eq!(range("0-4K"), Ok(ByteRange { from: 0, to: 4096 }));
        assert_eq!(range("512-2g"), Ok(ByteRange { from: 512, to: 2 << 30 }));
        for wrong in ["4K", "4K-4K", "-", "1-", "a-b", "0-99999999T", "8-4"] {
            assert!(range(wrong).is_err(), "{wrong} was taken");
        }
        assert!(bytes("").is_err() && bytes("K").is_err() && bytes("1é").is_err());
    }
}
