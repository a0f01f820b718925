//! The program that is tested.

use std::path::PathBuf;
use std::process::Command;

use crate::program;

/// Where it is: `LOCKSTEP` says so, or it lies beside this program.
pub fn path() -> PathBuf {
    match std::env::var_os("LOCKSTEP") {
        Some(path) => path.into(),
        None => std::env::current_exe().map(|exe| exe.with_file_name("lockstep")).unwrap_or_default(),
    }
}

/// `lockstep NAME`, ready to get arguments.
pub fn personality(name: &str) -> Command {
    let mut command = Command::new(path());
    command.arg(name);
    command
}

/// Whether it has that name.
pub fn has(name: &str) -> bool {
    program::output(Command::new(path()).arg("--help"))
        .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().next() == Some(name)))
}
