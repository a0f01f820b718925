//! Volumes: moving, partitions, power cuts, on this very kernel.

use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::Duration;

use testing_lab::{TestLab, can_run};

#[test]
fn a_volume_moves_between_running_servers() {
    if !can_run("a_volume_moves_between_running_servers") {
        return;
    }
    let lab = TestLab::new("moves");
    lab.boot("one", &[]);
    lab.boot("two", &[]);
    for kind in ["SATA", "raw"] {
        lab.nova(&["volume-create", "--display-name", kind, "--volume-type", kind, "1"]);
        lab.nova(&["volume-attach", "one", kind, "/dev/xvdc"]);
        lab.inside("one", "mkfs.ext4 -q /dev/xvdc && mount /dev/xvdc /mnt && echo moved > /mnt/file");
        lab.nova_refuses(&["volume-detach", "one", kind], "it is mounted on /mnt");
        assert_eq!(lab.inside("one", "cat /mnt/file && umount /mnt"), "moved\n");
        lab.nova(&["volume-detach", "one", kind]);
        assert_ne!(lab.ssh("one", "test -e /dev/xvdc").status, 0, "the node is gone with the disk");
        lab.nova(&["volume-attach", "two", kind, "auto"]);
        assert_eq!(lab.inside("two", "mount /dev/xvdb /mnt && cat /mnt/file && umount /mnt"), "moved\n");
        let mut holder = lab.command("nova", &["ssh", "two", "exec 3</dev/xvdb; echo open; read x"]);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nova starts");
        let mut said = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut said).expect("it says open");
        lab.nova_refuses(&["volume-detach", "two", kind], "has it open");
        drop(holder.stdin.take());
        holder.wait().expect("it is ours");
        lab.nova(&["volume-detach", "two", kind]);
        lab.nova(&["volume-delete", kind]);
    }
}

/// Feeds a program in a server with the lines that a person would type.
fn type_into(lab: &TestLab, server: &str, words: &str, lines: &str) -> String {
    let mut child = lab
        .command("nova", &["ssh", server, words])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nova starts");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it is ours");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn partitions_appear_within_a_second() {
    if !can_run("partitions_appear_within_a_second") {
        return;
    }
    let lab = TestLab::new("fdisk");
    lab.boot("drbd0", &[]);
    lab.nova(&["volume-create", "--display-name", "drbd0", "100"]);
    lab.nova(&["volume-attach", "drbd0", "drbd0", "/dev/xvdb"]);
    let second = Duration::from_secs(1);
    let said = type_into(&lab, "drbd0", "fdisk /dev/xvdb", "p\nn\np\n\n\n+1GB\np\nw\n");
    assert!(said.contains("107374182400 bytes") && said.contains("altered"), "{said}");
    lab.within(second, "drbd0", "test -b /dev/xvdb1");
    assert_eq!(lab.inside("drbd0", "blockdev --getsz /dev/xvdb1").trim(), "1953792");
    lab.inside("drbd0", "mkfs.ext4 -q /dev/xvdb1 && mount /dev/xvdb1 /mnt && touch /mnt/.woot");

    // A second one while the first is mounted: the first stays.
    type_into(&lab, "drbd0", "fdisk /dev/xvdb", "n\np\n2\n\n+100M\nw\n");
    lab.within(second, "drbd0", "test -b /dev/xvdb2");
    lab.inside("drbd0", "test -e /mnt/.woot && umount /mnt && mkfs.ext4 -q /dev/xvdb2");

    // They are there after a reboot, and in another server.
    lab.nova(&["reboot", "drbd0"]);
    lab.inside("drbd0", "test -b /dev/xvdb1 && test -b /dev/xvdb2");
    lab.boot("drbd1", &[]);
    lab.nova(&["volume-detach", "drbd0", "drbd0"]);
    lab.nova(&["volume-attach", "drbd1", "drbd0", "/dev/xvdf"]);
    lab.inside("drbd1", "mount /dev/xvdf1 /mnt && test -e /mnt/.woot && umount /mnt");

    // A GPT replaces the MBR; no table, no partitions.
    type_into(&lab, "drbd1", "sfdisk -q /dev/xvdf", "label: gpt\n,100M\n,200M\n,300M\n");
    lab.within(second, "drbd1", "test -b /dev/xvdf3");
    assert_eq!(lab.inside("drbd1", "blockdev --getsz /dev/xvdf2").trim(), "409600");
    lab.inside("drbd1", "mkfs.ext4 -qF /dev/xvdf && wipefs -qa /dev/xvdf");
    lab.within(second, "drbd1", "! test -e /dev/xvdf1 && ! test -e /dev/xvdf3");
}

