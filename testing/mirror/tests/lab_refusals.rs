//! What must be refused, and what must be survived.

use std::time::{Duration, Instant};

use mirror::pair::{Pair, SERVERS, Wish, quick_resource};
use testing_lab::can_run;

const MIRROR_LOAD: &str = env!("CARGO_BIN_EXE_mirror-load");

/// Exit codes of drbdsetup, which drbdadm passes on.
mod code {
    pub const STATE_CHANGE_FAILED: i32 = 11;
    pub const NO_UP_TO_DATE_DISK: i32 = 17;
}

#[test]
fn another_secret_is_no_peer() {
    if !can_run("another_secret_is_no_peer") {
        return;
    }
    let pair = Pair::booted(Wish::small("secret"), MIRROR_LOAD);
    let lab = &pair.lab;
    pair.configure_one("drbd0", &quick_resource());
    pair.configure_one("drbd1", &quick_resource().replace("dupersupersecret", "duperpublicsecret"));
    for server in SERVERS {
        lab.inside(server, "drbdadm create-md r0 && drbdadm up r0");
    }
    // Whoever sees the wrong response first leaves for good; the other finds nobody any more.
    let left = |server: &str| pair.state(server).starts_with("StandAlone");
    let end = Instant::now() + Duration::from_secs(20);
    while !SERVERS.into_iter().any(left) {
        assert!(Instant::now() < end, "nobody is StandAlone");
        std::thread::sleep(Duration::from_millis(30));
    }
    for server in SERVERS {
        let log = pair.log(server);
        assert!(!log.contains("WFReportParams"), "{server} talked to a stranger");
        let why = "Authentication of peer failed: the peer's response is wrong: its shared-secret differs";
        assert!(!left(server) || log.contains(why), "the log of {server} does not say {why:?}");
    }
    // With the right one, all is well.
    pair.configure(&quick_resource());
    lab.inside("drbd1", "drbdadm disconnect r0; drbdadm connect r0");
    lab.inside("drbd0", "drbdadm disconnect r0; drbdadm connect r0");
    pair.await_state("drbd0", "Connected", "Secondary/Secondary", "Inconsistent/Inconsistent");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    if !can_run("what_cannot_be_is_refused_and_changes_nothing") {
        return;
    }
    let pair = Pair::booted(Wish::small("refused"), MIRROR_LOAD);
    let lab = &pair.lab;
    pair.configure(&quick_resource());
    lab.refused("drbd0", "drbdadm primary r0", 10);
    // No meta-data yet.
    let said = lab.refused("drbd0", "drbdadm up r0", 1);
    assert!(said.contains("No valid meta data found"), "{said}");
    lab.inside("drbd0", "drbdadm down r0; drbdadm create-md r0 && drbdadm up r0");
    // Inconsistent, and no peer.
    let said = lab.refused("drbd0", "drbdadm primary r0", code::NO_UP_TO_DATE_DISK);
    assert!(said.contains("Need access to UpToDate data"), "{said}");
    lab.inside("drbd0", "test ! -e /dev/drbd0 -o \"$(blockdev --getsize64 /dev/drbd0 2>/dev/null)\" = ''");

    // Twice up is up.
    lab.inside("drbd1", "drbdadm create-md r0 && drbdadm up r0");
    pair.await_state("drbd0", "Connected", "Secondary/Secondary", "Inconsistent/Inconsistent");
    let before = pair.log("drbd0").lines().count();
    lab.ssh("drbd0", "drbdadm up r0");
    assert_eq!(pair.state("drbd0"), "Connected Secondary/Secondary Inconsistent/Inconsistent");
    assert_eq!(pair.log("drbd0").lines().count(), before, "up of what is up did something");

    // One Primary at a time.
    lab.inside("drbd0", "drbdadm primary --force r0");
    pair.await_in_sync("drbd0", "Primary/Secondary");
    let said = lab.refused("drbd1", "drbdadm primary r0", code::STATE_CHANGE_FAILED);
    assert!(said.contains("(-1) Multiple primaries not allowed by config"), "{said}");
    pair.await_in_sync("drbd0", "Primary/Secondary");
    // Its disk is in use.
    assert_ne!(
        lab.ssh("drbd0", "drbdadm create-md --force r0").status,
        0,
        "create-md under a running device"
    );
    assert_ne!(lab.ssh("drbd0", "mount /dev/xvdb1 /mnt").status, 0, "the lower disk can be mounted");
    assert_ne!(
        lab.ssh("drbd1", "dd if=/dev/drbd0 of=/dev/null count=1").status,
        0,
        "a Secondary can be read"
    );
}

