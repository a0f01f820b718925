//! The kernel's DRBD 8.4 as peer. One kernel node is booted for the whole suite.

mod kernel_pair;
mod pair;
mod with_us;

use crate::scenario::{self, Need, Scenario, Selection};
use crate::uml::{KERNEL, Segment};

use pair::Pair;

const KERNEL_NEEDS: &[Need] = &[
    Need::Root,
    Need::Path(KERNEL),
    Need::Path("/dev/net/tun"),
    Need::Program("unshare"),
    Need::Program("ip"),
    Need::Program("drbdadm"),
];

/// As above, and a side of ours.
const OUR_NEEDS: &[Need] = &[
    Need::Personality("drbdadm"),
    Need::Personality("drbd"),
    Need::Path("/dev/fuse"),
    Need::Program("losetup"),
    Need::Root,
    Need::Path(KERNEL),
    Need::Path("/dev/net/tun"),
    Need::Program("unshare"),
    Need::Program("ip"),
    Need::Program("drbdadm"),
];

const SCENARIOS: &[Scenario<Pair>] = &[
    Scenario {
        name: "kernel-pair",
        quick: true,
        needs: KERNEL_NEEDS,
        run: kernel_pair::full_sync_and_role_swap,
    },
    Scenario { name: "sync-to-us", quick: true, needs: OUR_NEEDS, run: with_us::sync_to_us },
    Scenario { name: "sync-from-us", quick: true, needs: OUR_NEEDS, run: with_us::sync_from_us },
    Scenario { name: "role-swap", quick: true, needs: OUR_NEEDS, run: with_us::role_swap },
    Scenario { name: "reconnect-resync", quick: true, needs: OUR_NEEDS, run: with_us::reconnect_resync },
    Scenario { name: "kernel-power-cut", quick: false, needs: OUR_NEEDS, run: with_us::kernel_power_cut },
];

/// The suite.
pub fn run(selection: &Selection) -> anyhow::Result<bool> {
    if selection.list || !rustix::process::geteuid().is_root() {
        return scenario::run(SCENARIOS, selection, || anyhow::bail!("not root"));
    }
    let segment = Segment::enter()?;
    scenario::run(SCENARIOS, selection, || Pair::new(segment))
}
