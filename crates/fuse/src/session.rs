//! One conversation with the kernel, from INIT to the end of the mount.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use block::Buffer;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use crate::abi::{
    InitFlags, InitOut, MAJOR, MINOR_MAX, MINOR_MIN, NotifyInvalEntryOut, NotifyInvalInodeOut, OutHeader,
    notify,
};
use crate::device::{Device, Transport};
use crate::request::{Malformed, Offer, Operation, Request, Unique, header};

/// Bytes before a WRITE's payload: `in_header` and `write_in`. Read right before a page, they align the payload.
pub const WRITE_HEADROOM_BYTES: usize = 80;

/// Requests up to this payload live in a small buffer of their own; a longer one moves its first bytes from there
/// to a buffer of `max_write`. Both lie in one readv(2), because the length is only known after it.
const SMALL_BYTES: usize = 32 << 10;

/// The most that `max_write` may be: what one recycled `Buffer` holds.
const MAX_WRITE_BYTES_MAX: u32 = 1 << 20;

const PAGE_BYTES: u32 = 4096;

/// How long INIT may take to appear; the kernel queues it inside mount(2).
const INIT_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What the server would like; INIT's answer is this as far as the kernel offers it.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Capabilities. `MAX_PAGES`, `BIG_WRITES` and `INIT_EXT` follow from the rest and need not be named.
    pub flags: InitFlags,
    /// Largest WRITE (and READ) in bytes, 4096 to 1 MiB; the kernel's `max_pages_limit` caps it too.
    pub max_write_bytes: u32,
    /// Read-ahead limit in bytes.
    pub max_readahead_bytes: u32,
    /// Background requests (asynchronous reads, direct IO) on their way at most.
    pub max_background: u16,
    /// Background requests from which on the kernel calls the mount congested.
    pub congestion_threshold: u16,
}

/// What INIT agreed on. A resumed session is told it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Agreed {
    /// ABI minor of the kernel, or the newest spoken here.
    pub minor: u32,
    /// Capabilities in force.
    pub flags: InitFlags,
    /// Largest WRITE in bytes.
    pub max_write_bytes: u32,
}

