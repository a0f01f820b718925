//! `cargo xtask test`: everything that must be true before a change is taken, with a time budget by part.

mod budget;
mod checks;
mod junit;
mod labs;
mod libtest;
mod tally;
mod tests;

use crate::setup;
use crate::workspace::Workspace;

use budget::{Budget, Part};
use tally::Tally;

/// Runs every part, also after a failure: one run tells all that is wrong. True if nothing failed.
pub fn run(workspace: &Workspace, no_setup: bool) -> anyhow::Result<bool> {
    if !no_setup && !setup::quietly("test")? {
        println!("test: going on without what is missing; what needs it is skipped");
    }
    let mut tally = Tally::default();
    let mut budget = Budget::default();
    budget.time(Part::BuildAndClippy, || checks::build_and_clippy(workspace, &mut tally))?;
    budget.time(Part::UnitAndSimulation, || {
        tests::unit(workspace, &mut tally)?;
        checks::simulation(workspace, &mut tally)
    })?;
    budget.time(Part::Lab, || {
        tests::lab(workspace, &mut tally)?;
        labs::remove_orphans(workspace, &mut tally)
    })?;
    budget.time(Part::Interop, || checks::interop(workspace, &mut tally))?;
    budget.time(Part::Rest, || checks::rest(workspace, &mut tally))?;
    budget.print();
    tally.print();
    Ok(tally.failed() == 0)
}
