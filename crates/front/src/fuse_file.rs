//! A device as the only file of a FUSE file system, made for a loop device with direct IO on top.

mod kept;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use fuse::abi::{
    Attr, AttrOut, EntryOut, FATTR_SIZE, FallocateIn, InitFlags, ROOT_ID, ReadIn, StatfsOut, WriteOut,
};
use fuse::{Directory, Entry, Message, Mount, Operation, Received, Session, Unique, Wishes};
use rustix::io::Errno;
use units::SECTOR_BYTES;

use crate::extent::{Access, BadExtent, sectors};
use crate::inflight::InFlight;
use crate::request::{Fault, Front, Op, Request, RequestId};

const FILE_ID: u64 = 2;

/// Names never change while mounted, attributes only by `resize`, which says so.
const VALID_SECONDS: u64 = 3600;

/// Requests that one `poll` takes at most, so that completions get their turn.
const TURN_REQUESTS_MAX: usize = 64;

const MAX_WRITE_BYTES: u32 = 1 << 20;

const BLOCK_BYTES: u32 = 4096;

/// ASYNC_DIO and KILLPRIV_V2 decide the speed of a loop device above. Nothing is cached that could be stale: the
/// loop device reads and writes directly.
const WISHES: Wishes = Wishes {
    flags: InitFlags::ASYNC_READ
        .or(InitFlags::ASYNC_DIO)
        .or(InitFlags::PARALLEL_DIROPS)
        .or(InitFlags::HANDLE_KILLPRIV_V2)
        .or(InitFlags::NO_OPEN_SUPPORT)
        .or(InitFlags::NO_OPENDIR_SUPPORT)
        .or(InitFlags::HAS_RESEND),
    max_write_bytes: MAX_WRITE_BYTES,
    max_readahead_bytes: 1 << 20,
    max_background: 256,
    congestion_threshold: 192,
};

/// What an answer needs to know of its request.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Read {
        bytes: usize,
    },
    Write {
        bytes: u32,
    },
    /// Answered without a body.
    Plain,
}

/// A mounted file system whose only file is the device.
///
/// The thread that polls it must not touch the file or the loop device above, not even open, close or stat them: it
/// would wait for itself. Memory that takes part should be locked (mlockall(2)): a process killed while the kernel
/// copies into a page that is not there fails the request instead of leaving it to its successor.
#[derive(Debug)]
pub struct FuseFile {
    session: Session,
    directory: PathBuf,
    name: OsString,
    size_bytes: u64,
    access: Access,
    in_flight: InFlight<(Unique, Asked)>,
}

