//! The lab's two personalities alone, for its own tests: `lockstep-lab nova …`, `lockstep-lab lab …`, `--names`.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let word = words.next();
    let args: Vec<OsString> = words.collect();
    match word.as_deref().and_then(|word| word.to_str()) {
        Some("nova") => lab::nova(args),
        Some("lab") => lab::lab(args),
        Some("--names") => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}
