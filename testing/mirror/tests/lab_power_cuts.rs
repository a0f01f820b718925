//! Power cuts under load; `cargo xtask campaign power-cuts` does the same for as long as one likes.

use mirror::power_cuts::{self, PowerCuts};
use mirror::random::seed;
use testing_lab::can_run;

const MIRROR_LOAD: &str = env!("CARGO_BIN_EXE_mirror-load");

/// Twice each: the primary, the secondary, both.
const ROUNDS: usize = 6;

fn cuts(test: &str, name: &'static str, volume_type: &'static str) {
    if can_run(test) {
        power_cuts::run(PowerCuts { name, volume_type, rounds: ROUNDS, seed: seed(test) }, MIRROR_LOAD);
    }
}

#[test]
fn power_cuts_lose_no_acknowledged_write() {
    cuts("power_cuts_lose_no_acknowledged_write", "cuts", "SATA");
}

#[test]
fn power_cuts_of_disks_that_forget_lose_no_acknowledged_write() {
    cuts("power_cuts_of_disks_that_forget_lose_no_acknowledged_write", "forget", "volatile");
}
