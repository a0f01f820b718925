//! Resources with several volumes, several resources in one daemon, their names below /dev/drbd, and no secret anywhere.

use std::time::Duration;

use mirror::pair::{Pair, SERVERS, Wish};
use testing_lab::can_run;

const MIRROR_LOAD: &str = env!("CARGO_BIN_EXE_mirror-load");

/// A resource with volumes 0 and 7, and one with a single volume without a section.
fn resources(extra_net: &str) -> String {
    let hosts = |volumes: &dyn Fn(&str) -> String, port: u16| {
        let host = |(name, disk, ip): (&str, &str, &str)| {
            format!("  on {name} {{ address {ip}:{port}; {} }}\n", volumes(disk))
        };
        [("drbd0", "/dev/xvdb", "172.16.16.4"), ("drbd1", "/dev/xvdf", "172.16.16.3")].map(host).concat()
    };
    let two = |disk: &str| {
        format!(
            "volume 0 {{ device minor 0; disk {disk}1; meta-disk internal; }} \
             volume 7 {{ device minor 1; disk {disk}2; meta-disk internal; }}"
        )
    };
    let one = |disk: &str| format!("device /dev/drbd2; disk {disk}3; meta-disk internal;");
    let common = "disk { c-plan-ahead 0; resync-rate 100M; }";
    let net = format!("net {{ cram-hmac-alg sha1; shared-secret dupersupersecret; {extra_net} }}");
    format!(
        "resource r0 {{ {common} {net}\n{}}}\nresource r1 {{ {common} {net}\n{}}}\n",
        hosts(&two, 7788),
        hosts(&one, 7789)
    )
}

#[test]
fn two_volumes_and_two_resources() {
    if !can_run("two_volumes_and_two_resources") {
        return;
    }
    let pair = Pair::booted(Wish::small("volumes"), MIRROR_LOAD);
    let lab = &pair.lab;
    pair.configure(&resources(""));
    for (server, disk) in SERVERS.into_iter().zip(["/dev/xvdb", "/dev/xvdf"]) {
        let typed = "n\\np\\n2\\n133120\\n+64M\\nn\\np\\n3\\n264192\\n+64M\\nw\\n";
        lab.inside(server, &format!("printf '{typed}' | fdisk {disk}"));
        lab.within(Duration::from_secs(5), server, &format!("test -b {disk}3"));
        lab.inside(server, "drbdadm create-md all && drbdadm up all");
    }
    let all = |server: &str, verb: &str| lab.inside(server, &format!("drbdadm {verb} all"));
    lab.inside("drbd0", "drbdadm wait-connect all && drbdadm primary --force all");
    let synced = "for i in $(seq 300); do drbdadm dstate all | grep -v UpToDate/UpToDate || exit 0; sleep 0.2; done; exit 1";
    lab.inside("drbd0", synced);
    assert_eq!(all("drbd0", "role"), "Primary/Secondary\n".repeat(3));
    assert_eq!(
        lab.inside("drbd0", "drbdadm status r0"),
        "r0 role:Primary\n  volume:0 disk:UpToDate\n  volume:7 disk:UpToDate\n  peer role:Secondary\n    \
         volume:0 replication:Established peer-disk:UpToDate\n    \
         volume:7 replication:Established peer-disk:UpToDate\n\n"
    );

    // Each device has its names, which go with it.
    let names = "cd /dev/drbd && for n in by-res/r0/0 by-res/r0/7 by-res/r1 by-disk/xvdb1 by-disk/xvdb2 by-disk/xvdb3; do \
                 readlink -f $n; done";
    let devices = ["/dev/drbd0", "/dev/drbd1", "/dev/drbd2"];
    assert_eq!(lab.inside("drbd0", names).lines().collect::<Vec<_>>(), [devices, devices].concat());
    for (name, word) in [("by-res/r0/0", "zero"), ("by-res/r0/7", "seven"), ("by-res/r1", "one")] {
        let write =
            format!("yes {word} | head -c 1048576 | dd of=/dev/drbd/{name} bs=64k conv=fsync status=none");
        lab.inside("drbd0", &write);
    }
    all("drbd0", "secondary");
    lab.inside("drbd0", "test ! -e /dev/drbd");
    all("drbd1", "primary");
    for (name, word) in [("by-res/r0/0", "zero"), ("by-res/r0/7", "seven"), ("by-res/r1", "one")] {
        let check = format!("yes {word} | head -c 1048576 | cmp -n 1048576 - /dev/drbd/{name}");
        lab.inside("drbd1", &check);
    }

    // The difference alone is applied; a volume that the configuration has no longer goes.
    pair.configure_one("drbd0", &resources("ping-int 5;"));
    assert_eq!(
        lab.inside("drbd0", "drbdadm -d adjust r1"),
        "drbdsetup-84 net-options ipv4:172.16.16.4:7789 ipv4:172.16.16.3:7789 --set-defaults --cram-hmac-alg=sha1 \
         --shared-secret=_hidden_ --ping-int=5\n"
    );
    lab.inside("drbd0", "drbdadm adjust all && test -z \"$(drbdadm -d adjust all)\"");
    lab.inside(
        "drbd0",
        "drbdadm detach r0/7 && drbdsetup del-minor 1 && drbdadm adjust r0 && drbdadm dstate r0/7",
    );

    // The secret is in no log, no status and no list of processes.
    for server in SERVERS {
        let seen = "drbdadm status; drbdsetup status --json; drbdsetup show; drbdsetup show --show-defaults; \
                    drbdsetup events2 --now --statistics; drbdadm -d up all; drbdadm -d adjust all; \
                    lockstep proc drbd; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /var/log/lockstep/* 2>/dev/null; true";
        let seen = lab.inside(server, seen);
        assert!(seen.contains("_hidden_") && !seen.contains("dupersupersecret"), "{seen}");
        lab.inside(server, "drbdadm down all");
    }
}
