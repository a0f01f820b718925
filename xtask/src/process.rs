//! Other programs: started, waited for, and named when they fail.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The cargo that started this program, in the workspace.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` set for xtask is not meant for what xtask starts: build scripts would see it change.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "CARGO_MANIFEST_PATH"] {
        command.env_remove(variable);
    }
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// The command as a person would type it.
pub fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether it ended with status 0; an error if it could not be started.
pub fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    let status = command.status().with_context(|| format!("cannot run `{}`", typed(command)))?;
    Ok(status.success())
}

/// Runs it; anything but status 0 is an error.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", typed(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", typed(command));
    }
    Ok(())
}

/// Its standard output, whatever its status; an error if it could not be started.
pub fn output(command: &mut Command) -> anyhow::Result<(bool, String)> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", typed(command)))?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Runs it, passes its standard output on line by line as it comes, and returns it too.
pub fn tee(command: &mut Command) -> anyhow::Result<(bool, Vec<String>)> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{}`", typed(command)))?;
    let mut lines = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line.context("reading what it prints")?).into_owned();
            // Whoever reads our output may have gone; what runs is still to be brought to its end.
            let _ = writeln!(std::io::stdout(), "{line}");
            lines.push(line);
        }
    }
    let status = child.wait().with_context(|| format!("waiting for `{}`", typed(command)))?;
    Ok((status.success(), lines))
}

/// Whether a program of that name is in PATH or in the places of root's programs.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/local/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}
