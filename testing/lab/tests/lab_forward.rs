//! The one way into a lab: `lockstep lab forward`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use testing_lab::{TestLab, can_run};

/// For everything that takes as long as this machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// As many connections as a forward carries at once.
const CONNECTIONS_MAX: usize = 64;

/// Answers what it is told, on the server's public address only.
const ECHO: &str = "(setsid socat TCP4-LISTEN:80,bind=203.0.113.2,reuseaddr,fork EXEC:cat >/dev/null 2>&1 &)";

fn booted(test: &str) -> TestLab {
    let lab = TestLab::new(test);
    lab.nova(&["boot", "--image", "This system", "--flavor", "2", "--init", "tiny", "web"]);
    lab
}

fn offer(lab: &TestLab) {
    lab.inside("web", ECHO);
    lab.within(PATIENCE, "web", "ss -Hltn 'sport = 80' | grep -q .");
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    listener.local_addr().expect("it is bound").port()
}

fn connected(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends all, ends that way, and gives all that came back.
fn echoed(mut stream: TcpStream, text: &[u8]) -> Vec<u8> {
    let mut reader = stream.try_clone().expect("a socket");
    std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        stream.write_all(text).expect("it takes all");
        stream.shutdown(Shutdown::Write).expect("it is open");
        read.join().expect("no panic").expect("it answers")
    })
}

/// Whether a connection is accepted and then reset.
fn is_refused(port: u16) -> bool {
    let mut byte = [0];
    match connected(port).read(&mut byte) {
        Ok(0) => panic!("an answer with nothing in it"),
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Ports of this lab's forwards, as `ps` lists them.
fn listed(lab: &TestLab) -> Vec<String> {
    let table = lab.lab(&["ps"]);
    let cells = table.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() > 3 && cells[1] == lab.name() && cells[2] == "forward")
        .map(|cells| cells[3].to_owned())
        .collect()
}

#[test]
fn a_port_of_the_loopback_leads_into_a_server() {
    if !can_run("a_port_of_the_loopback_leads_into_a_server") {
        return;
    }
    let lab = booted("forward");
    offer(&lab);
    let port = free_port();
    let text = port.to_string();
    let said = lab.lab(&["forward", &text, "web:80", "--background"]);
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("lead to web:80"), "{said}");

    // More than any buffer on the way holds, and an end that does not end the answer.
    let big: Vec<u8> = (0_u32..1 << 20).flat_map(u32::to_le_bytes).collect();
    assert!(echoed(connected(port), &big) == big, "what came back is not what was sent");
    if let Ok(stream) = TcpStream::connect((Ipv6Addr::LOCALHOST, port)) {
        assert_eq!(echoed(stream, b"six"), b"six");
    }
    let listens = std::process::Command::new("ss").args(["-Hltn", &format!("sport = {port}")]).output();
    let listens = String::from_utf8(listens.expect("ss starts").stdout).expect("text");
    let local = |line: &str| line.contains(" 127.0.0.1:") || line.contains(" [::1]:");
    assert!(!listens.is_empty() && listens.lines().all(local), "{listens}");

    assert_eq!(listed(&lab), [text.as_str()]);
    lab.lab_refuses(
        &["forward", &text, "web:80"],
        &format!("it leads to web:80, `lockstep lab --lab {} forward --stop {port}` ends that", lab.name()),
    );
    lab.lab_refuses(&["forward", &text, "web:80", "--background"], "in use");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let taken = taken.local_addr().expect("it is bound").port().to_string();
    lab.lab_refuses(&["forward", "1", "nobody:80"], "no server has the id or name \"nobody\"");
    lab.lab_refuses(&["forward", "1", "web"], "is no NAME:PORT; write it as web0:80");
    lab.lab_refuses(&["forward", "--stop", &taken], &format!("ports of this lab: {port}"));

    lab.fault(&["power-cut", "web"]);
    assert!(is_refused(port), "it is off");
    lab.nova(&["start", "web"]);
    assert!(is_refused(port), "nobody offers anything there");
    offer(&lab);
    assert_eq!(echoed(connected(port), b"again"), b"again");

    lab.lab(&["forward", "--stop", &text]);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "nobody listens any more");
    assert!(listed(&lab).is_empty());
    // Another goes down with the lab: the lab's end looks for what is left.
    lab.lab(&["forward", &text, "web:80", "--background"]);
}

#[test]
fn a_port_that_others_have_is_refused() {
    if !can_run("a_port_that_others_have_is_refused") {
        return;
    }
    let lab = booted("taken");
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let port = other.local_addr().expect("it is bound").port().to_string();
    for more in [&[][..], &["--background"]] {
        let words = [&["forward", port.as_str(), "web:80"], more].concat();
        lab.lab_refuses(&words, "is in use; another program has it, choose another port");
    }
    assert!(listed(&lab).is_empty());
}

/// Begins a forward in the foreground and waits until it listens.
fn foreground(lab: &TestLab, port: u16) -> Child {
    let mut command = lab.command("lab", &["forward", &port.to_string(), "web:80"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("lab starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("it says that it listens");
    assert!(line.ends_with("; Ctrl-C ends it\n"), "{line}");
    child
}

#[test]
fn ctrl_c_ends_one_in_the_foreground() {
    if !can_run("ctrl_c_ends_one_in_the_foreground") {
        return;
    }
    let lab = booted("ctrlc");
    offer(&lab);
    let port = free_port();
    let mut child = foreground(&lab, port);
    assert_eq!(echoed(connected(port), b"x"), b"x");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert!(child.wait().expect("it is ours").success());
    assert!(listed(&lab).is_empty());

    // One in the foreground ends with the lab, too.
    let mut child = foreground(&lab, port);
    lab.lab(&["down"]);
    assert!(child.wait().expect("it is ours").success());
}

#[test]
fn connections_are_limited() {
    if !can_run("connections_are_limited") {
        return;
    }
    let lab = booted("limit");
    offer(&lab);
    let port = free_port();
    lab.lab(&["forward", &port.to_string(), "web:80", "--background"]);
    let answers = |stream: &mut TcpStream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte == *b"x")
    };
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| connected(port)).collect();
    for stream in &mut streams {
        stream.write_all(b"x").expect("it is open");
        assert!(answers(stream).expect("it is carried"));
    }
    let mut one_more = connected(port);
    one_more.write_all(b"x").expect("it is open");
    one_more.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(answers(&mut one_more).is_err(), "it has to wait");
    let begin = Instant::now();
    drop(streams.pop());
    one_more.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(answers(&mut one_more).expect("there is a place now"), "after {:?}", begin.elapsed());
}
