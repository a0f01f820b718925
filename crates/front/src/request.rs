//! What every front speaks.

use std::io;
use std::os::fd::AsFd;

use block::Buffer;
use units::SectorRange;

/// Names a request within its front until it is completed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

/// What a client asks of the device. Ranges are inside the device and not empty: the front has checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// Read the range.
    Read(SectorRange),
    /// Write the payload; with `fua`, complete only when it is on stable storage.
    Write {
        /// Where.
        range: SectorRange,
        /// Forced unit access.
        fua: bool,
    },
    /// Complete when every write completed so far is on stable storage.
    Flush,
    /// The range's content may be forgotten.
    Discard(SectorRange),
    /// The range reads as zeroes from now on.
    WriteZeroes {
        /// Where.
        range: SectorRange,
        /// The space below may be given back.
        may_unmap: bool,
    },
}

/// One request of a client.
#[derive(Debug)]
pub struct Request {
    /// To be named at completion.
    pub id: RequestId,
    /// What is asked.
    pub op: Op,
    /// The bytes of a write, exactly as long as its range; empty for everything else.
    pub payload: Option<Buffer>,
}

/// Why a request failed, in the words of the block layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// EIO.
    Io,
    /// ENOSPC.
    NoSpace,
    /// EOPNOTSUPP.
    NotSupported,
    /// EROFS or EPERM: the device may not be written now.
    ReadOnly,
}

/// One front end of one device. `as_fd` is readable when `poll` has something to do.
pub trait Front: AsFd {
    /// Takes what clients have asked, without blocking, and appends it to `requests`.
    ///
    /// # Errors
    /// Only what ends the front as a whole; a client's fault is answered to that client.
    fn poll(&mut self, requests: &mut Vec<Request>) -> io::Result<()>;

    /// Answers a request: for a read the buffer holds the whole range.
    fn complete(&mut self, id: RequestId, outcome: Result<Option<Buffer>, Fault>);

    /// The device has another size from now on. Who has it open already learns of it as far as the front's protocol
    /// allows.
    fn resize(&mut self, size_bytes: u64);
}
