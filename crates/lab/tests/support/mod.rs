//! A lab for one test, removed with it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What `nova` answered.
pub struct Answer {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The program under test: `LOCKSTEP_BIN`, or this crate's own example.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("LOCKSTEP_BIN") {
        return program.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let example = profile.join("examples/lockstep-lab");
    assert!(example.exists(), "{} is missing: cargo build -p lab --example lockstep-lab", example.display());
    example
}

/// Whether labs work here; says so loudly where they do not.
pub fn can_run(test: &str) -> bool {
    let missing = ["/dev/fuse", "/dev/loop-control"].iter().find(|path| !std::path::Path::new(path).exists());
    let reason = match missing {
        _ if !rustix::process::geteuid().is_root() => "not root".to_owned(),
        Some(path) => format!("no {path}"),
        None => return true,
    };
    eprintln!("skip {test}: {reason}");
    false
}

/// A lab with a name of its own.
pub struct TestLab {
    pub name: String,
}

impl TestLab {
    pub fn new(test: &str) -> Self {
        Self { name: format!("t{}-{test}", std::process::id()) }
    }

    pub fn command(&self, personality: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg(personality).args(["--lab", &self.name]).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, personality: &str, words: &[&str]) -> Answer {
        let Output { status, stdout, stderr } =
            self.command(personality, words).output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Answer { status: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs `nova`, which must do it.
    #[track_caller]
    pub fn nova(&self, words: &[&str]) -> String {
        let Answer { status, stdout, stderr } = self.run("nova", words);
        assert_eq!(status, 0, "nova {}: {stderr}", words.join(" "));
        stdout
    }

    /// Runs `nova`, which must refuse it with status 1 and a message that contains `mistake`.
    #[track_caller]
    pub fn refused(&self, words: &[&str], mistake: &str) {
        let Answer { status, stdout, stderr } = self.run("nova", words);
        let said = format!("nova {}: status {status}\n{stdout}{stderr}", words.join(" "));
        assert_eq!(status, 1, "{said}");
        assert!(stderr.contains(mistake), "{said}does not say {mistake:?}");
        assert_eq!(stdout, "", "{said}");
    }

    /// Runs `lockstep lab`, which must do it.
    #[track_caller]
    pub fn lab(&self, words: &[&str]) -> String {
        let Answer { status, stdout, stderr } = self.run("lab", words);
        assert_eq!(status, 0, "lab {}: {stderr}", words.join(" "));
        stdout
    }

    /// Runs a command in a server.
    pub fn ssh(&self, server: &str, words: &str) -> Answer {
        self.run("nova", &["ssh", server, words])
    }

    /// Runs a command in a server, where it must succeed, and gives what it printed.
    #[track_caller]
    pub fn inside(&self, server: &str, words: &str) -> String {
        let Answer { status, stdout, stderr } = self.ssh(server, words);
        assert_eq!(status, 0, "{server}# {words}\n{stdout}{stderr}");
        stdout
    }

    /// Whether a TCP packet to a port that nobody listens on comes back refused: the way there and back works.
    pub fn hears(&self, server: &str, address: &str) -> bool {
        let answer = self.ssh(server, &format!("timeout 1 bash -c '</dev/tcp/{address}/9'"));
        answer.stderr.contains("Connection refused")
    }

    /// Waits until a command in a server succeeds.
    #[track_caller]
    pub fn within(&self, patience: Duration, server: &str, words: &str) {
        let end = Instant::now() + patience;
        while self.ssh(server, words).status != 0 {
            assert!(Instant::now() < end, "{server}# {words}: not within {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Boots a server of 512 MB.
    #[track_caller]
    pub fn boot(&self, name: &str, networks: &[&str]) {
        let nics: Vec<String> = networks.iter().map(|network| format!("net-id={network}")).collect();
        let mut words = vec!["boot", "--image", "This system", "--flavor", "2"];
        for nic in &nics {
            words.extend(["--nic", nic]);
        }
        words.push(name);
        self.nova(&words);
    }

    /// Everything of this lab that can still be found on the machine.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for directory in ["/run/netns", "/run/lockstep/lab", "/var/lib/lockstep/lab", "/sys/fs/cgroup/memory"]
        {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().ends_with(&self.name) {
                    traces.push(entry.path().display().to_string());
                }
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        traces.extend(mounts.lines().filter(|line| line.contains(&self.name)).map(str::to_owned));
        for entry in std::fs::read_dir("/sys/block").expect("sysfs").flatten() {
            let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if file.contains(&self.name) {
                traces.push(format!("{}: {file}", entry.path().display()));
            }
        }
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if words.contains(&self.name) {
                traces.push(format!("{}: {words}", entry.path().display()));
            }
        }
        traces
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        let gone = self.run("lab", &["down"]);
        if !std::thread::panicking() {
            assert_eq!(gone.status, 0, "down: {}", gone.stderr);
            assert_eq!(self.traces(), Vec::<String>::new(), "left behind");
        }
    }
}
