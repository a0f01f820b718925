//! The tutorial's part one, and what an administrator does with the result.

use mirror::pair::{Pair, SERVERS, TUTORIAL_RES, Wish};
use testing_lab::can_run;

const MIRROR_LOAD: &str = env!("CARGO_BIN_EXE_mirror-load");

#[test]
fn the_tutorials_part_one() {
    if !can_run("the_tutorials_part_one") {
        return;
    }
    let wish = Wish { image: "5cebb13a-f783-4f8c-8058-c4182c724ccd", ..Wish::small("tutorial") };
    let pair = Pair::booted(wish, MIRROR_LOAD);
    let lab = &pair.lab;
    pair.configure(TUTORIAL_RES);
    for server in SERVERS {
        lab.inside(server, "printf '172.168.16.4 drbd0\\n172.168.16.3 drbd1\\n' >> /etc/hosts");
        let answer = lab.ssh(server, "drbdadm create-md r0");
        let said = format!("{}{}", answer.text(), answer.stderr);
        assert_eq!(answer.status, 0, "{said}");
        for line in
            ["Writing meta data...", "initializing activity log", "meta data block successfully created."]
        {
            assert!(said.contains(line), "create-md does not say {line:?}:\n{said}");
        }
    }
    for server in SERVERS {
        lab.inside(server, "drbdadm up r0");
    }
    pair.await_state("drbd0", "Connected", "Secondary/Secondary", "Inconsistent/Inconsistent");
    lab.inside("drbd0", "drbdadm -- --overwrite-data-of-peer primary all");
    let proc = lab.inside("drbd0", "lockstep proc drbd");
    assert!(
        proc.starts_with("version: 8.3.11 (api:88/proto:86-96)\nsrcversion: 71955441799F513ACA6DA60 \n"),
        "{proc}"
    );
    let state = " 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n    ns:";
    assert!(proc.contains(state), "{proc}");
    assert!(proc.contains("sync'ed:") && proc.contains("K/sec"), "no bar:\n{proc}");
    // A file system is made while the first sync runs.
    lab.inside("drbd0", "mkfs.ext4 -q /dev/drbd0");
    lab.inside("drbd0", "mkdir /drbd && mount /dev/drbd0 /drbd && touch /drbd/.woot.$RANDOM");
    let sums = "cd /drbd && dd if=/dev/urandom of=big bs=1M count=12 status=none && \
                cp -r /etc/security . && find . -type f | sort | xargs sha256sum > /tmp/sums && cat /tmp/sums";
    let sums = lab.inside("drbd0", sums);
    pair.await_in_sync("drbd0", "Primary/Secondary");
    let proc = lab.inside("drbd0", "lockstep proc drbd");
    assert!(proc.contains(" 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n"), "{proc}");
    assert!(proc.ends_with(" oos:0\n"), "{proc}");

    let said = lab.refused("drbd0", "drbdadm secondary r0", 11);
    assert!(said.contains("State change failed: (-12) Device is held open by someone"), "{said}");
    lab.inside("drbd0", "touch /drbd/still-writable");

    lab.inside("drbd0", "umount /drbd && drbdadm secondary r0");
    pair.await_state("drbd0", "Connected", "Secondary/Secondary", "UpToDate/UpToDate");
    lab.inside("drbd1", "drbdadm primary r0 && mkdir /drbd && mount /dev/drbd0 /drbd");
    let check = format!("cd /drbd && test -e still-writable && sha256sum -c --quiet <<'END'\n{sums}END");
    lab.inside("drbd1", &check);
    lab.inside("drbd1", "umount /drbd && e2fsck -fn /dev/drbd0");
    let disks = pair.down_and_read();
    assert!(disks[0] == disks[1], "the disks differ");
}

