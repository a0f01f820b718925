//! A lab for one test, removed with it; the lab's own tests are in `tests/`.

mod traces;
pub mod tutorial;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit status; -1 after a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The program under test: `LOCKSTEP`, or the one of this test's own build.
///
/// # Panics
/// If it was not built.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("LOCKSTEP") {
        return program.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let lockstep = profile.join("lockstep");
    assert!(lockstep.exists(), "{} is missing: cargo build -p lockstep, in this profile", lockstep.display());
    lockstep
}

/// Whether labs work here; says so loudly where they do not.
pub fn can_run(test: &str) -> bool {
    let missing = ["/dev/fuse", "/dev/loop-control"].iter().find(|path| !Path::new(path).exists());
    let reason = match missing {
        _ if !rustix::process::geteuid().is_root() => "not root".to_owned(),
        Some(path) => format!("no {path}"),
        None => return true,
    };
    eprintln!("skip {test}: {reason}");
    false
}

/// A lab with a name of its own.
#[derive(Debug)]
pub struct TestLab {
    name: String,
}

impl TestLab {
    /// Nothing is in it yet.
    pub fn new(test: &str) -> Self {
        Self { name: format!("t{}-{test}", std::process::id()) }
    }

    /// Two servers, `a` at 10.1.0.2 and `b` at 10.1.0.3, on the network `net`.
    ///
    /// # Panics
    /// If they do not come up.
    #[track_caller]
    pub fn pair(test: &str) -> Self {
        let lab = Self::new(test);
        lab.nova(&["network-create", "net", "10.1.0.0/24"]);
        lab.boot("a", &["net"]);
        lab.boot("b", &["net"]);
        lab
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A personality of the program in this lab.
    pub fn command(&self, personality: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg(personality).args(["--lab", &self.name]).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, personality: &str, words: &[&str]) -> Answer {
        let Output { status, stdout, stderr } =
            self.command(personality, words).output().expect("the program starts");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Answer { status: status.code().unwrap_or(-1), stdout, stderr }
    }

    /// Runs `nova`, which must do it.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn nova(&self, words: &[&str]) -> String {
        let answer = self.run("nova", words);
        assert_eq!(answer.status, 0, "nova {}: {}", words.join(" "), answer.stderr);
        answer.text()
    }

    /// Runs `nova`, which must refuse it with status 1, nothing on stdout, and a message that contains `mistake`.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn nova_refuses(&self, words: &[&str], mistake: &str) {
        self.refuses("nova", words, mistake);
    }

    /// The same of `lockstep lab`.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn lab_refuses(&self, words: &[&str], mistake: &str) {
        self.refuses("lab", words, mistake);
    }

    #[track_caller]
    fn refuses(&self, personality: &str, words: &[&str], mistake: &str) {
        let answer = self.run(personality, words);
        let stdout = answer.text();
        let said =
            format!("{personality} {}: status {}\n{stdout}{}", words.join(" "), answer.status, answer.stderr);
        assert_eq!(answer.status, 1, "{said}");
        assert!(answer.stderr.contains(mistake), "{said}does not say {mistake:?}");
        assert_eq!(stdout, "", "{said}");
    }

    /// Runs `lockstep lab`, which must do it.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn lab(&self, words: &[&str]) -> String {
        let answer = self.run("lab", words);
        assert_eq!(answer.status, 0, "lab {}: {}", words.join(" "), answer.stderr);
        answer.text()
    }

    /// Runs `lockstep lab fault`, which must do it.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn fault(&self, words: &[&str]) {
        self.lab(&[&["fault"], words].concat());
    }

    /// Boots a server of 512 MB with one interface for each of these networks, and no others.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn boot(&self, name: &str, networks: &[&str]) {
        let nics: Vec<String> = networks.iter().map(|network| format!("net-id={network}")).collect();
        let mut words = vec![
            "boot",
            "--image",
            "This system",
            "--flavor",
            "2",
            "--no-public",
            "--no-service-net",
            "--init",
            "tiny",
        ];
        for nic in &nics {
            words.extend(["--nic", nic]);
        }
        words.push(name);
        self.nova(&words);
    }

    /// Whether it hears within some seconds: a packet may be lost on the way, on a loaded machine above all.
    pub fn comes_to_hear(&self, server: &str, address: &str) -> bool {
        (0..10).any(|_| self.hears(server, address))
    }

    /// Whether a TCP packet to a port that nobody listens on comes back refused: the way there and back works.
    pub fn hears(&self, server: &str, address: &str) -> bool {
        let answer = self.ssh(server, &format!("timeout 1 bash -c '</dev/tcp/{address}/9'"));
        answer.stderr.contains("Connection refused")
    }

    /// Everything of this lab that can still be found on the machine.
    pub fn traces(&self) -> Vec<String> {
        traces::of(&self.name)
    }

    /// Runs a command in a server.
    pub fn ssh(&self, server: &str, words: &str) -> Answer {
        self.run("nova", &["ssh", server, words])
    }

    /// Runs a command in a server, where it must succeed, and gives what it printed.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn inside(&self, server: &str, words: &str) -> String {
        let answer = self.ssh(server, words);
        assert_eq!(answer.status, 0, "{server}# {words}\n{}{}", answer.text(), answer.stderr);
        answer.text()
    }

    /// Runs a command in a server that must end well, and in time even if it cannot be killed.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn inside_within(&self, patience: Duration, server: &str, words: &str) {
        let mut child = self.command("nova", &["ssh", server, words]).spawn().expect("nova starts");
        let end = Instant::now() + patience;
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is ours") {
                break status;
            }
            if Instant::now() >= end {
                // Not waited for: it ends with its server.
                let _ = child.kill();
                panic!("{server}# {words}: not within {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{server}# {words}: {status}");
    }

    /// Runs a command in a server, where it must be refused with this status, and gives what it said.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn refused(&self, server: &str, words: &str, status: i32) -> String {
        let answer = self.ssh(server, words);
        let said = format!("{}{}", answer.text(), answer.stderr);
        assert_eq!(answer.status, status, "{server}# {words}\n{said}");
        said
    }

    /// Lowers the memory limit of every server.
    ///
    /// # Errors
    /// Why this system does not limit memory.
    pub fn limit_memory(&self, mib: u64) -> Result<(), String> {
        let name = format!("lockstep-{}", self.name);
        for (root, file) in [("memory", "memory.limit_in_bytes"), ("", "server/memory.max")] {
            let directory = PathBuf::from("/sys/fs/cgroup").join(root).join(&name);
            let servers = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            // The lab's block daemons have a place of their own beside the servers'.
            let limits: Vec<_> = servers
                .filter(|server| server.file_name() != "block-daemons")
                .map(|server| server.path().join(file))
                .filter(|f| f.exists())
                .collect();
            for limit in &limits {
                std::fs::write(limit, (mib << 20).to_string())
                    .map_err(|error| format!("{}: {error}", limit.display()))?;
            }
            if !limits.is_empty() {
                return Ok(());
            }
        }
        Err("the servers have no memory cgroup".to_owned())
    }

    /// Waits until a command in a server succeeds.
    ///
    /// # Panics
    /// If it does not in time, with what it last said.
    #[track_caller]
    pub fn within(&self, patience: Duration, server: &str, words: &str) {
        let end = Instant::now() + patience;
        loop {
            let answer = self.ssh(server, words);
            if answer.status == 0 {
                return;
            }
            let said = format!("{}{}", answer.text(), answer.stderr);
            assert!(Instant::now() < end, "{server}# {words}: not within {patience:?}\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
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
