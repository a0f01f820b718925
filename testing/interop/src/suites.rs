//! The suites: the one table.

mod drbd;
mod drbdmeta;
mod nbd;

use crate::scenario::Selection;

/// Scenarios against one original.
pub struct Suite {
    /// As typed.
    pub name: &'static str,
    /// The judge.
    pub against: &'static str,
    /// Runs the selection; true if nothing failed.
    pub run: fn(&Selection) -> anyhow::Result<bool>,
}

/// Every suite.
pub const SUITES: &[Suite] = &[
    Suite { name: "drbdmeta", against: "drbdmeta of drbd-utils: the same meta-data", run: drbdmeta::run },
    Suite {
        name: "nbd",
        against: "nbdinfo, nbdcopy, fio and qemu-img as clients of the daemon",
        run: nbd::run,
    },
    Suite { name: "drbd", against: "the kernel's DRBD in User Mode Linux, as peer", run: drbd::run },
];
