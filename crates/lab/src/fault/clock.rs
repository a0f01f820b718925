//! Clocks that jump.

use crate::clock;
use crate::error::{Error, Result};
use crate::events::{self, Kind};
use crate::place::Lab;
use crate::state::Records;

/// Units of time, the largest first: their word, and milliseconds.
const UNITS: [(&str, i64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// No clock is further off: a thousand years.
const AHEAD_MS_MAX: i64 = 365_250 * 86_400_000;

/// What becomes of a clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Jump {
    /// It jumps by so many milliseconds.
    By(i64),
    /// It shows the machine's time again.
    True,
}

/// Reads `+1h`, `-30s`, `+250ms` or `true`.
///
/// # Errors
/// What would be right.
pub fn jump(text: &str) -> std::result::Result<Jump, String> {
    if text == "true" {
        return Ok(Jump::True);
    }
    let wrong = || "write it as +1h, -30s, +250ms, +2d, or true".to_owned();
    let digits = text.strip_prefix(['+', '-']).ok_or_else(wrong)?;
    let unit_at = digits.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = digits.split_at(unit_at);
    let (_, unit_ms) = UNITS.into_iter().find(|(word, _)| *word == unit).ok_or_else(wrong)?;
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(unit_ms).filter(|&ms| ms <= AHEAD_MS_MAX);
    let ms = ms.ok_or_else(|| "a clock jumps by 365250 days at most".to_owned())?;
    Ok(Jump::By(if text.starts_with('-') { -ms } else { ms }))
}

/// As [`jump`] reads it, in the largest unit that says it exactly.
fn text(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    let exact = UNITS.into_iter().find(|(_, unit_ms)| ms % unit_ms == 0);
    exact.map_or_else(String::new, |(word, unit_ms)| format!("{sign}{}{word}", (ms / unit_ms).unsigned_abs()))
}

/// Lets a server's clock jump, from what it shows now. Lasts over reboots.
///
/// # Errors
/// No such server, libfaketime is not installed, a clock too far off, or the system's refusal.
pub fn set(lab: &Lab, wanted: &str, jump: Jump) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let server = records.server("fault clock", wanted)?.clone();
    let before_ms = records.faults.clock_ahead_ms(server.id);
    let ahead_ms = match jump {
        Jump::True => 0,
        Jump::By(ms) => before_ms.saturating_add(ms),
    };
    if ahead_ms.abs() > AHEAD_MS_MAX {
        return Err(Error::refused(format!(
            "fault clock: the clock of {} would be {} wrong; {} is the most",
            server.name,
            text(ahead_ms),
            text(AHEAD_MS_MAX)
        )));
    }
    records.faults.clocks.retain(|&(other, _)| other != server.id);
    if ahead_ms != 0 {
        records.faults.clocks.push((server.id, ahead_ms));
    }
    if let Err(error) = clock::set(lab, &server, ahead_ms).and_then(|()| records.save(lab, &lock)) {
        // As it was; why not is what the first error says.
        let _ = clock::set(lab, &server, before_ms);
        return Err(error);
    }
    match jump {
        Jump::True => events::append(lab, Kind::Heal, &["clock", &server.name, "true"]),
        Jump::By(ms) => events::append(lab, Kind::Fault, &["clock", &server.name, &text(ms)]),
    }
}

/// A wrong clock, as its words and its meaning.
pub fn in_force(server: &str, ahead_ms: i64) -> ([String; 3], String) {
    let text = text(ahead_ms);
    let (amount, way) = (&text[1..], if ahead_ms < 0 { "behind" } else { "ahead" });
    let meaning = format!("the clock of server {server} is {amount} {way}");
    (["clock".to_owned(), server.to_owned(), text], meaning)
}

#[cfg(test)]
mod tests {
    use super::{Jump, jump, text};

    #[test]
    fn jumps_are_read_and_told() {
        for (typed, ms) in [
            ("+1h", 3_600_000),
            ("-30s", -30_000),
            ("+250ms", 250),
            ("+2d", 172_800_000),
            ("-90m", -5_400_000),
        ] {
            assert_eq!(jump(typed), Ok(Jump::By(ms)));
            assert_eq!(text(ms), typed);
        }
        assert_eq!(text(5_400_000), "+90m");
        assert_eq!(jump("true"), Ok(Jump::True));
        for wrong in
            ["1h", "+", "+h", "+1", "+1y", "+1h30m", "-", "false", "+99999999999999999999s", "+400000d"]
        {
            assert!(jump(wrong).is_err(), "{wrong} was taken");
        }
    }
}
