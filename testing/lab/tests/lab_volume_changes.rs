//! Volumes that grow, are pulled out under power, and are copied.

use std::process::Stdio;
use std::time::{Duration, Instant};

use testing_lab::{TestLab, can_run};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_volume(test: &str, kind: &str) -> TestLab {
    let lab = TestLab::new(test);
    lab.boot("server", &[]);
    lab.nova(&["volume-create", "--display-name", "v", "--volume-type", kind, "1"]);
    lab.nova(&["volume-attach", "server", "v", "/dev/xvdb"]);
    lab
}

#[test]
fn a_volume_grows_under_a_mounted_file_system() {
    if !can_run("a_volume_grows_under_a_mounted_file_system") {
        return;
    }
    for kind in ["SATA", "raw"] {
        let lab = with_volume(&format!("grows-{}", kind.to_lowercase()), kind);
        lab.inside("server", "echo ,512M | sfdisk -q /dev/xvdb");
        lab.within(PATIENCE, "server", "test -b /dev/xvdb1");
        lab.inside("server", "mkfs.ext4 -q /dev/xvdb1 && mount /dev/xvdb1 /mnt && echo kept > /mnt/file");
        lab.nova_refuses(&["volume-extend", "v", "1"], "the new size must be more");
        lab.nova_refuses(&["volume-extend", "v", "0"], "sizes are 1 to");
        lab.nova(&["volume-extend", "v", "3"]);
        let size = "test $(blockdev --getsize64 /dev/xvdb) = 3221225472";
        lab.inside("server", size);
        lab.inside("server", "grep -q xvdb1 /proc/mounts && cat /mnt/file && test -b /dev/xvdb1");
        lab.inside("server", "echo last | dd of=/dev/xvdb bs=1M seek=3071 conv=fsync status=none");
        lab.inside("server", "umount /mnt && echo ,+ | sfdisk -q -N 2 /dev/xvdb --append");
        lab.within(PATIENCE, "server", "test $(blockdev --getsize64 /dev/xvdb2) -gt 2600000000");
        lab.nova(&["reboot", "--hard", "server"]);
        lab.inside("server", size);
        assert_eq!(
            lab.inside("server", "dd if=/dev/xvdb bs=1M skip=3071 count=1 status=none | head -c 4"),
            "last"
        );
    }
}

#[test]
fn a_volume_pulled_out_under_power_goes_elsewhere_at_once() {
    if !can_run("a_volume_pulled_out_under_power_goes_elsewhere_at_once") {
        return;
    }
    let lab = with_volume("pulled", "volatile");
    lab.boot("other", &[]);
    lab.inside(
        "server",
        "mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt && echo flushed > /mnt/file && sync",
    );
    let mut holder = lab.command(
        "nova",
        &["ssh", "server", "exec 3</dev/xvdb; while sleep 0.01; do echo more >> /mnt/log; done"],
    );
    let mut holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nova starts");
    lab.within(PATIENCE, "server", "test -s /mnt/log");
    lab.nova_refuses(&["volume-detach", "server", "v"], "in use");
    // A disk that hangs can be pulled out, too.
    lab.fault(&["volume", "v", "hang", "--write"]);
    let mut waiting = lab.command("nova", &["ssh", "server", "sync /mnt/log"]);
    let mut waiting = waiting.stderr(Stdio::null()).spawn().expect("nova starts");
    lab.nova(&["volume-detach", "--force", "server", "v"]);
    lab.fault(&["heal", "--all"]);
    assert!(!waiting.wait().expect("it is ours").success(), "a flush of a disk that is gone");
    assert_ne!(lab.ssh("server", "test -e /dev/xvdb").status, 0, "the node is gone with the disk");

    lab.nova(&["volume-attach", "other", "v", "/dev/xvdc"]);
    lab.inside("other", "e2fsck -fp /dev/xvdc >/dev/null; test $? -le 1 && mount /dev/xvdc /mnt");
    assert_eq!(lab.inside("other", "cat /mnt/file"), "flushed\n");
    // What still has it mounted gets errors and reaches nothing.
    lab.inside("other", "echo new > /mnt/file && sync");
    lab.within(PATIENCE, "server", "! sh -c 'echo old > /mnt/file && sync /mnt/file'");
    assert_eq!(lab.inside("other", "echo 3 > /proc/sys/vm/drop_caches 2>/dev/null; cat /mnt/file"), "new\n");
    // The first server gets another disk of that name, and ends without trouble.
    lab.nova(&["volume-create", "--display-name", "w", "1"]);
    lab.nova(&["volume-attach", "server", "w", "/dev/xvdb"]);
    lab.inside("server", "mkfs.ext4 -q /dev/xvdb");
    lab.nova(&["reboot", "--hard", "server"]);
    lab.inside("other", "umount /mnt");
    lab.nova(&["volume-detach", "other", "v"]);
    lab.nova(&["volume-attach", "server", "v", "auto"]);
    assert_eq!(lab.inside("server", "mount /dev/xvdc /mnt && cat /mnt/file && umount /mnt"), "new\n");
    holder.wait().expect("it is ours");
}

