//! What labs leave on the host: nothing; what they see of each other: nothing; what udev sees of them: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testing_lab::{TestLab, can_run, program};

const PATIENCE: Duration = Duration::from_secs(60);

/// Everything below a directory, so many levels deep.
fn tree(directory: &str, levels: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path().display().to_string();
        if levels > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            tree(&path, levels - 1, found);
        }
        found.insert(path);
    }
}

fn lines(program: &str, arguments: &[&str], found: &mut BTreeSet<String>) {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    found.extend(text.lines().map(|line| format!("{program} {}: {line}", arguments.join(" "))));
}

/// What a lab could leave on this machine.
fn host() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (directory, levels) in [
        ("/dev", 2),
        ("/run", 2),
        ("/run/lockstep", 4),
        ("/run/netns", 1),
        ("/run/udev/rules.d", 1),
        ("/var/lib/lockstep", 3),
        ("/etc/netns", 1),
    ] {
        tree(directory, levels, &mut found);
    }
    // Process ids come and go there.
    found.retain(|path| !path.starts_with("/dev/pts/") && !path.starts_with("/dev/fd"));
    let mut cgroups = BTreeSet::new();
    tree("/sys/fs/cgroup", 4, &mut cgroups);
    found.extend(cgroups.into_iter().filter(|path| path.contains("lockstep")));
    lines("ip", &["-o", "link"], &mut found);
    lines("ip", &["-o", "address"], &mut found);
    lines("ip", &["netns"], &mut found);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    found.extend(mounts.lines().map(|line| format!("mount {line}")));
    for entry in fs::read_dir("/sys/block").expect("sysfs").flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            found.insert(format!("{}: {file}", entry.path().display()));
        }
    }
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.starts_with("lockstep lab") {
            found.insert(format!("{} {words}", entry.path().display()));
        }
    }
    found
}

/// Whether other labs may change the machine meanwhile.
fn alone() -> bool {
    let listing = Command::new(program()).args(["lab", "ps", "--json"]).output().expect("the program starts");
    String::from_utf8_lossy(&listing.stdout).trim() == "[]"
}

