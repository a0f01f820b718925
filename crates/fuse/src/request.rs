//! What the kernel asks, as typed views on the bytes it handed out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::abi::{
    AccessIn, BatchForgetIn, CreateIn, FallocateIn, FlushIn, ForgetIn, ForgetOne, FsyncIn, GetattrIn,
    GetxattrIn, InHeader, InitFlags, InitInBase, InterruptIn, LseekIn, MkdirIn, OpenIn, ReadIn, ReleaseIn,
    Rename2In, RenameIn, SetattrIn, UNIQUE_RESEND, WriteIn, opcode,
};

/// Names a request until it is answered (`unique`); the answer carries it as it came, marks and all.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Unique(pub u64);

impl Unique {
    /// Whether the request was handed out before and is repeated after `FUSE_NOTIFY_RESEND`: the server that had
    /// it may have carried it out.
    pub const fn is_resent(self) -> bool {
        self.0 & UNIQUE_RESEND != 0
    }
}

/// Bytes that are no FUSE request. From a kernel that keeps its ABI this does not happen.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Malformed {
    /// Shorter than the header or the structure of its opcode.
    #[error("FUSE opcode {opcode}: {have} bytes of {need}")]
    Short {
        /// The opcode, or 0 where not even that was there.
        opcode: u32,
        /// Bytes that are there.
        have: usize,
        /// Bytes that the layout needs.
        need: usize,
    },
    /// The header's length is not the number of bytes read.
    #[error("FUSE opcode {opcode}: the header says {len} bytes, {have} were read")]
    Length {
        /// The opcode.
        opcode: u32,
        /// `in_header.len`.
        len: u32,
        /// Bytes read.
        have: usize,
    },
    /// A name is empty or does not end with NUL.
    #[error("FUSE opcode {opcode}: a name without its end")]
    Name {
        /// The opcode.
        opcode: u32,
    },
}

/// One request.
#[derive(Debug)]
pub struct Request<'a> {
    /// To be named in the answer.
    pub unique: Unique,
    /// The inode it is about.
    pub node: u64,
    /// File-system uid of the caller.
    pub uid: u32,
    /// File-system gid of the caller.
    pub gid: u32,
    /// Thread id of the caller; 0 where the kernel itself asks.
    pub pid: u32,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What INIT offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer {
    /// The kernel's ABI major.
    pub major: u32,
    /// The kernel's ABI minor.
    pub minor: u32,
    /// Read-ahead limit in bytes.
    pub max_readahead: u32,
    /// What the kernel can do.
    pub flags: InitFlags,
}

