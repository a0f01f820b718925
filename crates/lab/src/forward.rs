//! `lockstep lab forward`: a port of this machine's loopback that leads to a port of a server, so that a person's
//! browser reaches what the lab keeps to itself.
//!
//! It is the only way in, and opt-in. Each forward is a process of its own, found by a file below /run that it makes
//! and removes; the [`relay`] in it carries the connections.

mod relay;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Doing, Error, Result};
use crate::place::{Lab, LabLock, read_json, write_json};
use crate::process::Process;
use crate::state::Records;
use crate::supervisor::log_file;

/// Time for a forward that was told to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What to forward, as typed.
#[derive(Args, Debug)]
pub struct Order {
    /// Port of this machine, on 127.0.0.1 and ::1 only
    #[arg(required_unless_present = "stop", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// A server and its port, as web0:80
    #[arg(required_unless_present = "stop", value_name = "NAME:PORT")]
    target: Option<String>,
    /// Go on without this terminal, until --stop or the lab's end
    #[arg(long)]
    background: bool,
    /// End the forward of this port
    #[arg(long, value_name = "PORT", conflicts_with_all = ["port", "target", "background"])]
    stop: Option<u16>,
    /// Be the process that --background leaves
    #[arg(long, hide = true)]
    detached: bool,
}

/// A forward that runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Forward {
    /// Port of this machine's loopback.
    pub port: u16,
    /// Name of the server that it leads to, there or not.
    pub server: String,
    /// Port of that server.
    pub server_port: u16,
    /// The process that carries the connections.
    pub process: Process,
}

/// Does what was typed; a forward in the foreground runs until a signal ends it.
///
/// # Errors
/// No such server, a port that is taken, or nothing to stop.
pub fn run(lab: &Lab, order: &Order) -> Result<()> {
    let (port, target) = match (order.stop, order.port, &order.target) {
        (Some(port), ..) => return stop(lab, port),
        (None, Some(port), Some(target)) => (port, target),
        _ => return Err(Error::refused("forward: say PORT and NAME:PORT")),
    };
    let (server, server_port) = parsed(target)?;
    let server = Records::load(lab)?.server("forward", server)?.name.clone();
    if order.background {
        return detach(lab, port, &format!("{server}:{server_port}"));
    }
    serve(lab, port, server, server_port, order.detached)
}

fn parsed(target: &str) -> Result<(&str, u16)> {
    let port = |text: &str| text.parse().ok().filter(|&port| port != 0);
    target
        .rsplit_once(':')
        .and_then(|(server, text)| Some((server, port(text)?)))
        .filter(|(server, _)| !server.is_empty())
        .ok_or_else(|| Error::refused(format!("forward: {target:?} is no NAME:PORT; write it as web0:80")))
}

fn directory(lab: &Lab) -> PathBuf {
    lab.run_dir().join("forwards")
}

fn record(lab: &Lab, port: u16) -> PathBuf {
    directory(lab).join(format!("{port}.json"))
}

/// The lab's forwards that run, by port.
pub fn all(lab: &Lab) -> Vec<Forward> {
    let entries = fs::read_dir(directory(lab)).into_iter().flatten().flatten();
    let mut all: Vec<Forward> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        // One that ends at this very moment is none.
        .filter_map(|path| read_json::<Forward>(&path).ok().flatten())
        .filter(|forward| forward.process.is_alive())
        .collect();
    all.sort_by_key(|forward| forward.port);
    all
}

/// Ends the forward of a port.
fn stop(lab: &Lab, port: u16) -> Result<()> {
    let running = all(lab);
    let Some(forward) = running.iter().find(|forward| forward.port == port) else {
        let ports: Vec<String> = running.iter().map(|forward| forward.port.to_string()).collect();
        let known = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        return Err(Error::refused(format!(
            "forward: port {port} is not forwarded; ports of this lab: {known}"
        )));
    };
    end(forward)
}

fn end(forward: &Forward) -> Result<()> {
    forward.process.signal(Signal::TERM);
    if forward.process.wait_gone(END_PATIENCE) {
        return Ok(());
    }
    Err(Error::refused(format!("forward: process {} of port {} does not end", forward.process, forward.port)))
}

