//! Faults of servers and networks: what each breaks, what it leaves alone, and that healing ends it.

use std::time::Duration;

use testing_lab::{TestLab, can_run};

const PATIENCE: Duration = Duration::from_secs(20);

/// The faults in force, as the words that bring each about.
#[track_caller]
fn in_force(lab: &TestLab) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&lab.lab(&["fault", "list", "--json"])).expect("JSON");
    let faults = list.as_array().expect("a list").iter();
    let words = |fault: &serde_json::Value| {
        let words = fault["words"].as_array().expect("words").iter();
        words.map(|word| word.as_str().expect("text")).collect::<Vec<_>>().join(" ")
    };
    faults.map(words).collect()
}

/// Whether `b` gets what `a` sends, whatever becomes of answers: `b` counts the bytes that come in.
fn reaches(lab: &TestLab) -> bool {
    const BYTES: u64 = 20 << 10;
    let came = || {
        let count = lab.inside("b", "cat /sys/class/net/eth0/statistics/rx_bytes");
        count.trim().parse::<u64>().expect("a number")
    };
    let before = came();
    // The neighbour is known, so that nobody has to answer.
    lab.inside(
        "a",
        "ip neigh replace 10.1.0.3 lladdr $(cat /root/b) dev eth0; for i in $(seq 20); do \
         head -c 1024 /dev/zero | bash -c 'cat > /dev/udp/10.1.0.3/7'; done",
    );
    came() - before >= BYTES
}

#[test]
fn silence_one_way_and_both() {
    if !can_run("silence_one_way_and_both") {
        return;
    }
    let lab = TestLab::pair("silence");
    let address = lab.inside("b", "cat /sys/class/net/eth0/address");
    lab.inside("a", &format!("echo {} > /root/b", address.trim()));
    assert!(lab.comes_to_hear("a", "10.1.0.3") && reaches(&lab));

    lab.fault(&["partition", "b", "a", "--one-way"]);
    assert!(!lab.hears("a", "10.1.0.3"), "a does not hear b");
    assert!(reaches(&lab), "b still hears a");
    assert_eq!(in_force(&lab), ["partition b a --one-way"]);
    lab.fault(&["partition", "a", "b", "--one-way"]);
    assert!(!reaches(&lab));
    assert_eq!(in_force(&lab).len(), 1, "two ways are one partition");
    lab.fault(&["heal", "a", "b"]);
    assert!(lab.comes_to_hear("a", "10.1.0.3"));

    lab.fault(&["cut", "net"]);
    assert!(!lab.hears("a", "10.1.0.3") && !reaches(&lab));
    assert_eq!(lab.inside("a", "cat /sys/class/net/eth0/carrier"), "1\n", "nobody sees a carrier go");
    assert_eq!(in_force(&lab), ["cut net"]);
    lab.nova(&["reboot", "--hard", "a"]);
    assert!(!lab.hears("a", "10.1.0.3"), "a cut lasts over reboots");
    lab.fault(&["mend", "net"]);
    assert!(lab.comes_to_hear("a", "10.1.0.3"));

    lab.fault(&["link-down", "b:net"]);
    assert_eq!(lab.inside("b", "cat /sys/class/net/eth0/carrier"), "0\n");
    assert_eq!(in_force(&lab), ["link-down b:net"]);
    assert_eq!(lab.lab(&["fault", "heal", "--all", "--json"]).trim(), "[]");
    assert!(lab.comes_to_hear("a", "10.1.0.3"));
}

#[test]
fn a_paused_server_stands_still() {
    if !can_run("a_paused_server_stands_still") {
        return;
    }
    let lab = TestLab::pair("pause");
    lab.inside("a", "(setsid sh -c 'while :; do date +%N > /tmp/now; sleep 0.01; done' >/dev/null 2>&1 &)");
    lab.within(PATIENCE, "a", "test -s /tmp/now");
    let server: serde_json::Value = serde_json::from_str(&lab.nova(&["show", "--json", "a"])).expect("JSON");
    let now = format!("/proc/{}/root/tmp/now", server["pid"]);
    let read = || std::fs::read_to_string(&now).expect("the server's file");
    lab.fault(&["pause", "a"]);
    let before = read();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(read(), before, "a process of a paused server went on");
    assert_eq!(in_force(&lab), ["pause a"]);
    lab.lab_refuses(&["fault", "pause", "a"], "server a is paused already");
    lab.fault(&["resume", "a"]);
    lab.within(PATIENCE, "a", &format!("test \"$(cat /tmp/now)\" != {:?}", before.trim()));
    lab.lab_refuses(&["fault", "resume", "a"], "server a is not paused");

    // A paused server can lose its power, and a new life is not paused.
    lab.fault(&["pause", "a"]);
    lab.fault(&["power-cut", "a"]);
    assert_eq!(in_force(&lab), ["power-cut a"]);
    lab.lab_refuses(&["fault", "pause", "a"], "server a is off");
    lab.fault(&["pause", "b"]);
    assert_eq!(lab.lab(&["fault", "heal", "--all"]), "booted server a\n");
    assert_eq!(in_force(&lab), Vec::<String>::new());
    assert!(lab.comes_to_hear("a", "10.1.0.3") && lab.comes_to_hear("b", "10.1.0.2"));
}

