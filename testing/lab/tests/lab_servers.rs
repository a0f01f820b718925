//! Servers and networks, on this very kernel.

use testing_lab::{TestLab, can_run};

#[test]
fn servers_hear_each_other_and_nobody_else() {
    if !can_run("servers_hear_each_other_and_nobody_else") {
        return;
    }
    let lab = TestLab::new("hear");
    lab.nova(&["network-create", "drbd0", "172.16.16.0/24"]);
    lab.nova(&["network-create", "other", "10.77.0.0/24"]);
    lab.boot("drbd0", &["drbd0"]);
    lab.boot("drbd1", &["drbd0"]);
    lab.boot("third", &["other"]);
    assert!(lab.comes_to_hear("drbd0", "172.16.16.3") && lab.comes_to_hear("drbd1", "172.16.16.4"));
    assert!(lab.comes_to_hear("third", "10.77.0.2"), "a server hears itself");
    assert!(!lab.hears("third", "172.16.16.3") && !lab.hears("drbd0", "10.77.0.2"));
    let routes = lab.inside("drbd0", "ip route");
    assert_eq!(routes.trim(), "172.16.16.0/24 dev eth0 proto kernel scope link src 172.16.16.4");

    lab.lab(&["fault", "link-down", "drbd1", "drbd0"]);
    assert!(!lab.hears("drbd0", "172.16.16.3"));
    lab.lab(&["fault", "link-up", "drbd1"]);
    assert!(lab.comes_to_hear("drbd0", "172.16.16.3"));
    lab.lab(&["fault", "partition", "drbd1", "drbd0"]);
    assert!(!lab.hears("drbd0", "172.16.16.3"));
    lab.nova(&["reboot", "--hard", "drbd0"]);
    assert!(!lab.hears("drbd0", "172.16.16.3"), "a partition lasts over a reboot");
    lab.lab(&["fault", "heal"]);
    assert!(lab.comes_to_hear("drbd0", "172.16.16.3"));
}

#[test]
fn a_server_is_its_own_machine() {
    if !can_run("a_server_is_its_own_machine") {
        return;
    }
    let lab = TestLab::new("own");
    let key = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(key.path(), "ssh-rsa AAAA niko\n").expect("write");
    let file = format!("/root/.ssh/authorized_keys={}", key.path().display());
    let image = "5cebb13a-f783-4f8c-8058-c4182c724ccd";
    lab.nova(&["boot", "--image", image, "--flavor", "2", "--init", "tiny", "--file", &file, "drbd0"]);
    assert_eq!(lab.inside("drbd0", "cat .ssh/authorized_keys; stat -c %a .ssh"), "ssh-rsa AAAA niko\n700\n");
    assert_eq!(
        lab.inside("drbd0", "hostname; pwd; echo $LOCKSTEP_ERA; echo $$ > /tmp/x"),
        "drbd0\n/root\n2013\n"
    );
    assert_eq!(lab.ssh("drbd0", "exit 7").status, 7);
    assert_eq!(lab.ssh("drbd0", "kill -9 $$").status, 255, "as ssh says it of a command that was killed");
    assert!(!std::path::Path::new("/var/lib/lockstep/lab").join(lab.name()).join("servers/x").exists());
    assert_eq!(lab.inside("drbd0", "ls /var/lib/lockstep"), "", "a server sees no lab");
    let links = lab.inside("drbd0", "which lockstep reboot shutdown");
    assert_eq!(links, "/usr/local/bin/lockstep\n/usr/local/sbin/reboot\n/usr/local/sbin/shutdown\n");

    // Orphans are reaped, the root survives a reboot, /tmp and /run do not.
    lab.inside("drbd0", "echo kept > /etc/kept; touch /run/lost; (setsid sleep 0.01 &) ; sleep 0.1");
    assert_eq!(lab.inside("drbd0", "ps ax -o stat= | grep -c Z; true").trim(), "0");
    let answer = lab.ssh("drbd0", "apt-get update && apt-get upgrade -y && reboot");
    assert_eq!(answer.status, 0, "{}", answer.stderr);
    assert_eq!(lab.inside("drbd0", "cat /etc/kept; ls /tmp; ls /run | grep lost; true"), "kept\n");

    let said = lab.inside("drbd0", "apt-get install drbd8-utils linux-image-extra-virtual -y");
    assert!(said.contains("drbd8-utils is already the newest version."), "{said}");

    let answer = lab.ssh("drbd0", "poweroff; sleep 60");
    assert_eq!(answer.status, 255, "{}", answer.stderr);
    lab.nova(&["reboot", "drbd0"]);
    assert!(lab.nova(&["list"]).contains("ACTIVE"));
    lab.nova(&["delete", "drbd0"]);
    assert!(!lab.nova(&["list"]).contains("drbd0"));
}