impl FuseFile {
    /// Mounts on `directory` (absolute) a file system with the one file `name`. What a server that is gone left mounted
    /// there is taken away first.
    ///
    /// # Errors
    /// `InvalidInput` where the size is not a positive number of sectors or the name is no file name; otherwise from
    /// mount(2) and INIT.
    pub fn mount(directory: &Path, name: &str, size_bytes: u64, access: Access) -> io::Result<Self> {
        if size_bytes == 0 || !size_bytes.is_multiple_of(SECTOR_BYTES) {
            let what =
                format!("a device of {size_bytes} bytes: it must be a positive multiple of {SECTOR_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if name.is_empty() || name.contains(['/', '\0']) || matches!(name, "." | "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is not a file name")));
        }
        while rustix::fs::stat(directory).is_err_and(|why| why == Errno::NOTCONN) {
            fuse::detach(directory)?;
        }
        let mount = Mount {
            source: name,
            subtype: "lockstep",
            root_mode: 0o040_500,
            user: 0,
            group: 0,
            allow_other: false,
            default_permissions: true,
            max_read_bytes: None,
            read_only: access == Access::ReadOnly,
        };
        let device = mount.attach(directory)?;
        device.set_nonblocking(true)?;
        let session = Session::start(device, &WISHES)?;
        Ok(Self {
            session,
            directory: directory.to_owned(),
            name: name.into(),
            size_bytes,
            access,
            in_flight: InFlight::new(),
        })
    }

    /// Goes on with a mount whose server is gone, from its kept descriptor and `kept` bytes. What that server had
    /// taken and not answered comes again.
    ///
    /// # Errors
    /// `InvalidData` where the bytes are none of `kept`'s; `Unsupported` where the kernel cannot repeat requests
    /// (before 6.9): what was on its way is lost then, and the mount must be given up.
    pub fn resume(fd: OwnedFd, kept: &[u8]) -> io::Result<Self> {
        let file = kept::decode(fd, kept)?;
        if !file.session.agreed().flags.contains(InitFlags::HAS_RESEND) {
            let what = "the kernel cannot repeat FUSE requests (it must be 6.9 or later)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        file.session.transport().set_nonblocking(true)?;
        file.session.resend()?;
        Ok(file)
    }

    /// The descriptor that keeps the mount alive.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.session.as_fd()
    }

    /// What `resume` needs beside the descriptor; good for the mount's whole life.
    pub fn kept(&self) -> Vec<u8> {
        kept::encode(self)
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Size of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Unmounts, without needing a poll. The descriptor, and what others keep of it, is of no more use then.
    ///
    /// # Errors
    /// `ResourceBusy` while anything has the file open (a loop device above); from umount2(2).
    pub fn unmount(&mut self) -> io::Result<()> {
        fuse::unmount(&self.directory)
    }

    fn attributes(&self, node: u64) -> Attr {
        let attr = Attr { ino: node, blksize: BLOCK_BYTES, ..Attr::default() };
        match (node, self.access) {
            (ROOT_ID, _) => Attr { mode: 0o040_500, nlink: 2, ..attr },
            (_, access) => {
                let mode = if access == Access::ReadOnly { 0o100_400 } else { 0o100_600 };
                Attr { mode, nlink: 1, size: self.size_bytes, blocks: self.size_bytes / SECTOR_BYTES, ..attr }
            }
        }
    }

    fn attributes_out(&self, node: u64) -> AttrOut {
        AttrOut { attr_valid: VALID_SECONDS, attr: self.attributes(node), ..AttrOut::default() }
    }

    fn lookup(&self, parent: u64, name: &OsStr) -> Result<EntryOut, Errno> {
        if parent != ROOT_ID || name != self.name {
            return Err(Errno::NOENT);
        }
        let attr = self.attributes(FILE_ID);
        let valid = EntryOut { entry_valid: VALID_SECONDS, attr_valid: VALID_SECONDS, ..EntryOut::default() };
        Ok(EntryOut { nodeid: FILE_ID, attr, ..valid })
    }

    fn list(&self, read: &ReadIn) -> Directory {
        let mut directory = Directory::new(read.size);
        let entries: [(u64, &OsStr); 3] =
            [(ROOT_ID, OsStr::new(".")), (ROOT_ID, OsStr::new("..")), (FILE_ID, &self.name)];
        for ((ino, name), next_offset) in entries.into_iter().zip(1..) {
            if next_offset > read.offset && !directory.push(&Entry { ino, next_offset, kind: 0, name }) {
                break;
            }
        }
        directory
    }

    fn statfs(&self) -> StatfsOut {
        let bsize = BLOCK_BYTES;
        StatfsOut {
            blocks: self.size_bytes / u64::from(bsize),
            files: 1,
            bsize,
            frsize: bsize,
            namelen: 255,
            ..StatfsOut::default()
        }
    }

    /// The request that a READ is; None where it begins at or after the end of the file.
    fn read(&self, read: &ReadIn) -> Result<Option<(Asked, Op)>, Errno> {
        if read.size > MAX_WRITE_BYTES {
            return Err(Errno::INVAL);
        }
        let length = u64::from(read.size).min(self.size_bytes.saturating_sub(read.offset));
        if length == 0 {
            return Ok(None);
        }
        let range = sectors(read.offset, length, self.size_bytes)?;
        Ok(Some((Asked::Read { bytes: length as usize }, Op::Read(range))))
    }

    /// A hole reads as zeroes afterwards. The loop device punches one for a discard and for zeroes that may be
    /// unmapped alike, so a hole can never be taken as a mere discard.
    fn fallocate(&self, allocate: &FallocateIn) -> Result<(Asked, Op), Errno> {
        const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
        const PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32 | KEEP_SIZE;
        const ZERO_RANGE: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
        const ZERO_RANGE_KEEP: u32 = ZERO_RANGE | KEEP_SIZE;
        let may_unmap = match allocate.mode {
            PUNCH_HOLE => true,
            ZERO_RANGE | ZERO_RANGE_KEEP => false,
            _ => return Err(Errno::OPNOTSUPP),
        };
        self.writable()?;
        let range = sectors(allocate.offset, allocate.length, self.size_bytes)?;
        Ok((Asked::Plain, Op::WriteZeroes { range, may_unmap }))
    }

    fn writable(&self) -> Result<(), Errno> {
        if self.access == Access::ReadWrite { Ok(()) } else { Err(Errno::ROFS) }
    }

    /// Turns one message into a request or its answer.
    fn take(&mut self, mut message: Message) -> io::Result<Option<Request>> {
        let request = match message.request() {
            Ok(request) => request,
            Err(why) => {
                tracing::error!(file = %self.path().display(), %why, "the kernel sent no FUSE request");
                return match message.unique() {
                    Some(unique) => self.session.reply_error(unique, Errno::IO).map(|()| None),
                    None => Ok(None),
                };
            }
        };
        let (unique, node) = (request.unique, request.node);
        let asked = match request.operation {
            Operation::Read(read) if node == FILE_ID => self.read(read),
            Operation::Write(write) if node == FILE_ID => self.writable().and_then(|()| {
                let range = sectors(write.offset, u64::from(write.size), self.size_bytes)?;
                Ok(Some((Asked::Write { bytes: write.size }, Op::Write { range, fua: false })))
            }),
            Operation::Fsync(_) if node == FILE_ID => Ok(Some((Asked::Plain, Op::Flush))),
            Operation::Fallocate(allocate) if node == FILE_ID => self.fallocate(allocate).map(Some),
            other => return self.answer(unique, node, &other).map(|()| None),
        };
        match asked {
            Ok(None) => self.session.reply(unique, &[]).map(|()| None),
            Err(error) => self.session.reply_error(unique, error).map(|()| None),
            Ok(Some((asked, op))) => {
                let payload = matches!(op, Op::Write { .. }).then(|| message.into_payload());
                Ok(Some(Request { id: self.in_flight.insert((unique, asked)), op, payload }))
            }
        }
    }

    /// Answers what is not for the device.
    fn answer(&self, unique: Unique, node: u64, operation: &Operation<'_>) -> io::Result<()> {
        let session = &self.session;
        match operation {
            Operation::Forget(_) | Operation::BatchForget(_) => Ok(()),
            Operation::Lookup(name) => match self.lookup(node, name) {
                Ok(found) => session.reply_structure(unique, &found),
                Err(error) => session.reply_error(unique, error),
            },
            Operation::Setattr(set) if set.valid & FATTR_SIZE != 0 => {
                session.reply_error(unique, Errno::PERM)
            }
            Operation::Getattr(_) | Operation::Setattr(_) => {
                session.reply_structure(unique, &self.attributes_out(node))
            }
            Operation::Readdir(read) => session.reply(unique, self.list(read).as_bytes()),
            Operation::Statfs => session.reply_structure(unique, &self.statfs()),
            Operation::Destroy | Operation::Release(_) | Operation::Releasedir(_) => {
                session.reply(unique, &[])
            }
            Operation::Create(..) | Operation::Mkdir(..) | Operation::Rename { .. } => {
                session.reply_error(unique, Errno::PERM)
            }
            Operation::Unlink(_) | Operation::Rmdir(_) => session.reply_error(unique, Errno::PERM),
            // ENOSYS is remembered by the kernel: it never asks again. Without OPEN there is no handle that a successor
            // would have to know; without GETXATTR each direct write is one request instead of two.
            _ => session.reply_error(unique, Errno::NOSYS),
        }
    }
}

impl From<BadExtent> for Errno {
    fn from(bad: BadExtent) -> Self {
        match bad {
            BadExtent::Misaligned => Self::INVAL,
            BadExtent::OutOfRange => Self::IO,
        }
    }
}

fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::Io => Errno::IO,
        Fault::NoSpace => Errno::NOSPC,
        Fault::NotSupported => Errno::OPNOTSUPP,
        Fault::ReadOnly => Errno::ROFS,
    }
}

