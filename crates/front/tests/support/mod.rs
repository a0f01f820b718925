//! A device for tests and measurements: memory or a file, served by one thread through any front.

#![allow(dead_code, reason = "each test and example uses its part")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use block::Buffer;
use front::{Fault, Front, Op, Request};
use rustix::event::{PollFd, PollFlags};

/// Where the bytes are.
pub enum Store {
    Memory(Vec<u8>),
    File(File),
}

impl Store {
    pub fn memory(size_bytes: usize) -> Self {
        // Touched once here, not in the middle of a measurement.
        Self::Memory((0..size_bytes).map(|_| 0x5a).collect())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(memory) => {
                memory[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            Self::File(file) => file.write_all_at(bytes, offset),
        }
    }

    fn carry_out(&mut self, request: &Request) -> io::Result<Option<Buffer>> {
        match request.op {
            Op::Read(range) => {
                let mut buffer = Buffer::new(range.bytes() as usize);
                match self {
                    Self::Memory(memory) => {
                        buffer.copy_from_slice(
                            &memory[range.byte_offset() as usize..][..range.bytes() as usize],
                        );
                    }
                    Self::File(file) => file.read_exact_at(&mut buffer, range.byte_offset())?,
                }
                return Ok(Some(buffer));
            }
            Op::Write { range, .. } => {
                let payload = request.payload.as_deref().expect("a write has a payload");
                assert_eq!(payload.len() as u64, range.bytes(), "a payload is as long as its range");
                self.write(range.byte_offset(), payload)?;
            }
            Op::WriteZeroes { range, .. } => {
                let zeroes = Buffer::zeroed(1 << 20);
                let mut at = range.byte_offset();
                let end = at + range.bytes();
                while at < end {
                    let len = (end - at).min(zeroes.len() as u64);
                    self.write(at, &zeroes[..len as usize])?;
                    at += len;
                }
            }
            Op::Discard(_) => {}
            Op::Flush => {
                if let Self::File(file) = self {
                    file.sync_data()?;
                }
            }
        }
        Ok(None)
    }
}

/// Serves until the front ends (gives its error) or `stop` is readable (gives Ok).
pub fn serve<F: Front>(front: &mut F, store: &mut Store, stop: Option<&OwnedFd>) -> io::Result<()> {
    let mut requests = Vec::new();
    let front_fd = front.as_fd().try_clone_to_owned()?;
    loop {
        let mut fds = vec![PollFd::new(&front_fd, PollFlags::IN)];
        fds.extend(stop.map(|stop| PollFd::new(stop, PollFlags::IN)));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        if fds.get(1).is_some_and(|stop| !stop.revents().is_empty()) {
            return Ok(());
        }
        loop {
            front.poll(&mut requests)?;
            if requests.is_empty() {
                break;
            }
            for request in requests.drain(..) {
                let outcome = store.carry_out(&request).map_err(|_| Fault::Io);
                front.complete(request.id, outcome);
            }
        }
    }
}

pub fn wait_readable(fd: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}

/// Readable once SIGTERM or SIGINT came.
pub fn stop_on_signals() -> io::Result<OwnedFd> {
    let (end, other) = std::os::unix::net::UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, other.try_clone()?)?;
    }
    std::mem::forget(other);
    Ok(end.into())
}

/// Whether a test that mounts and binds can run; says so loudly where it cannot.
pub fn can_bind(test: &str) -> bool {
    let missing =
        ["/dev/fuse", "/dev/loop-control"].into_iter().find(|path| !std::path::Path::new(path).exists());
    if !rustix::process::geteuid().is_root() {
        eprintln!("skip {test}: not root");
    } else if let Some(path) = missing {
        eprintln!("skip {test}: no {path}");
    } else {
        return true;
    }
    false
}

/// Whether the programs are there.
pub fn has_programs(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing =
        programs.iter().find(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if let Some(program) = missing {
        eprintln!("skip {test}: no `{program}`");
    }
    missing.is_none()
}

/// Runs a program to its end; what it printed.
pub fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let output =
        std::process::Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{program} {words:?}: {}\n{text}", output.status))
    }
}
