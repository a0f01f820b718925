//! The lab's networks: bridges in a network namespace of the lab's own, one veth pair for each interface.
//!
//! Invariant: no bridge has an address and no veth leads to the host's namespace, so that nothing in the lab
//! reaches the host's networks or another lab's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::error::{Doing, Error, Result};
use crate::place::{Lab, NETNS_ROOT};
use crate::state::{Network, Records, Server};

/// A bridge without ports: frames redirected to it are gone.
const VOID: &str = "void";

/// Name of a network's bridge; an interface's name has at most 15 characters.
fn bridge(network: Uuid) -> String {
    format!("br{:08x}", network.as_fields().0)
}

/// Name of the lab's end of a server's cable.
pub fn port(server: Uuid, index: usize) -> String {
    format!("v{:08x}-{index}", server.as_fields().0)
}

/// Hardware address of a server's interface: locally administered, the same in every life.
pub fn mac(server: Uuid, index: usize) -> String {
    let [a, b, c, d, ..] = server.into_bytes();
    format!("02:{index:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Runs `program` (ip or tc) on a script, in a named namespace.
fn batch(program: &str, netns: &str, script: &str) -> Result<()> {
    let doing = || format!("run {program}");
    let mut child = Command::new(program)
        .args(["-n", netns, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing(doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stopped reading has said why on stderr.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().doing(doing)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::refused(format!("{program} in {netns}: {}", said.trim())))
}

/// Runs `ip` with these words and gives what it printed.
fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output().doing(|| "run ip".into())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::refused(format!("ip {}: {}", words.join(" "), said.trim())))
}

/// Names of the links in the fabric; none if there is no fabric.
fn links(lab: &Lab) -> Result<BTreeSet<String>> {
    if !Path::new(NETNS_ROOT).join(lab.fabric()).exists() {
        return Ok(BTreeSet::new());
    }
    let listing = ip(&["-n", &lab.fabric(), "-brief", "link", "show"])?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect())
}

/// Makes the fabric and the bridges of these networks if they are not there.
///
/// # Errors
/// What `ip` says.
pub fn ensure<'a>(lab: &Lab, networks: impl Iterator<Item = &'a Network>) -> Result<()> {
    let fabric = lab.fabric();
    if !Path::new(NETNS_ROOT).join(&fabric).exists() {
        ip(&["netns", "add", &fabric])?;
    }
    let there = links(lab)?;
    let mut script = String::new();
    if !there.contains(VOID) {
        let _ = writeln!(script, "link add {VOID} type bridge\nlink set {VOID} up\nlink set lo up");
    }
    for bridge in networks.map(|network| bridge(network.id)).filter(|bridge| !there.contains(bridge)) {
        // No forwarding delay: a port passes frames at once. No snooping: multicast reaches everybody.
        let _ = writeln!(
            script,
            "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set {bridge} up"
        );
    }
    if script.is_empty() { Ok(()) } else { batch("ip", &fabric, &script) }
}

/// Plugs a server's interfaces into the namespace of the process `pid`, where they appear as eth0, eth1, ….
///
/// # Errors
/// What `ip` says.
pub fn plug(lab: &Lab, server: &Server, pid: i32) -> Result<()> {
    let mut script = String::new();
    for (index, nic) in server.nics.iter().enumerate() {
        let (port, bridge, mac) = (port(server.id, index), bridge(nic.network), mac(server.id, index));
        let carrier = if nic.unplugged { "down" } else { "up" };
        let _ = writeln!(
            script,
            "link add {port} type veth peer name eth{index} address {mac} netns {pid}\n\
             link set {port} master {bridge}\nlink set {port} {carrier}"
        );
    }
    batch("ip", &lab.fabric(), &script)
}

/// Removes what is left of a server's cables.
///
/// # Errors
/// What `ip` says.
pub fn unplug(lab: &Lab, server: &Server) -> Result<()> {
    let there = links(lab)?;
    let script: String = (0..server.nics.len())
        .map(|index| port(server.id, index))
        .filter(|port| there.contains(port))
        .map(|port| format!("link del {port}\n"))
        .collect();
    if script.is_empty() {
        return Ok(());
    }
    match batch("ip", &lab.fabric(), &script) {
        // The kernel takes a dead server's cables away by itself, a moment later.
        Err(_) if links(lab)?.iter().all(|link| !script.contains(&format!("link del {link}\n"))) => Ok(()),
        done => done,
    }
}

/// Pulls or plugs the cable of one running interface.
///
/// # Errors
/// What `ip` says.
pub fn set_carrier(lab: &Lab, server: Uuid, index: usize, up: bool) -> Result<()> {
    let carrier = if up { "up" } else { "down" };
    batch("ip", &lab.fabric(), &format!("link set {} {carrier}\n", port(server, index)))
}

/// Makes the running servers' cables drop what comes from servers they are partitioned from, and nothing else.
///
/// # Errors
/// What `tc` says.
pub fn apply_partitions(lab: &Lab, records: &Records) -> Result<()> {
    let there = links(lab)?;
    for receiver in &records.servers {
        for (index, nic) in receiver.nics.iter().enumerate() {
            let port = port(receiver.id, index);
            if !there.contains(&port) {
                continue;
            }
            // Fails where nothing was partitioned before.
            let _ = batch("tc", &lab.fabric(), &format!("qdisc del dev {port} clsact\n"));
            let mut script = String::new();
            for sender in
                records.servers.iter().filter(|sender| records.faults.silent(sender.id, receiver.id))
            {
                let on_network = sender.nics.iter().enumerate().filter(|(_, n)| n.network == nic.network);
                for (index, _) in on_network {
                    let _ = writeln!(
                        script,
                        "filter add dev {port} egress protocol all u32 match ether src {} \
                         action mirred egress redirect dev {VOID}",
                        mac(sender.id, index)
                    );
                }
            }
            if !script.is_empty() {
                batch("tc", &lab.fabric(), &format!("qdisc add dev {port} clsact\n{script}"))?;
            }
        }
    }
    Ok(())
}

/// Makes the bridges of cut networks, and no others, pass no frames.
///
/// # Errors
/// What `ip` says.
pub fn apply_cuts(lab: &Lab, records: &Records) -> Result<()> {
    let there = links(lab)?;
    let script: String = records
        .networks
        .iter()
        .map(|network| {
            (bridge(network.id), if records.faults.cuts.contains(&network.id) { "down" } else { "up" })
        })
        .filter(|(bridge, _)| there.contains(bridge))
        .map(|(bridge, state)| format!("link set {bridge} {state}\n"))
        .collect();
    if script.is_empty() { Ok(()) } else { batch("ip", &lab.fabric(), &script) }
}

/// Removes a network's bridge.
///
/// # Errors
/// What `ip` says.
pub fn remove_bridge(lab: &Lab, network: Uuid) -> Result<()> {
    let bridge = bridge(network);
    if links(lab)?.contains(&bridge) {
        batch("ip", &lab.fabric(), &format!("link del {bridge}\n"))?;
    }
    Ok(())
}

/// Removes the fabric with everything in it.
///
/// # Errors
/// What `ip` says.
pub fn remove(lab: &Lab) -> Result<()> {
    let fabric = lab.fabric();
    if Path::new(NETNS_ROOT).join(&fabric).exists() {
        ip(&["netns", "del", &fabric])?;
    }
    Ok(())
}
