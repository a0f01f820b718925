//! Client and server over a real socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use control::{CLIENTS_MAX, Client, ControlError, Peer, Server};
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Request {
    Echo(String),
    Big(usize),
    Stop,
}

fn with_server(test: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let server = Server::bind(&path).unwrap();
    let stopper = server.stopper();
    let answer = {
        let stopper = stopper.clone();
        move |peer: Peer, request: Request| {
            assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
            match request {
                Request::Echo(text) => text,
                Request::Big(bytes) => "x".repeat(bytes),
                Request::Stop => {
                    stopper.stop();
                    "stopping".into()
                }
            }
        }
    };
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(answer));
        // Stops the server also if the test panics: the scope would wait for ever otherwise.
        struct Guard(control::Stopper);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        let guard = Guard(stopper);
        test(&path);
        drop(guard);
        serving.join().unwrap().unwrap();
    });
}

fn call(client: &mut Client, request: &Request) -> Result<String, ControlError> {
    client.call(request)
}

#[test]
fn answers_each_client_in_turn() {
    with_server(|path| {
        let mut clients: Vec<_> = (0..3).map(|_| Client::connect(path, TIMEOUT).unwrap()).collect();
        for round in 0..2 {
            for (number, client) in clients.iter_mut().enumerate() {
                let text = format!("{round}.{number} ü");
                assert_eq!(call(client, &Request::Echo(text.clone())).unwrap(), text);
            }
        }
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn the_answer_to_stop_goes_out_before_the_end() {
    with_server(|path| {
        let mut idle = Client::connect(path, TIMEOUT).unwrap();
        let mut client = Client::connect(path, TIMEOUT).unwrap();
        assert_eq!(call(&mut client, &Request::Stop).unwrap(), "stopping");
        let error = call(&mut idle, &Request::Echo("late".into())).unwrap_err();
        assert!(matches!(error, ControlError::Closed { .. }), "{error}");
    });
}

#[test]
fn nobody_listening_is_told_from_everything_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let error = Client::connect(&path, TIMEOUT).unwrap_err();
    assert!(matches!(error, ControlError::NotRunning { .. }), "{error}");
    drop(Server::bind(&path).unwrap());
    let error = Client::connect(&path, TIMEOUT).unwrap_err();
    assert_eq!(error.to_string(), format!("no daemon answers on {}: it is not running", path.display()));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(Server::bind(&path).unwrap());
    let live = Server::bind(&path).unwrap();
    assert!(matches!(Server::bind(&path), Err(ControlError::AlreadyServed { .. })));
    drop(live);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path), Err(ControlError::System { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn an_inherited_listener_serves_on() {
    use std::os::fd::AsFd;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let first = Server::bind(&path).unwrap();
    let handed_over = first.as_fd().try_clone_to_owned().unwrap();
    drop(first);
    let second = Server::inherit(handed_over).unwrap();
    let stopper = second.stopper();
    thread::scope(|scope| {
        scope.spawn(|| second.serve(|_, text: String| text));
        let mut client = Client::connect(&path, TIMEOUT).unwrap();
        let answer: String = client.call(&"hello").unwrap();
        stopper.stop();
        assert_eq!(answer, "hello");
    });
    let (one, _other) = UnixStream::pair().unwrap();
    assert!(matches!(Server::inherit(one.into()), Err(ControlError::NotAListener)));
}

#[test]
fn another_version_is_named_on_both_sides() {
    with_server(|path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"LKSTPctl\x00\x07\x00\x09").unwrap();
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).unwrap();
        assert_eq!(greeting, b"LKSTPctl\x00\x01\x00\x01\x00\x00\x00\x01");
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        for greeting in [&b"LKSTPctl\x00\x02\x00\x03\x00\x00\x00\x01"[..], b"SSH-2.0-OpenSSH_"] {
            let listener = &listener;
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(greeting).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let error = Client::connect(&path, TIMEOUT).unwrap_err().to_string();
            let expected = if greeting.starts_with(b"SSH") {
                "peer does not speak the control protocol (it greets with [53, 53, 48, 2d, 32, 2e, 30, 2d])"
            } else {
                "peer speaks control protocol versions 2 to 3, this program version 1: update the older of the two"
            };
            assert_eq!(error, expected);
        }
    });
}

#[test]
fn a_request_that_is_not_understood_does_not_end_the_connection() {
    with_server(|path| {
        let mut client = Client::connect(path, TIMEOUT).unwrap();
        let error = client.call::<_, String>(&"Dance").unwrap_err();
        assert!(matches!(error, ControlError::NotUnderstood(_)), "{error}");
        assert_eq!(call(&mut client, &Request::Echo("still here".into())).unwrap(), "still here");
    });
}

#[test]
fn frames_are_bounded_both_ways() {
    with_server(|path| {
        let mut client = Client::connect(path, TIMEOUT).unwrap();
        let error = call(&mut client, &Request::Echo("x".repeat(17 << 20))).unwrap_err();
        assert!(matches!(error, ControlError::TooLarge { what: "request", .. }), "{error}");
        assert_eq!(call(&mut client, &Request::Big(15 << 20)).unwrap().len(), 15 << 20);

        let mut hostile = UnixStream::connect(path).unwrap();
        hostile.write_all(b"LKSTPctl\x00\x01\x00\x01\xff\xff\xff\xff{}").unwrap();
        let mut answer = Vec::new();
        let _ = hostile.read_to_end(&mut answer);
        assert_eq!(answer.len(), 16, "greeting, then the end of the connection");
        assert_eq!(call(&mut client, &Request::Echo("alive".into())).unwrap(), "alive");
    });
}

#[test]
fn one_client_too_many_is_told_so() {
    with_server(|path| {
        let clients: Vec<_> = (0..CLIENTS_MAX).map(|_| Client::connect(path, TIMEOUT).unwrap()).collect();
        let error = Client::connect(path, TIMEOUT).unwrap_err();
        assert!(matches!(error, ControlError::TooManyClients), "{error}");
        drop(clients);
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = Client::connect(&path, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ControlError::Timeout { awaited: "greeting", .. }), "{error}");
}

#[test]
fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("skip another_user_is_refused: needs root to become somebody else");
        return;
    }
    with_server(|path| {
        // Mode 0600 is the first guard; the credentials are the second and must hold alone.
        for (file, mode) in [(path, 0o666), (path.parent().unwrap(), 0o755)] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let nobody = thread::scope(|scope| {
            let refused = scope.spawn(|| {
                // SAFETY: the bare system call changes this thread only, and the thread ends below.
                assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
                Client::connect(path, TIMEOUT).map(|_| ())
            });
            refused.join().unwrap()
        });
        assert!(matches!(nobody, Err(ControlError::NotPermitted)), "{nobody:?}");
    });
}
