//! The daemon dies, is upgraded, and lives below its own dirty pages.

use std::time::Duration;

use mirror::load::Load;
use mirror::pair::{Pair, SERVERS, Wish};
use testing_lab::can_run;

const MIRROR_LOAD: &str = env!("CARGO_BIN_EXE_mirror-load");

/// Longer than a worker takes to come back and the peer to notice.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(20);

/// The worker's process id in a server; the holder's is another.
const WORKER: &str = "pgrep -f 'lockstep drbd worker$'";

/// Waits until the worker is another one than `before`.
#[track_caller]
fn await_successor(pair: &Pair, server: &str, before: &str) {
    let is_new = format!("now=$({WORKER}) && test \"$now\" != {before}");
    pair.lab.within(Duration::from_secs(10), server, &is_new);
}

#[test]
fn the_daemon_dies_under_a_mounted_ext4() {
    if !can_run("the_daemon_dies_under_a_mounted_ext4") {
        return;
    }
    let pair = Pair::mirrored(Wish::small("dies"), MIRROR_LOAD);
    let lab = &pair.lab;
    lab.inside("drbd0", "mkfs.ext4 -q /dev/drbd0 && mkdir -p /drbd && mount /dev/drbd0 /drbd");
    let mut load = Load::start(lab, "drbd0", "append /drbd/log");
    let mut told = load.told(ACKNOWLEDGE_PATIENCE);
    let deaths = [
        ("drbd0", "kill -9"),
        ("drbd0", "kill -9"),
        ("drbd1", "kill -9"),
        ("drbd0", "lockstep drbd upgrade #"),
        ("drbd0", "kill -9"),
        ("drbd1", "lockstep drbd upgrade #"),
    ];
    for (server, death) in deaths {
        let worker = lab.inside(server, WORKER);
        lab.inside(server, &format!("{death} {}", worker.trim()));
        await_successor(&pair, server, worker.trim());
        // The writer waits and goes on; what it says after a successor is there is new.
        told.extend(load.told(ACKNOWLEDGE_PATIENCE));
        pair.await_in_sync("drbd0", "Primary/Secondary");
        let before = told.len();
        told.extend(load.told(ACKNOWLEDGE_PATIENCE));
        assert!(told.len() > before, "{server}# {death}: the load stands still");
    }
    told.extend(load.end());
    assert_eq!(lab.inside("drbd0", "grep -c ' /drbd ext4 rw' /proc/mounts"), "1\n", "remounted read-only");
    let log = lab.inside("drbd0", "cat /drbd/log");
    let expected: Vec<String> = (0..told.len()).map(|number| number.to_string()).collect();
    assert!(told == expected, "acknowledgements are missing or doubled");
    assert!(log.lines().eq(expected.iter().map(String::as_str)), "records are missing or doubled");
    lab.inside("drbd0", "umount /drbd && e2fsck -fn /dev/drbd0 && drbdadm secondary r0");
    let disks = pair.down_and_read();
    assert!(disks[0] == disks[1], "the disks differ");
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
