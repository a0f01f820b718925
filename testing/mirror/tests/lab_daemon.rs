//! The daemon dies, is upgraded, and lives below its own dirty pages.

use std::time::Duration;

use mirror::kills::{self, Death};
use mirror::pair::{Pair, SERVERS, Wish};
use mirror::random::{SplitMix64, seed};
use testing_lab::can_run;

const MIRROR_LOAD: &str = env!("CARGO_BIN_EXE_mirror-load");

#[test]
fn the_daemon_dies_under_a_mounted_ext4() {
    if !can_run("the_daemon_dies_under_a_mounted_ext4") {
        return;
    }
    let deaths = [
        ("drbd0", Death::Kill),
        ("drbd0", Death::Kill),
        ("drbd1", Death::Kill),
        ("drbd0", Death::Upgrade),
        ("drbd0", Death::Kill),
        ("drbd1", Death::Upgrade),
    ];
    let mut random = SplitMix64(seed("the_daemon_dies_under_a_mounted_ext4"));
    kills::run("dies", &deaths, &mut random, MIRROR_LOAD);
}

/// Memory of the servers: small, so that twice as much is soon dirty.
const MEMORY_MIB: u64 = 128;

/// A daemon that waits for itself holds up every sync of the machine: this ends, and the lab with it.
const WRITE_PATIENCE: Duration = Duration::from_secs(45);

#[test]
fn twice_the_memory_dirty() {
    if !can_run("twice_the_memory_dirty") {
        return;
    }
    let wish = Wish { partition_mib: 384, ..Wish::small("dirty") };
    let pair = Pair::mirrored(wish, MIRROR_LOAD);
    let lab = &pair.lab;
    lab.inside("drbd0", "mkfs.ext4 -q /dev/drbd0 && mkdir -p /drbd && mount /dev/drbd0 /drbd");
    if let Err(why) = lab.limit_memory(MEMORY_MIB) {
        eprintln!("skip twice_the_memory_dirty: {why}");
        return;
    }
    // What is written can be told from its place, and is not kept anywhere else.
    let stream = format!("seq -f '%015.0f' {} {}", 1, 2 * MEMORY_MIB * (1 << 20) / 16);
    let write = format!("{stream} | dd of=/drbd/big bs=1M iflag=fullblock conv=fsync status=none");
    lab.inside_within(WRITE_PATIENCE, "drbd0", &write);
    lab.inside("drbd0", &format!("{stream} | cmp - /drbd/big"));
    pair.await_in_sync("drbd0", "Primary/Secondary");
    for server in SERVERS {
        assert!(!pair.log(server).contains("taking over"), "the worker of {server} was killed");
    }
    lab.inside("drbd0", "umount /drbd && drbdadm secondary r0");
    lab.inside("drbd1", "drbdadm primary r0 && mkdir -p /drbd && mount -o ro /dev/drbd0 /drbd");
    lab.inside("drbd1", &format!("{stream} | cmp - /drbd/big"));
}
