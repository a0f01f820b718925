//! `cargo xtask bench`: the release build, measured beside others.

use std::path::Path;
use std::process::Command;

use crate::process;
use crate::setup;
use crate::workspace::{Profile, Workspace};

/// Builds and runs the program `bench`.
pub fn run(workspace: &Workspace, name: &str, json: Option<&Path>, quick: bool) -> anyhow::Result<bool> {
    setup::quietly("bench")?;
    let programs = workspace.build(&["lockstep", "bench"], Profile::Release)?;
    let mut bench = Command::new(programs.join("bench"));
    bench.arg(name).env("LOCKSTEP", programs.join("lockstep"));
    if let Some(json) = json {
        bench.arg("--json").arg(json);
    }
    if quick {
        bench.arg("--quick");
    }
    process::succeeds(&mut bench)
}
