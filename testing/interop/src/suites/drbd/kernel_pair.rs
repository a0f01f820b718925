//! Two kernels with each other: what the harness shows before ours takes a seat, and what ours is held against.

use anyhow::ensure;

use super::pair::Pair;
use crate::tutorial::ADDRESS_1;

/// Brings a resource up on a kernel's node.
pub const UP: &str = "drbdadm create-md --force r0 && drbdadm up r0";

/// The line of /proc/drbd when both have everything.
pub const IN_SYNC: &str = "cs:Connected ro:[A-Za-z/]+ ds:UpToDate/UpToDate";

/// Full sync, ext4 on one, roles swapped, the same files on the other; then both disks are the same.
pub fn full_sync_and_role_swap(pair: &mut Pair) -> anyhow::Result<()> {
    let mut second = pair.boot("drbd1", ADDRESS_1)?;
    second.run(UP)?;
    let first = pair.fresh_kernel()?;
    first.run(UP)?;
    first.await_proc_drbd("cs:Connected")?;
    first.run("drbdadm -- --overwrite-data-of-peer primary all")?;
    first.await_proc_drbd(IN_SYNC)?;
    let sums = first.run(
        "set -e; mkfs.ext4 -q /dev/drbd0; mkdir -p /run/m; mount /dev/drbd0 /run/m\n\
         for i in 1 2 3; do head -c 40000 /dev/urandom >/run/m/f$i; done\n\
         cd /run/m; sha256sum f*; cd /; umount /run/m; drbdadm secondary r0",
    )?;
    let found = second.run(
        "set -e; drbdadm primary r0; mkdir -p /run/m; mount /dev/drbd0 /run/m; cd /run/m; sha256sum f*",
    )?;
    ensure!(sums == found, "files on drbd0\n{sums}and on drbd1\n{found}");
    second.run("set -e; umount /run/m; drbdadm secondary r0; drbdadm down r0; sync")?;
    first.run("drbdadm down r0; sync")?;
    second.cut_power(pair.segment())?;
    pair.compare_disks()
}