/// What a power cut takes, and what it must not, for one type of volume.
fn power_cut(kind: &str) {
    let lab = TestLab::new(&format!("cut-{}", kind.to_lowercase()));
    lab.boot("server", &[]);
    lab.nova(&["volume-create", "--display-name", "v", "--volume-type", kind, "1"]);
    lab.nova(&["volume-attach", "server", "v", "/dev/xvdb"]);
    lab.inside(
        "server",
        "mkfs.ext4 -q /dev/xvdb && mount -o commit=300 /dev/xvdb /mnt && echo root > /etc/kept",
    );
    for life in 0..3 {
        // The holder keeps file descriptors open and pages dirty up to the cut.
        lab.inside(
            "server",
            &format!(
                "dd if=/dev/urandom of=/mnt/synced{life} bs=64k count=16 conv=fsync status=none; \
                 sha256sum /mnt/synced{life} >> /etc/sums; sync /mnt; \
                 dd if=/dev/urandom of=/mnt/unsynced{life} bs=64k count=16 status=none; \
                 (setsid sh -c 'exec 3>/mnt/held; echo held >&3; sleep 600' >/dev/null 2>&1 &)"
            ),
        );
        if life == 1 {
            lab.nova(&["reboot", "--hard", "server"]);
        } else {
            lab.lab(&["fault", "power-cut", "server"]);
            assert!(lab.nova(&["list"]).contains("SHUTOFF"));
            lab.lab(&["fault", "power-on", "server"]);
        }
        assert_eq!(lab.inside("server", "cat /etc/kept"), "root\n");
        lab.inside(
            "server",
            "e2fsck -fp /dev/xvdb >/dev/null; test $? -le 1 && mount -o commit=300 /dev/xvdb /mnt",
        );
        lab.inside("server", "sha256sum -c --quiet /etc/sums");
        let left = lab.inside("server", "ls /mnt");
        assert!(!left.contains("unsynced") && !left.contains("held"), "unsynced data is there: {left}");
    }
}

#[test]
fn power_cut_sata() {
    if can_run("power_cut_sata") {
        power_cut("SATA");
    }
}

#[test]
fn power_cut_raw() {
    if can_run("power_cut_raw") {
        power_cut("raw");
    }
}

#[test]
fn power_cut_volatile() {
    if can_run("power_cut_volatile") {
        power_cut("volatile");
    }
}

/// Direct writes reach the disk at once; only a flush makes a volatile one keep them.
#[test]
fn a_volatile_disk_forgets_what_was_not_flushed() {
    if !can_run("a_volatile_disk_forgets_what_was_not_flushed") {
        return;
    }
    let lab = TestLab::new("forgets");
    lab.boot("server", &[]);
    let mut survivors = Vec::new();
    for kind in ["SATA", "volatile"] {
        lab.nova(&["volume-create", "--display-name", kind, "--volume-type", kind, "1"]);
        lab.nova(&["volume-attach", "server", kind, "auto"]);
    }
    for device in ["xvdb", "xvdc"] {
        lab.inside(
            "server",
            &format!(
                "yes flushed | head -c 65536 | dd of=/dev/{device} bs=4k oflag=direct conv=fsync status=none; \
                 yes written | head -c 65536 | dd of=/dev/{device} bs=4k seek=16 oflag=direct status=none"
            ),
        );
    }
    lab.nova(&["reboot", "--hard", "server"]);
    for device in ["xvdb", "xvdc"] {
        let count = |what: &str, skip: u32| -> u32 {
            let words =
                format!("dd if=/dev/{device} bs=4k skip={skip} count=16 status=none | grep -ac {what}; true");
            lab.inside("server", &words).trim().parse().expect("a count")
        };
        assert!(count("flushed", 0) >= 8191, "flushed data is gone from {device}");
        survivors.push(count("written", 16));
    }
    let [sata, volatile] = survivors[..] else { unreachable!("two disks") };
    assert!(sata >= 8191, "what reached the store is the store's");
    assert!(volatile < 8100, "a volatile disk remembers everything");
}

/// Cuts in the middle of writing: every record whose fsync returned is there, and the file system holds together.
#[test]
fn acknowledged_records_survive_cuts_in_mid_write() {
    if !can_run("acknowledged_records_survive_cuts_in_mid_write") {
        return;
    }
    let lab = TestLab::new("acked");
    lab.boot("server", &[]);
    for kind in ["SATA", "raw", "volatile"] {
        lab.nova(&["volume-create", "--display-name", kind, "--volume-type", kind, "1"]);
        lab.nova(&["volume-attach", "server", kind, "/dev/xvdb"]);
        lab.inside("server", "mkfs.ext4 -q /dev/xvdb");
        for records in [3, 40, 111] {
            lab.inside("server", "mount /dev/xvdb /mnt && rm -f /mnt/log");
            let write = "i=0; while echo $i >> /mnt/log && sync -d /mnt/log; do echo $i; i=$((i+1)); \
                         echo $i > /mnt/file$((i%9)); done";
            let mut writer = lab.command("nova", &["ssh", "server", write]);
            let mut writer =
                writer.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nova starts");
            let mut lines = std::io::BufReader::new(writer.stdout.take().expect("piped")).lines();
            let mut acknowledged = lines.by_ref().take(records).last().expect("a record").expect("text");
            lab.lab(&["fault", "power-cut", "server"]);
            // What was acknowledged while the cut was on its way counts too.
            for line in lines {
                acknowledged = line.expect("text");
            }
            writer.wait().expect("it is ours");
            lab.nova(&["start", "server"]);
            lab.inside("server", "e2fsck -fp /dev/xvdb >/dev/null; test $? -le 1");
            let last = lab.inside("server", "mount /dev/xvdb /mnt && tail -n 1 /mnt/log && umount /mnt");
            let (last, acknowledged): (u32, u32) =
                (last.trim().parse().expect("a number"), acknowledged.parse().expect("a number"));
            assert!(
                last >= acknowledged,
                "{kind}: record {acknowledged} was acknowledged, {last} is the last"
            );
        }
        lab.nova(&["volume-detach", "server", kind]);
    }
}
