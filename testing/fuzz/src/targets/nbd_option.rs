//! An NBD client: its flags, its options, and the commands after them.

use std::cell::RefCell;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use block::Buffer;
use front::nbd::{Export, NbdServer};
use front::{Access, Front, Op};

/// Size of the export: small, so that ranges beyond it are found.
const EXPORT_BYTES: u64 = 1 << 20;

thread_local! {
    /// One server for all inputs: a client that breaks it for the next one is found too.
    static SERVER: RefCell<Option<(NbdServer, SocketAddr)>> = const { RefCell::new(None) };
}

/// Sends the input as one client and hangs up; every request that it makes is answered.
pub fn run(input: &[u8]) {
    requests(input);
}

/// The number of requests that the input made.
fn requests(input: &[u8]) -> usize {
    SERVER.with_borrow_mut(|server| {
        let (server, address) = server.get_or_insert_with(start);
        let mut client = UnixStream::connect_addr(address).expect("the server listens");
        // The greeting first, as every client waits for it.
        answer_all(server);
        // A server that hangs up in the middle has read enough.
        let _ = client.write_all(input);
        let _ = client.shutdown(std::net::Shutdown::Write);
        answer_all(server)
    })
}

fn start() -> (NbdServer, SocketAddr) {
    let name = format!("lockstep-fuzz-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("a name nobody else has");
    let export = Export { name: "disk".to_owned(), size_bytes: EXPORT_BYTES, access: Access::ReadWrite };
    (NbdServer::new(listener.into(), export).expect("a server"), address)
}

/// Polls until nothing new comes; what is asked must be inside the export, as the port promises.
fn answer_all(server: &mut NbdServer) -> usize {
    let mut requests = Vec::new();
    let mut answered = 0;
    loop {
        server.poll(&mut requests).expect("a client's fault is no fault of the front");
        if requests.is_empty() {
            return answered;
        }
        answered += requests.len();
        for request in requests.drain(..) {
            let range = match request.op {
                Op::Read(range) | Op::Discard(range) => Some(range),
                Op::Write { range, .. } | Op::WriteZeroes { range, .. } => Some(range),
                Op::Flush => None,
            };
            if let Some(range) = range {
                assert!(range.count > 0 && range.end() * 512 <= EXPORT_BYTES, "{:?} is outside", request.op);
            }
            let data = match request.op {
                Op::Read(range) => Some(Buffer::zeroed(range.bytes() as usize)),
                _ => None,
            };
            server.complete(request.id, Ok(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::requests;

    #[test]
    fn the_corpus_gets_through_the_handshake() {
        let input = include_bytes!("../../corpus/nbd-option/go-read-write");
        assert_eq!(requests(input), 3, "a read, a write and a flush");
    }
}
