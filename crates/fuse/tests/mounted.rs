//! A directory with one file in memory, served to the real kernel.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread::JoinHandle;

use fuse::abi::{Attr, AttrOut, EntryOut, InitFlags, OpenOut, ROOT_ID, WriteOut};
use fuse::{Device, Directory, Entry, Message, Mount, Operation, Received, Session, Unique, Wishes};
use rustix::io::Errno;

const FILE_ID: u64 = 2;
const FILE_BYTES: usize = 4 << 20;

/// Whether a file system can be mounted here; says so loudly where it cannot.
fn can_mount(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !Path::new("/dev/fuse").exists() {
        "no /dev/fuse"
    } else {
        return true;
    };
    eprintln!("skip {test}: {reason}");
    false
}

const WISHES: Wishes = Wishes {
    flags: InitFlags::ASYNC_READ
        .or(InitFlags::ASYNC_DIO)
        .or(InitFlags::PARALLEL_DIROPS)
        .or(InitFlags::DO_READDIRPLUS)
        .or(InitFlags::READDIRPLUS_AUTO)
        .or(InitFlags::HANDLE_KILLPRIV_V2)
        .or(InitFlags::ATOMIC_O_TRUNC)
        .or(InitFlags::HAS_RESEND),
    max_write_bytes: 1 << 20,
    max_readahead_bytes: 128 << 10,
    max_background: 64,
    congestion_threshold: 48,
};

fn mount_on(directory: &Path) -> Session {
    let mount = Mount {
        source: "test",
        subtype: "lockstep",
        root_mode: 0o040_755,
        user: 0,
        group: 0,
        allow_other: false,
        default_permissions: true,
        max_read_bytes: None,
        read_only: false,
    };
    Session::start(mount.attach(directory).unwrap(), &WISHES).unwrap()
}

fn attributes(node: u64) -> Attr {
    let (mode, size, nlink) =
        if node == ROOT_ID { (0o040_755, 0, 2) } else { (0o100_600, FILE_BYTES as u64, 1) };
    Attr { ino: node, size, blocks: size / 512, mode, nlink, blksize: 4096, ..Attr::default() }
}

fn found() -> EntryOut {
    EntryOut {
        nodeid: FILE_ID,
        entry_valid: 3600,
        attr_valid: 3600,
        attr: attributes(FILE_ID),
        ..Default::default()
    }
}

struct Memory(Vec<u8>);

impl Memory {
    fn list(&self, offset: u64, size: u32, plus: bool) -> Directory {
        let mut directory = Directory::new(size);
        let names = [(ROOT_ID, "."), (ROOT_ID, ".."), (FILE_ID, "disk")];
        for (i, (ino, name)) in names.iter().enumerate().skip(offset as usize) {
            let entry = Entry { ino: *ino, next_offset: i as u64 + 1, kind: 0, name: OsStr::new(name) };
            let entry_out = if *ino == FILE_ID { found() } else { EntryOut::default() };
            let fits = if plus { directory.push_plus(&entry_out, &entry) } else { directory.push(&entry) };
            if !fits {
                break;
            }
        }
        directory
    }

    fn serve(&mut self, session: &Session, mut message: Message) {
        let request = message.request().unwrap();
        let unique = request.unique;
        let node = request.node;
        let sent = match request.operation {
            Operation::Lookup(name) if name == "disk" => session.reply_structure(unique, &found()),
            Operation::Lookup(_) => session.reply_error(unique, Errno::NOENT),
            Operation::Getattr(_) => {
                let attr = attributes(node);
                session.reply_structure(unique, &AttrOut { attr_valid: 3600, attr, ..Default::default() })
            }
            Operation::Open(_) | Operation::Opendir(_) => {
                session.reply_structure(unique, &OpenOut::default())
            }
            Operation::Readdir(read) => {
                session.reply(unique, self.list(read.offset, read.size, false).as_bytes())
            }
            Operation::Readdirplus(read) => {
                session.reply(unique, self.list(read.offset, read.size, true).as_bytes())
            }
            Operation::Read(read) => {
                let start = (read.offset as usize).min(self.0.len());
                let end = (start + read.size as usize).min(self.0.len());
                session.reply(unique, &self.0[start..end])
            }
            Operation::Write(write) => {
                let (start, size) = (write.offset as usize, write.size);
                let payload = message.into_payload();
                assert_eq!(payload.as_ptr() as usize % 4096, 0, "a WRITE's payload is page-aligned");
                self.0[start..start + payload.len()].copy_from_slice(&payload);
                session.reply_structure(unique, &WriteOut { size, padding: 0 })
            }
            Operation::Fsync(_) | Operation::Release(_) | Operation::Releasedir(_) | Operation::Access(_) => {
                session.reply(unique, &[])
            }
            Operation::Forget(_) | Operation::BatchForget(_) => Ok(()),
            _ => session.reply_error(unique, Errno::NOSYS),
        };
        sent.unwrap();
    }

