//! The resource's io_uring: operations at disks, and readiness of everything else, in one wait.
//!
//! Descriptors are watched by an epoll instance that the ring polls as one: closing a descriptor ends its watch, whereas a
//! poll in the ring would keep it open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use block::Buffer;
use drbd_engine::event::IoFault;
use io_uring::{IoUring, opcode, types};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::shell::{Chunk, DiskOp, DiskToken};

/// Entries of the submission queue; more operations wait in the backlog.
const ENTRIES: u32 = 256;

/// Descriptors reported in one turn at most; the others come in the next.
const EVENTS_PER_TURN: usize = 64;

/// Zeroes are written in pieces of this size where the disk cannot zero by itself.
const ZERO_PIECE_BYTES: u64 = 1 << 20;

/// What of a descriptor is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interest {
    /// That it can be read.
    pub readable: bool,
    /// That it can be written.
    pub writable: bool,
}

impl Interest {
    /// Only reading.
    pub const READ: Self = Self { readable: true, writable: false };
    /// Only writing.
    pub const WRITE: Self = Self { readable: false, writable: true };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.readable);
        flags.set(EventFlags::OUT, self.writable);
        flags
    }
}

/// What a wait brought.
#[derive(Debug)]
pub enum Completion {
    /// A disk has ended an operation.
    Disk {
        /// Which.
        token: DiskToken,
        /// The buffer of a read.
        outcome: Result<Option<Buffer>, IoFault>,
    },
    /// The descriptor of this key is ready, and is reported again as long as it is.
    Ready(u64),
}

#[derive(Debug)]
enum Work {
    Read {
        offset: u64,
        buffer: Buffer,
        done: usize,
    },
    Write {
        offset: u64,
        data: Chunk,
        fua: bool,
        done: usize,
    },
    Flush,
    Zero {
        offset: u64,
        len: u64,
        may_unmap: bool,
    },
    /// The disk cannot zero: bytes are written. The first field is where to go on.
    WriteZeroes {
        at: u64,
        end: u64,
        zeroes: Rc<Buffer>,
    },
}

#[derive(Debug)]
enum Entry {
    Free { next: Option<usize> },
    Disk { token: DiskToken, file: Rc<OwnedFd>, work: Work },
    Watch,
}

/// The ring and what is under way on it.
pub struct Ring {
    uring: IoUring,
    epoll: OwnedFd,
    watched: bool,
    entries: Vec<Entry>,
    free: Option<usize>,
    backlog: std::collections::VecDeque<io_uring::squeue::Entry>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} entries)", self.entries.len())
    }
}