#[test]
fn a_killed_server_loses_nothing_that_it_wrote() {
    if !can_run("a_killed_server_loses_nothing_that_it_wrote") {
        return;
    }
    let lab = TestLab::new("kill");
    lab.boot("a", &[]);
    lab.nova(&["volume-create", "--display-name", "v", "1"]);
    lab.nova(&["volume-attach", "a", "v", "/dev/xvdb"]);
    lab.inside("a", "mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt");
    for (fall, expected) in [("kill", "x\n"), ("power-cut", "")] {
        lab.inside("a", "rm -f /mnt/x && sync && echo x > /mnt/x");
        lab.fault(&[fall, "a"]);
        assert_eq!(in_force(&lab), [format!("{fall} a")]);
        lab.lab_refuses(&["fault", fall, "a"], "server a is off");
        lab.fault(&["power-on", "a"]);
        assert_eq!(in_force(&lab), Vec::<String>::new());
        assert_eq!(
            lab.inside("a", "mount /dev/xvdb /mnt && cat /mnt/x 2>/dev/null; true"),
            expected,
            "{fall}"
        );
    }
    let log = std::fs::read_to_string(format!("/var/lib/lockstep/lab/{}/events.jsonl", lab.name()));
    let events: Vec<serde_json::Value> =
        log.expect("a log").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<String> = events.iter().map(|e| format!("{} {}", e["event"], e["words"])).collect();
    let boot = r#""boot" ["a"]"#;
    assert_eq!(told, [boot, r#""fault" ["kill","a"]"#, boot, r#""fault" ["power-cut","a"]"#, boot]);
    assert!(events.is_sorted_by_key(|event| event["at_unix_ns"].as_u64()));
}

#[test]
fn mistakes_change_nothing() {
    if !can_run("mistakes_change_nothing") {
        return;
    }
    let lab = TestLab::pair("wrong");
    lab.nova(&["network-create", "other", "10.2.0.0/24"]);
    for (words, mistake) in [
        (&["power-cut", "c"][..], "no server has the id or name \"c\"; servers: "),
        (&["partition", "a", "a"], "a is one server, name two"),
        (&["partition", "a", "net"], "net is the name of a network, not of a server"),
        (&["cut", "a"], "a is the name of a server, not of a network"),
        (&["link-down", "a:other"], "server a has no interface on network other"),
        (&["link-down", "a:nowhere"], "no network has the id or name \"nowhere\""),
        (&["heal", "a", "c"], "no server has the id or name \"c\""),
        (&["power-on", "a"], "server a runs"),
        (&["loss", "c", "5"], "no server has the id or name \"c\""),
        (&["delay", "a", "5", "--jitter", "6"], "use at most the delay itself"),
    ] {
        lab.lab_refuses(&[&["fault"], words].concat(), mistake);
        assert_eq!(in_force(&lab), Vec::<String>::new(), "{words:?}");
    }
    for words in [&["loss", "a", "101"][..], &["delay", "a", "soon"], &["rate", "a"], &["burn", "a"]] {
        let status = lab.command("lab", &[&["fault"], words].concat()).output().expect("it starts").status;
        assert_eq!(status.code(), Some(2), "{words:?}");
        assert_eq!(in_force(&lab), Vec::<String>::new(), "{words:?}");
    }
    assert!(lab.comes_to_hear("a", "10.1.0.3"));
}

/// The shortest of some round trips from `a` to `b`, in milliseconds.
#[track_caller]
fn round_trip_ms(lab: &TestLab) -> f64 {
    let said = lab.inside("a", "ping -c 3 -i 0.2 -q 10.1.0.3");
    let times = said.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let shortest = times.and_then(|times| times.split('/').next()).expect("ping's last line");
    shortest.parse().expect("a number")
}

/// Sends so many MiB from `a` to `b` by TCP; gives how many seconds that took, and whether they arrived as they were.
fn sends(lab: &TestLab, mib: u32) -> (f64, bool) {
    let receiver = "import socket, hashlib; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind((str(), 9000)); \
                    s.listen(); open(\"/root/ready\", \"w\"); c = s.accept()[0]; h = hashlib.sha256(); \
                    [h.update(d) for d in iter(lambda: c.recv(65536), b\"\")]; c.send(h.hexdigest().encode())";
    let sender = format!(
        "import socket, hashlib, os, time; d = os.urandom({mib} << 20); t = time.time(); \
         s = socket.create_connection((\"10.1.0.3\", 9000)); s.sendall(d); s.shutdown(1); \
         print(s.recv(64).decode() == hashlib.sha256(d).hexdigest(), time.time() - t)"
    );
    lab.inside("b", &format!("rm -f ready; (setsid python3 -c '{receiver}' >/root/said 2>&1 &)"));
    lab.within(PATIENCE, "b", "test -e ready");
    let said = lab.inside("a", &format!("timeout 100 python3 -c '{sender}'"));
    let (intact, took_s) = said.trim().split_once(' ').expect("two words");
    (took_s.parse().expect("a number"), intact == "True")
}

#[test]
fn a_bad_cable_is_as_bad_as_said() {
    if !can_run("a_bad_cable_is_as_bad_as_said") {
        return;
    }
    let lab = TestLab::pair("wire");
    let address = lab.inside("b", "cat /sys/class/net/eth0/address");
    lab.inside("a", &format!("echo {} > /root/b", address.trim()));

    lab.fault(&["delay", "a:net", "25", "--jitter", "5"]);
    assert!((40.0..1000.0).contains(&round_trip_ms(&lab)), "25 ms each way, 5 more or less");
    assert_eq!(in_force(&lab), ["delay a:net 25 --jitter 5"]);
    lab.nova(&["reboot", "--hard", "a"]);
    assert!(round_trip_ms(&lab) >= 40.0, "a bad cable stays bad over reboots");
    lab.fault(&["delay", "a", "0"]);
    assert_eq!(in_force(&lab), Vec::<String>::new());
    assert!(round_trip_ms(&lab) < 40.0);

    lab.inside("a", &format!("echo {} > /root/b", address.trim()));
    lab.fault(&["loss", "a", "100", "--in"]);
    assert_eq!(in_force(&lab), ["loss a:net 100 --in"]);
    assert!(!lab.hears("a", "10.1.0.3"), "a hears nothing");
    assert!(reaches(&lab), "a is heard");
    lab.fault(&["loss", "a", "0"]);
    lab.fault(&["loss", "b", "100", "--in"]);
    assert!(!reaches(&lab));
    lab.fault(&["heal", "--all"]);
    assert!(lab.comes_to_hear("a", "10.1.0.3") && reaches(&lab));

    lab.fault(&["loss", "a", "2"]);
    lab.fault(&["delay", "a", "5"]);
    let (_, intact) = sends(&lab, 4);
    assert!(intact, "TCP over a lossy cable");
    lab.fault(&["heal", "--all"]);
    lab.fault(&["rate", "b:net", "8", "--in"]);
    let (took_s, intact) = sends(&lab, 1);
    // What is in buffers when the clock stops has passed: the answer comes after the last byte.
    assert!(intact && took_s > 0.9, "1 MiB at 8 Mbit/s in {took_s} s");
}

#[test]
fn a_relay_that_died_is_noticed_and_one_that_nobody_needs_ends() {
    if !can_run("a_relay_that_died_is_noticed_and_one_that_nobody_needs_ends") {
        return;
    }
    let lab = TestLab::pair("relay");
    let file = format!("/run/lockstep/lab/{}/wires.json", lab.name());
    let relay = || {
        let process: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).ok()?).expect("JSON");
        rustix::process::Pid::from_raw(process["pid"].as_i64()? as i32)
    };
    assert_eq!(relay(), None);
    lab.fault(&["delay", "a", "10"]);
    let first = relay().expect("a process carries frames");
    rustix::process::kill_process(first, rustix::process::Signal::KILL).expect("kill it");
    assert!(!lab.hears("a", "10.1.0.3"));
    assert_eq!(in_force(&lab), ["delay a:net 10"]);
    assert_ne!(relay().expect("it runs again"), first);
    assert!(round_trip_ms(&lab) >= 20.0);
    lab.fault(&["heal", "--all"]);
    assert_eq!(relay(), None);
    assert!(lab.comes_to_hear("a", "10.1.0.3"));
}