/// Ends every forward of a lab that goes down.
///
/// # Errors
/// One that does not end.
pub fn end_all(lab: &Lab, _lock: &LabLock) -> Result<()> {
    all(lab).iter().map(end).fold(Ok(()), Result::and)
}

/// Starts the process that goes on alone, and waits until it listens.
fn detach(lab: &Lab, port: u16, target: &str) -> Result<()> {
    fs::create_dir_all(directory(lab)).doing(|| format!("create {}", directory(lab).display()))?;
    let log = directory(lab).join(format!("{port}.log"));
    // What an earlier one said has been read, or will not be.
    let _ = fs::remove_file(&log);
    let mut child = Command::new("/proc/self/exe")
        .arg0("lockstep")
        .args(["lab", "forward", "--lab", lab.name(), "--detached", &port.to_string(), target])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file(&log)?)
        .spawn()
        .doing(|| "start the forward".into())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).doing(|| "listen to the forward".into())?;
    }
    if !line.is_empty() {
        print!("{line}");
        return Ok(());
    }
    let _ = child.wait();
    let said = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    Err(Error::refused(said.trim().trim_start_matches("lockstep lab: ").to_owned()))
}

/// Listens and carries until a signal ends it.
fn serve(lab: &Lab, port: u16, server: String, server_port: u16, detached: bool) -> Result<()> {
    if detached {
        // Whoever started this must be able to leave with its terminal.
        let _ = rustix::process::setsid();
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).doing(|| "wait for signals".into())?;
    let process = Process::of(std::process::id() as i32).doing(|| "find myself".into())?;
    let path = record(lab, port);
    let listeners = {
        // So that the lab does not go down in between, and leave this behind.
        let _lock = lab.lock()?;
        let name = &server;
        Records::load(lab)?.server("forward", name)?;
        let listeners = listen(port)?;
        write_json(&path, &Forward { port, server: server.clone(), server_port, process })?;
        listeners
    };
    let places: Vec<String> =
        listeners.iter().filter_map(|l| Some(l.local_addr().ok()?.to_string())).collect();
    announce(&format!("{} lead to {server}:{server_port}", places.join(" and ")), detached);
    relay::start(lab, listeners, server, server_port)?;
    signals.forever().next();
    // Gone with the lab's directory: the same result.
    let _ = fs::remove_file(&path);
    if detached {
        let _ = fs::remove_file(path.with_extension("log"));
    }
    Ok(())
}

/// Says that it listens; to a starter that goes on alone, once.
fn announce(text: &str, detached: bool) {
    let more = if detached { "" } else { "; Ctrl-C ends it" };
    let _ = writeln!(io::stdout(), "{text}{more}");
    if let (true, Ok(null)) = (detached, File::options().write(true).open("/dev/null")) {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Listens on both loopback addresses; on one only where this machine has no IPv6.
fn listen(port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match TcpListener::bind((address, port)) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(taken(address, port)),
            Err(_) if address.is_ipv6() => {}
            Err(error) => return Err(error).doing(|| format!("forward: listen on {address} port {port}")),
        }
    }
    Ok(listeners)
}

fn taken(address: IpAddr, port: u16) -> Error {
    let ours = Lab::all().into_iter().find_map(|lab| {
        let forward = all(&lab).into_iter().find(|forward| forward.port == port)?;
        Some(format!(
            "; it leads to {}:{}, `lockstep lab --lab {} forward --stop {port}` ends that",
            forward.server,
            forward.server_port,
            lab.name()
        ))
    });
    let why = ours.unwrap_or_else(|| "; another program has it, choose another port".to_owned());
    Error::refused(format!("forward: port {port} of {address} is in use{why}"))
}

#[cfg(test)]
mod tests {
    use super::parsed;

    #[test]
    fn targets() {
        assert_eq!(parsed("web0:80").expect("a target"), ("web0", 80));
        for wrong in ["web0", "web0:", ":80", "web0:0", "web0:65536", "web0:http", ""] {
            let said = parsed(wrong).expect_err(wrong).to_string();
            assert!(said.contains("write it as web0:80"), "{wrong}: {said}");
        }
    }
}