impl AsFd for FuseFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.session.as_fd()
    }
}

impl Front for FuseFile {
    /// The kernel asks again for the file's size; a loop device above takes it over by `LoopDevice::take_size`.
    fn resize(&mut self, size_bytes: u64) {
        self.size_bytes = size_bytes;
        if let Err(why) = self.session.invalidate_inode(FILE_ID, -1, 0) {
            tracing::error!(file = %self.path().display(), %why, "the kernel does not learn of the new size");
        }
    }

    /// `NotConnected` when the file system is unmounted or its connection aborted.
    fn poll(&mut self, requests: &mut Vec<Request>) -> io::Result<()> {
        for _ in 0..TURN_REQUESTS_MAX {
            match self.session.receive()? {
                Received::Message(message) => requests.extend(self.take(message)?),
                Received::Nothing => break,
                Received::Ended => {
                    let what = format!("the file system on `{}` is unmounted", self.directory.display());
                    return Err(io::Error::new(io::ErrorKind::NotConnected, what));
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, id: RequestId, outcome: Result<Option<block::Buffer>, Fault>) {
        let Some((unique, asked)) = self.in_flight.remove(id) else {
            tracing::error!(?id, "a request was completed that is not on its way");
            return;
        };
        let sent = match (outcome, asked) {
            (Err(fault), _) => self.session.reply_error(unique, errno(fault)),
            (Ok(_), Asked::Plain) => self.session.reply(unique, &[]),
            (Ok(_), Asked::Write { bytes }) => {
                self.session.reply_structure(unique, &WriteOut { size: bytes, padding: 0 })
            }
            (Ok(Some(buffer)), Asked::Read { bytes }) if buffer.len() >= bytes => {
                self.session.reply(unique, &buffer[..bytes])
            }
            (Ok(_), Asked::Read { .. }) => self.session.reply_error(unique, Errno::IO),
        };
        if let Err(why) = sent {
            tracing::error!(file = %self.path().display(), %why, "an answer did not reach the kernel");
        }
    }
}
