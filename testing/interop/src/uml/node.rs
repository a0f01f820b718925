//! A node as the host sees it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::guest::MAILBOX;
use super::{GUEST_VARIABLE, KERNEL, Segment};
use crate::program::Finished;
use crate::side::Side;
use crate::tutorial::Seat;

/// Modules of the kernel above, by release.
const MODULES: &str = "/usr/lib/uml/modules";

/// Memory of a node.
const MEMORY: &str = "384M";

/// A node boots in 4 to 5 seconds on two cores.
const BOOT_TIME_MAX: Duration = Duration::from_secs(60);

/// What the node has said so far.
#[derive(Default)]
struct Given {
    /// By script. The empty name stands for the node's first word.
    statuses: HashMap<String, i32>,
    /// It will say nothing any more.
    off: bool,
}

#[derive(Default)]
struct Answers {
    given: Mutex<Given>,
    changed: Condvar,
}

impl Answers {
    fn change(&self, change: impl FnOnce(&mut Given)) {
        change(&mut self.given.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn status(&self, script: &str, status: i32) {
        self.change(|given| {
            given.statuses.insert(script.to_owned(), status);
        });
    }
}

/// A running node. Dropping it cuts its power and takes its network card out.
pub struct Node {
    seat: Seat,
    folder: PathBuf,
    uml: Child,
    line: ChildStdin,
    answers: Arc<Answers>,
    scripts: u32,
}

impl Node {
    /// Boots a node on the segment. `folder` keeps its mailbox and console; `disk` becomes /dev/ubda.
    pub fn boot(segment: &Segment, seat: Seat, folder: &Path, disk: &Path) -> anyhow::Result<Self> {
        for part in ["in", "out", "umid"] {
            fs::create_dir_all(folder.join(part))?;
        }
        segment.plug(&tap(seat))?;
        let console = File::create(folder.join("console"))?;
        // A node's processes are traced by each other: in a process namespace of their own they all end with the first.
        let mut uml = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", KERNEL])
            .args(parameters(seat, folder, disk)?)
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console)
            .spawn()
            .context("cannot run `unshare`")?;
        let line = uml.stdin.take().context("the serial line")?;
        let answers = Arc::new(Answers::default());
        if let Some(stdout) = uml.stdout.take() {
            let answers = Arc::clone(&answers);
            // Ends when the node does.
            std::thread::spawn(move || listen(stdout, &answers));
        }
        let node = Self { seat, folder: folder.to_owned(), uml, line, answers, scripts: 0 };
        node.await_answer("", BOOT_TIME_MAX).with_context(|| node.last_words())?;
        Ok(node)
    }

    fn await_answer(&self, id: &str, limit: Duration) -> anyhow::Result<i32> {
        let begun = Instant::now();
        let mut given = self.answers.given.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(status) = given.statuses.remove(id) {
                return Ok(status);
            }
            let Some(left) = limit.checked_sub(begun.elapsed()) else {
                bail!("no answer within {} s", limit.as_secs());
            };
            if given.off {
                bail!("the node went off");
            }
            given = self.answers.changed.wait_timeout(given, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn last_words(&self) -> String {
        let console = fs::read(self.folder.join("console")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        format!(
            "{}'s console ends with:\n{}",
            self.seat.name(),
            lines[lines.len().saturating_sub(12)..].join("\n")
        )
    }
}

impl Side for Node {
    fn seat(&self) -> Seat {
        self.seat
    }

    fn shelf(&self) -> &Path {
        &self.folder
    }

    fn shelf_inside(&self) -> String {
        MAILBOX.to_owned()
    }

    fn finish(&mut self, script: &str, limit: Duration) -> anyhow::Result<Finished> {
        self.scripts += 1;
        let id = self.scripts.to_string();
        fs::write(self.folder.join("in").join(&id), script)?;
        self.line.write_all(format!("{id}\n").as_bytes()).context("the node is off")?;
        let status = self
            .await_answer(&id, limit)
            .with_context(|| format!("{}: {script}\n{}", self.seat.name(), self.last_words()))?;
        let out = |what: &str| fs::read(self.folder.join("out").join(format!("{id}.{what}")));
        let text = |what: &str| out(what).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Finished { status: Some(status), stdout: text("out")?, stderr: text("err")? })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.uml.kill();
        let _ = self.uml.wait();
        Segment::unplug(&tap(self.seat));
    }
}

fn tap(seat: Seat) -> String {
    format!("t-{}", seat.name())
}

fn parameters(seat: Seat, folder: &Path, disk: &Path) -> anyhow::Result<Vec<String>> {
    let (name, address) = (seat.name(), seat.address());
    let octets: Vec<u8> =
        address.split('.').map(str::parse).collect::<Result<_, _>>().context("an IPv4 address")?;
    let hex: Vec<String> = octets.iter().skip(1).map(|octet| format!("{octet:02x}")).collect();
    let exe = std::env::current_exe()?;
    let folder = folder.display();
    Ok(vec![
        format!("mem={MEMORY}"),
        format!("umid={name}"),
        format!("uml_dir={folder}/umid"),
        "rootfstype=hostfs".to_owned(),
        "rootflags=/".to_owned(),
        "ro".to_owned(),
        format!("init={}", exe.display()),
        format!("ubda={}", disk.display()),
        // Without gro, segments that the host has not cut are lost, and a resync crawls.
        format!("vec0:transport=tap,ifname={},depth=128,gro=1,mac=52:54:00:{}", tap(seat), hex.join(":")),
        "con=null".to_owned(),
        "con0=null,fd:2".to_owned(),
        "ssl=null".to_owned(),
        "ssl0=fd:0,fd:1".to_owned(),
        "quiet".to_owned(),
        "panic=-1".to_owned(),
        format!("{GUEST_VARIABLE}={name}"),
        format!("lockstep_address={address}"),
        format!("lockstep_mailbox={folder}"),
        format!("lockstep_modules={MODULES}"),
    ])
}

/// Takes the node's answers from its serial line until it ends.
fn listen(line: ChildStdout, answers: &Answers) {
    for answer in BufReader::new(line).lines().map_while(Result::ok) {
        let answer = answer.trim();
        if answer == "ready" {
            answers.status("", 0);
        } else if let Some((id, Ok(status))) = answer.split_once(' ').map(|(id, status)| (id, status.parse()))
        {
            answers.status(id, status);
        }
    }
    answers.change(|given| given.off = true);
}
