//! The lab's event log: one line of JSON for each fault, heal, boot and shutdown, in the order in which they took
//! effect. `down` removes it with the lab.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Result};
use crate::place::Lab;

/// What happened.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something was broken; the words are those after `lockstep lab fault`.
    Fault,
    /// Something was repaired; the words are those after `lockstep lab fault`.
    Heal,
    /// A server is up; the word is its name.
    Boot,
    /// A server went down in an orderly way; the words are its name and `reboot` or `poweroff`.
    Shutdown,
    /// A scenario began; the words are its file and its seed.
    Play,
}

/// One line of the log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Event {
    /// When it had taken effect: nanoseconds since 1970 by the host's clock.
    pub at_unix_ns: u64,
    /// What happened.
    pub event: Kind,
    /// To what; the kind says how to read them.
    pub words: Vec<String>,
}

/// Where the log is.
pub fn path(lab: &Lab) -> PathBuf {
    lab.state_dir().join("events.jsonl")
}

/// Nanoseconds since 1970, now.
pub fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Adds one line. Several tools may do so at once: a line is one write to the end of the file.
///
/// # Errors
/// The system's refusal.
pub fn append<W: AsRef<str>>(lab: &Lab, event: Kind, words: &[W]) -> Result<()> {
    let words = words.iter().map(|word| word.as_ref().to_owned()).collect();
    let path = path(lab);
    let write = || -> io::Result<()> {
        fs::create_dir_all(lab.state_dir())?;
        let mut file = File::options().create(true).append(true).open(&path)?;
        let mut line = serde_json::to_vec(&Event { at_unix_ns: now_unix_ns(), event, words })?;
        line.push(b'\n');
        file.write_all(&line)
    };
    write().doing(|| format!("write {}", path.display()))
}

/// Every event so far; none of a lab that was never used.
///
/// # Errors
/// An unreadable file, or a line that is none of ours.
pub fn read(lab: &Lab) -> Result<Vec<Event>> {
    let path = path(lab);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.doing(|| format!("read {}", path.display()))?,
    };
    parse(&text).map_err(|(line, error)| Error::refused(format!("{}:{line}: {error}", path.display())))
}

/// The events of a log, or the number of the first line that is none and why. A last line without its end is still
/// being written.
fn parse(text: &str) -> std::result::Result<Vec<Event>, (usize, serde_json::Error)> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .enumerate()
        .map(|(index, line)| serde_json::from_str(line).map_err(|error| (index + 1, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Event, Kind, parse};

    #[test]
    fn a_line_is_what_readers_outside_expect() {
        let line = r#"{"at_unix_ns":1785000000000000001,"event":"fault","words":["power-cut","drbd0"]}"#;
        let words = vec!["power-cut".to_owned(), "drbd0".to_owned()];
        let event = Event { at_unix_ns: 1_785_000_000_000_000_001, event: Kind::Fault, words };
        assert_eq!(serde_json::to_string(&event).expect("plain data"), line);
        assert_eq!(parse(&format!("{line}\n{line}\n{{\"at_un")).expect("a log"), [event.clone(), event]);
        assert_eq!(parse(&format!("{line}\n{{}}\n")).expect_err("no event").0, 2);
    }
}
