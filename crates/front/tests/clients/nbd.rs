//! The NBD server against the field's clients, and against one that misbehaves.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use front::Access;
use front::nbd::{Export, NbdServer, listen};

use crate::machine::{has_programs, run};
use crate::store::serve;

const SIZE_BYTES: usize = 64 << 20;

struct Server {
    place: tempfile::TempDir,
    stop: Option<OwnedFd>,
    server: Option<JoinHandle<()>>,
}

impl Server {
    fn start(access: Access) -> Self {
        let place = tempfile::tempdir().unwrap();
        let export = Export { name: "disk".into(), size_bytes: SIZE_BYTES as u64, access };
        let mut server = NbdServer::new(listen(&place.path().join("nbd")).unwrap(), export).unwrap();
        let (stopped, stop) = rustix::pipe::pipe().unwrap();
        let mut store = vec![0x5a; SIZE_BYTES];
        let server = std::thread::spawn(move || serve(&mut server, &mut store, Some(&stopped)).unwrap());
        Self { place, stop: Some(stop), server: Some(server) }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("nbd")
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket().display())
    }

    /// A client after EXPORT_NAME: simple replies.
    fn connect(&self) -> UnixStream {
        let mut client = UnixStream::connect(self.socket()).unwrap();
        let mut greeting = [0; 18];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        client.write_all(&3_u32.to_be_bytes()).unwrap();
        client.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk").unwrap();
        let mut export = [0; 10];
        client.read_exact(&mut export).unwrap();
        assert_eq!(export[..8], (SIZE_BYTES as u64).to_be_bytes());
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.server.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the server panicked");
    }
}

fn request(command: u16, flags: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(b"a cookie");
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn simple_error(client: &mut UnixStream) -> u32 {
    let mut reply = [0; 16];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes());
    assert_eq!(&reply[8..], b"a cookie");
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    if !has_programs("nbdinfo_sees_what_is_offered", &["nbdinfo"]) {
        return;
    }
    let server = Server::start(Access::ReadWrite);
    let info = run("nbdinfo", &[&server.uri()]).unwrap();
    for line in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "export-size: 67108864 (64M)",
        "is_read_only: false",
        "can_fast_zero: false",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "block_size_minimum: 512",
        "block_size_maximum: 1048576",
    ] {
        assert!(info.contains(line), "no `{line}` in\n{info}");
    }
    assert!(run("nbdinfo", &["--list", &server.uri()]).unwrap().contains("export=\"disk\""));
    let unknown = server.uri().replace("/disk?", "/other?");
    assert!(run("nbdinfo", &[&unknown]).is_err());
    // A context that is not offered is no error of the connection.
    let map = run("nbdinfo", &["--map", &server.uri()]).unwrap_err();
    assert!(map.contains("does not support metadata context"), "{map}");
}

#[test]
fn nbdcopy_and_qemu_img_agree() {
    let test = "nbdcopy_and_qemu_img_agree";
    if !has_programs(test, &["nbdcopy", "qemu-img"]) {
        return;
    }
    let server = Server::start(Access::ReadWrite);
    let [image, back] = ["image", "back"].map(|name| server.place.path().join(name));
    let content: Vec<u8> =
        (0..SIZE_BYTES as u32 / 4).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&image, &content).unwrap();
    let [image, back] = [&image, &back].map(|path| path.to_str().unwrap());
    run("nbdcopy", &["--connections=4", image, &server.uri()]).unwrap();
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &server.uri()]).unwrap();
    run("nbdcopy", &[&server.uri(), back]).unwrap();
    assert!(std::fs::read(back).unwrap() == content);
    run("qemu-img", &["bench", "-f", "raw", "-w", "-c", "2000", "-d", "32", "-s", "4096", &server.uri()])
        .unwrap();
}