/// Waits until nothing is there that was not before: of these labs, if there are others.
#[track_caller]
fn assert_nothing_new(before: &BTreeSet<String>, labs: &[&TestLab], was_alone: bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut new: Vec<String> = host().difference(before).cloned().collect();
        if !was_alone || !alone() {
            new.retain(|line| labs.iter().any(|lab| line.contains(lab.name())));
        }
        if new.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {new:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn kill(pid: i32) {
    // It may have ended meanwhile.
    let _ = rustix::process::Pid::from_raw(pid)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
}

/// The lab's processes whose command line has these words behind `lockstep lab`.
fn processes(lab: &TestLab, word: &str) -> Vec<i32> {
    let begin = ["lockstep", "lab", word, "--lab", lab.name(), ""].join("\0");
    let listing = fs::read_dir("/proc").expect("proc").flatten();
    let is_ours = |path: PathBuf| {
        fs::read(path.join("cmdline")).is_ok_and(|cmdline| cmdline.starts_with(begin.as_bytes()))
    };
    listing
        .filter(|entry| is_ours(entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// A server with a mounted volume, a network, and a process that writes.
fn furnish(lab: &TestLab) {
    lab.nova(&["network-create", "net", "10.99.0.0/24"]);
    lab.boot("one", &["net"]);
    lab.boot("two", &["net"]);
    lab.nova(&["volume-create", "--display-name", "v", "--volume-type", "volatile", "1"]);
    lab.nova(&["volume-attach", "one", "v", "/dev/xvdb"]);
    lab.inside("one", "echo ,500M | sfdisk -q /dev/xvdb");
    lab.within(PATIENCE, "one", "test -b /dev/xvdb1");
    lab.inside("one", "mkfs.ext4 -q /dev/xvdb1 && mount /dev/xvdb1 /mnt");
    lab.inside("one", "(setsid sh -c 'while echo x >> /mnt/log; do sync /mnt/log; done' >/dev/null 2>&1 &)");
}

#[test]
fn down_leaves_nothing() {
    if !can_run("down_leaves_nothing") {
        return;
    }
    let (was_alone, before) = (alone(), host());
    let lab = TestLab::new("leaves");
    furnish(&lab);
    lab.nova(&["volume-create", "--display-name", "r", "--volume-type", "raw", "1"]);
    lab.nova(&["volume-attach", "two", "r", "/dev/xvdb"]);
    lab.fault(&["partition", "one", "two"]);
    lab.fault(&["volume", "v", "slow", "5"]);
    lab.nova(&["volume-snapshot-create", "--force", "True", "v"]);
    assert!(host().difference(&before).any(|line| line.contains(lab.name())), "nothing to leave");
    lab.lab(&["down"]);
    assert_nothing_new(&before, &[&lab], was_alone);
}

#[test]
fn down_leaves_nothing_of_what_was_killed() {
    if !can_run("down_leaves_nothing_of_what_was_killed") {
        return;
    }
    let (was_alone, before) = (alone(), host());
    for (index, word) in ["server", "store", "server-init"].into_iter().enumerate() {
        let lab = TestLab::new(&format!("killed{index}"));
        furnish(&lab);
        // A tool in the middle of its work dies first.
        let mut boot = lab.command("nova", &["boot", "--image", "This system", "--flavor", "2", "three"]);
        let mut boot = boot.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nova starts");
        std::thread::sleep(Duration::from_millis(20 + 40 * index as u64));
        kill(boot.id() as i32);
        boot.wait().expect("it is ours");
        let victims = processes(&lab, word);
        assert!(!victims.is_empty(), "no process {word}");
        victims.into_iter().for_each(kill);
        lab.lab(&["down"]);
        assert_nothing_new(&before, &[&lab], was_alone);
    }
}

#[test]
fn two_labs_do_not_meet() {
    if !can_run("two_labs_do_not_meet") {
        return;
    }
    let (a, b) = (TestLab::new("meet-a"), TestLab::new("meet-b"));
    for (lab, word) in [(&a, "first"), (&b, "second")] {
        furnish(lab);
        lab.inside("one", &format!("echo {word} > /mnt/name && sync && echo {word} > /etc/name"));
    }
    let address = |lab: &TestLab, server: &str| {
        let words = "ip -4 -o address show | grep -o '10\\.99\\.0\\.[0-9]*/' | tr -d /";
        lab.inside(server, words).trim().to_owned()
    };
    // The same addresses in both, and each answers in its own lab only.
    assert_eq!(address(&a, "two"), address(&b, "two"));
    assert!(a.comes_to_hear("one", &address(&a, "two")) && b.comes_to_hear("one", &address(&b, "two")));
    let two = address(&b, "two");
    b.fault(&["power-cut", "two"]);
    assert!(a.comes_to_hear("one", &two), "the other lab's server was cut");
    assert!(!b.hears("one", &two), "the other lab's server answered");
    for (lab, word) in [(&a, "first\n"), (&b, "second\n")] {
        assert_eq!(lab.inside("one", "cat /mnt/name"), word);
        assert_eq!(lab.inside("one", "cat /etc/name"), word);
    }
    a.lab(&["down"]);
    assert_eq!(b.inside("one", "cat /mnt/name"), "second\n", "one went down with the other");
}

/// What udev would do with a device, `with` the rules or `without`. In a mount namespace of its own: nothing of it stays,
/// and a udevd of the host is not asked.
fn udev_says(device: &Path, rules: &Path, with: &str) -> String {
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/udev/rules.d /run/udev/data && \
         {{ test $1 = without || cp {} /run/udev/rules.d/; }} && udevadm test --action=change {} 2>&1",
        rules.display(),
        device.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", with]);
    let output = command.output().expect("unshare is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The output of a program that must succeed.
#[track_caller]
fn output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("it is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", words.join(" "));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device on a file where the mirror has its own: any that has a file system will do. It goes with the test.
struct Backing {
    directory: PathBuf,
    node: String,
}

impl Backing {
    fn formatted() -> Self {
        let directory = PathBuf::from(format!("/run/lockstep/minor-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let mut backing = Self { directory, node: String::new() };
        let file = backing.directory.join("file").display().to_string();
        output("truncate", &["-s", "8M", &file]);
        output("mkfs.ext4", &["-qF", &file]);
        backing.node = output("losetup", &["--find", "--show", &file]);
        backing
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let detached = self.node.is_empty()
            || Command::new("losetup").args(["-d", &self.node]).status().is_ok_and(|status| status.success());
        let removed = fs::remove_dir_all(&self.directory);
        match fs::remove_dir("/run/lockstep") {
            // Not empty: labs and daemons that run have theirs there.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) if !std::thread::panicking() => panic!("/run/lockstep: {error}"),
            _ => {}
        }
        if !std::thread::panicking() {
            assert!(detached, "losetup -d {}", self.node);
            removed.expect("it is ours");
        }
    }
}

#[test]
fn udev_does_not_probe_the_mirror() {
    if !can_run("udev_does_not_probe_the_mirror") {
        return;
    }
    if Command::new("udevadm").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skip udev_does_not_probe_the_mirror: no udevadm");
        return;
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/lab/udev/50-lockstep-lab.rules");
    let backing = Backing::formatted();
    let device = PathBuf::from(backing.node.replace("/dev/", "/sys/block/"));
    let (with, without) = (udev_says(&device, &rules, "with"), udev_says(&device, &rules, "without"));
    drop(backing);
    assert!(without.contains("ID_FS_TYPE=ext4"), "the test would not see a probe:\n{without}");
    assert!(with.contains("UDISKS_IGNORE=1") && !with.contains("ID_FS_TYPE"), "{with}");
    assert!(!with.contains("SYSTEMD_READY=0"), "systemd takes back what is mounted by hand:\n{with}");
}

#[test]
fn udev_leaves_volumes_alone() {
    if !can_run("udev_leaves_volumes_alone") {
        return;
    }
    if Command::new("udevadm").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skip udev_leaves_volumes_alone: no udevadm");
        return;
    }
    let lab = TestLab::new("udev");
    furnish(&lab);
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/lab/udev/50-lockstep-lab.rules");
    let mut bound = fs::read_dir("/sys/block").expect("sysfs").flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| {
        fs::read_to_string(path.join("loop/backing_file")).is_ok_and(|file| file.contains(lab.name()))
    };
    let disk = bound.find(is_ours).expect("the volume's loop device");
    let partition = disk.join(format!("{}p1", disk.file_name().expect("a name").to_string_lossy()));
    for device in [&disk, &partition] {
        let test = |with: &str| udev_says(device, &rules, with);
        let said = test("with");
        for property in ["UDISKS_IGNORE=1", "SYSTEMD_READY=0", "UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG=1"]
        {
            assert!(said.contains(property), "{property} is not set for {}:\n{said}", device.display());
        }
        assert!(!said.contains("ID_FS_TYPE") && !said.contains("by-uuid"), "it was probed:\n{said}");
        if device == &partition {
            assert!(test("without").contains("ID_FS_TYPE=ext4"), "the test would not see a probe");
        }
    }
}

#[test]
fn a_lab_of_another_version_is_told_and_removed() {
    if !can_run("a_lab_of_another_version_is_told_and_removed") {
        return;
    }
    let (was_alone, before) = (alone(), host());
    for (index, record) in ["lab.json", "servers", "store"].into_iter().enumerate() {
        let lab = TestLab::new(&format!("other{index}"));
        furnish(&lab);
        lab.nova(&["volume-create", "--display-name", "w", "1"]);
        lab.nova(&["volume-attach", "two", "w", "/dev/xvdb"]);
        lab.fault(&["volume", "w", "hang"]);
        // A loop device on a file of the server's own is found by nothing but its file system.
        lab.inside(
            "one",
            "truncate -s 8M /inner && mkfs.ext4 -qF /inner && mkdir /m && mount -o loop /inner /m",
        );
        let state = Path::new("/var/lib/lockstep/lab").join(lab.name());
        let run = Path::new("/run/lockstep/lab").join(lab.name());
        let damaged: Vec<PathBuf> = match record {
            "lab.json" => vec![state.join(record)],
            "servers" => fs::read_dir(run.join(record)).expect("lives").flatten().map(|e| e.path()).collect(),
            // Its keeper's record, and a socket on which nobody answers in our words.
            _ => vec![run.join("store.json"), run.join("store.sock")],
        };
        let mute = (record == "store").then(|| {
            fs::remove_file(run.join("store.sock")).expect("a socket");
            std::os::unix::net::UnixListener::bind(run.join("store.sock")).expect("another")
        });
        for path in damaged.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
            fs::write(path, r#"{"magic":"lockstep-lab","version":1,"servers":"elsewhere"}"#)
                .expect("a record");
        }
        if record != "store" {
            let listing = lab.lab(&["ps"]);
            let mut lines = listing.lines().filter(|line| line.contains(lab.name()));
            assert!(lines.any(|line| line.contains("UNREADABLE")), "{listing}");
            let json: serde_json::Value = serde_json::from_str(&lab.lab(&["ps", "--json"])).expect("JSON");
            assert!(json.to_string().contains("\"error\""), "{json}");
        }
        lab.lab(&["down"]);
        assert_nothing_new(&before, &[&lab], was_alone);
        drop(mute);
    }
}