#[test]
fn snapshots_are_of_one_instant() {
    if !can_run("snapshots_are_of_one_instant") {
        return;
    }
    let lab = with_volume("snaps", "SATA");
    lab.inside("server", "mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt");
    lab.nova_refuses(&["volume-snapshot-create", "v"], "is attached; --force True");
    // Two files that are only ever written one after the other: a later record of the second than of the first
    // would be of two instants.
    let write =
        "i=0; while :; do i=$((i+1)); echo $i > /mnt/a; sync /mnt/a; echo $i > /mnt/b; sync /mnt/b; done";
    let mut writer = lab.command("nova", &["ssh", "server", write]);
    let mut writer = writer.stderr(Stdio::null()).spawn().expect("nova starts");
    lab.within(PATIENCE, "server", "test -s /mnt/b");
    lab.nova(&["volume-snapshot-create", "--display-name", "s", "--force", "True", "v"]);
    let seen: u64 = lab.inside("server", "cat /mnt/b").trim().parse().unwrap_or(u64::MAX);
    lab.within(PATIENCE, "server", &format!("test $(cat /mnt/b) -gt {seen}"));
    lab.lab(&["fault", "power-cut", "server"]);
    writer.wait().expect("it is ours");
    lab.nova(&["start", "server"]);

    lab.nova_refuses(&["volume-create", "--snapshot-id", "none", "2"], "no snapshot has the id or name");
    lab.nova(&["volume-create", "--display-name", "copy", "--snapshot-id", "s", "2"]);
    lab.nova_refuses(&["volume-delete", "v"], "is attached");
    lab.nova(&["volume-attach", "server", "copy", "/dev/xvdc"]);
    lab.inside("server", "e2fsck -fp /dev/xvdc >/dev/null; test $? -le 1 && mount /dev/xvdc /mnt");
    let numbers = lab.inside("server", "cat /mnt/a /mnt/b; umount /mnt");
    let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    assert!(matches!(numbers[..], [a, b] if a == b || a == b + 1), "{numbers:?}");
    assert_eq!(lab.inside("server", "blockdev --getsize64 /dev/xvdc").trim(), "2147483648");

    lab.nova(&["volume-detach", "server", "v"]);
    lab.nova_refuses(&["volume-delete", "v"], "has snapshots (s)");
    assert!(lab.nova(&["volume-snapshot-list"]).contains("available"));
    lab.nova(&["volume-snapshot-delete", "s"]);
    lab.nova(&["volume-delete", "v"]);
}

#[test]
fn an_interrupted_copy_leaves_nothing() {
    if !can_run("an_interrupted_copy_leaves_nothing") {
        return;
    }
    let lab = with_volume("interrupt", "SATA");
    let directory = format!("/var/lib/lockstep/lab/{}", lab.name());
    let volumes = std::fs::read_dir(format!("{directory}/volumes")).expect("volumes").flatten();
    let file = volumes.map(|entry| entry.path()).next().expect("a volume");
    // Enough to take a moment where blocks are not shared.
    lab.inside("server", "dd if=/dev/zero of=/dev/xvdb bs=1M count=1000 oflag=direct status=none");
    let mut copy = lab.command("nova", &["volume-snapshot-create", "--force", "True", "v"]);
    let mut copy = copy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nova starts");
    let snapshots = || std::fs::read_dir(format!("{directory}/snapshots")).into_iter().flatten().count();
    let end = Instant::now() + PATIENCE;
    while snapshots() == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = rustix::process::Pid::from_raw(copy.id() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is there");
    let status = copy.wait().expect("it is ours");
    let listed = lab.nova(&["volume-snapshot-list"]).contains("available");
    assert_eq!(status.success(), listed, "where blocks are shared it is done before it can be interrupted");
    assert_eq!(snapshots(), usize::from(listed));
    assert!(file.exists());
    // Writes go on.
    lab.inside_within(
        PATIENCE,
        "server",
        "dd if=/dev/zero of=/dev/xvdb bs=4k count=1 oflag=direct status=none",
    );
}
