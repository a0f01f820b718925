//! A device for tests and measurements: memory or a file, served by one thread through any front.

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
