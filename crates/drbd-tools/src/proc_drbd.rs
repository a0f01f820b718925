//! The personality `proc drbd`: /proc/drbd's text.

use std::ffi::OsString;
use std::process::ExitCode;

use drbd_engine::proc_drbd::render;

use crate::session::Session;

/// Prints the text of /proc/drbd; the version lines alone if no daemon runs.
pub fn proc_drbd(args: Vec<OsString>) -> ExitCode {
    // The only text there is; the name may be left out.
    let word = args.first().filter(|word| args.len() > 1 || *word != "drbd");
    if let Some(word) = word {
        eprintln!("proc drbd: unexpected argument `{}`; only `drbd` is there", word.to_string_lossy());
        return ExitCode::from(2);
    }
    let resources = Session::open()
        .and_then(|session| session.map_or(Ok(Vec::new()), |mut session| session.status(None)));
    match resources {
        Ok(resources) => {
            print!("{}", render(&resources, crate::is_era_2013()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("proc drbd: {error}");
            ExitCode::FAILURE
        }
    }
}
