//! Servers that systemd runs: what starts in them, what is mounted, and how they end.

use std::path::Path;
use std::time::{Duration, Instant};

use testing_lab::{TestLab, can_run};

/// For a server to go down and come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn can_run_systemd(test: &str) -> bool {
    if !Path::new("/lib/systemd/systemd").exists() {
        eprintln!("skip {test}: no /lib/systemd/systemd");
        return false;
    }
    can_run(test)
}

fn boot(lab: &TestLab, image: &str, init: &str, name: &str) {
    let words = ["boot", "--image", image, "--flavor", "2", "--no-public", "--no-service-net"];
    lab.nova(&[&words[..], &["--init", init, name]].concat());
}

/// Which of its lives a server lives.
fn life(lab: &TestLab, server: &str) -> String {
    lab.ssh(server, "cat /proc/sys/kernel/random/boot_id").text()
}

/// Does something that ends this life of the server, and waits for the next.
#[track_caller]
fn next_life(lab: &TestLab, server: &str, end: impl FnOnce()) {
    let before = life(lab, server);
    end();
    let patience_ends = Instant::now() + PATIENCE;
    loop {
        let now = life(lab, server);
        if !now.is_empty() && now != before {
            return;
        }
        assert!(Instant::now() < patience_ends, "{server} does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn status(lab: &TestLab, server: &str) -> String {
    let shown: serde_json::Value =
        serde_json::from_str(&lab.nova(&["show", "--json", server])).expect("JSON");
    shown["status"].as_str().expect("a status").to_owned()
}

#[test]
fn systemd_runs_a_server() {
    if !can_run_systemd("systemd_runs_a_server") {
        return;
    }
    let lab = TestLab::new("runs");
    boot(&lab, "This system", "systemd", "one");
    lab.within(PATIENCE, "one", "systemctl is-system-running");
    assert_eq!(lab.inside("one", "cat /proc/1/comm; hostname"), "systemd\none\n");
    // Of what the host has enabled nothing is.
    assert_eq!(
        lab.inside(
            "one",
            "systemctl list-units --state=failed --no-legend; cat /etc/fstab | grep -v ^#; true"
        ),
        ""
    );
    assert_eq!(
        lab.inside("one", "ls -A /etc/systemd/system/*.wants /etc/rc2.d 2>/dev/null | grep -v :; true"),
        ""
    );
    // Devices and the kernel's settings are the host's, the network's settings are not.
    lab.refused("one", "echo 1 > /proc/sys/kernel/panic", 2);
    lab.refused("one", "mkdir /sys/fs/x", 1);
    lab.inside("one", "echo 0 > /proc/sys/net/ipv4/ip_forward");
    lab.within(PATIENCE, "one", "journalctl --no-pager | grep -q 'Reached target.*multi-user'");
    // A command from the host is not systemd's child but ends with its server, and a reader that goes away ends it.
    assert_eq!(lab.inside("one", "tail -1 /proc/self/cgroup | grep -c lab-sessions"), "1\n");
    assert_eq!(lab.inside("one", "yes | head -1; systemctl is-active lab-sessions"), "y\nactive\n");
    let other = TestLab::new("runs-too");
    boot(&other, "This system", "systemd", "one");
    assert_ne!(lab.inside("one", "cat /etc/machine-id"), other.inside("one", "cat /etc/machine-id"));
    assert_ne!(life(&lab, "one"), life(&other, "one"));
}

#[test]
fn what_is_enabled_starts_and_what_is_listed_is_mounted() {
    if !can_run_systemd("what_is_enabled_starts_and_what_is_listed_is_mounted") {
        return;
    }
    let lab = TestLab::new("enabled");
    lab.nova(&["volume-create", "--display-name", "v", "1"]);
    boot(&lab, "This system", "systemd", "one");
    lab.nova(&["volume-attach", "one", "v", "/dev/xvdb"]);
    lab.inside("one", "mkfs.ext4 -q -L data /dev/xvdb");
    lab.inside(
        "one",
        "for name in first second third; do printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\n\
         WantedBy=multi-user.target\n' > /etc/systemd/system/$name.service; done; systemctl daemon-reload",
    );
    lab.inside("one", "service first start && service first status && service first stop");
    assert_eq!(lab.ssh("one", "service first status").status, 3);
    lab.inside("one", "systemctl -q enable first && update-rc.d second defaults && chkconfig third on");
    assert!(lab.inside("one", "chkconfig --list third").ends_with("3:on\t4:on\t5:on\t6:off\n"));
    lab.inside(
        "one",
        "printf 'LABEL=data /data ext4 noatime 0 2\n/dev/xvdc /absent ext4 nofail 0 0\n/dev/xvdb /later ext4 noauto 0 0\n' \
         >> /etc/fstab",
    );
    let check = "systemctl is-active first second third && grep -q '^/dev/xvdb /data .*noatime' /proc/mounts && \
                 ! grep -q '/absent\\|/later' /proc/mounts";
    next_life(&lab, "one", || assert_eq!(lab.ssh("one", "reboot").status, 0));
    lab.within(PATIENCE, "one", check);
    lab.inside(
        "one",
        "echo kept > /data/file && sync && mkdir /later && mount /later && cat /later/file && umount /later",
    );
    next_life(&lab, "one", || drop(lab.nova(&["reboot", "--hard", "one"])));
    lab.within(PATIENCE, "one", check);
    assert_eq!(lab.inside("one", "cat /data/file"), "kept\n");
    // A shutdown writes back what is mounted; the disk is clean after it.
    lab.inside("one", "cd /data && echo late > late && systemctl -q disable first && shutdown -h now");
    let patience_ends = Instant::now() + PATIENCE;
    while status(&lab, "one") != "SHUTOFF" {
        assert!(Instant::now() < patience_ends, "it does not go down");
        std::thread::sleep(Duration::from_millis(20));
    }
    lab.nova(&["start", "one"]);
    lab.within(PATIENCE, "one", "systemctl is-active second third && cat /data/late");
    assert_eq!(lab.ssh("one", "systemctl is-active first").text(), "inactive\n");
    assert_eq!(
        lab.inside("one", "journalctl --list-boots | grep -vc BOOT"),
        "4\n",
        "the journal tells of every life"
    );
    next_life(&lab, "one", || drop(lab.nova(&["reboot", "one"])));
    lab.within(PATIENCE, "one", "cat /data/late");
}

#[test]
fn after_an_order_to_reboot_the_next_command_meets_the_next_life() {
    if !can_run_systemd("after_an_order_to_reboot_the_next_command_meets_the_next_life") {
        return;
    }
    let lab = TestLab::new("order-to-reboot");
    boot(&lab, "This system", "systemd", "one");
    for order in ["reboot", "systemctl reboot", "shutdown -r now", "init 6"] {
        let before = life(&lab, "one");
        // Processes keep the manager busy, so that the first unit stops late.
        lab.inside("one", "for n in 1 2 3 4; do setsid sh -c 'while :; do :; done' > /dev/null 2>&1 & done");
        assert_eq!(lab.ssh("one", order).status, 0, "{order}");
        let after = lab.inside("one", "cat /proc/sys/kernel/random/boot_id");
        assert_ne!(before, after, "{order}");
    }
    // A server that is told to stay off does not come back; one that waits for it is told so.
    lab.inside("one", "poweroff");
    assert!(lab.refused("one", "true", 1).contains("server one is off"));
}

/// A mirror whose peer is not there is enough to show the order.
#[test]
fn file_systems_on_a_mirror_end_before_it() {
    if !can_run_systemd("file_systems_on_a_mirror_end_before_it") {
        return;
    }
    let lab = TestLab::new("order");
    lab.nova(&["network-create", "n", "172.16.16.0/24"]);
    lab.nova(&["volume-create", "--display-name", "v", "1"]);
    let words = ["boot", "--image", "This system", "--flavor", "2", "--no-public", "--no-service-net"];
    lab.nova(
        &[&words[..], &["--init", "systemd", "--nic", "net-id=n,v4-fixed-ip=172.16.16.4", "one"]].concat(),
    );
    lab.nova(&["volume-attach", "one", "v", "/dev/xvdb"]);
    lab.inside("one", "truncate -s 40M /small; rm -rf /etc/drbd.d/*.res");
    lab.inside(
        "one",
        "printf 'n\\np\\n1\\n2048\\n+40M\\nw\\n' | fdisk /dev/xvdb > /dev/null; cat > /etc/drbd.d/r0.res << EOT
resource r0 {
    protocol C;
    startup { wfc-timeout 1; degr-wfc-timeout 1; outdated-wfc-timeout 1; become-primary-on one; }
    device /dev/drbd0; disk /dev/xvdb1; meta-disk internal;
    on one { address 172.16.16.4:7789; }
    on two { address 172.16.16.3:7789; }
}
EOT",
    );
    lab.within(PATIENCE, "one", "test -b /dev/xvdb1");
    lab.inside("one", "drbdadm create-md --force r0 && systemctl start drbd && drbdadm primary --force r0");
    lab.inside("one", "mkfs.ext4 -q /dev/drbd0 && mkdir -p /by-hand && mount /dev/drbd0 /by-hand");
    let free = "test ! -e /run/lockstep/cgroup.procs || grep -q block-daemons /proc/$(pgrep -fo 'drbd daemon')/cgroup";
    lab.inside("one", free);
    // By hand, with a loop device on it and somebody in it.
    lab.inside(
        "one",
        "cd /by-hand && truncate -s 8M inner && mkfs.ext4 -qF inner && mount inner /mnt -o loop",
    );
    lab.inside(
        "one",
        "echo written > /by-hand/file; setsid sleep 1000 < /by-hand/file > /dev/null 2>&1 & sleep 0.2",
    );
    next_life(&lab, "one", || assert_eq!(lab.ssh("one", "cd /by-hand && reboot").status, 0));
    // By a line of fstab, after the service that makes it primary.
    lab.inside("one", "echo '/dev/drbd0 /listed ext4 defaults 0 0' >> /etc/fstab; update-rc.d drbd enable");
    next_life(&lab, "one", || drop(lab.nova(&["reboot", "one"])));
    lab.within(PATIENCE, "one", "grep -q written /listed/file");
    next_life(&lab, "one", || drop(lab.nova(&["reboot", "one"])));
    lab.within(PATIENCE, "one", "grep -q written /listed/file");
    let log = lab.inside("one", "journalctl -b -1 -o cat --no-pager");
    let at = |text: &str| log.rfind(text).unwrap_or_else(|| panic!("no {text:?} in\n{log}"));
    assert!(at("Unmounted listed.mount") < at("Stopped drbd.service"), "{log}");
    assert!(at("Stopped drbd.service") < at("Stopped lockstep-drbd.service"), "{log}");
}

#[test]
fn originals_stand_first_where_they_are_wanted() {
    if !can_run("originals_stand_first_where_they_are_wanted") {
        return;
    }
    let lab = TestLab::new("originals");
    boot(&lab, "Originals", "tiny", "theirs");
    boot(&lab, "This system", "tiny", "ours");
    assert_eq!(lab.inside("theirs", "which lockstep"), "/usr/local/bin/lockstep\n");
    assert_eq!(
        lab.inside(
            "theirs",
            "ls /usr/local/sbin/drbdadm /usr/local/lib/systemd/system/drbd.service 2>/dev/null; true"
        ),
        ""
    );
    assert_eq!(lab.inside("ours", "which drbdadm"), "/usr/local/sbin/drbdadm\n");
    for original in ["drbdadm", "gluster", "mkfs.gfs2"] {
        let path = format!("/usr/sbin/{original}");
        if Path::new(&path).exists() {
            assert_eq!(lab.inside("theirs", &format!("which {original}")), format!("{path}\n"));
        } else {
            eprintln!("skip originals_stand_first_where_they_are_wanted: no {path}");
        }
    }
}
