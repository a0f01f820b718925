//! The parts of `cargo xtask test` that are programs of their own.

use std::process::{Command, Stdio};

use anyhow::bail;

use super::tally::{Outcome, Tally};
use crate::process;
use crate::suite;
use crate::tidy;
use crate::workspace::{Profile, Workspace};

/// Seeds of the simulation in each run.
const SIM_SEEDS: &str = "10000";

/// How long each fuzz target runs.
const FUZZ_S: &str = "3";

/// Formatting, clippy, and the one build that everything else uses. A build that fails ends the run.
pub fn build_and_clippy(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    let mut fmt = process::cargo(workspace.root());
    tally.check("cargo fmt --check", process::succeeds(fmt.args(["fmt", "--all", "--check"]))?);
    let mut clippy = process::cargo(workspace.root());
    clippy.args([
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--profile",
        Profile::Ci.name(),
    ]);
    clippy.args(["--", "-D", "warnings"]);
    tally.check("cargo clippy", process::succeeds(&mut clippy)?);
    let mut build = process::cargo(workspace.root());
    build.args(["build", "--locked", "--workspace", "--all-targets", "--profile", Profile::Ci.name()]);
    if !process::succeeds(&mut build)? {
        bail!("the build failed; nothing else was tried");
    }
    Ok(())
}

/// Several nodes of the real engine, seed by seed.
pub fn simulation(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    let Some(mut sim) = program(workspace, "sim", tally) else { return Ok(()) };
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string();
    sim.args(["drbd", "--seeds", SIM_SEEDS, "--jobs", &jobs]);
    tally.check("sim drbd", process::succeeds(&mut sim)?);
    Ok(())
}

/// The quick selection of every suite.
pub fn interop(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    for (suite, _) in suite::INTEROP {
        let Some(mut interop) = program(workspace, "interop", tally) else { return Ok(()) };
        println!("-- interop {suite}");
        let (success, lines) = process::tee(interop.args([suite, "--quick"]))?;
        tally.scenarios(&format!("interop {suite}"), success, &lines);
    }
    Ok(())
}

/// The rules of the house, cargo-deny where it is installed, and a few seconds of every fuzz target.
pub fn rest(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    tally.check("tidy", tidy::run(workspace)?);
    if process::is_installed("cargo-deny") {
        let mut deny = process::cargo(workspace.root());
        tally.check("cargo deny", process::succeeds(deny.args(["deny", "--locked", "check"]))?);
    } else {
        let reason = "cargo-deny is not installed; tidy has checked licences, sources and bans, nothing the advisories";
        tally.add("cargo deny", Outcome::Skipped(reason.to_owned()));
    }
    let Some(mut list) = program(workspace, "fuzz", tally) else { return Ok(()) };
    let (success, targets) = process::output(list.arg("--list"))?;
    tally.check("fuzz --list", success);
    for target in targets.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(mut fuzz) = program(workspace, "fuzz", tally) else { return Ok(()) };
        let holds = process::succeeds(fuzz.args([target, "--seconds", FUZZ_S]))?;
        tally.check(&format!("fuzz {target}"), holds);
    }
    Ok(())
}

/// A program of the build above; none, counted as a failure, if the build has not made it.
fn program(workspace: &Workspace, name: &str, tally: &mut Tally) -> Option<Command> {
    let programs = workspace.bin_dir(Profile::Ci);
    let path = programs.join(name);
    if workspace.member(name).is_none() || !path.exists() {
        tally.add(&format!("{name}: {} is not there", path.display()), Outcome::Failed);
        return None;
    }
    let mut command = Command::new(path);
    command.current_dir(workspace.root()).stdin(Stdio::null()).env("LOCKSTEP", programs.join("lockstep"));
    Some(command)
}
