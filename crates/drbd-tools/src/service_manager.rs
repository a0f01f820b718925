//! systemd starts the daemon where it is the first process: a child of a login session would end with that session.

use std::path::Path;
use std::process::{Command, Stdio};

/// The daemon's unit.
pub const UNIT: &str = "lockstep-drbd.service";

/// Exit status of `systemctl start` for a unit that is not there (systemctl(1)).
const UNIT_NOT_THERE: i32 = 5;

/// Starts the daemon's unit and waits until it serves. False if systemd does not run here, has no such unit, or the
/// daemon's files are elsewhere (`LOCKSTEP_RUN`).
///
/// # Errors
/// If the unit does not start: systemctl's words.
pub fn start() -> Result<bool, String> {
    // sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() || std::env::var_os("LOCKSTEP_RUN").is_some() {
        return Ok(false);
    }
    let started = Command::new("systemctl").args(["start", UNIT]).stdin(Stdio::null()).output();
    let Ok(output) = started else { return Ok(false) };
    match output.status.code() {
        Some(0) => Ok(true),
        Some(UNIT_NOT_THERE) => Ok(false),
        _ => Err(format!(
            "`systemctl start {UNIT}` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )),
    }
}
