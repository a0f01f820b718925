//! The demo's lab: commands on the host and in servers, interruptible and never waited for without end.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::demo::screen::Screen;
use crate::process;

/// No single command of the story takes nearly as long.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

/// A wait that is longer is explained.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// How often a command that runs is checked for an interrupt.
const POLL: Duration = Duration::from_millis(100);

/// A lab that only the demo uses.
pub struct Lab {
    name: String,
    lockstep: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Lab {
    /// A lab that is not there yet: `demo`, or with the process's id if one of that name was kept. From now on
    /// SIGINT, SIGTERM and SIGHUP end commands instead of this process.
    pub fn named_freely(lockstep: PathBuf) -> anyhow::Result<Self> {
        let (_, labs) = process::output(Command::new(&lockstep).args(["lab", "ps"]))?;
        let taken = labs.lines().any(|line| line.split('|').nth(1).is_some_and(|lab| lab.trim() == "demo"));
        let name = if taken { format!("demo-{}", std::process::id()) } else { "demo".to_owned() };
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("catching signals")?;
        }
        Ok(Self { name, lockstep, interrupted })
    }

    /// Whether the user wants it to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// `lockstep WORDS…` on the host.
    pub fn lockstep(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.lockstep);
        command.args(words).env("LOCKSTEP_LAB", &self.name).stdin(Stdio::null());
        command
    }

    /// A line as typed in a server's shell.
    pub fn ssh(&self, server: &str, line: &str) -> Command {
        // One word for ssh's /bin/sh, which hands it to bash as it is.
        let quoted = line.replace('\'', r"'\''");
        self.lockstep(&["nova", "ssh", server, &format!("LC_ALL=C exec bash -c '{quoted}'")])
    }

    /// Runs it to its end: whether its status was 0, and what it wrote to stdout and stderr in the order written.
    pub fn run(&self, command: Command) -> anyhow::Result<(bool, String)> {
        self.run_with(command, "")
    }

    /// As [`Self::run`], with text on its stdin.
    pub fn run_with(&self, mut command: Command, input: &str) -> anyhow::Result<(bool, String)> {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let typed = process::typed(&command);
        let (mut from, to) = std::io::pipe().context("making a pipe")?;
        command.stdout(to.try_clone().context("making a pipe")?).stderr(to);
        let mut child = command.spawn().with_context(|| format!("cannot run `{typed}`"))?;
        // It holds our ends of the pipe, whose end would never come.
        drop(command);
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_owned();
            // One that reads only part of it is judged by its status.
            thread::spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
        }
        let (told, ended) = mpsc::channel();
        thread::spawn(move || {
            let mut output = Vec::new();
            let read = from.read_to_end(&mut output).map(|_| output);
            // Nobody waits for it any more after an interrupt.
            let _ = told.send(read);
        });
        let output = self.wait(&mut child, &ended, &typed)?.context("reading what it prints")?;
        let status = child.wait().with_context(|| format!("waiting for `{typed}`"))?;
        self.refuse_interrupt()?;
        Ok((status.success(), String::from_utf8_lossy(&output).into_owned()))
    }

    fn wait<T>(&self, child: &mut Child, ended: &mpsc::Receiver<T>, typed: &str) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            match ended.recv_timeout(POLL) {
                Ok(output) => return Ok(output),
                Err(RecvTimeoutError::Disconnected) => bail!("reading what `{typed}` prints broke off"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let too_long = begun.elapsed() > COMMAND_TIME_MAX;
            if too_long || self.is_interrupted() {
                // Not waited for: it may hang in the kernel, and whoever is the last of us reaps it.
                let _ = child.kill();
                self.refuse_interrupt()?;
                bail!("`{typed}` did not end within {} s", COMMAND_TIME_MAX.as_secs());
            }
        }
    }

    /// Waits until the disk has what was written so far, a build as a rule: fdisk calls sync(2), which waits for the
    /// whole machine's. Goes on without if that takes too long.
    pub fn settle_disk(&self, screen: &Screen) -> anyhow::Result<()> {
        let mut sync = Command::new("sync").spawn().context("cannot run `sync`")?;
        let begun = Instant::now();
        let mut is_told = false;
        while sync.try_wait().context("waiting for `sync`")?.is_none() && begun.elapsed() < COMMAND_TIME_MAX {
            self.refuse_interrupt()?;
            if !is_told && begun.elapsed() > TOLD_AFTER {
                screen.own("Waiting until this machine's disk has what was built (sync).");
                is_told = true;
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// An error once the user wants it to end.
    pub fn refuse_interrupt(&self) -> anyhow::Result<()> {
        if self.is_interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Removes it.
    pub fn take_down(&self, screen: &Screen) -> anyhow::Result<()> {
        let mut down = self.lockstep(&["lab", "down"]);
        // A second Ctrl-C must not leave half of it.
        std::os::unix::process::CommandExt::process_group(&mut down, 0);
        if !process::succeeds(&mut down)? {
            bail!("the lab `{}` is still there: lockstep lab --lab {} down", self.name, self.name);
        }
        screen.own("The lab is taken down.");
        Ok(())
    }

    /// The lines to type in a lab that is left up.
    pub fn how_to_look_around(&self) -> String {
        let programs = self.lockstep.parent().unwrap_or(&self.lockstep).display();
        format!(
            "The lab `{}` is left up. To look around:\n\
             \x20 export LOCKSTEP_LAB={} PATH={programs}:$PATH\n\
             \x20 lockstep nova list\n\
             \x20 lockstep nova ssh drbd0                   # a shell in it; drbd1 likewise\n\
             \x20 lockstep nova ssh drbd0 lockstep proc drbd\n\
             \x20 lockstep nova ssh drbd0 drbdadm status\n\
             \x20 lockstep nova ssh drbd0 {}\n\
             \x20 lockstep lab fault --help                 # more to break\n\
             and to take it down:\n\
             \x20 lockstep lab down",
            self.name,
            self.name,
            crate::demo::tutorial::LOG,
        )
    }
}