#[test]
fn memory_is_the_flavors() {
    if !can_run("memory_is_the_flavors") {
        return;
    }
    let lab = TestLab::new("memory");
    lab.boot("small", &[]);
    let shown = lab.nova(&["show", "--json", "small"]);
    if !shown.contains("\"memory_limit\": \"512 MiB\"") {
        eprintln!("skip memory_is_the_flavors: {shown}");
        return;
    }
    // The kernel ends what asks for more, and only that.
    let answer = lab.ssh("small", "head -c 900m /dev/zero | tail -c 900m >/dev/null");
    assert_ne!(answer.status, 0, "900 MB fit into 512: {}", answer.stderr);
    assert_eq!(lab.inside("small", "echo alive"), "alive\n");
}

#[test]
fn two_labs_side_by_side() {
    if !can_run("two_labs_side_by_side") {
        return;
    }
    let (one, two) = (TestLab::new("one"), TestLab::new("two"));
    for lab in [&one, &two] {
        lab.nova(&["network-create", "drbd0", "172.16.16.0/24"]);
        lab.boot("drbd0", &["drbd0"]);
    }
    two.boot("drbd1", &["drbd0"]);
    assert!(two.comes_to_hear("drbd0", "172.16.16.3"));
    assert!(!one.hears("drbd0", "172.16.16.3"), "labs are apart");
    one.lab(&["down"]);
    assert_eq!(one.traces(), Vec::<String>::new());
    assert!(two.comes_to_hear("drbd0", "172.16.16.3"), "the other lab goes on");
}

#[test]
fn down_finds_everything_after_crashes() {
    if !can_run("down_finds_everything_after_crashes") {
        return;
    }
    let lab = TestLab::new("crash");
    lab.nova(&["network-create", "net", "10.1.0.0/24"]);
    lab.boot("a", &["net"]);
    lab.boot("b", &["net"]);
    for (server, kind) in [("a", "SATA"), ("b", "raw")] {
        lab.nova(&["volume-create", "--display-name", server, "--volume-type", kind, "1"]);
        lab.nova(&["volume-attach", server, server, "/dev/xvdb"]);
        lab.inside(server, "mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt && echo x > /mnt/x");
    }
    let ps: serde_json::Value = serde_json::from_str(&lab.lab(&["ps", "--json"])).expect("JSON");
    let labs = ps.as_array().expect("a list");
    let ours = labs.iter().find(|entry| entry["lab"] == lab.name()).expect("this lab is listed");
    let store = i32::try_from(ours["store_pid"].as_i64().expect("a store runs")).expect("a pid");
    let store = rustix::process::Pid::from_raw(store).expect("a pid");
    rustix::process::kill_process(store, rustix::process::Signal::KILL).expect("kill the store");
    // Half a lab: its records and what was known of its processes are gone.
    let run = std::path::Path::new("/run/lockstep/lab").join(lab.name());
    std::fs::remove_dir_all(run.join("servers")).expect("remove");
    let records = std::path::Path::new("/var/lib/lockstep/lab").join(lab.name()).join("lab.json");
    std::fs::write(records, "{ \"magic\": ").expect("spoil");
    let bound = || {
        let devices = std::fs::read_dir("/sys/block").expect("sysfs").flatten();
        let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
        let ids: Vec<_> =
            ours["volumes"].as_array().expect("volumes").iter().map(|v| v["id"].as_str()).collect();
        files.filter(|file| ids.iter().flatten().any(|id| file.contains(id))).count()
    };
    assert_eq!(bound(), 2);
    lab.lab(&["down"]);
    assert_eq!(lab.traces(), Vec::<String>::new());
    assert_eq!(bound(), 0);
}

