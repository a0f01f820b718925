//! Volumes that break: errors, hangs, delays, exhausted pools, flipped bits; and a store that is killed.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use testing_lab::{TestLab, can_run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A lab with a server that has a volume of 1 GB, `v`, as /dev/xvdb.
fn with_volume(test: &str, kind: &str) -> TestLab {
    let lab = TestLab::new(test);
    lab.boot("server", &[]);
    lab.nova(&["volume-create", "--display-name", "v", "--volume-type", kind, "1"]);
    lab.nova(&["volume-attach", "server", "v", "/dev/xvdb"]);
    lab
}

/// Starts a command in a server.
fn begin(lab: &TestLab, words: &str) -> Child {
    let mut command = lab.command("nova", &["ssh", "server", words]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nova starts")
}

/// Direct reads or writes of 4 KiB blocks.
fn dd(from_to: &str, block: u32, count: u32) -> String {
    let place = if from_to.starts_with("if=/dev/xvd") { "skip" } else { "seek" };
    let direct = if place == "skip" { "iflag" } else { "oflag" };
    format!("dd {from_to} bs=4k {place}={block} count={count} {direct}=direct status=none")
}

fn reading(block: u32) -> String {
    dd("if=/dev/xvdb of=/dev/null", block, 1)
}

fn writing(block: u32) -> String {
    dd("if=/dev/zero of=/dev/xvdb", block, 1)
}

#[test]
fn requests_fail_where_the_fault_is() {
    if !can_run("requests_fail_where_the_fault_is") {
        return;
    }
    let lab = with_volume("errors", "SATA");
    let works = |words: String| lab.ssh("server", &words).status == 0;
    lab.fault(&["volume", "v", "error", "--read", "--range", "4K-8K"]);
    assert!(works(reading(0)) && !works(reading(1)) && works(reading(2)));
    assert!(works(writing(1)), "only reads fail");
    lab.fault(&["volume", "v", "error", "--write"]);
    assert!(!works(writing(9)) && works(reading(9)));
    // Both last over a power cut and an attachment elsewhere.
    lab.nova(&["reboot", "--hard", "server"]);
    assert!(!works(writing(9)) && !works(reading(1)));
    lab.fault(&["volume", "v", "heal"]);
    assert!(works(writing(9)) && works(reading(1)));

    lab.fault(&["volume", "v", "read-only"]);
    assert!(!works(writing(0)) && works(reading(0)));
    assert!(!works("blkdiscard -l 4096 /dev/xvdb".into()));
    lab.fault(&["volume", "v", "heal"]);

    // A thin volume: what is there can be overwritten, the rest cannot be filled.
    lab.inside("server", &dd("if=/dev/urandom of=/dev/xvdb", 100, 1));
    lab.fault(&["volume", "v", "full"]);
    assert!(works(writing(100)));
    let said = lab.refused("server", &dd("if=/dev/urandom of=/dev/xvdb", 5000, 1), 1);
    assert!(said.contains("No space left on device"), "{said}");
    let listed = lab.lab(&["fault", "list"]);
    assert!(listed.contains("volume v full"), "{listed}");
    let json = lab.lab(&["fault", "volume", "v", "heal", "--json"]);
    assert_eq!(json.trim(), "[]");
    assert!(works(writing(5000)));

    lab.lab_refuses(&["fault", "volume", "v", "error", "--range", "0-2G"], "beyond volume v");
    lab.nova(&["volume-create", "--display-name", "raw", "--volume-type", "raw", "1"]);
    lab.lab_refuses(&["fault", "volume", "raw", "hang"], "is of type raw");
}

#[test]
fn a_disk_that_hangs_stops_nothing_but_what_uses_it() {
    if !can_run("a_disk_that_hangs_stops_nothing_but_what_uses_it") {
        return;
    }
    let lab = with_volume("hangs", "volatile");
    lab.nova(&["volume-create", "--display-name", "sound", "1"]);
    lab.nova(&["volume-attach", "server", "sound", "/dev/xvdc"]);
    lab.inside("server", "mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt && echo before > /mnt/file && sync");
    lab.fault(&["volume", "v", "hang"]);
    let mut hanging = begin(&lab, "echo during > /mnt/file && sync /mnt/file && echo done");
    // More at once than a session's usual bound on requests on their way.
    let mut many = begin(
        &lab,
        "for i in $(seq 100); do dd if=/dev/xvdb of=/dev/null bs=4k skip=$((i*97)) count=1 iflag=direct & done; wait; echo done",
    );
    lab.within(PATIENCE, "server", "test $(pgrep -c -x dd) = 100");
    lab.inside_within(
        PATIENCE,
        "server",
        "dd if=/dev/zero of=/dev/xvdc bs=1M count=64 oflag=direct status=none",
    );
    // Tools go on, other servers boot, and this one's disks can be looked at.
    lab.boot("other", &[]);
    lab.nova_refuses(&["volume-detach", "server", "v"], "in use");
    assert!(hanging.try_wait().expect("it is ours").is_none(), "it did not hang");
    lab.fault(&["volume", "v", "heal"]);
    for child in [&mut hanging, &mut many] {
        let mut said = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        assert!(child.wait().expect("it is ours").success() && said.contains("done"), "{said}");
    }
    assert_eq!(lab.inside("server", "cat /mnt/file"), "during\n");

    // A server whose disk hangs boots, and its power can be cut in the middle of a write.
    lab.fault(&["volume", "v", "hang"]);
    let mut cut = begin(&lab, "echo lost > /mnt/file && sync /mnt/file");
    std::thread::sleep(Duration::from_millis(200));
    lab.nova(&["reboot", "--hard", "server"]);
    assert!(!cut.wait().expect("it is ours").success());
    lab.fault(&["volume", "v", "heal"]);
    lab.inside("server", "e2fsck -fp /dev/xvdb >/dev/null; test $? -le 1 && mount /dev/xvdb /mnt");
    assert_eq!(lab.inside("server", "cat /mnt/file"), "during\n");
    // Taken down while requests hang: `drop` looks for what is left.
    lab.fault(&["volume", "v", "hang"]);
    let mut last = begin(&lab, &reading(3));
    lab.within(PATIENCE, "server", "pgrep -x dd");
    lab.lab(&["down"]);
    last.wait().expect("it is ours");
}

#[test]
fn slow_requests_wait_side_by_side() {
    if !can_run("slow_requests_wait_side_by_side") {
        return;
    }
    let lab = with_volume("slow", "SATA");
    lab.fault(&["volume", "v", "slow", "1000", "--read"]);
    let at_once = |count: u32| {
        let begun = Instant::now();
        let words = format!(
            "for i in $(seq {count}); do {} & done; wait",
            "dd if=/dev/xvdb of=/dev/null bs=4k skip=$i count=1 iflag=direct status=none"
        );
        lab.inside("server", &words);
        begun.elapsed()
    };
    assert!(at_once(1) >= Duration::from_secs(1));
    // One after the other they would take 40 s.
    let forty = at_once(40);
    assert!(forty >= Duration::from_secs(1) && forty < Duration::from_secs(20), "{forty:?}");
}

#[test]
fn a_flipped_bit_is_silent_and_can_be_put_back() {
    if !can_run("a_flipped_bit_is_silent_and_can_be_put_back") {
        return;
    }
    let lab = with_volume("flips", "SATA");
    lab.inside("server", &dd("if=/dev/urandom of=/dev/xvdb", 1000, 256));
    let sum = || lab.inside("server", &format!("{} | sha256sum", dd("if=/dev/xvdb", 1000, 256)));
    let sound = sum();
    let chosen = lab.lab(&["fault", "volume", "v", "flip", "--seed", "7", "--json"]);
    let flipped = sum();
    assert_ne!(sound, flipped, "the bit is not where the data is: {chosen}");
    // The medium is wrong for whoever reads it, also after a power cut.
    lab.nova(&["reboot", "--hard", "server"]);
    assert_eq!(sum(), flipped);
    lab.fault(&["volume", "v", "heal"]);
    assert_eq!(sum(), sound);
    let again = lab.lab(&["fault", "volume", "v", "flip", "--seed", "7", "--json"]);
    assert_eq!(again, chosen, "one seed, one bit");
    lab.fault(&["volume", "v", "heal"]);

    // What was written since is right, and healing leaves it alone.
    lab.fault(&["volume", "v", "flip", "--at", "4096000", "--bit", "0"]);
    assert_ne!(sum(), sound);
    lab.inside("server", &dd("if=/dev/zero of=/dev/xvdb", 1000, 256));
    let zeroes = sum();
    lab.fault(&["heal", "--all"]);
    assert_eq!(sum(), zeroes);
}

/// The processes of the lab's store, the keeper first.
fn store(lab: &TestLab) -> Vec<i32> {
    let listing = std::fs::read_dir("/proc").expect("proc").flatten();
    let words = ["lockstep", "lab", "store", "--lab", lab.name(), ""].join("\0");
    let mut pids: Vec<i32> = listing
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|cmdline| cmdline == words.as_bytes())
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
}