impl Ring {
    /// A ring of its own.
    ///
    /// # Errors
    /// If the kernel has no io_uring or grants none.
    pub fn new() -> io::Result<Self> {
        let uring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            uring,
            epoll,
            watched: false,
            entries: Vec::new(),
            free: None,
            backlog: std::collections::VecDeque::new(),
        })
    }

    fn insert(&mut self, entry: Entry) -> usize {
        match self.free {
            Some(index) => {
                let Entry::Free { next } = self.entries[index] else {
                    unreachable!("the free list holds free entries")
                };
                self.free = next;
                self.entries[index] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn remove(&mut self, index: usize) -> Entry {
        let entry = std::mem::replace(&mut self.entries[index], Entry::Free { next: self.free });
        self.free = Some(index);
        entry
    }

    /// Gives an operation to a disk.
    pub fn disk(&mut self, token: DiskToken, file: Rc<OwnedFd>, op: DiskOp) {
        let work = match op {
            DiskOp::Read { offset, buffer } => Work::Read { offset, buffer, done: 0 },
            DiskOp::Write { offset, data, fua } => Work::Write { offset, data, fua, done: 0 },
            DiskOp::Flush => Work::Flush,
            DiskOp::Zero { offset, len, may_unmap } => Work::Zero { offset, len, may_unmap },
        };
        let index = self.insert(Entry::Disk { token, file, work });
        self.issue(index);
    }

    fn issue(&mut self, index: usize) {
        let Entry::Disk { file, work, .. } = &mut self.entries[index] else { return };
        let fd = types::Fd(file.as_raw_fd());
        let sqe = match work {
            Work::Read { offset, buffer, done } => {
                let rest = &mut buffer[*done..];
                opcode::Read::new(fd, rest.as_mut_ptr(), rest.len() as u32)
                    .offset(*offset + *done as u64)
                    .build()
            }
            Work::Write { offset, data, fua, done } => {
                let rest = &data.bytes()[*done..];
                let flags = if *fua { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32)
                    .offset(*offset + *done as u64)
                    .rw_flags(flags)
                    .build()
            }
            Work::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            Work::Zero { offset, len, may_unmap } => {
                let how = if *may_unmap { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
                opcode::Fallocate::new(fd, *len).offset(*offset).mode(how | libc::FALLOC_FL_KEEP_SIZE).build()
            }
            Work::WriteZeroes { at, end, zeroes } => {
                let len = (*end - *at).min(ZERO_PIECE_BYTES) as u32;
                opcode::Write::new(fd, zeroes.as_ptr(), len).offset(*at).build()
            }
        };
        self.push(sqe.user_data(index as u64));
    }

    fn push(&mut self, sqe: io_uring::squeue::Entry) {
        // SAFETY: buffers and descriptors of an entry live in `entries` until its completion is taken.
        if !self.backlog.is_empty() || unsafe { self.uring.submission().push(&sqe) }.is_err() {
            self.backlog.push_back(sqe);
        }
    }

    /// Watches a descriptor until it is closed or `forget`.
    ///
    /// # Errors
    /// From epoll_ctl(2).
    pub fn watch(&mut self, key: u64, fd: impl AsFd, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(key), interest.flags())?)
    }

    /// Watches for something else from now on.
    ///
    /// # Errors
    /// From epoll_ctl(2).
    pub fn rewatch(&mut self, key: u64, fd: impl AsFd, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(key), interest.flags())?)
    }

    /// Watches no longer.
    ///
    /// # Errors
    /// From epoll_ctl(2).
    pub fn forget(&mut self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    fn take_ready(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now))?;
        out.extend(events.iter().map(|event| Completion::Ready(event.data.u64())));
        Ok(())
    }

    fn refill(&mut self) {
        while let Some(sqe) = self.backlog.pop_front() {
            // SAFETY: as in `push`.
            if unsafe { self.uring.submission().push(&sqe) }.is_err() {
                self.backlog.push_front(sqe);
                return;
            }
        }
    }

    /// Submits what is queued, and waits until something ends or the time is up.
    ///
    /// # Errors
    /// Of io_uring_enter(2), beside interruption.
    pub fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        if !self.watched {
            self.watched = true;
            let index = self.insert(Entry::Watch);
            let sqe = opcode::PollAdd::new(types::Fd(self.epoll.as_raw_fd()), libc::POLLIN as u32).build();
            self.push(sqe.user_data(index as u64));
        }
        self.refill();
        let immediately = !self.backlog.is_empty() || !self.uring.completion().is_empty();
        let timespec = timeout.map(types::Timespec::from);
        let outcome = if immediately {
            self.uring.submit()
        } else if let Some(timespec) = &timespec {
            let args = types::SubmitArgs::new().timespec(timespec);
            self.uring.submitter().submit_with_args(1, &args)
        } else {
            self.uring.submit_and_wait(1)
        };
        if let Err(error) = outcome {
            let expected = [Some(libc::ETIME), Some(libc::EINTR), Some(libc::EBUSY), Some(libc::EAGAIN)];
            if !expected.contains(&error.raw_os_error()) {
                return Err(error);
            }
        }
        let ended: Vec<(u64, i32)> =
            self.uring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        for (index, result) in ended {
            self.completed(index as usize, result, out);
        }
        if !self.watched {
            self.take_ready(out)?;
        }
        Ok(())
    }

    fn completed(&mut self, index: usize, result: i32, out: &mut Vec<Completion>) {
        if matches!(self.entries[index], Entry::Watch) {
            self.remove(index);
            self.watched = false;
            return;
        }
        if self.goes_on(index, result) {
            return self.issue(index);
        }
        let Entry::Disk { token, work, .. } = self.remove(index) else { return };
        let outcome = match (result, work) {
            (..0, _) => Err(IoFault),
            (_, Work::Read { buffer, done, .. }) if done == buffer.len() => Ok(Some(buffer)),
            (_, Work::Write { data, done, .. }) if done == data.len => Ok(None),
            // Nothing was transferred although something was due: the end of the device.
            (_, Work::Read { .. } | Work::Write { .. }) => Err(IoFault),
            (_, Work::Flush | Work::Zero { .. } | Work::WriteZeroes { .. }) => Ok(None),
        };
        if outcome.is_err() {
            tracing::error!(error = %io::Error::from_raw_os_error(-result), "an operation at the backing device failed");
        }
        out.push(Completion::Disk { token, outcome });
    }

    /// Whether the operation has to be issued again: it was interrupted or done in part, or must be done another way.
    fn goes_on(&mut self, index: usize, result: i32) -> bool {
        let Entry::Disk { work, .. } = &mut self.entries[index] else { return false };
        if result == -libc::EINTR || result == -libc::EAGAIN {
            return true;
        }
        match work {
            Work::Read { buffer, done, .. } if result > 0 => {
                *done += result as usize;
                *done < buffer.len()
            }
            Work::Write { data, done, .. } if result > 0 => {
                *done += result as usize;
                *done < data.len
            }
            Work::Zero { offset, len, .. } if result == -libc::EOPNOTSUPP => {
                let zeroes = Rc::new(Buffer::zeroed((*len).min(ZERO_PIECE_BYTES) as usize));
                *work = Work::WriteZeroes { at: *offset, end: *offset + *len, zeroes };
                true
            }
            Work::WriteZeroes { at, end, .. } if result > 0 => {
                *at += result as u64;
                at < end
            }
            _ => false,
        }
    }
}
