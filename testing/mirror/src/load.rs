//! The program `mirror-load` at work in a server.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use testing_lab::TestLab;

/// Where it is in a server.
pub const LOAD: &str = "/usr/local/bin/mirror-load";

/// A running load. Dropped, it is left to end with its server.
#[derive(Debug)]
pub struct Load {
    child: Child,
    lines: Receiver<String>,
}

impl Load {
    /// Starts it with the words, in the server.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(lab: &TestLab, server: &str, words: &str) -> Self {
        let mut command = lab.command("nova", &["ssh", server, &format!("exec {LOAD} {words}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nova starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // A line without its end was never a promise.
            while matches!(stdout.read_line(&mut line), Ok(1..)) && line.ends_with('\n') {
                if sender.send(line.trim_end().to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { child, lines }
    }

    /// What it has told so far; at least one line.
    ///
    /// # Panics
    /// If none comes within `patience`, with what it complains of.
    #[track_caller]
    pub fn told(&mut self, patience: Duration) -> Vec<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => [line].into_iter().chain(self.lines.try_iter()).collect(),
            Err(RecvTimeoutError::Timeout) => panic!("nothing was acknowledged within {patience:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the load ended: {}", self.complaint()),
        }
    }

    /// Reads on for a while, to give whatever it tells.
    pub fn told_for(&mut self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let mut told = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            told.push(line);
        }
        told
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Lets it end, and gives the rest of what it tells.
    ///
    /// # Panics
    /// If it met an error.
    #[track_caller]
    pub fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let told = self.rest();
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "the load failed: {}", self.complaint());
        told
    }

    /// After its server's power was cut: what it told before.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn cut(mut self) -> Vec<String> {
        let told = self.rest();
        self.child.wait().expect("it is ours");
        told
    }

    #[track_caller]
    fn rest(&self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) => told.push(line),
                Err(RecvTimeoutError::Disconnected) => return told,
                Err(RecvTimeoutError::Timeout) => panic!("the load does not end"),
            }
        }
    }
}