#[test]
fn disks_that_are_too_small() {
    if !can_run("disks_that_are_too_small") {
        return;
    }
    let pair = Pair::booted(Wish::small("size"), MIRROR_LOAD);
    let lab = &pair.lab;
    // Too small for any meta-data.
    lab.inside("drbd1", "printf 'n\\np\\n2\\n\\n+64K\\nw\\n' | fdisk /dev/xvdf");
    lab.within(Duration::from_secs(1), "drbd1", "test -b /dev/xvdf2");
    pair.configure(&quick_resource().replace("/dev/xvdf1", "/dev/xvdf2"));
    let said = lab.refused("drbd1", "drbdadm create-md r0", 10);
    assert!(said.contains("at least 69632 are needed"), "{said}");
    // Large enough for itself, not for the device of a Primary.
    lab.inside("drbd1", "printf 'n\\np\\n3\\n\\n+48M\\nw\\n' | fdisk /dev/xvdf");
    lab.within(Duration::from_secs(1), "drbd1", "test -b /dev/xvdf3");
    pair.configure(&quick_resource().replace("/dev/xvdf1", "/dev/xvdf3"));
    lab.inside("drbd0", "drbdadm create-md r0 && drbdadm up r0 && drbdadm primary --force r0");
    let size = lab.inside("drbd0", "blockdev --getsize64 /dev/drbd0");
    lab.inside("drbd0", "mkfs.ext4 -q /dev/drbd0 && mount /dev/drbd0 /mnt");
    lab.inside("drbd1", "drbdadm create-md r0 && drbdadm up r0");
    pair.await_any("drbd0", "StandAlone", |found| found.starts_with("StandAlone"));
    assert!(pair.log("drbd0").contains("too small"), "the log does not say why");
    assert_eq!(lab.inside("drbd0", "blockdev --getsize64 /dev/drbd0"), size);
    lab.inside("drbd0", "dd if=/dev/zero of=/mnt/file bs=1M count=4 conv=fsync status=none");
}

#[test]
fn a_pulled_cable_is_noticed_and_healed() {
    if !can_run("a_pulled_cable_is_noticed_and_healed") {
        return;
    }
    let pair = Pair::mirrored(Wish::small("cable"), MIRROR_LOAD);
    let lab = &pair.lab;
    let write = "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=8 oflag=direct conv=notrunc status=none";
    for server in ["drbd1", "drbd0"] {
        lab.fault(&["link-down", server]);
        let begun = Instant::now();
        // Waits for the peer until that is given up, then goes on.
        lab.inside("drbd0", &format!("timeout 20 {write}"));
        // ping-int 1 s and ping-timeout 0.5 s, or timeout 2 s; twice that on a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(5), "noticed after {:?}", begun.elapsed());
        assert!(
            pair.log("drbd0").contains("-> NetworkFailure )") || pair.log("drbd0").contains("-> Timeout )")
        );
        assert!(
            pair.state("drbd0").ends_with("Primary/Unknown UpToDate/DUnknown"),
            "{}",
            pair.state("drbd0")
        );
        lab.inside("drbd0", write);
        lab.fault(&["link-up", server]);
        pair.await_in_sync("drbd0", "Primary/Secondary");
        let synced = pair.log("drbd0");
        let synced = synced.lines().rfind(|line| line.contains("will sync")).expect("a resync");
        assert!(synced.contains("will sync 512 KB"), "{synced}");
    }
    lab.inside("drbd0", "drbdadm secondary r0");
    let disks = pair.down_and_read();
    assert!(disks[0] == disks[1], "the disks differ");
}
