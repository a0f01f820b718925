//! Programs of others, run with a limit on their time.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Whether a program of that name can be found, root's places included.
pub fn is_installed(name: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// Runs it to its end; ends it after `limit`.
pub fn finish(command: &mut Command, limit: Duration) -> anyhow::Result<Finished> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, limit)?;
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        thread.join().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    };
    let Some(status) = status else {
        bail!("{command:?} did not end within {} s", limit.as_secs());
    };
    Ok(Finished { status: status.code(), stdout: text(stdout), stderr: text(stderr) })
}

/// Its standard output; an error with everything it said unless its status is 0.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    const LIMIT: Duration = Duration::from_secs(60);
    let finished = finish(command, LIMIT)?;
    if finished.status != Some(0) {
        bail!("{command:?} ended with {:?}\n{}{}", finished.status, finished.stdout, finished.stderr);
    }
    Ok(finished.stdout)
}

/// Splits at blanks; for commands without blanks in their arguments.
pub fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A program that was ended leaves what it had said.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// None if it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<std::process::ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