#[test]
fn a_killed_store_is_taken_over() {
    if !can_run("a_killed_store_is_taken_over") {
        return;
    }
    let lab = with_volume("takeover", "SATA");
    lab.fault(&["volume", "v", "error", "--read", "--range", "512M-513M"]);
    let mut writer = begin(
        &lab,
        "dd if=/dev/urandom of=/run/data bs=1M count=200 status=none && \
        dd if=/run/data of=/dev/xvdb bs=16k oflag=direct conv=fsync status=none && \
        dd if=/dev/xvdb bs=1M count=200 iflag=direct status=none | cmp - /run/data && echo same",
    );
    for _ in 0..3 {
        let before = store(&lab);
        let [keeper, serving] = before[..] else { panic!("two processes: {before:?}") };
        kill(serving);
        let end = Instant::now() + PATIENCE;
        while !matches!(store(&lab)[..], [first, second] if first == keeper && second != serving) {
            assert!(Instant::now() < end, "nobody took over: {:?}", store(&lab));
            std::thread::sleep(Duration::from_millis(20));
        }
        // A store that lives for less than a second was started in vain.
        std::thread::sleep(Duration::from_millis(1100));
    }
    let mut said = String::new();
    writer.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(writer.wait().expect("it is ours").success() && said == "same\n", "{said}");
    // The successor knows the faults, and follows tables.
    assert_ne!(lab.ssh("server", &reading(131_072)).status, 0);
    lab.inside("server", "echo ,100M | sfdisk -q /dev/xvdb");
    lab.within(PATIENCE, "server", "test -b /dev/xvdb1");

    // Without its keeper nothing hangs: requests fail, and a power cycle helps.
    kill(store(&lab)[0]);
    lab.within(PATIENCE, "server", &format!("! {}", reading(0)));
    lab.nova(&["reboot", "--hard", "server"]);
    lab.inside("server", &reading(0));
}
