//! Timelines of faults: mistakes before anything starts, the same plan from the same seed, and what follows it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use testing_lab::{TestLab, can_run};

const SCENARIO: &str = "\
# Every kind of line.
at 300ms  partition a b
within 400ms..700ms  one-of a b: loss $1:net 50 --in
at 900ms  heal --all
repeat 3 from 1s..2s every 300ms..600ms
  at 0s  one-of a b: pause $1
  within 100ms..200ms  heal --all
end
";

/// Later than planned by more than this, and the machine is to blame or the player is.
const TARDINESS_NS: u64 = 20_000_000_000;

fn scenario(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("write");
    file
}

fn play(lab: &TestLab, file: &tempfile::NamedTempFile, options: &[&str]) -> Command {
    let path = file.path().to_str().expect("text");
    lab.command("lab", &[&["play", path], options].concat())
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn events(lab: &TestLab) -> Vec<Value> {
    let path = format!("/var/lib/lockstep/lab/{}/events.jsonl", lab.name());
    let log = std::fs::read_to_string(path).unwrap_or_default();
    log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn one_seed_gives_the_same_faults_at_the_same_times() {
    if !can_run("one_seed_gives_the_same_faults_at_the_same_times") {
        return;
    }
    let lab = TestLab::pair("seeds");
    let file = scenario(SCENARIO);
    let dry = json(&play(&lab, &file, &["--seed", "7", "--dry-run", "--json"]).output().expect("it starts"));
    let planned: Vec<(u64, &Value)> = dry["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (step["at_ms"].as_u64().expect("a time"), &step["words"]))
        .collect();
    assert_eq!(planned.len(), 9);
    let other =
        json(&play(&lab, &file, &["--seed", "8", "--dry-run", "--json"]).output().expect("it starts"));
    assert_ne!(dry["steps"], other["steps"]);

    for round in 0..2 {
        let before = events(&lab).len();
        let report = json(&play(&lab, &file, &["--seed", "7", "--json"]).output().expect("it starts"));
        assert_eq!(report["in_force"], Value::Array(vec![]), "the last line heals");
        let log = events(&lab);
        let (begin, faults) = log[before..].split_first().expect("the play's beginning");
        assert_eq!((&begin["event"], &begin["words"][1]), (&"play".into(), &"7".into()));
        assert_eq!(faults.len(), planned.len(), "round {round}");
        let begun = begin["at_unix_ns"].as_u64().expect("a time");
        for (event, (at_ms, words)) in faults.iter().zip(&planned) {
            assert_eq!(&event["words"], *words);
            let after = event["at_unix_ns"].as_u64().expect("a time") - begun;
            let due = at_ms * 1_000_000;
            assert!((due..due + TARDINESS_NS).contains(&after), "{words}: {after} ns, planned for {due}");
        }
    }
}

#[test]
fn a_mistake_is_refused_before_anything_starts() {
    if !can_run("a_mistake_is_refused_before_anything_starts") {
        return;
    }
    let lab = TestLab::pair("mistake");
    let before = events(&lab).len();
    for (line, mistake) in [
        ("at 2s explode a", ":2: unrecognized subcommand 'explode'"),
        ("at 2s power-cut c", ":2: fault: no server has the id or name \"c\""),
        ("at 2s one-of a c: power-cut $1", ":2: fault: no server has the id or name \"c\""),
        ("at 2s loss a:other 5", ":2: fault: no network has the id or name \"other\""),
        ("at 2s delay a 5 --jitter 6", ":2: fault delay: a jitter of 6 ms around 5 ms"),
        ("repeat 2 from 1s every 1s", ":2: this repeat has no `end`"),
    ] {
        let file = scenario(&format!("at 0s pause a\n{line}\n"));
        let path = file.path().to_str().expect("text");
        lab.lab_refuses(&["play", path], &format!("{path}{mistake}"));
        assert_eq!(events(&lab).len(), before, "{line}");
    }
    lab.lab_refuses(&["play", "/nowhere"], "read /nowhere");
}

#[test]
fn an_interrupted_play_says_what_is_in_force() {
    if !can_run("an_interrupted_play_says_what_is_in_force") {
        return;
    }
    let lab = TestLab::pair("ctrlc");
    let file = scenario("at 0s power-on a\nat 0s partition a b\nat 1m heal --all\n");
    for (options, in_force) in [(&[][..], "partition a b"), (&["--heal-after"], "no fault is in force")] {
        let before = events(&lab).len();
        let mut command = play(&lab, &file, options);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let child = command.spawn().expect("it starts");
        let patience_ends = Instant::now() + Duration::from_secs(20);
        while events(&lab).len() < before + 2 {
            assert!(Instant::now() < patience_ends, "the partition never came");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("interrupt it");
        let Output { status, stderr, .. } = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.contains(":1: fault power-on: server a runs"), "a refusal is told: {said}");
        assert!(said.contains("2 of 3 faults were done") && said.contains(in_force), "{said}");
    }
}
