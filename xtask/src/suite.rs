//! `interop`, `sim` and `fuzz`: each is a program of its own below `testing/`, built with the profile of `test`.

use std::path::Path;
use std::process::Command;

use crate::process;
use crate::setup;
use crate::workspace::{Profile, Workspace};

/// Suites of `interop` and the row of setup that each needs.
pub const INTEROP: &[(&str, &str)] =
    &[("drbdmeta", "interop-drbdmeta"), ("nbd", "interop-nbd"), ("drbd", "interop-drbd")];

/// The program of the crate with the same name, ready to get arguments.
fn program(workspace: &Workspace, name: &str, also: &[&str]) -> anyhow::Result<Command> {
    let packages: Vec<&str> = [&[name][..], also].concat();
    let programs = workspace.build(&packages, Profile::Ci)?;
    let mut command = Command::new(programs.join(name));
    command.env("LOCKSTEP", programs.join("lockstep"));
    Ok(command)
}

/// Runs scenarios against an original.
pub fn interop(
    workspace: &Workspace,
    name: Option<&str>,
    quick: bool,
    list: bool,
    only: Option<&str>,
) -> anyhow::Result<bool> {
    if !list && let Some((_, what)) = INTEROP.iter().find(|(suite, _)| Some(*suite) == name) {
        setup::quietly(what)?;
    }
    let mut interop = program(workspace, "interop", &["lockstep"])?;
    interop.args(name);
    if quick {
        interop.arg("--quick");
    }
    if list {
        interop.arg("--list");
    }
    if let Some(pattern) = only {
        interop.args(["--only", pattern]);
    }
    process::succeeds(&mut interop)
}

/// Runs seeds of a simulation.
pub fn sim(
    workspace: &Workspace,
    engine: &str,
    from: u64,
    seeds: u64,
    jobs: usize,
    state: Option<&Path>,
) -> anyhow::Result<bool> {
    let mut sim = program(workspace, "sim", &[])?;
    sim.arg(engine);
    for (option, value) in [("--from", from), ("--seeds", seeds), ("--jobs", jobs as u64)] {
        sim.args([option, &value.to_string()]);
    }
    if let Some(file) = state {
        sim.arg("--state").arg(file);
    }
    process::succeeds(&mut sim)
}

/// Runs one seed and tells what happens.
pub fn sim_seed(workspace: &Workspace, engine: &str, seed: u64) -> anyhow::Result<bool> {
    let mut sim = program(workspace, "sim", &[])?;
    process::succeeds(sim.args([engine, "--seed", &seed.to_string()]))
}

/// Loses servers or daemons of a mirror.
pub fn campaign(workspace: &Workspace, what: &str, count: usize, seed: Option<u64>) -> anyhow::Result<bool> {
    setup::quietly("lab")?;
    let programs = workspace.build(&["mirror", "lockstep"], Profile::Ci)?;
    let mut campaign = Command::new(programs.join("mirror-campaign"));
    campaign.env("LOCKSTEP", programs.join("lockstep")).args([what, "--count", &count.to_string()]);
    if let Some(seed) = seed {
        campaign.args(["--seed", &seed.to_string()]);
    }
    process::succeeds(&mut campaign)
}

/// Mutates a target's corpus for a while.
pub fn fuzz(
    workspace: &Workspace,
    target: Option<&str>,
    seconds: u64,
    seed: Option<u64>,
    list: bool,
) -> anyhow::Result<bool> {
    let mut fuzz = program(workspace, "fuzz", &[])?;
    fuzz.args(target);
    if list {
        fuzz.arg("--list");
    } else {
        fuzz.args(["--seconds", &seconds.to_string()]);
    }
    if let Some(seed) = seed {
        fuzz.args(["--seed", &seed.to_string()]);
    }
    process::succeeds(&mut fuzz)
}
