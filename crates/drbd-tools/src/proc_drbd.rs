//! The personality `proc drbd`: /proc/drbd's text.

use std::ffi::OsString;
use std::process::ExitCode;

use drbd_engine::proc_drbd::render;

use crate::session::Session;

/// Prints the text of /proc/drbd; the version lines alone if no daemon runs.
pub fn proc_drbd(args: Vec<OsString>) -> ExitCode {
    if let Some(word) = args.first() {
        eprintln!("proc drbd: unexpected argument `{}`; it takes none", word.to_string_lossy());
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
