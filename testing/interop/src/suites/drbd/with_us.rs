//! The kernel on one seat, our daemon on the other.

use anyhow::{Context, ensure};

use super::kernel_pair::{IN_SYNC, UP};
use super::pair::Pair;
use crate::ours::Ours;

/// ext4 on the device, three files of random bytes, and their digests.
const MAKE_FILES: &str = "set -e; mkfs.ext4 -q /dev/drbd0; mkdir -p /run/m; mount /dev/drbd0 /run/m\n\
     for i in 1 2 3; do head -c 40000 /dev/urandom >/run/m/f$i; done\n\
     cd /run/m; sha256sum f*; cd /; umount /run/m";

/// The digests of files that the other side made.
const CHECK_FILES: &str =
    "set -e; mkdir -p /run/m; mount /dev/drbd0 /run/m; cd /run/m; sha256sum f*; cd /; umount /run/m";

/// Both up, connected, nothing decided yet.
fn meet(pair: &mut Pair) -> anyhow::Result<Ours> {
    pair.fresh_kernel()?.run(UP)?;
    let ours = pair.sit()?;
    ours.drbdadm("up r0")?;
    pair.kernel()?.await_proc_drbd("cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent")?;
    ours.await_state("Connected", "Inconsistent/Inconsistent")?;
    Ok(ours)
}

/// As `meet`, then everything goes from the kernel to us.
fn meet_and_sync(pair: &mut Pair) -> anyhow::Result<Ours> {
    let ours = meet(pair)?;
    pair.kernel()?.run("drbdadm primary --force r0")?;
    pair.kernel()?.await_proc_drbd(IN_SYNC)?;
    ours.await_state("Connected", "UpToDate/UpToDate")?;
    Ok(ours)
}

/// Both down; then the disks must be the same.
fn part(pair: &mut Pair, ours: Ours) -> anyhow::Result<()> {
    pair.kernel()?.run("drbdadm down r0; sync")?;
    ours.leave(pair.segment())?;
    pair.compare_disks()
}

/// The kernel's data come to us, then what its ext4 writes.
pub fn sync_to_us(pair: &mut Pair) -> anyhow::Result<()> {
    let ours = meet_and_sync(pair)?;
    pair.kernel()?.run(MAKE_FILES)?;
    pair.kernel()?.run("drbdadm secondary r0")?;
    part(pair, ours)
}

/// Our data go to the kernel, then what ext4 on our device writes.
pub fn sync_from_us(pair: &mut Pair) -> anyhow::Result<()> {
    let ours = meet(pair)?;
    ours.drbdadm("primary --force r0")?;
    pair.kernel()?.await_proc_drbd(IN_SYNC)?;
    ours.run(MAKE_FILES)?;
    ours.drbdadm("secondary r0")?;
    part(pair, ours)
}

/// Files made on the kernel's side are read on ours, and the other way round.
pub fn role_swap(pair: &mut Pair) -> anyhow::Result<()> {
    let ours = meet_and_sync(pair)?;
    let kernels = pair.kernel()?;
    let made = kernels.run(MAKE_FILES)?;
    kernels.run("drbdadm secondary r0")?;
    ours.drbdadm("primary r0")?;
    let found = ours.run(CHECK_FILES)?;
    ensure!(made == found, "made on the kernel's side\n{made}and found on ours\n{found}");
    let made = ours.run(MAKE_FILES)?;
    ours.drbdadm("secondary r0")?;
    let kernels = pair.kernel()?;
    kernels.run("drbdadm primary r0")?;
    let found = kernels.run(CHECK_FILES)?;
    ensure!(made == found, "made on our side\n{made}and found on the kernel's\n{found}");
    kernels.run("drbdadm secondary r0")?;
    part(pair, ours)
}

/// While we are away the kernel writes 1 MiB; when we are back, that and no more is sent.
pub fn reconnect_resync(pair: &mut Pair) -> anyhow::Result<()> {
    const WRITTEN_KIB: u64 = 1024;
    let ours = meet_and_sync(pair)?;
    ours.drbdadm("disconnect r0")?;
    let kernels = pair.kernel()?;
    kernels.await_proc_drbd("cs:WFConnection")?;
    kernels.run("dmesg -C; dd if=/dev/urandom of=/dev/drbd0 bs=64k count=16 seek=100 oflag=direct 2>&1")?;
    ours.drbdadm("connect r0")?;
    ours.await_state("Connected", "UpToDate/UpToDate")?;
    let kernels = pair.kernel()?;
    kernels.await_proc_drbd(IN_SYNC)?;
    let log = kernels.run("dmesg")?;
    let announced = log
        .lines()
        .find_map(|line| line.split_once("(will sync ")?.1.split_once(" KB")?.0.parse::<u64>().ok())
        .with_context(|| format!("the kernel announced no resync:\n{log}"))?;
    ensure!(announced == WRITTEN_KIB, "{announced} KiB are synced where {WRITTEN_KIB} KiB were written");
    kernels.run("drbdadm secondary r0")?;
    part(pair, ours)
}

/// The kernel loses its power in mid-write; we take over at once, and it is resynced from us when it is back.
pub fn kernel_power_cut(pair: &mut Pair) -> anyhow::Result<()> {
    let ours = meet_and_sync(pair)?;
    pair.kernel()?.run(
        "fio --name=w --filename=/dev/drbd0 --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 \
         --time_based --runtime=60 --size=60m >/dev/null 2>&1 &\n sleep 1",
    )?;
    pair.cut_kernels_power()?;
    ours.await_state("WFConnection", "UpToDate/DUnknown")?;
    ours.drbdadm("primary r0")?;
    ours.run(MAKE_FILES)?;
    pair.reboot_kernel()?.run("drbdadm up r0")?;
    pair.kernel()?.await_proc_drbd(IN_SYNC)?;
    ours.await_state("Connected", "UpToDate/UpToDate")?;
    ours.drbdadm("secondary r0")?;
    part(pair, ours)
}