impl Agreed {
    fn on(offer: &Offer, wishes: &Wishes) -> io::Result<Self> {
        if offer.major != MAJOR || offer.minor < MINOR_MIN {
            let Offer { major, minor, .. } = offer;
            let what = format!(
                "the kernel speaks FUSE {major}.{minor}, {MAJOR}.{MINOR_MIN} or a later minor is needed"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let always = InitFlags::MAX_PAGES.or(InitFlags::BIG_WRITES).or(InitFlags::INIT_EXT);
        let max_write_bytes =
            wishes.max_write_bytes.clamp(PAGE_BYTES, MAX_WRITE_BYTES_MAX) / PAGE_BYTES * PAGE_BYTES;
        Ok(Self {
            minor: offer.minor.min(MINOR_MAX),
            flags: wishes.flags.or(always).and(offer.flags),
            max_write_bytes,
        })
    }

    fn answer(&self, offer: &Offer, wishes: &Wishes) -> InitOut {
        let [low, high] = [self.flags.0 as u32, (self.flags.0 >> 32) as u32];
        InitOut {
            major: MAJOR,
            minor: self.minor,
            max_readahead: wishes.max_readahead_bytes.min(offer.max_readahead),
            flags: low,
            flags2: high,
            max_background: wishes.max_background,
            congestion_threshold: wishes.congestion_threshold,
            max_write: self.max_write_bytes,
            time_gran: 1,
            // At most 256: max_write is at most 1 MiB.
            max_pages: (self.max_write_bytes / PAGE_BYTES) as u16,
            ..InitOut::default()
        }
    }
}

/// The bytes of one request.
#[derive(Debug)]
pub struct Message {
    /// Begins in the headroom, `WRITE_HEADROOM_BYTES` before the payload.
    buffer: Buffer,
    /// From there on.
    len: usize,
}

impl Message {
    fn bytes(&mut self) -> &[u8] {
        &self.buffer.with_headroom(WRITE_HEADROOM_BYTES)[..self.len]
    }

    /// What is asked.
    ///
    /// # Errors
    /// `Malformed` where the bytes are no request; `unique` may still be answered, with EIO.
    pub fn request(&mut self) -> Result<Request<'_>, Malformed> {
        Request::parse(self.bytes())
    }

    /// The request's name, if even that much is there.
    pub fn unique(&mut self) -> Option<Unique> {
        header(self.bytes()).map(|header| Unique(header.unique))
    }

    /// The bytes of a WRITE, page-aligned; for other requests whatever came after their first 80 bytes.
    pub fn into_payload(mut self) -> Buffer {
        self.buffer.set_len(self.len.saturating_sub(WRITE_HEADROOM_BYTES));
        self.buffer
    }
}

/// What one look at the transport brought.
#[derive(Debug)]
pub enum Received {
    /// A request.
    Message(Message),
    /// Nothing waits now.
    Nothing,
    /// The file system is unmounted or its connection aborted: there will be no more requests.
    Ended,
}

/// A session over one transport. Several threads each have their own, over descriptors cloned from one another.
#[derive(Debug)]
pub struct Session<T: Transport = Device> {
    transport: T,
    agreed: Agreed,
    /// Next to be filled; see `SMALL_BYTES`.
    small: Option<Buffer>,
    large: Option<Buffer>,
}

impl<T: Transport> Session<T> {
    /// Answers INIT, waiting for it if need be.
    ///
    /// # Errors
    /// From the transport; `Unsupported` for a kernel before 7.31; `InvalidData` where the first request is not
    /// INIT; `TimedOut`.
    pub fn start(transport: T, wishes: &Wishes) -> io::Result<Self> {
        let mut waiting = [PollFd::new(&transport, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&INIT_TIMEOUT)))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel sent no FUSE INIT"));
        }
        let unknown =
            Agreed { minor: 0, flags: InitFlags::default(), max_write_bytes: wishes.max_write_bytes };
        let mut session = Self::resume(transport, unknown);
        let Received::Message(mut message) = session.receive()? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no FUSE INIT on a new mount"));
        };
        let request = message.request().map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        let Operation::Init(offer) = request.operation else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the first FUSE request of a mount is not INIT",
            ));
        };
        match Agreed::on(&offer, wishes) {
            Ok(agreed) => {
                session.reply_structure(request.unique, &agreed.answer(&offer, wishes))?;
                session.agreed = agreed;
                // Its size may have been a wish beyond the limit.
                session.large = None;
                Ok(session)
            }
            Err(refused) => {
                session.reply_error(request.unique, Errno::PROTO)?;
                Err(refused)
            }
        }
    }

    /// Goes on with a session that INIT was answered for before, by whoever held the descriptor.
    pub fn resume(transport: T, agreed: Agreed) -> Self {
        Self { transport, agreed, small: None, large: None }
    }

    /// What INIT agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Takes one request.
    ///
    /// # Errors
    /// From the transport, except what `Received` says.
    pub fn receive(&mut self) -> io::Result<Received> {
        loop {
            match self.receive_once() {
                Ok(len) => return Ok(Received::Message(self.message(len))),
                Err(e) => match Errno::from_io_error(&e) {
                    // ENOENT: the caller gave up while its request was being handed out.
                    Some(Errno::INTR | Errno::NOENT) => {}
                    Some(Errno::AGAIN) => return Ok(Received::Nothing),
                    Some(Errno::NODEV | Errno::CONNABORTED) => return Ok(Received::Ended),
                    _ => return Err(e),
                },
            }
        }
    }

    fn receive_once(&mut self) -> io::Result<usize> {
        let large_bytes = (self.agreed.max_write_bytes.min(MAX_WRITE_BYTES_MAX) as usize).max(SMALL_BYTES);
        let small = self.small.get_or_insert_with(|| Buffer::new(SMALL_BYTES));
        let large = self.large.get_or_insert_with(|| Buffer::new(large_bytes));
        let mut parts = [
            IoSliceMut::new(
                &mut small.with_headroom(WRITE_HEADROOM_BYTES)[..WRITE_HEADROOM_BYTES + SMALL_BYTES],
            ),
            IoSliceMut::new(&mut large.with_headroom(0)[SMALL_BYTES..large_bytes]),
        ];
        self.transport.receive(&mut parts)
    }

    /// The `len` bytes that `receive_once` brought, in one buffer.
    fn message(&mut self, len: usize) -> Message {
        let in_small = WRITE_HEADROOM_BYTES + SMALL_BYTES;
        if len <= in_small {
            let buffer = self.small.take().unwrap_or_else(|| Buffer::new(SMALL_BYTES));
            return Message { buffer, len };
        }
        let mut buffer = self.large.take().unwrap_or_else(|| Buffer::new(len));
        if let Some(small) = &mut self.small {
            buffer.with_headroom(WRITE_HEADROOM_BYTES)[..in_small]
                .copy_from_slice(&small.with_headroom(WRITE_HEADROOM_BYTES)[..in_small]);
        }
        Message { buffer, len }
    }

    fn send(&self, unique: u64, error: i32, parts: [&[u8]; 3]) -> io::Result<()> {
        let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(size_of::<OutHeader>() + body_bytes)
            .map_err(|_| io::Error::from(Errno::MSGSIZE))?;
        let head = OutHeader { len, error, unique };
        let [a, b, c] = parts;
        let slices = [IoSlice::new(head.as_bytes()), IoSlice::new(a), IoSlice::new(b), IoSlice::new(c)];
        // A part of length 0 costs the kernel nothing but would be counted: leave trailing ones out.
        let used = 1 + parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        self.transport.send(&slices[..used])
    }

    fn answer(&self, unique: Unique, error: i32, body: &[u8]) -> io::Result<()> {
        match self.send(unique.0, error, [body, &[], &[]]) {
            // Nobody waits for it any more: interrupted, aborted, or unmounted.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NODEV)) => Ok(()),
            sent => sent,
        }
    }

    /// Answers with a body, which may be empty.
    ///
    /// # Errors
    /// From the transport: EINVAL where the body does not have the request's size.
    pub fn reply(&self, unique: Unique, body: &[u8]) -> io::Result<()> {
        self.answer(unique, 0, body)
    }

    /// Answers with one of the ABI's structures.
    ///
    /// # Errors
    /// As `reply`.
    pub fn reply_structure<S: IntoBytes + Immutable>(&self, unique: Unique, structure: &S) -> io::Result<()> {
        self.reply(unique, structure.as_bytes())
    }

    /// Answers with an error.
    ///
    /// # Errors
    /// From the transport.
    pub fn reply_error(&self, unique: Unique, error: Errno) -> io::Result<()> {
        self.answer(unique, -error.raw_os_error(), &[])
    }

    /// Drops the kernel's cached attributes of `node` and its pages from `offset` on for `length` bytes (0: to the
    /// end; a negative offset: attributes only). Not from within a request on the same inode.
    ///
    /// # Errors
    /// From the transport; an inode that the kernel does not know is none.
    pub fn invalidate_inode(&self, node: u64, offset: i64, length: i64) -> io::Result<()> {
        let out = NotifyInvalInodeOut { ino: node, off: offset, len: length };
        self.invalidate(notify::INVAL_INODE, [out.as_bytes(), &[], &[]])
    }

    /// Drops the kernel's cached entry `name` of the directory `parent`. Not from within a request on it.
    ///
    /// # Errors
    /// From the transport; an entry that the kernel does not know is none.
    pub fn invalidate_entry(&self, parent: u64, name: &OsStr) -> io::Result<()> {
        let namelen = u32::try_from(name.len()).map_err(|_| io::Error::from(Errno::NAMETOOLONG))?;
        let out = NotifyInvalEntryOut { parent, namelen, flags: 0 };
        self.invalidate(notify::INVAL_ENTRY, [out.as_bytes(), name.as_bytes(), &[0]])
    }

    fn invalidate(&self, code: i32, parts: [&[u8]; 3]) -> io::Result<()> {
        match self.send(0, code, parts) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(()),
            sent => sent,
        }
    }

    /// Asks for every request that was handed out and not answered once more, marked `Unique::is_resent`.
    ///
    /// # Errors
    /// From the transport: EINVAL where the kernel cannot (before 7.40; see `InitFlags::HAS_RESEND`).
    pub fn resend(&self) -> io::Result<()> {
        self.send(0, notify::RESEND, [&[], &[], &[]])
    }
}

impl Session<Device> {
    /// A session for another thread, over a cloned descriptor.
    ///
    /// # Errors
    /// As `Device::another`.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self::resume(self.transport.another()?, self.agreed))
    }
}

impl<T: Transport> AsFd for Session<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}