#[test]
fn qemu_io_zeroes_discards_and_forces_unit_access() {
    if !has_programs("qemu_io_zeroes_discards_and_forces_unit_access", &["qemu-io"]) {
        return;
    }
    let server = Server::start(Access::ReadWrite);
    let mut words = vec!["-f", "raw"];
    for command in [
        "write -P 7 512 4096",
        "read -P 7 512 4096",
        "write -f -P 9 3k 512",
        "read -P 9 3k 512",
        "write -z 1M 2M",
        "read -P 0 1M 2M",
        "write -z -f -u 5M 3M",
        "read -P 0 5M 3M",
        "discard 16M 8M",
        "write -P 3 30M 4M",
        "read -P 3 30M 4M",
        "flush",
    ] {
        words.extend(["-c", command]);
    }
    let uri = server.uri();
    words.push(&uri);
    let printed = run("qemu-io", &words).unwrap();
    assert!(!printed.contains("failed"), "{printed}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !has_programs("fio_verifies_what_it_wrote", &["fio"]) {
        return;
    }
    if !run("fio", &["--enghelp"]).unwrap().contains("nbd") {
        eprintln!("skip fio_verifies_what_it_wrote: fio has no nbd engine");
        return;
    }
    let server = Server::start(Access::ReadWrite);
    let uri = format!("--uri={}", server.uri());
    let job = [
        "--name=x",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--iodepth=32",
        "--size=32m",
    ];
    let verify = ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"];
    run("fio", &[&job[..], &verify[..]].concat()).unwrap();
}

#[test]
fn a_read_only_export_refuses_changes() {
    let server = Server::start(Access::ReadOnly);
    let mut client = server.connect();
    client.write_all(&request(1, 0, 0, 512)).unwrap();
    client.write_all(&[1; 512]).unwrap();
    assert_eq!(simple_error(&mut client), 1);
    for command in [4, 6] {
        client.write_all(&request(command, 0, 0, 512)).unwrap();
        assert_eq!(simple_error(&mut client), 1);
    }
    client.write_all(&request(3, 0, 0, 0)).unwrap();
    assert_eq!(simple_error(&mut client), 0);
    client.write_all(&request(0, 0, 0, 512)).unwrap();
    assert_eq!(simple_error(&mut client), 0);
    client.read_exact(&mut [0; 512]).unwrap();
}

#[test]
fn bad_requests_are_answered_and_worse_ones_end_the_connection() {
    const EINVAL: u32 = 22;
    const ENOSPC: u32 = 28;
    let server = Server::start(Access::ReadWrite);
    let mut client = server.connect();
    let size = SIZE_BYTES as u64;
    for (command, flags, offset, length, error) in [
        (0, 0, 1, 512, EINVAL),
        (0, 0, 0, 100, EINVAL),
        (0, 0, 0, 0, EINVAL),
        (0, 0, size, 512, EINVAL),
        (0, 0, u64::MAX - 511, 512, EINVAL),
        (0, 0, 0, (1 << 20) + 512, EINVAL),
        (0, 1 << 4, 0, 512, EINVAL),
        (1, 0, size, 512, ENOSPC),
        (1, 0, 0, (1 << 20) + 512, EINVAL),
        (4, 0, size - 512, 1024, ENOSPC),
        (6, 1 << 4, 0, 512, EINVAL),
        (7, 0, 0, 512, EINVAL),
        (77, 0, 0, 512, EINVAL),
    ] {
        client.write_all(&request(command, flags, offset, length)).unwrap();
        if command == 1 {
            client.write_all(&vec![1; length as usize]).unwrap();
        }
        assert_eq!(simple_error(&mut client), error, "command {command} flags {flags} {offset}+{length}");
    }
    // In step after all that, a refused payload included.
    client.write_all(&request(3, 0, 0, 0)).unwrap();
    assert_eq!(simple_error(&mut client), 0);
    let ended = |bytes: &[u8]| {
        let mut client = server.connect();
        client.write_all(bytes).unwrap();
        assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0, "still connected after {bytes:?}");
    };
    ended(&[0xff; 28]);
    ended(&request(1, 0, 0, u32::MAX));
    ended(&request(2, 0, 0, 0));
}

/// One client asks for more than it fetches; it is not listened to then, and others do not notice.
#[test]
fn a_slow_client_keeps_nobody_waiting() {
    let server = Server::start(Access::ReadWrite);
    let mut slow = server.connect();
    slow.set_nonblocking(true).unwrap();
    let read = request(0, 0, 0, 1 << 20);
    let asked = (0..100_000).take_while(|_| slow.write(&read).is_ok_and(|count| count == read.len())).count();
    assert!(asked < 100_000, "the server never stopped listening");

    let mut other = server.connect();
    for _ in 0..100 {
        other.write_all(&read).unwrap();
        assert_eq!(simple_error(&mut other), 0);
        other.read_exact(&mut vec![0; 1 << 20]).unwrap();
    }
    slow.set_nonblocking(false).unwrap();
    for _ in 0..asked {
        assert_eq!(simple_error(&mut slow), 0);
        slow.read_exact(&mut vec![0; 1 << 20]).unwrap();
    }
}
