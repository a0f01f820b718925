//! Running the workspace's own tests: with cargo-nextest, which ends a test that hangs, or with `cargo test`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::junit;
use super::libtest;
use super::tally::{Outcome, Tally};
use crate::process;
use crate::workspace::{Profile, Workspace};

/// Tests that make servers, in nextest's language; `.config/nextest.toml` has the same words.
const LAB: &str = "binary(/^lab_/)";

/// `cargo test` cannot end one hanging test; this ends the run.
const CARGO_TEST_S_MAX: &str = "900";

/// Unit tests and everything else that is no lab test.
pub fn unit(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    if has_nextest(workspace) {
        nextest(workspace, "unit tests", &format!("not ({LAB})"), tally)
    } else {
        println!(
            "cargo-nextest is not there: `cargo test` stands in, and cannot end a single test that hangs"
        );
        cargo_test(workspace, "unit tests", &["--lib", "--bins"], &[], tally)
    }
}

/// Tests in servers, one at a time.
pub fn lab(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    if has_nextest(workspace) {
        nextest(workspace, "lab tests", LAB, tally)
    } else {
        let one_at_a_time = &["--test-threads", "1"];
        cargo_test(workspace, "lab and integration tests", &["--test", "*"], one_at_a_time, tally)
    }
}

/// Whether cargo knows nextest.
pub fn has_nextest(workspace: &Workspace) -> bool {
    let mut cargo = process::cargo(workspace.root());
    cargo.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    cargo.status().is_ok_and(|status| status.success())
}

fn nextest(workspace: &Workspace, what: &str, filter: &str, tally: &mut Tally) -> anyhow::Result<()> {
    // nextest's store is below the root, wherever cargo's target directory is.
    let report: PathBuf = workspace.root().join("target/nextest/ci/junit.xml");
    // A report that an earlier run left would count for this one.
    let _ = fs::remove_file(&report);
    let mut cargo = process::cargo(workspace.root());
    cargo.args(["nextest", "run", "--locked", "--workspace", "--cargo-profile", Profile::Ci.name()]);
    cargo.args(["--profile", "ci", "--no-tests", "pass", "-E", filter]);
    program_under_test(workspace, &mut cargo);
    let success = process::succeeds(&mut cargo)?;
    let mut failures = 0;
    match fs::read_to_string(&report) {
        Ok(text) => {
            for case in junit::test_cases(&text) {
                failures += usize::from(case.outcome == Outcome::Failed);
                tally.add(&case.name, case.outcome);
            }
            if success != (failures == 0) {
                tally.add(&format!("{what} (the run's status and its report differ)"), Outcome::Failed);
            }
        }
        // The build failed, or nextest wrote elsewhere: then nothing is known to have passed.
        Err(error) => {
            tally.add(&format!("{what} (no report {}: {error})", report.display()), Outcome::Failed)
        }
    }
    ignored(workspace, filter, tally)
}

/// Tests of programs run the one of this build.
fn program_under_test(workspace: &Workspace, command: &mut Command) {
    let lockstep = workspace.bin_dir(Profile::Ci).join("lockstep");
    command.env("LOCKSTEP", &lockstep);
}

/// What carries `#[ignore]` did not run either.
fn ignored(workspace: &Workspace, filter: &str, tally: &mut Tally) -> anyhow::Result<()> {
    let mut cargo = process::cargo(workspace.root());
    cargo.args(["nextest", "list", "--locked", "--workspace", "--cargo-profile", Profile::Ci.name()]);
    cargo.args(["--run-ignored", "only", "--message-format", "oneline", "-E", filter]);
    cargo.arg("--cargo-quiet");
    let (_, text) = process::output(&mut cargo)?;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        tally.add(line.trim(), Outcome::Skipped("#[ignore], with its reason in the source".to_owned()));
    }
    Ok(())
}

fn cargo_test(
    workspace: &Workspace,
    what: &str,
    targets: &[&str],
    how: &[&str],
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let cargo = process::cargo(workspace.root());
    let mut timeout = Command::new("timeout");
    timeout.current_dir(workspace.root()).stdin(Stdio::null()).arg(CARGO_TEST_S_MAX).arg(cargo.get_program());
    timeout.args(["test", "--locked", "--workspace", "--no-fail-fast", "--profile", Profile::Ci.name()]);
    timeout.args(targets).args(["--", "--show-output"]).args(how);
    program_under_test(workspace, &mut timeout);
    let (success, lines) = process::tee(&mut timeout)?;
    let mut failures = 0;
    for case in libtest::test_cases(&lines) {
        failures += usize::from(case.outcome == Outcome::Failed);
        tally.add(&case.name, case.outcome);
    }
    if success != (failures == 0) {
        tally.add(&format!("{what} (the run's status and its output differ)"), Outcome::Failed);
    }
    Ok(())
}
