//! Labs of tests that were ended before they could remove them.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::tally::{Outcome, Tally};
use crate::process;
use crate::workspace::{Profile, Workspace};

/// Removes what such tests left, so that nothing stays behind; each is counted as a failure. Labs of a person, and of
/// tests that run beside this one, stay.
pub fn remove_orphans(workspace: &Workspace, tally: &mut Tally) -> anyhow::Result<()> {
    let lockstep = workspace.bin_dir(Profile::Ci).join("lockstep");
    let (success, text) = process::output(Command::new(&lockstep).args(["lab", "ps", "--json"]))?;
    if !success {
        tally.add("lab ps", Outcome::Failed);
        return Ok(());
    }
    let listing: serde_json::Value = serde_json::from_str(&text).context("`lockstep lab ps --json`")?;
    let labs = listing.as_array().into_iter().flatten().filter_map(|entry| entry["lab"].as_str());
    for name in labs.filter(|name| maker(name).is_some_and(|pid| !is_running(pid))) {
        tally.add(&format!("lab {name} was left behind by a test that was ended"), Outcome::Failed);
        if !process::succeeds(Command::new(&lockstep).args(["lab", "--lab", name, "down"]))? {
            tally.add(&format!("removing lab {name}"), Outcome::Failed);
        }
    }
    Ok(())
}

/// The process that made a test's lab: its name is `tPID-TEST`.
fn maker(lab: &str) -> Option<u32> {
    lab.strip_prefix('t')?.split_once('-')?.0.parse().ok()
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_names_of_tests_have_a_maker() {
        assert_eq!(maker("t4711-fdisk"), Some(4711));
        for name in ["default", "tutorial", "t-1", "t12", "test-7", "demo"] {
            assert_eq!(maker(name), None, "{name}");
        }
    }
}
