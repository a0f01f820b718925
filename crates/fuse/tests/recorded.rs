//! Requests of a real kernel (Linux 6.18, FUSE 7.45), and bytes that no kernel sends.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use fuse::abi::InitFlags;
use fuse::{Malformed, Message, Operation, Received, Session, Transport, Wishes};
use proptest::prelude::*;

/// Pairs of lines: the bytes, and how they are understood.
const RECORDED: &str = include_str!("recorded/linux-6.18.txt");

fn recorded() -> impl Iterator<Item = (Vec<u8>, &'static str)> {
    let mut lines = RECORDED.lines();
    std::iter::from_fn(move || {
        let hex = lines.next()?;
        let bytes =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        Some((bytes, lines.next()?))
    })
}

/// Hands out bytes and keeps answers; always readable.
struct Tape {
    readable: OwnedFd,
    requests: Mutex<VecDeque<Vec<u8>>>,
    answers: Mutex<Vec<Vec<u8>>>,
}

impl Tape {
    fn new(requests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let readable = std::fs::File::open("/dev/null").unwrap().into();
        Self { readable, requests: Mutex::new(requests.into_iter().collect()), answers: Mutex::default() }
    }
}

impl AsFd for Tape {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Transport for Tape {
    fn receive(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let request = self.requests.lock().unwrap().pop_front().ok_or(io::ErrorKind::WouldBlock);
        let request = request.map_err(|_| io::Error::from_raw_os_error(11))?;
        let mut rest = &request[..];
        for part in into {
            let (now, later) = rest.split_at(rest.len().min(part.len()));
            part[..now.len()].copy_from_slice(now);
            rest = later;
        }
        assert!(rest.is_empty(), "the session offers too little room");
        Ok(request.len())
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let answer: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        assert_eq!(answer[..4], (answer.len() as u32).to_ne_bytes(), "an answer says its length");
        self.answers.lock().unwrap().push(answer);
        Ok(())
    }
}

const WISHES: Wishes = Wishes {
    flags: InitFlags::ASYNC_DIO.or(InitFlags::HAS_RESEND),
    max_write_bytes: 1 << 20,
    max_readahead_bytes: 1 << 17,
    max_background: 64,
    congestion_threshold: 48,
};

fn init() -> Vec<u8> {
    recorded().next().unwrap().0
}

fn session(requests: impl IntoIterator<Item = Vec<u8>>) -> Session<Tape> {
    Session::start(Tape::new([init()].into_iter().chain(requests)), &WISHES).unwrap()
}

fn next(session: &mut Session<Tape>) -> Message {
    let Received::Message(message) = session.receive().unwrap() else { panic!("no request") };
    message
}

#[test]
fn the_kernels_requests_are_understood() {
    let mut session = session(recorded().map(|(bytes, _)| bytes));
    let mut seen = 0;
    for (_, understood) in recorded() {
        let mut message = next(&mut session);
        let request = message.request().unwrap();
        assert_eq!(format!("{} {:?}", request.node, request.operation), understood);
        seen += 1;
    }
    assert!(seen >= 25);
    assert!(matches!(session.receive().unwrap(), Received::Nothing));
}

#[test]
fn init_takes_what_is_offered_and_wished() {
    let session = session([]);
    let agreed = session.agreed();
    assert_eq!((agreed.minor, agreed.max_write_bytes), (45, 1 << 20));
    assert!(agreed.flags.contains(WISHES.flags.or(InitFlags::MAX_PAGES)));
    assert!(!agreed.flags.contains(InitFlags::WRITEBACK_CACHE));
    let answer = &session.transport().answers.lock().unwrap()[0];
    assert_eq!(answer.len(), 16 + 64);
    assert_eq!(answer[16..24], [7_u32.to_ne_bytes(), 45_u32.to_ne_bytes()].concat());
    // max_background, congestion_threshold, max_write, time_gran, max_pages
    assert_eq!(answer[32..36], [64_u16.to_ne_bytes(), 48_u16.to_ne_bytes()].concat());
    assert_eq!(answer[36..40], (1_u32 << 20).to_ne_bytes());
    assert_eq!(answer[44..46], 256_u16.to_ne_bytes());
    // flags2: HAS_RESEND
    assert_eq!(answer[48..52], (1_u32 << (39 - 32)).to_ne_bytes());
}

#[test]
fn an_old_kernel_is_refused() {
    let mut old = init();
    old[44..48].copy_from_slice(&30_u32.to_ne_bytes());
    let refused = Session::start(Tape::new([old]), &WISHES).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn answers_and_notifications_have_the_abis_bytes() {
    let session = session([]);
    session.transport().answers.lock().unwrap().clear();
    let unique = fuse::Unique(0x1122_3344_5566_7788);
    session.reply(unique, b"data").unwrap();
    session.reply_error(unique, rustix::io::Errno::NOSYS).unwrap();
    session.resend().unwrap();
    session.invalidate_entry(1, "disk".as_ref()).unwrap();
    let head = |len: u32, error: i32, unique: u64| {
        [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat()
    };
    let entry = [&1_u64.to_ne_bytes()[..], &4_u32.to_ne_bytes(), &[0; 4], b"disk\0"].concat();
    let expected = [
        [head(20, 0, unique.0), b"data".to_vec()].concat(),
        head(16, -38, unique.0),
        head(16, 7, 0),
        [head(16 + 21, 3, 0), entry].concat(),
    ];
    assert_eq!(*session.transport().answers.lock().unwrap(), expected);
}

/// A WRITE of any size arrives whole and page-aligned, whichever buffers it passed.
#[test]
fn a_writes_payload_is_aligned() {
    let write = |size: usize| {
        let mut bytes = recorded().find(|(bytes, _)| bytes[4] == 16).unwrap().0;
        bytes.truncate(80);
        bytes[56..60].copy_from_slice(&(size as u32).to_ne_bytes());
        bytes[..4].copy_from_slice(&(80 + size as u32).to_ne_bytes());
        bytes.extend((0..size).map(|at| (at % 251) as u8));
        bytes
    };
    let sizes = [0, 1, 512, 4096, 32 << 10, (32 << 10) + 1, 1 << 20];
    let mut session = session(sizes.map(write));
    for size in sizes {
        let mut message = next(&mut session);
        assert!(
            matches!(message.request().unwrap().operation, Operation::Write(write) if write.size as usize == size)
        );
        let payload = message.into_payload();
        assert_eq!((payload.len(), payload.as_ptr() as usize % 4096), (size, 0));
        assert!(payload.iter().enumerate().all(|(at, &b)| b == (at % 251) as u8));
    }
}

proptest! {
    /// Cut or bent anywhere, a request is understood or refused.
    #[test]
    fn bent_requests_do_not_panic(which in 0_usize..32, cut in 0_usize..600, at in 0_usize..600, bits in 1_u8..) {
        let all: Vec<_> = recorded().map(|(bytes, _)| bytes).collect();
        let mut bytes = all[which % all.len()].clone();
        let end = cut % (bytes.len() + 1);
        let mut cut_off = session([bytes[..end].to_vec()]);
        if end < bytes.len() {
            prop_assert!(next(&mut cut_off).request().is_err());
        }
        let at = at % bytes.len();
        bytes[at] ^= bits;
        let _ = next(&mut session([bytes])).request();
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = recorded().find(|(bytes, _)| bytes[4] == 1).unwrap().0;
    let mut lookup = session([bytes[..bytes.len() - 1].to_vec(), vec![0; 10]]);
    let have = bytes.len() - 1;
    let wrong = Malformed::Length { opcode: 1, len: bytes.len() as u32, have };
    assert_eq!(next(&mut lookup).request().unwrap_err(), wrong);
    let short = Malformed::Short { opcode: 0, have: 10, need: 40 };
    assert_eq!(next(&mut lookup).request().unwrap_err(), short);
}
