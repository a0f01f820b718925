//! `lockstep`: the name it was called by, or its first word, chooses the personality.

mod personality;
mod suggestion;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use personality::{PERSONALITIES, Personality};

/// Exit status of a command line that cannot be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called_as = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    if let Some(personality) = by_file_name(&called_as) {
        return (personality.entry)(args);
    }
    if args.is_empty() {
        eprint!("{}", overview());
        return ExitCode::from(USAGE);
    }
    let word = args.remove(0);
    match word.to_str() {
        Some("--help" | "-h" | "help") => print(&overview()),
        Some("--version" | "-V") => print(&format!("lockstep {}\n", env!("CARGO_PKG_VERSION"))),
        Some("--names") => print(&names()),
        Some(word) => match PERSONALITIES.iter().find(|p| p.name == word) {
            Some(personality) => (personality.entry)(args),
            None => unknown(word),
        },
        None => unknown(&word.to_string_lossy()),
    }
}

/// The personality whose link this program was started through.
fn by_file_name(called_as: &OsString) -> Option<&'static Personality> {
    let name = Path::new(called_as).file_name()?.to_str()?;
    PERSONALITIES.iter().find(|p| p.link.is_some() && p.name == name)
}

fn unknown(word: &str) -> ExitCode {
    eprintln!("lockstep: unknown name `{word}`");
    if let Some(nearest) = suggestion::nearest(word, PERSONALITIES.iter().map(|p| p.name)) {
        eprintln!("hint: `lockstep {nearest}` exists");
    }
    eprintln!("hint: `lockstep --help` lists the names");
    ExitCode::from(USAGE)
}

fn overview() -> String {
    let width = PERSONALITIES.iter().map(|p| p.name.len()).max().unwrap_or_default();
    let mut text = String::from(
        "Clustered storage in user space\n\n\
         Usage: lockstep NAME [ARGUMENTS…]\n       lockstep --help | --version | --names\n\nNames:\n",
    );
    for personality in PERSONALITIES {
        text += &format!("  {:width$}  {}\n", personality.name, personality.description);
    }
    text += "\nA link to this program that bears one of the linked names (`--names`) is that program.\n";
    text
}

/// One line a link: the name, and the directory below the prefix that it belongs in.
fn names() -> String {
    PERSONALITIES.iter().filter_map(|p| Some(format!("{} {}\n", p.name, p.link?))).collect()
}

/// Writes to stdout; a reader that has gone away is no fault of ours.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
