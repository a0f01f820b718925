//! `lockstep`: the name it was called by, or its first word, chooses the personality.

mod manual;
mod personality;
mod suggestion;
mod units;

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
        Some("--manual") => manual_page(args.first()),
        Some("--units") => unit(args.first()),
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
         Usage: lockstep NAME [ARGUMENTS…]\n       lockstep --help | --version | --names | --manual [PAGE] | --units [UNIT]\n\nNames:\n",
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

/// Lists the manual pages' files, or prints one.
fn manual_page(file_name: Option<&OsString>) -> ExitCode {
    let Some(file_name) = file_name.map(|name| name.to_string_lossy()) else {
        let files: String = manual::PAGES.iter().map(|page| page.file_name() + "\n").collect();
        return print(&files);
    };
    match manual::page(&file_name).map(manual::Page::render) {
        Some(Ok(text)) => print(&String::from_utf8_lossy(&text)),
        Some(Err(error)) => {
            eprintln!("lockstep: {file_name}: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("lockstep: no manual page `{file_name}`\nhint: `lockstep --manual` lists them");
            ExitCode::from(USAGE)
        }
    }
}

/// Lists the systemd units' file names, or prints one, with the path of this program in it.
fn unit(file_name: Option<&OsString>) -> ExitCode {
    let Some(file_name) = file_name.map(|name| name.to_string_lossy()) else {
        let names: String = units::UNITS.iter().map(|(name, _)| format!("{name}\n")).collect();
        return print(&names);
    };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("lockstep: this program's own path is not known (is /proc mounted?): {error}");
            return ExitCode::FAILURE;
        }
    };
    match units::text(&file_name, &program) {
        Some(text) => print(&text),
        None => {
            eprintln!("lockstep: no unit `{file_name}`\nhint: `lockstep --units` lists them");
            ExitCode::from(USAGE)
        }
    }
}

/// Writes to stdout; a reader that has gone away is no fault of ours.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
