//! Bad cables: loss, delay, jitter and a limited rate, in user space, since not every kernel has netem.
//!
//! Where a cable is bad, the lab's end of it is taken off its bridge, and one process a lab ([`relay`]) carries frames
//! between it and another veth that stands on the bridge in its place:
//!
//! ```text
//! server eth0 == port v…  <relay>  w… == x… | bridge
//! ```
//!
//! Frames pass as they are, with checksums that are still to be filled in. Offloaded segments are cut into frames before
//! they reach the relay, so that a loss is one frame. A VLAN tag is not carried. This file is the tools' side.

mod lane;
pub mod quality;
pub mod relay;
mod socket;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use control::{Client, ControlError};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::bandwidth;
use crate::error::{Doing, Error, Result};
use crate::fabric;
use crate::life::Life;
use crate::netns;
use crate::place::{Lab, read_json, write_json};
use crate::process::Process;
use crate::state::Records;
use crate::supervisor::log_file;
use quality::{Quality, Wire};

/// Name of the process's control socket, in the lab's runtime directory.
const SOCKET: &str = "wires.sock";

/// Time for the process to take a connection, and for a killed one to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the kernel segments by itself: nothing, so that every frame is one.
const GSO_SEGMENTS_ON_A_WIRE: u32 = 1;

/// The kernel's own choice.
const GSO_SEGMENTS: u32 = 65535;

/// One wire, as the process is told of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cable {
    /// The interface on the server's side.
    pub port: String,
    /// The relay's interface on the network's side.
    pub end: String,
    /// Decides which frames are lost.
    pub seed: u64,
    /// What the server receives.
    pub inbound: Quality,
    /// What it sends.
    pub outbound: Quality,
}

/// The process's answer; the text says why not.
pub type Reply = std::result::Result<(), String>;

fn process_file(lab: &Lab) -> PathBuf {
    lab.run_dir().join("wires.json")
}

/// The process, if it runs.
pub fn process(lab: &Lab) -> Option<Process> {
    read_json::<Process>(&process_file(lab)).ok().flatten().filter(|process| process.is_alive())
}

/// Makes the running servers' cables as bad as the records say, and no worse. The caller has the lab's lock.
///
/// # Errors
/// What `ip` or the process says.
pub fn apply(lab: &Lab, records: &Records) -> Result<()> {
    if records.faults.wires.is_empty() && !process_file(lab).exists() {
        return Ok(());
    }
    let there = fabric::names(lab)?;
    let here = |wire: &&Wire| there.contains(&fabric::port(wire.server, wire.index));
    let wires: Vec<&Wire> = records.faults.wires.iter().filter(here).collect();
    if !wires.is_empty() {
        start(lab)?;
    }
    let mut script = String::new();
    for server in &records.servers {
        for (index, nic) in server.nics.iter().enumerate() {
            let (port, end) = (fabric::port(server.id, index), fabric::wire_end(server.id, index));
            let wanted = wires.iter().any(|wire| (wire.server, wire.index) == (server.id, index));
            if there.contains(&port) && wanted != there.contains(&end) {
                let bridge = fabric::bridge(nic.network);
                if wanted {
                    script += &rules(&port, &end, &bridge);
                } else {
                    let _ = writeln!(script, "link del {end}\nlink set {port} master {bridge}");
                }
                offload(lab, server.id, index, !wanted);
            }
        }
    }
    fabric::batch("ip", &lab.fabric(), &script)?;
    if wires.is_empty() {
        stop(lab);
        return Ok(());
    }
    order(lab, &wires.into_iter().filter_map(|wire| cable(records, wire)).collect::<Vec<_>>())
}

