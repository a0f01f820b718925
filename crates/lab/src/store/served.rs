//! The store's FUSE file system: one directory with a file for each volume.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fuse::abi::{Attr, AttrOut, EntryOut, InitFlags, OpenOut, ROOT_ID, StatfsOut, WriteOut};
use fuse::{Message, Mount, Operation, Received, Session, Unique, Wishes};
use rustix::io::Errno;

use super::files::{OpenVolume, Volumes};

/// Files do not change their size, so that the kernel need not ask again.
const VALID_SECONDS: u64 = 3600;

const WISHES: Wishes = Wishes {
    flags: InitFlags::ASYNC_READ
        .or(InitFlags::ASYNC_DIO)
        .or(InitFlags::PARALLEL_DIROPS)
        .or(InitFlags::HANDLE_KILLPRIV_V2),
    max_write_bytes: 1 << 20,
    max_readahead_bytes: 128 << 10,
    max_background: 64,
    congestion_threshold: 48,
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

/// Serves requests until the file system is unmounted.
///
/// # Errors
/// From the device.
pub fn serve(mut session: Session, volumes: &Volumes) -> io::Result<()> {
    loop {
        match session.receive()? {
            Received::Message(message) => answer(&session, volumes, message)?,
            Received::Nothing => {}
            Received::Ended => return Ok(()),
        }
    }
}

fn directory() -> Attr {
    Attr { ino: ROOT_ID, mode: 0o040_700, nlink: 2, blksize: 4096, ..Attr::default() }
}

fn regular(node: u64, volume: &OpenVolume) -> Attr {
    let size = volume.size_bytes;
    Attr { ino: node, size, blocks: size / 512, mode: 0o100_600, nlink: 1, blksize: 4096, ..Attr::default() }
}

/// The system's number for an error, as the kernel wants it.
fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        _ => Errno::from_io_error(error).unwrap_or(Errno::IO),
    }
}

fn answer(session: &Session, volumes: &Volumes, mut message: Message) -> io::Result<()> {
    let Some(unique) = message.unique() else { return Ok(()) };
    let Ok(request) = message.request() else { return session.reply_error(unique, Errno::IO) };
    let node = request.node;
    let empty = |done: io::Result<()>| match done {
        Ok(()) => session.reply(unique, &[]),
        Err(error) => session.reply_error(unique, errno(&error)),
    };
    match request.operation {
        Operation::Lookup(name) => look_up(session, unique, volumes, name.to_str().unwrap_or_default()),
        Operation::Getattr(_) | Operation::Setattr(_) => attributes(session, unique, volumes, node),
        Operation::Open(_) | Operation::Opendir(_) => session.reply_structure(unique, &OpenOut::default()),
        Operation::Readdir(_) => session.reply(unique, &[]),
        Operation::Statfs => session.reply_structure(
            unique,
            &StatfsOut { bsize: 4096, frsize: 4096, namelen: 255, ..StatfsOut::default() },
        ),
        Operation::Release(_) | Operation::Releasedir(_) | Operation::Flush(_) => session.reply(unique, &[]),
        Operation::Forget(_) | Operation::BatchForget(_) => Ok(()),
        Operation::Read(read) => {
            let (offset, size) = (read.offset, read.size as usize);
            match volumes.at(node) {
                Some(volume) => self::read(session, unique, &volume, offset, size),
                None => session.reply_error(unique, Errno::NOENT),
            }
        }
        Operation::Write(write) => {
            let (offset, size) = (write.offset, write.size);
            let done = volumes
                .at(node)
                .ok_or(Errno::NOENT.into())
                .and_then(|volume| volume.write(offset, &message.into_payload()));
            match done {
                Ok(()) => session.reply_structure(unique, &WriteOut { size, padding: 0 }),
                Err(error) => session.reply_error(unique, errno(&error)),
            }
        }
        Operation::Fsync(_) => empty(volumes.at(node).map_or(Ok(()), |volume| volume.flush())),
        Operation::Fallocate(range) => empty(
            volumes
                .at(node)
                .ok_or(Errno::NOENT.into())
                .and_then(|volume| volume.allocate(range.mode, range.offset, range.length)),
        ),
        _ => session.reply_error(unique, Errno::NOSYS),
    }
}

fn look_up(session: &Session, unique: Unique, volumes: &Volumes, name: &str) -> io::Result<()> {
    match volumes.look_up(name) {
        Ok((node, volume)) => {
            let attr = regular(node, &volume);
            let found = EntryOut {
                nodeid: node,
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
        (_, Some(volume)) => regular(node, &volume),
        (_, None) => return session.reply_error(unique, Errno::NOENT),
    };
    session.reply_structure(unique, &AttrOut { attr_valid: VALID_SECONDS, attr, ..AttrOut::default() })
}

fn read(
    session: &Session,
    unique: Unique,
    volume: &Arc<OpenVolume>,
    offset: u64,
    size: usize,
) -> io::Result<()> {
    let mut buffer = block::Buffer::new(size);
    match volume.read(offset, &mut buffer) {
        Ok(count) => session.reply(unique, &buffer[..count]),
        Err(error) => session.reply_error(unique, errno(&error)),
    }
}