    fn serve_to_the_end(mut self, mut session: Session) {
        loop {
            match session.receive().unwrap() {
                Received::Message(message) => self.serve(&session, message),
                Received::Nothing => panic!("a blocking device has nothing to say"),
                Received::Ended => return,
            }
        }
    }
}

fn finish(directory: &Path, server: JoinHandle<()>) {
    fuse::unmount(directory).unwrap();
    server.join().unwrap();
}

#[test]
fn a_directory_and_a_file() {
    if !can_mount("a_directory_and_a_file") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let session = mount_on(directory.path());
    assert!(session.agreed().minor >= 31);
    assert_eq!(session.agreed().max_write_bytes, 1 << 20);
    let server = std::thread::spawn(|| Memory(vec![0; FILE_BYTES]).serve_to_the_end(session));

    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["disk"]);
    let path = directory.path().join("disk");
    assert_eq!(path.metadata().unwrap().len(), FILE_BYTES as u64);
    assert_eq!(path.metadata().unwrap().ino(), FILE_ID);
    assert!(!directory.path().join("other").exists());

    // One of each way into a message: small, up to the edge of the small buffer, beyond it, max_write.
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for (i, len) in [512, 32 << 10, (32 << 10) + 512, 1 << 20, 3 << 20].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 512 * 7 + at + i) as u8).collect();
        file.write_all_at(&bytes, 4096).unwrap();
        let mut back = vec![0; len];
        File::open(&path).unwrap().read_exact_at(&mut back, 4096).unwrap();
        assert!(bytes == back, "{len} bytes came back different");
    }
    file.flush().unwrap();
    file.sync_all().unwrap();
    drop(file);
    finish(directory.path(), server);
}

/// A server that took a request and died: its successor gets the request again, marked, and answers it.
#[test]
fn resend_to_a_successor() {
    if !can_mount("resend_to_a_successor") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut first = mount_on(directory.path());
    if !first.agreed().flags.contains(InitFlags::HAS_RESEND) {
        eprintln!("skip resend_to_a_successor: the kernel does not know FUSE_NOTIFY_RESEND");
        fuse::detach(directory.path()).unwrap();
        return;
    }
    let path = directory.path().join("disk");
    let client = std::thread::spawn(move || path.metadata().unwrap().len());
    let Received::Message(mut taken) = first.receive().unwrap() else { panic!("no request") };
    let unique = taken.request().unwrap().unique;
    assert!(!unique.is_resent());

    let kept = first.as_fd().try_clone_to_owned().unwrap();
    let agreed = first.agreed();
    drop(first);
    let mut second = Session::resume(Device::from_kept(kept), agreed);
    second.resend().unwrap();
    let Received::Message(mut again) = second.receive().unwrap() else { panic!("no request") };
    let resent = again.request().unwrap().unique;
    assert_eq!(resent, Unique(unique.0 | fuse::abi::UNIQUE_RESEND));
    let mut memory = Memory(vec![0; FILE_BYTES]);
    memory.serve(&second, again);
    let server = std::thread::spawn(move || memory.serve_to_the_end(second));
    assert_eq!(client.join().unwrap(), FILE_BYTES as u64);
    finish(directory.path(), server);
}

/// Two descriptors of one session, each served by its own thread, and notifications from a third party.
#[test]
fn cloned_descriptors_and_notifications() {
    if !can_mount("cloned_descriptors_and_notifications") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let session = mount_on(directory.path());
    let other = session.another().unwrap();
    let notifier = session.another().unwrap();
    let servers = [session, other]
        .map(|session| std::thread::spawn(|| Memory(vec![9; FILE_BYTES]).serve_to_the_end(session)));
    let path = directory.path().join("disk");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || std::fs::read(path).unwrap().iter().all(|&b| b == 9))
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    notifier.invalidate_inode(FILE_ID, 0, 0).unwrap();
    notifier.invalidate_entry(ROOT_ID, OsStr::new("disk")).unwrap();
    notifier.invalidate_entry(ROOT_ID, OsStr::new("never seen")).unwrap();
    notifier.invalidate_inode(77, 0, 0).unwrap();
    fuse::unmount(directory.path()).unwrap();
    for server in servers {
        server.join().unwrap();
    }
}
