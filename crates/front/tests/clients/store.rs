//! A device for tests and measurements: memory or a file, served by one thread through any front.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use block::Buffer;
use front::{Fault, Front, Op, Request};
use rustix::event::{PollFd, PollFlags};

/// Where the bytes are.
pub trait Store {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

impl Store for Vec<u8> {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.copy_from_slice(&self[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for File {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

fn carry_out(store: &mut dyn Store, request: &Request) -> io::Result<Option<Buffer>> {
    match request.op {
        Op::Read(range) => {
            let mut buffer = Buffer::new(range.bytes() as usize);
            store.read(range.byte_offset(), &mut buffer)?;
            return Ok(Some(buffer));
        }
        Op::Write { range, .. } => {
            let payload = request.payload.as_deref().expect("a write has a payload");
            assert_eq!(payload.len() as u64, range.bytes(), "a payload is as long as its range");
            store.write(range.byte_offset(), payload)?;
        }
        Op::WriteZeroes { range, .. } => {
            let zeroes = Buffer::zeroed(1 << 20);
            let mut at = range.byte_offset();
            let end = at + range.bytes();
            while at < end {
                let len = (end - at).min(zeroes.len() as u64);
                store.write(at, &zeroes[..len as usize])?;
                at += len;
            }
        }
        Op::Discard(_) => {}
        Op::Flush => store.flush()?,
    }
    Ok(None)
}

/// Serves until the front ends (gives its error) or `stop` is readable (gives Ok).
pub fn serve<F: Front>(front: &mut F, store: &mut dyn Store, stop: Option<&OwnedFd>) -> io::Result<()> {
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
                let outcome = carry_out(store, &request).map_err(|_| Fault::Io);
                front.complete(request.id, outcome);
            }
        }
    }
}
