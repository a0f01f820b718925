//! A program in a server that acknowledges each file once it is on disk, and the record of what it acknowledged.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::Context;

use crate::demo::lab::Lab;

/// As typed: a file is written, it and its directory are fsynced, and only then its checksum is printed.
pub const LINE: &str = "mkdir /drbd/log; while f=/drbd/log/$((++i)); head -c 4096 /dev/urandom > $f && sync $f /drbd/log\n\
                        > do sha256sum $f; done";

/// The same for a shell that prints no second prompt.
fn script() -> String {
    LINE.replace("\n> ", "\n")
}

/// The running program.
pub struct Writer {
    child: Child,
    lines: Receiver<String>,
    acknowledged: Vec<String>,
}

impl Writer {
    /// Starts it.
    pub fn start(lab: &Lab, server: &str) -> anyhow::Result<Self> {
        let mut command = lab.ssh(server, &script());
        // What the shell says when its server is gone is expected.
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting the writer")?;
        let stdout = child.stdout.take().context("the writer's output")?;
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = String::new();
            // A last line without an end was never an acknowledgement.
            while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
                if told.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, acknowledged: Vec::new() })
    }

    /// How many files are acknowledged by now.
    pub fn count(&mut self) -> usize {
        self.acknowledged.extend(self.lines.try_iter());
        self.acknowledged.len()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// After its server is gone: every acknowledgement, as lines of sha256sum.
    pub fn acknowledged(mut self) -> anyhow::Result<Vec<String>> {
        self.child.wait().context("waiting for the writer")?;
        self.acknowledged.extend(self.lines.iter());
        Ok(std::mem::take(&mut self.acknowledged))
    }
}

/// Whether this is line `number` (from 1) of the writer: 64 hexadecimal digits and the file's name.
pub fn is_acknowledgement(line: &str, number: usize) -> bool {
    line.trim_end().split_once("  ").is_some_and(|(sum, name)| {
        sum.len() == 64
            && sum.bytes().all(|b| b.is_ascii_hexdigit())
            && name.strip_prefix("/drbd/log/").is_some_and(|index| index == number.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::{is_acknowledgement, script};

    #[test]
    fn lines_of_sha256sum() {
        let line = format!("{}  /drbd/log/7\n", "0f".repeat(32));
        assert!(is_acknowledgement(&line, 7));
        assert!(!is_acknowledgement(&line, 8));
        assert!(!is_acknowledgement("sha256sum: /drbd/log/7: Input/output error\n", 7));
        assert!(!is_acknowledgement(&line[1..], 7));
    }

    #[test]
    fn the_prompt_is_not_part_of_the_script() {
        assert!(script().contains("/drbd/log\ndo sha256sum"));
    }
}
