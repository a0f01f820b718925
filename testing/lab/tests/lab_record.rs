//! What `lockstep lab record` keeps of a run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testing_lab::{TestLab, can_run, program};

const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Which way an ICMP echo request or reply went, by the interface's owner, and when (nanoseconds since 1970).
#[derive(Debug)]
struct Echo {
    outbound: bool,
    at_unix_ns: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The echoes in a capture, which must be whole blocks with the statistics as its last.
fn echoes(path: &Path) -> Vec<Echo> {
    let file = std::fs::read(path).expect("a capture");
    let (mut at, mut last_kind, mut echoes) = (0, 0, Vec::new());
    while at < file.len() {
        let length = u32_at(&file, at + 4) as usize;
        let block = &file[at..at + length];
        assert_eq!(u32_at(block, length - 4) as usize, length, "{}: a torn block at {at}", path.display());
        last_kind = u32_at(block, 0);
        let frame = &block[28.min(length)..];
        // Ethernet's type IPv4, and IPv4's protocol ICMP.
        if last_kind == ENHANCED_PACKET && frame[12..14] == [8, 0] && frame[23] == 1 {
            let kept = u32_at(block, 20) as usize;
            let flags = u32_at(block, 28 + kept.next_multiple_of(4) + 4);
            let at_unix_ns = u64::from(u32_at(block, 12)) << 32 | u64::from(u32_at(block, 16));
            echoes.push(Echo { outbound: flags & 3 == 2, at_unix_ns });
        }
        at += length;
    }
    assert_eq!(last_kind, STATISTICS, "{} was not closed", path.display());
    echoes
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// Two servers that were told of each other.
fn two(lab: &TestLab) {
    lab.nova(&["network-create", "storage", "172.16.16.0/24"]);
    for server in ["drbd0", "drbd1"] {
        lab.boot(server, &["storage"]);
    }
}

#[test]
fn a_fault_can_be_seen_in_the_frames_at_its_time() {
    if !can_run("a_fault_can_be_seen_in_the_frames_at_its_time") {
        return;
    }
    let lab = TestLab::new("record");
    two(&lab);
    let directory = tempfile::tempdir().expect("a directory");
    let evidence = directory.path().join("evidence");
    let lockstep = program().display().to_string();
    let script = format!(
        "ping='{lockstep} nova ssh drbd0 ping -c 1 -W 1 172.16.16.3' && $ping && \
         {lockstep} lab fault link-down drbd1 && ! $ping && {lockstep} lab fault link-up drbd1 && $ping; \
         {lockstep} nova ssh drbd1 'echo said >/proc/1/fd/2'; [ $? = 0 ] && exit 7"
    );
    let status = lab
        .command("lab", &["record", evidence.to_str().expect("a path"), "--", "/bin/sh", "-c", &script])
        .stdout(Stdio::null())
        .status();
    assert_eq!(status.expect("it starts").code(), Some(7), "the command's exit status");

    let events = std::fs::read_to_string(evidence.join("events.jsonl")).expect("a log");
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let time_of = |kind: &str| {
        let event = events.iter().find(|event| event["event"] == kind);
        event.and_then(|event| event["at_unix_ns"].as_u64()).unwrap_or_else(|| panic!("{kind}: {events:?}"))
    };
    let (fault, heal) = (time_of("fault"), time_of("heal"));
    let between = |echo: &&Echo| (fault..heal).contains(&echo.at_unix_ns);
    for (server, requests_to_it) in [("drbd0", false), ("drbd1", true)] {
        let echoes = echoes(&evidence.join(format!("captures/{server}-eth0.pcapng")));
        for before in [true, false] {
            let seen = |echo: &&Echo| if before { echo.at_unix_ns < fault } else { echo.at_unix_ns > heal };
            let ways: Vec<bool> = echoes.iter().filter(seen).map(|echo| echo.outbound).collect();
            assert_eq!(ways, [!requests_to_it, requests_to_it], "{server}: {echoes:?}");
        }
        // Across the cut nothing comes or goes; the side that asks may not even know where to.
        let heard = echoes.iter().filter(between).filter(|echo| !echo.outbound || requests_to_it).count();
        assert_eq!(heard, 0, "{server}: {echoes:?}");
        wireshark_agrees(&evidence.join(format!("captures/{server}-eth0.pcapng")), server, echoes.len());
    }

    let run = json(&evidence.join("run.json"));
    assert_eq!(run["exit_status"], 7, "{run}");
    assert_eq!(run["captures"]["dropped_frames"], 0, "{run}");
    assert_eq!(run["topology"]["servers"][1]["name"], "drbd1", "{run}");
    let time = |name: &str| run[name].as_u64().unwrap_or_default();
    assert!(time("begin_unix_ns") < fault && heal < time("end_unix_ns"), "{run}");
    let said = std::fs::read_to_string(evidence.join("consoles/drbd1.log")).expect("a console");
    assert!(said.ends_with("said\n"), "{said}");
}

/// tshark, where it is installed, reads the file the same way.
fn wireshark_agrees(capture: &Path, server: &str, echoes: usize) {
    let mut tshark = Command::new("tshark");
    tshark.args(["-r"]).arg(capture).args(["-Y", "icmp", "-T", "fields", "-e", "frame.interface_name"]);
    let Ok(output) = tshark.output() else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().collect::<Vec<_>>(), vec![format!("{server}:eth0"); echoes]);
}

#[test]
fn an_interrupt_closes_the_files() {
    if !can_run("an_interrupt_closes_the_files") {
        return;
    }
    let lab = TestLab::new("interrupt");
    two(&lab);
    let directory = tempfile::tempdir().expect("a directory");
    let evidence = directory.path().to_str().expect("a path");
    let mut recorder = lab
        .command("lab", &["record", evidence, "--server", "drbd1", "--limit-mib", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(recorder.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says that it records");
    assert!(line.starts_with("recording lab "), "{line}");
    // The next life of a server has the same cable.
    lab.nova(&["reboot", "drbd1"]);
    lab.within(std::time::Duration::from_secs(20), "drbd0", "ping -c 1 -W 1 172.16.16.3");
    lab.inside("drbd0", "ping -c 30 -i 0.002 -s 60000 172.16.16.3 >/dev/null");
    let recorder_pid = rustix::process::Pid::from_raw(recorder.id() as i32).expect("a process");
    rustix::process::kill_process(recorder_pid, rustix::process::Signal::INT).expect("it runs");
    assert!(recorder.wait().expect("ours").success());

    let captures: Vec<_> = std::fs::read_dir(directory.path().join("captures"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(captures, ["drbd1-eth0.pcapng"], "only the cables that were asked for");
    assert!(!echoes(&directory.path().join("captures/drbd1-eth0.pcapng")).is_empty());
    let run = json(&directory.path().join("run.json"));
    let cable = &run["captures"]["cables"][0];
    assert!(run["exit_status"].is_null() && run["end_unix_ns"].is_u64(), "{run}");
    assert!(cable["left_out_frames"].as_u64() > Some(0), "30 pings of 60000 bytes are over 1 MiB: {run}");
    assert!((1 << 20..2 << 20).contains(&cable["bytes"].as_u64().unwrap_or_default()), "{run}");
}

#[test]
fn a_mistake_writes_nothing() {
    if !can_run("a_mistake_writes_nothing") {
        return;
    }
    let lab = TestLab::new("mistake");
    let directory = tempfile::tempdir().expect("a directory");
    let (full, fresh) = (directory.path(), directory.path().join("fresh"));
    std::fs::write(full.join("kept"), "").expect("a file");
    let (full, fresh_path) = (full.to_str().expect("a path"), fresh.to_str().expect("a path"));
    lab.lab_refuses(&["record", full, "--", "true"], "is not empty");
    lab.lab_refuses(&["record", fresh_path, "--network", "storage"], "network");
    lab.lab_refuses(&["record", fresh_path, "--server", "drbd0"], "server");
    assert!(!fresh.exists());
    let answer = lab.command("lab", &["record", fresh_path, "--", "no-such-program"]).output();
    let answer = answer.expect("it starts");
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("run no-such-program"), "{answer:?}");
    assert!(!fresh.exists(), "the next try starts from nothing");
    assert_eq!(lab.traces(), Vec::<String>::new(), "recording makes no lab");
}

#[test]
fn a_server_that_was_made_and_deleted_meanwhile_leaves_its_journal() {
    let test = "a_server_that_was_made_and_deleted_meanwhile_leaves_its_journal";
    if !can_run(test) {
        return;
    }
    if !Path::new("/lib/systemd/systemd").exists() {
        eprintln!("skip {test}: no systemd");
        return;
    }
    let lab = TestLab::new("journal");
    let directory = tempfile::tempdir().expect("a directory");
    let lockstep = program().display().to_string();
    let script = format!(
        "{lockstep} nova boot --image 'This system' --flavor 2 short && \
         {lockstep} nova ssh short logger --tag test 'it was here' && sleep 1 && {lockstep} nova delete short"
    );
    let evidence = directory.path().to_str().expect("a path");
    let answer = lab.command("lab", &["record", evidence, "--", "/bin/sh", "-c", &script]).output();
    let answer = answer.expect("it starts");
    assert!(answer.status.success(), "{answer:?}");
    let journal = std::fs::read_to_string(directory.path().join("journals/short.log")).expect("a journal");
    assert!(journal.contains("systemd[1]"), "{journal}");
    assert!(journal.contains("it was here"), "{journal}");
    let run = json(&directory.path().join("run.json"));
    assert_eq!(run["journals"][0]["file"], "journals/short.log", "{run}");
    assert_eq!(run["journals"][0]["text"]["cut_off"], false, "{run}");
}