/// The operation of a request, with upstream's structure of arguments.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant is the opcode of its name")]
pub enum Operation<'a> {
    Access(&'a AccessIn),
    BatchForget(&'a [ForgetOne]),
    Create(&'a CreateIn, &'a OsStr),
    Destroy,
    Fallocate(&'a FallocateIn),
    Flush(&'a FlushIn),
    /// Number of lookups to forget; gets no answer, as `BatchForget`.
    Forget(u64),
    Fsync(&'a FsyncIn),
    Getattr(&'a GetattrIn),
    Getxattr(&'a GetxattrIn, &'a OsStr),
    Init(Offer),
    /// The request that its caller no longer waits for. An answer is optional: ENOSYS ends interrupts for good,
    /// EAGAIN asks for it again.
    Interrupt(Unique),
    Lookup(&'a OsStr),
    Lseek(&'a LseekIn),
    Mkdir(&'a MkdirIn, &'a OsStr),
    Open(&'a OpenIn),
    Opendir(&'a OpenIn),
    Read(&'a ReadIn),
    Readdir(&'a ReadIn),
    Readdirplus(&'a ReadIn),
    Release(&'a ReleaseIn),
    Releasedir(&'a ReleaseIn),
    /// RENAME and RENAME2; the former has no flags.
    Rename {
        new_dir: u64,
        flags: u32,
        name: &'a OsStr,
        new_name: &'a OsStr,
    },
    Rmdir(&'a OsStr),
    Setattr(&'a SetattrIn),
    Statfs,
    Unlink(&'a OsStr),
    /// An opcode that this crate has no view for, to be answered ENOSYS.
    Unknown(u32),
    /// The bytes are `size` bytes after the structure: `Message::into_payload` takes them out.
    Write(&'a WriteIn),
}

/// Reads structures and names off the front of a request's body.
struct Arguments<'a> {
    opcode: u32,
    rest: &'a [u8],
}

impl<'a> Arguments<'a> {
    fn structure<T: FromBytes + Immutable + KnownLayout>(&mut self) -> Result<&'a T, Malformed> {
        let short = Malformed::Short { opcode: self.opcode, have: self.rest.len(), need: size_of::<T>() };
        let (value, rest) = T::ref_from_prefix(self.rest).map_err(|_| short)?;
        self.rest = rest;
        Ok(value)
    }

    fn name(&mut self) -> Result<&'a OsStr, Malformed> {
        let malformed = Malformed::Name { opcode: self.opcode };
        let end = self.rest.iter().position(|&b| b == 0).filter(|&end| end > 0).ok_or(malformed)?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(OsStr::from_bytes(name))
    }

    fn forgets(&mut self) -> Result<&'a [ForgetOne], Malformed> {
        let count = self.structure::<BatchForgetIn>()?.count as usize;
        let short = Malformed::Short {
            opcode: self.opcode,
            have: self.rest.len(),
            need: count.saturating_mul(size_of::<ForgetOne>()),
        };
        let (forgets, rest) =
            <[ForgetOne]>::ref_from_prefix_with_elems(self.rest, count).map_err(|_| short)?;
        self.rest = rest;
        Ok(forgets)
    }

    fn offer(&mut self) -> Result<Offer, Malformed> {
        let base = self.structure::<InitInBase>()?;
        let mut flags = InitFlags(u64::from(base.flags));
        if flags.contains(InitFlags::INIT_EXT) {
            flags.0 |= u64::from(*self.structure::<u32>()?) << 32;
        }
        Ok(Offer { major: base.major, minor: base.minor, max_readahead: base.max_readahead, flags })
    }

    /// WRITE's bytes are not looked at, only that there are as many as it says.
    fn write(&mut self) -> Result<&'a WriteIn, Malformed> {
        let write = self.structure::<WriteIn>()?;
        if self.rest.len() == write.size as usize {
            return Ok(write);
        }
        Err(Malformed::Short { opcode: self.opcode, have: self.rest.len(), need: write.size as usize })
    }

    fn operation(mut self) -> Result<Operation<'a>, Malformed> {
        Ok(match self.opcode {
            opcode::ACCESS => Operation::Access(self.structure()?),
            opcode::BATCH_FORGET => Operation::BatchForget(self.forgets()?),
            opcode::CREATE => Operation::Create(self.structure()?, self.name()?),
            opcode::DESTROY => Operation::Destroy,
            opcode::FALLOCATE => Operation::Fallocate(self.structure()?),
            opcode::FLUSH => Operation::Flush(self.structure()?),
            opcode::FORGET => Operation::Forget(self.structure::<ForgetIn>()?.nlookup),
            opcode::FSYNC => Operation::Fsync(self.structure()?),
            opcode::GETATTR => Operation::Getattr(self.structure()?),
            opcode::GETXATTR => Operation::Getxattr(self.structure()?, self.name()?),
            opcode::INIT => Operation::Init(self.offer()?),
            opcode::INTERRUPT => Operation::Interrupt(Unique(self.structure::<InterruptIn>()?.unique)),
            opcode::LOOKUP => Operation::Lookup(self.name()?),
            opcode::LSEEK => Operation::Lseek(self.structure()?),
            opcode::MKDIR => Operation::Mkdir(self.structure()?, self.name()?),
            opcode::OPEN => Operation::Open(self.structure()?),
            opcode::OPENDIR => Operation::Opendir(self.structure()?),
            opcode::READ => Operation::Read(self.structure()?),
            opcode::READDIR => Operation::Readdir(self.structure()?),
            opcode::READDIRPLUS => Operation::Readdirplus(self.structure()?),
            opcode::RELEASE => Operation::Release(self.structure()?),
            opcode::RELEASEDIR => Operation::Releasedir(self.structure()?),
            opcode::RENAME => {
                let new_dir = self.structure::<RenameIn>()?.newdir;
                Operation::Rename { new_dir, flags: 0, name: self.name()?, new_name: self.name()? }
            }
            opcode::RENAME2 => {
                let &Rename2In { newdir: new_dir, flags, .. } = self.structure()?;
                Operation::Rename { new_dir, flags, name: self.name()?, new_name: self.name()? }
            }
            opcode::RMDIR => Operation::Rmdir(self.name()?),
            opcode::SETATTR => Operation::Setattr(self.structure()?),
            opcode::STATFS => Operation::Statfs,
            opcode::UNLINK => Operation::Unlink(self.name()?),
            opcode::WRITE => Operation::Write(self.write()?),
            unknown => Operation::Unknown(unknown),
        })
    }
}

impl<'a> Request<'a> {
    /// The request in `bytes`, which hold exactly one. They must be aligned to 8 bytes, as everything that
    /// `Session` receives is.
    ///
    /// # Errors
    /// `Malformed` where lengths or names do not add up.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut arguments = Arguments { opcode: 0, rest: bytes };
        let header = arguments.structure::<InHeader>()?;
        arguments.opcode = header.opcode;
        if header.len as usize != bytes.len() {
            return Err(Malformed::Length { opcode: header.opcode, len: header.len, have: bytes.len() });
        }
        // Extensions (group lists, security contexts) are at the end and are sent only where INIT agreed to them.
        let operation = arguments.operation()?;
        let InHeader { unique, nodeid: node, uid, gid, pid, .. } = *header;
        Ok(Self { unique: Unique(unique), node, uid, gid, pid, operation })
    }
}

/// The bytes of a request's header, for an answer to what could not be parsed further.
pub(crate) fn header(bytes: &[u8]) -> Option<InHeader> {
    InHeader::read_from_prefix(bytes).ok().map(|(header, _)| header)
}

const _: () = assert!(size_of::<InHeader>() + size_of::<WriteIn>() == crate::session::WRITE_HEADROOM_BYTES);