/// Lines for `ip -batch`: a wire takes the place of its port on the bridge.
fn rules(port: &str, end: &str, bridge: &str) -> String {
    let on_bridge = format!("x{}", &end[1..]);
    // The longest frames that a server may have been told to send fit; the bridge drops what its other ports do not take.
    format!(
        "link add {end} mtu 65535 type veth peer name {on_bridge} mtu 65535\n\
         link set {on_bridge} gso_max_segs {GSO_SEGMENTS_ON_A_WIRE}\n\
         link set {port} nomaster\nlink set {on_bridge} master {bridge}\n\
         link set {end} up\nlink set {on_bridge} up\n"
    )
}

/// Whether the server's interface may leave the cutting of segments to whoever comes next.
fn offload(lab: &Lab, server: uuid::Uuid, index: usize, may: bool) {
    let segments = if may { GSO_SEGMENTS } else { GSO_SEGMENTS_ON_A_WIRE }.to_string();
    let Ok(Some(pidfd)) = Life::load(lab, server).map(|life| life.and_then(|life| life.init.pidfd())) else {
        return;
    };
    // An interface that was renamed keeps its offload: then what is lost is a whole segment, and all else works.
    let _ = netns::inside(pidfd.as_fd(), || {
        Command::new("ip")
            .args(["link", "set", &format!("eth{index}"), "gso_max_segs", &segments])
            .stderr(Stdio::null())
            .status()
    });
}

/// The seed of a cable is that of its place in the lab, the same in every life.
fn cable(records: &Records, wire: &Wire) -> Option<Cable> {
    let server = records.server_by_id(wire.server)?;
    let seed =
        server.name.bytes().fold(wire.index as u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
    let mut outbound = wire.outbound;
    // What the relay takes never comes to where the flavor's limit is kept.
    if let Some(limit) = bandwidth::limit(server, server.nics.get(wire.index)?).map(f64::from)
        && (outbound.rate_mbit == 0.0 || outbound.rate_mbit > limit)
    {
        outbound.rate_mbit = limit;
    }
    let (port, end) = (fabric::port(wire.server, wire.index), fabric::wire_end(wire.server, wire.index));
    Some(Cable { port, end, seed, inbound: wire.inbound, outbound })
}

fn order(lab: &Lab, cables: &[Cable]) -> Result<()> {
    let said = |error: ControlError| Error::refused(format!("wires of lab {}: {error}", lab.name()));
    let mut client = Client::connect(&lab.run_dir().join(SOCKET), PATIENCE).map_err(said)?;
    let reply: Reply = client.call(&cables).map_err(said)?;
    reply.map_err(|why| Error::refused(format!("wires of lab {}: {why}", lab.name())))
}

/// Starts the process if it does not run.
fn start(lab: &Lab) -> Result<()> {
    if process(lab).is_some() {
        return Ok(());
    }
    let mut child = Command::new("/proc/self/exe")
        .arg0("lockstep")
        .args(["lab", "wires", "--lab", lab.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file(&lab.run_dir().join("wires.log"))?)
        .spawn()
        .doing(|| "start the lab's wires".into())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).doing(|| "listen to the lab's wires".into())?;
    }
    if line.trim() != "up" {
        let why = if line.trim().is_empty() { "the process ended; see wires.log" } else { line.trim() };
        return Err(Error::refused(format!("the wires of lab {} do not start: {why}", lab.name())));
    }
    let process = Process::of(child.id() as i32).doing(|| "find the lab's wires".into())?;
    write_json(&process_file(lab), &process)
}

/// Starts the process again if it should run and does not; gives whether it had to. The caller has the lab's lock.
///
/// # Errors
/// As [`apply`].
pub fn revive(lab: &Lab, records: &Records) -> Result<bool> {
    let died = process_file(lab).exists() && process(lab).is_none();
    if died {
        apply(lab, records)?;
    }
    Ok(died)
}

/// Ends the process, if it runs.
pub fn stop(lab: &Lab) {
    if let Some(process) = process(lab) {
        process.signal(Signal::KILL);
        process.wait_gone(PATIENCE);
    }
    for path in [process_file(lab), lab.run_dir().join(SOCKET)] {
        // Not there: what was wanted.
        let _ = std::fs::remove_file(path);
    }
}
