//! What a peer's host may do to a daemon's port: the daemon closes what is no DRBD, keeps few connections that say
//! nothing, holds no memory for lengths that somebody only claims, and an honest peer still gets in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use drbd_engine::admin::NetOptions;
use drbd_engine::event::Order;
use drbd_format::wire::{Agreed, Command as Name, Features, Header, Packet};
use drbd_node::worker::{Command, Handle, Worker};

/// Far more than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon's resource that waits for its peer on loopback; nobody listens at the peer's address.
struct Daemon {
    handle: Handle,
    address: SocketAddr,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Daemon {
    fn start() -> Self {
        let handle = Worker::spawn("r0").expect("a thread and an io_uring");
        assert_eq!(handle.ask(|reply| Command::AddVolume { volume: 0, minor: 0, reply }), Some(true));
        let (local, peer) = (free_address(), free_address());
        let options = NetOptions { ping_timeout_ds: 3, connect_int_s: 60, ..NetOptions::default() };
        let order = Order::Connect { local, peer, options, discard_my_data: false };
        let answer = handle.ask(|reply| Command::Order { order, disk: None, reply });
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        Self { handle, address: local }
    }

    /// The port is there while the daemon waits for its peer.
    fn dial(&self) -> TcpStream {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody listens: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Both sockets of a peer that has introduced itself as one, and has the daemon's features.
    fn meet(&self) -> [TcpStream; 2] {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let (mut data, mut meta) = (self.dial(), self.dial());
            let mut offer = [0; 80];
            let met = data
                .write_all(&bytes(&Packet::InitialData))
                .and_then(|()| meta.write_all(&bytes(&Packet::InitialMeta)))
                .and_then(|()| data.read_exact(&mut offer));
            if met.is_ok() {
                let (header, length) = Header::decode(&offer).unwrap().unwrap();
                assert_eq!((header.command, length), (Name::ConnectionFeatures, 8));
                return [data, meta];
            }
        }
        panic!("the daemon takes no honest peer any more");
    }
}

fn bytes(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(0, 0, &Agreed::NOTHING, &mut bytes);
    bytes
}

/// Whether the other end closes; whatever it says before is dropped.
fn is_closed(mut stream: TcpStream) -> bool {
    let mut space = [0; 4096];
    loop {
        match stream.read(&mut space) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn bytes_that_are_no_drbd_end_their_connection() {
    let daemon = Daemon::start();
    for first in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 64], &[0x83, 0x74, 0x02, 0x67, 0, 0, 0xff, 0xff]] {
        let mut stream = daemon.dial();
        stream.write_all(first).unwrap();
        assert!(is_closed(stream), "{first:x?}");
    }
    daemon.meet();
}

#[test]
fn who_says_nothing_does_not_keep_others_out() {
    let daemon = Daemon::start();
    let mut slow = daemon.dial();
    slow.write_all(&[0x83, 0x74]).unwrap();
    assert!(is_closed(slow), "a header that is never whole");
    let silent: Vec<TcpStream> = (0..200).map(|_| daemon.dial()).collect();
    daemon.meet();
    for stream in silent {
        assert!(is_closed(stream), "a connection that says nothing");
    }
}

#[test]
fn lengths_that_are_only_claimed_hold_no_memory() {
    let daemon = Daemon::start();
    let features =
        Packet::ConnectionFeatures(Features { protocol_min: 86, feature_flags: 0, protocol_max: 101 });
    let before = resident_kib();
    for length in [u32::MAX, 1 << 30, (1 << 20) + 4096] {
        let [mut data, meta] = daemon.meet();
        // A write of volume 0, and its body without the bytes.
        let mut claim = bytes(&features);
        claim.extend([0x86, 0x20, 0xec, 0x20, 0, 0, 0, 0]);
        claim.extend(length.to_be_bytes());
        claim.extend([0; 4 + 24]);
        data.write_all(&claim).unwrap();
        assert!(is_closed(data) && is_closed(meta), "a write of {length} bytes");
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB are held for what was only claimed");
    daemon.meet();
}

#[test]
fn packets_out_of_place_end_their_connection() {
    let daemon = Daemon::start();
    for packet in [
        Packet::PingAck,
        Packet::SyncUuid(7),
        Packet::Bitmap(vec![0; 512]),
        Packet::StateChgReply(1),
        Packet::AuthResponse(vec![1; 20]),
        Packet::InitialData,
    ] {
        let [mut data, meta] = daemon.meet();
        data.write_all(&bytes(&packet)).unwrap();
        assert!(is_closed(data) && is_closed(meta), "{packet:?} instead of features");
    }
    daemon.meet();
}
