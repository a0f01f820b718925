//! The store's FUSE file system: one directory with a file for each volume.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use fuse::abi::{Attr, AttrOut, EntryOut, InitFlags, OpenOut, ROOT_ID, StatfsOut, WriteOut};
use fuse::{Message, Mount, Operation, Received, Session, Unique, Wishes};
use rustix::io::Errno;
use uuid::Uuid;

use super::files::{OpenVolume, Unserved, Volumes};
use super::parked::Parked;

/// Files change their size only when a volume is extended, and then the kernel is told.
const VALID_SECONDS: u64 = 3600;

const WISHES: Wishes = Wishes {
    flags: InitFlags::ASYNC_READ
        .or(InitFlags::ASYNC_DIO)
        .or(InitFlags::PARALLEL_DIROPS)
        .or(InitFlags::HANDLE_KILLPRIV_V2)
        .or(InitFlags::HAS_RESEND),
    max_write_bytes: 1 << 20,
    max_readahead_bytes: 128 << 10,
    // All volumes share one session: requests that hang on one of them must leave room for the others'.
    max_background: u16::MAX,
    congestion_threshold: u16::MAX,
};

/// Mounts the store on `directory`.
///
/// # Errors
/// From mount(2) and from the kernel's INIT.
pub fn mount(directory: &Path) -> io::Result<Session> {
    let mount = Mount {
        source: "lockstep-lab",
        subtype: "lockstep",
        root_mode: 0o040_700,
        user: 0,
        group: 0,
        allow_other: false,
        default_permissions: true,
        max_read_bytes: None,
        read_only: false,
    };
    Session::start(mount.attach(directory)?, &WISHES)
}

/// Another session over the same open device, for answers from other threads: the kernel takes an answer only where the
/// request came from.
///
/// # Errors
/// From duplicating the descriptor.
pub fn answers_of(session: &Session) -> io::Result<Session> {
    let device = fuse::Device::from_kept(session.as_fd().try_clone_to_owned()?);
    Ok(Session::resume(device, session.agreed()))
}

/// Serves requests until the file system is unmounted.
///
/// # Errors
/// From the device.
pub fn serve(mut session: Session, volumes: &Volumes, parked: &Parked) -> io::Result<()> {
    let answers = Arc::new(answers_of(&session)?);
    loop {
        match session.receive()? {
            Received::Message(message) => take(&answers, volumes, parked, message)?,
            Received::Nothing => {}
            Received::Ended => return Ok(()),
        }
    }
}

/// What a request wants of a volume's bytes.
#[derive(Debug)]
enum Work {
    Read { offset: u64, size: usize },
    Write { offset: u64, payload: block::Buffer },
    Flush,
    Allocate { mode: u32, offset: u64, length: u64 },
}

/// A request that may have to wait.
#[derive(Debug)]
pub struct Job {
    answers: Arc<Session>,
    unique: Unique,
    volume: Arc<OpenVolume>,
    work: Work,
}

impl Job {
    /// Which volume it is for.
    pub fn volume_id(&self) -> Uuid {
        self.volume.id
    }

    /// Carries it out and answers, or lets it wait. `waited`: it has, for as long as it was told.
    ///
    /// # Errors
    /// From the device.
    pub fn run(self, parked: &Parked, waited: bool) -> io::Result<()> {
        let judged_at = parked.releases();
        let Self { answers, unique, volume, work } = &self;
        let plain = |()| answers.reply(*unique, &[]);
        let served = match work {
            Work::Read { offset, size } => {
                let mut buffer = block::Buffer::new(*size);
                let count = volume.read(*offset, &mut buffer, waited);
                count.map(|count| answers.reply(*unique, &buffer[..count]))
            }
            Work::Write { offset, payload } => volume.write(*offset, payload, waited).map(|()| {
                let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                answers.reply_structure(*unique, &WriteOut { size, padding: 0 })
            }),
            Work::Flush => volume.flush(waited).map(plain),
            Work::Allocate { mode, offset, length } => {
                volume.allocate(*mode, *offset, *length, waited).map(plain)
            }
        };
        match served {
            Ok(sent) => sent,
            Err(Unserved::Failed(error)) => answers.reply_error(*unique, errno(&error)),
            Err(Unserved::Later(after)) => {
                parked.park(self, after, judged_at);
                Ok(())
            }
        }
    }
}

fn directory() -> Attr {
    Attr { ino: ROOT_ID, mode: 0o040_700, nlink: 2, blksize: 4096, ..Attr::default() }
}

fn regular(volume: &OpenVolume) -> Attr {
    let size = volume.size_bytes();
    Attr {
        ino: volume.node(),
        size,
        blocks: size / 512,
        mode: 0o100_600,
        nlink: 1,
        blksize: 4096,
        ..Attr::default()
    }
}

/// The system's number for an error, as the kernel wants it.
fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        _ => Errno::from_io_error(error).unwrap_or(Errno::IO),
    }
}

fn take(session: &Arc<Session>, volumes: &Volumes, parked: &Parked, mut message: Message) -> io::Result<()> {
    let Some(unique) = message.unique() else { return Ok(()) };
    let Ok(request) = message.request() else { return session.reply_error(unique, Errno::IO) };
    let node = request.node;
    let work = match request.operation {
        Operation::Lookup(name) => {
            return look_up(session, unique, volumes, name.to_str().unwrap_or_default());
        }
        Operation::Getattr(_) | Operation::Setattr(_) => return attributes(session, unique, volumes, node),
        Operation::Open(_) | Operation::Opendir(_) => {
            return session.reply_structure(unique, &OpenOut::default());
        }
        Operation::Statfs => {
            let about = StatfsOut { bsize: 4096, frsize: 4096, namelen: 255, ..StatfsOut::default() };
            return session.reply_structure(unique, &about);
        }
        Operation::Readdir(_) | Operation::Release(_) | Operation::Releasedir(_) | Operation::Flush(_) => {
            return session.reply(unique, &[]);
        }
        Operation::Forget(_) | Operation::BatchForget(_) => return Ok(()),
        Operation::Read(read) => Work::Read { offset: read.offset, size: read.size as usize },
        Operation::Write(write) => {
            let offset = write.offset;
            Work::Write { offset, payload: message.into_payload() }
        }
        Operation::Fsync(_) => Work::Flush,
        Operation::Fallocate(range) => {
            Work::Allocate { mode: range.mode, offset: range.offset, length: range.length }
        }
        _ => return session.reply_error(unique, Errno::NOSYS),
    };
    let Some(volume) = volumes.at(node) else { return session.reply_error(unique, Errno::NOENT) };
    Job { answers: session.clone(), unique, volume, work }.run(parked, false)
}

fn look_up(session: &Session, unique: Unique, volumes: &Volumes, name: &str) -> io::Result<()> {
    match volumes.look_up(name) {
        Ok(volume) => {
            let attr = regular(&volume);
            let found = EntryOut {
                nodeid: volume.node(),
                entry_valid: VALID_SECONDS,
                attr_valid: VALID_SECONDS,
                attr,
                ..EntryOut::default()
            };
            session.reply_structure(unique, &found)
        }
        Err(error) => session.reply_error(unique, errno(&error)),
    }
}

fn attributes(session: &Session, unique: Unique, volumes: &Volumes, node: u64) -> io::Result<()> {
    let attr = match (node, volumes.at(node)) {
        (ROOT_ID, _) => directory(),
        (_, Some(volume)) => regular(&volume),
        (_, None) => return session.reply_error(unique, Errno::NOENT),
    };
    session.reply_structure(unique, &AttrOut { attr_valid: VALID_SECONDS, attr, ..AttrOut::default() })
}