/// What was read before a demotion must not answer for the disk after the next promotion.
#[test]
fn demote_write_on_the_peer_promote_read() {
    if !can_run("demote_write_on_the_peer_promote_read") {
        return;
    }
    let pair = Pair::mirrored(Wish::small("stale"), MIRROR_LOAD);
    let lab = &pair.lab;
    // Through the page cache, and past it in the middle of the device.
    let write = |server: &str, word: &str| {
        let words = format!(
            "yes {word} | head -c 1048576 | dd of=/dev/drbd0 bs=64k conv=fsync,notrunc status=none; \
             yes {word} | head -c 65536 | dd of=/dev/drbd0 bs=64k seek=500 oflag=direct conv=notrunc status=none"
        );
        lab.inside(server, &words);
    };
    let read = |server: &str| {
        let words = "(dd if=/dev/drbd0 bs=64k count=16 status=none; \
                     dd if=/dev/drbd0 bs=64k skip=500 count=1 status=none) | grep -ao '[a-z]*' | sort | uniq -c";
        lab.inside(server, words).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    write("drbd0", "old");
    assert_eq!(read("drbd0"), ["278528", "old"]);
    lab.inside("drbd0", "drbdadm secondary r0");
    lab.inside("drbd1", "drbdadm primary r0");
    assert_eq!(read("drbd1"), ["278528", "old"]);
    write("drbd1", "new");
    lab.inside("drbd1", "drbdadm secondary r0");
    lab.inside("drbd0", "drbdadm primary r0");
    assert_eq!(read("drbd0"), ["278528", "new"]);
    pair.await_in_sync("drbd0", "Primary/Secondary");
}

/// A server that was away gets what was written meanwhile, and no more.
#[test]
fn a_lost_server_resyncs_only_what_differs() {
    if !can_run("a_lost_server_resyncs_only_what_differs") {
        return;
    }
    let pair = Pair::mirrored(Wish::small("resync"), MIRROR_LOAD);
    let lab = &pair.lab;
    let begun = |server: &str| -> Vec<u64> {
        let kib = |line: &str| line.split_once("will sync ")?.1.split(' ').next()?.parse().ok();
        pair.log(server).lines().filter_map(kib).collect()
    };
    for (away, leave, come) in [
        ("drbd1", "drbdadm disconnect r0", "drbdadm connect r0"),
        ("drbd1", "drbdadm down r0", "drbdadm up r0"),
        ("drbd0", "drbdadm disconnect r0", "drbdadm connect r0"),
    ] {
        let before = begun("drbd0").len();
        lab.inside(away, leave);
        pair.await_any("drbd0", "alone", |found| !found.starts_with("Connected"));
        // 40 blocks of 4 KiB, three of which are written twice, far apart from each other.
        let write = "for at in $(seq 0 400 15999) 0 400 800; do \
                     dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek=$at oflag=direct conv=notrunc \
                     status=none || exit 1; done";
        lab.inside("drbd0", write);
        lab.inside(away, come);
        pair.await_in_sync("drbd0", "Primary/Secondary");
        assert_eq!(begun("drbd0")[before..], [160], "{away}# {leave}");
    }
    lab.inside("drbd0", "drbdadm secondary r0");
    let disks = pair.down_and_read();
    assert!(disks[0] == disks[1], "the disks differ");
}

/// The second front of the device: NBD on a unix socket.
#[test]
fn nbd_and_loop_serve_the_same_disk() {
    if !can_run("nbd_and_loop_serve_the_same_disk") {
        return;
    }
    let pair = Pair::mirrored(Wish::small("nbd"), MIRROR_LOAD);
    let lab = &pair.lab;
    if let Some(tool) = ["nbdinfo", "nbdcopy"]
        .into_iter()
        .find(|tool| lab.ssh("drbd0", &format!("command -v {tool}")).status != 0)
    {
        eprintln!("skip nbd_and_loop_serve_the_same_disk: no {tool}");
        return;
    }
    let uri = "'nbd+unix:///?socket=/run/lockstep/drbd/drbd0.nbd'";
    let device_bytes = lab.inside("drbd0", "blockdev --getsize64 /dev/drbd0");
    assert_eq!(lab.inside("drbd0", &format!("nbdinfo --size {uri}")), device_bytes);
    // Written through one, read through the other, both ways.
    let words = format!(
        "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=20 oflag=direct conv=fsync,notrunc status=none && \
         nbdcopy {uri} - | cmp - /dev/drbd0"
    );
    lab.inside("drbd0", &words);
    let words = format!(
        "truncate -s {} /tmp/image && dd if=/dev/urandom of=/tmp/image bs=1M count=8 seek=4 conv=notrunc \
         status=none && nbdcopy --flush /tmp/image {uri} && dd if=/dev/drbd0 bs=1M iflag=direct status=none | \
         cmp - /tmp/image",
        device_bytes.trim()
    );
    lab.inside("drbd0", &words);
    // The socket goes with the role.
    lab.inside("drbd0", "drbdadm secondary r0");
    assert_ne!(lab.ssh("drbd0", &format!("timeout 5 nbdinfo --size {uri}")).status, 0);
    let image = lab.ssh("drbd0", "cat /tmp/image").stdout;
    let disks = pair.down_and_read();
    assert!(disks[0] == image && disks[1] == image, "not what was copied is on the disks");
}