/// Seconds that a server's wall clock is ahead of the machine's, as a command of it says.
#[track_caller]
fn ahead_s(lab: &TestLab, server: &str, command: &str) -> i64 {
    let said = lab.inside(server, command);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    said.trim().parse::<i64>().expect("seconds since 1970") - now.as_secs() as i64
}

/// Ahead by so much, give or take what a loaded machine needs to say so.
fn about(seconds: i64) -> std::ops::RangeInclusive<i64> {
    seconds - 60..=seconds + 1
}

#[test]
fn a_clock_jumps_in_one_server_only() {
    const NAME: &str = "a_clock_jumps_in_one_server_only";
    if !can_run(NAME) {
        return;
    }
    let lab = TestLab::pair("clock");
    let answer = lab.command("lab", &["fault", "clock", "a", "+1h"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    if said.contains("install the package libfaketime") {
        assert_eq!(in_force(&lab), Vec::<String>::new());
        eprintln!("skip {NAME}: {said}");
        return;
    }
    assert!(answer.status.success(), "{said}");
    assert_eq!(in_force(&lab), ["clock a +1h"]);
    assert!(about(3600).contains(&ahead_s(&lab, "a", "date +%s")));
    assert!(about(0).contains(&ahead_s(&lab, "b", "date +%s")), "another server's clock");
    // A program that runs sees the next jump; its monotonic clock does not.
    lab.inside(
        "a",
        "(setsid python3 -c '
import time
while True:
    with open(\"/tmp/new\", \"w\") as f: f.write(\"%d %d\" % (time.time(), time.monotonic()))
    __import__(\"os\").rename(\"/tmp/new\", \"/tmp/now\")
    time.sleep(0.02)' >/dev/null 2>&1 &)",
    );
    lab.within(PATIENCE, "a", "test -s /tmp/now");
    let up_s = |lab: &TestLab| -> f64 {
        let said = lab.inside("a", "cat /proc/uptime; cut -d' ' -f2 /tmp/now");
        let mut numbers = said.split_ascii_whitespace();
        let uptime: f64 = numbers.next().expect("a number").parse().expect("a number");
        numbers.last().expect("a number").parse::<f64>().expect("a number") - uptime
    };
    let before = up_s(&lab);
    lab.fault(&["clock", "a", "-2h"]);
    assert_eq!(in_force(&lab), ["clock a -1h"]);
    lab.within(PATIENCE, "a", "test $(cut -d' ' -f1 /tmp/now) -le $(date +%s)");
    assert!(about(-3600).contains(&ahead_s(&lab, "a", "cut -d' ' -f1 /tmp/now")));
    assert!((up_s(&lab) - before).abs() < 60.0, "the monotonic clock jumped");
    lab.nova(&["reboot", "--hard", "a"]);
    assert!(about(-3600).contains(&ahead_s(&lab, "a", "date +%s")), "a wrong clock stays wrong over reboots");
    lab.fault(&["clock", "a", "true"]);
    assert_eq!(in_force(&lab), Vec::<String>::new());
    assert!(about(0).contains(&ahead_s(&lab, "a", "date +%s")));
    assert_eq!(lab.inside("a", "env | grep -c -e FAKETIME -e LD_PRELOAD; true").trim(), "0");
}

#[test]
fn systemd_lives_with_a_wrong_clock() {
    const NAME: &str = "systemd_lives_with_a_wrong_clock";
    if !can_run(NAME) {
        return;
    }
    let lab = TestLab::new("units");
    let image = ["--image", "This system", "--flavor", "2", "--no-public", "--no-service-net"];
    let booted = lab.command("nova", &[&["boot"][..], &image, &["--init", "systemd", "a"]].concat()).output();
    let booted = booted.expect("it starts");
    let jumped = lab.command("lab", &["fault", "clock", "a", "+5h"]).output().expect("it starts");
    if !booted.status.success() || !jumped.status.success() {
        let said = [booted.stderr, jumped.stderr].concat();
        eprintln!("skip {NAME}: {}", String::from_utf8_lossy(&said));
        return;
    }
    // systemd reads its configuration a moment later.
    lab.within(PATIENCE, "a", "systemctl show -p Environment | grep -q FAKETIME");
    assert!(about(5 * 3600).contains(&ahead_s(&lab, "a", "systemd-run -q --wait --pipe date +%s")));
    lab.nova(&["reboot", "a"]);
    lab.inside("a", "systemctl is-system-running --wait || systemctl --failed");
    assert!(about(5 * 3600).contains(&ahead_s(&lab, "a", "systemd-run -q --wait --pipe date +%s")));
    assert_eq!(lab.inside("a", "systemctl --failed --no-legend"), "");
    lab.fault(&["heal", "--all"]);
    lab.within(PATIENCE, "a", "! systemctl show -p Environment | grep -q FAKETIME");
    assert!(about(0).contains(&ahead_s(&lab, "a", "systemd-run -q --wait --pipe date +%s")));
}