#[test]
fn a_killed_server_is_off_and_boots_again() {
    if !can_run("a_killed_server_is_off_and_boots_again") {
        return;
    }
    let lab = TestLab::new("killed");
    lab.nova(&["network-create", "net", "10.1.0.0/24"]);
    lab.boot("a", &["net"]);
    lab.nova(&["volume-create", "--display-name", "v", "1"]);
    lab.nova(&["volume-attach", "a", "v", "auto"]);
    let shown: serde_json::Value = serde_json::from_str(&lab.nova(&["show", "--json", "a"])).expect("JSON");
    let pid = rustix::process::Pid::from_raw(shown["pid"].as_i64().expect("it runs") as i32).expect("a pid");
    // Also a process that came in from outside goes with it.
    let mut inside = lab.command("nova", &["ssh", "a", "sleep", "600"]).spawn().expect("nova starts");
    lab.within(std::time::Duration::from_secs(5), "a", "pgrep -x sleep");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill init");
    assert_eq!(inside.wait().expect("it is ours").code(), Some(255));
    lab.nova(&["reboot", "a"]);
    lab.inside("a", "test -b /dev/xvdb && ip addr show eth0 | grep -q 10.1.0.2");
}

/// A disk that fails under a server, and that a loop device of the server's own making does not outlive it.
#[test]
fn what_a_server_made_goes_with_it() {
    if !can_run("what_a_server_made_goes_with_it") {
        return;
    }
    let lab = TestLab::new("made");
    lab.boot("a", &[]);
    let image = format!("/root/{}.img", lab.name());
    for end in ["cut", "reboot"] {
        lab.inside(
            "a",
            &format!(
                "truncate -s 64M {image}; mkfs.ext4 -qF {image}; mount -o loop {image} /mnt; \
                 losetup -f {image}; (setsid sh -c 'while echo x; do :; done >/mnt/x' >/dev/null 2>&1 &)"
            ),
        );
        assert_eq!(bound_to(&image), 2);
        match end {
            "cut" => lab.nova(&["reboot", "--hard", "a"]),
            _ => lab.nova(&["reboot", "a"]),
        };
        assert_eq!(bound_to(&image), 0, "after {end}");
    }
}

/// How many loop devices are bound to a file of this path, on whatever file system.
fn bound_to(path: &str) -> usize {
    let devices = std::fs::read_dir("/sys/block").expect("sysfs").flatten();
    devices.filter(|device| file_is(device, path)).count()
}

fn file_is(device: &std::fs::DirEntry, path: &str) -> bool {
    std::fs::read_to_string(device.path().join("loop/backing_file")).is_ok_and(|file| file.trim_end() == path)
}

#[test]
fn a_lost_store_is_replaced() {
    if !can_run("a_lost_store_is_replaced") {
        return;
    }
    let lab = TestLab::new("store");
    lab.boot("a", &[]);
    lab.nova(&["volume-create", "--display-name", "v", "1"]);
    lab.nova(&["volume-attach", "a", "v", "auto"]);
    lab.inside("a", "mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt && echo x > /mnt/x && sync /mnt/x");
    let ps: serde_json::Value = serde_json::from_str(&lab.lab(&["ps", "--json"])).expect("JSON");
    let ours = ps.as_array().and_then(|labs| labs.iter().find(|entry| entry["lab"] == lab.name()));
    let store = ours.expect("this lab is listed")["store_pid"].as_i64().expect("a store runs");
    let store = rustix::process::Pid::from_raw(store as i32).expect("a pid");
    rustix::process::kill_process(store, rustix::process::Signal::KILL).expect("kill the store");
    lab.within(std::time::Duration::from_secs(5), "a", "! dd if=/dev/xvdb of=/dev/null iflag=direct count=1");
    // Another server is none of its business.
    lab.boot("b", &[]);
    lab.nova(&["reboot", "--hard", "a"]);
    assert_eq!(lab.inside("a", "mount /dev/xvdb /mnt && cat /mnt/x"), "x\n");
}
