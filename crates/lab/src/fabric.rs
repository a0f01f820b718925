//! The lab's networks: bridges in a network namespace of the lab's own, one veth pair for each interface.
//!
//! Invariant: no bridge has an address, not even one that IPv6 makes by itself, and no veth leads to the host's
//! namespace, so that nothing in the lab reaches the host's networks or another lab's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::bandwidth;
use crate::error::{Doing, Error, Result};
use crate::netns;
use crate::place::{Lab, NETNS_ROOT};
use crate::state::{Network, Records, Server};

/// A bridge without ports: frames redirected to it are gone.
const VOID: &str = "void";

/// Name of a network's bridge; an interface's name has at most 15 characters.
pub fn bridge(network: Uuid) -> String {
    format!("br{:08x}", network.as_fields().0)
}

/// Name of the lab's end of a server's cable.
pub fn port(server: Uuid, index: usize) -> String {
    format!("v{:08x}-{index}", server.as_fields().0)
}

/// Name of what measures what a server sends into its cable, if that is limited.
fn meter(server: Uuid, index: usize) -> String {
    format!("i{:08x}-{index}", server.as_fields().0)
}

/// Name of the relay's end of a bad cable, which stands in for the port (see [`crate::wire`]).
pub fn wire_end(server: Uuid, index: usize) -> String {
    format!("w{:08x}-{index}", server.as_fields().0)
}

/// Names of all links in the fabric; none if there is no fabric.
///
/// # Errors
/// What `ip` says.
pub fn names(lab: &Lab) -> Result<BTreeSet<String>> {
    links(lab, &[])
}

/// Hardware address of a server's interface: locally administered, the same in every life.
pub fn mac(server: Uuid, index: usize) -> String {
    let [a, b, c, d, ..] = server.into_bytes();
    format!("02:{index:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Runs `program` (ip or tc) on a script, in a named namespace.
pub fn batch(program: &str, netns: &str, script: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
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

/// Names of the links in the fabric, all or those of one kind; none if there is no fabric.
fn links(lab: &Lab, kind: &[&str]) -> Result<BTreeSet<String>> {
    let fabric = lab.fabric();
    if !Path::new(NETNS_ROOT).join(&fabric).exists() {
        return Ok(BTreeSet::new());
    }
    let listing = ip(&[&["-n", &fabric, "-brief", "link", "show"], kind].concat())?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect())
}

/// Names of the bridges in the fabric.
fn bridges(lab: &Lab) -> Result<BTreeSet<String>> {
    links(lab, &["type", "bridge"])
}

/// Makes the fabric and the bridges of these networks if they are not there.
///
/// # Errors
/// What `ip` says.
pub fn ensure<'a>(lab: &Lab, records: &Records, networks: impl Iterator<Item = &'a Network>) -> Result<()> {
    let fabric = lab.fabric();
    let path = Path::new(NETNS_ROOT).join(&fabric);
    if !path.exists() {
        ip(&["netns", "add", &fabric])?;
        netns::inside_path(&path, || {
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?;
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
        })
        .or_else(|error| if Path::new("/proc/sys/net/ipv6").exists() { Err(error) } else { Ok(()) })
        .doing(|| format!("keep addresses out of {fabric}"))?;
    }
    let there = bridges(lab)?;
    let mut script = String::new();
    if !there.contains(VOID) {
        let _ = writeln!(script, "link add {VOID} type bridge\nlink set {VOID} up\nlink set lo up");
    }
    for network in networks.filter(|network| !there.contains(&bridge(network.id))) {
        let (bridge, state) = (bridge(network.id), state_of(records, network.id));
        // No forwarding delay: a port passes frames at once. No snooping: multicast reaches everybody.
        let _ = writeln!(
            script,
            "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set {bridge} {state}"
        );
    }
    batch("ip", &fabric, &script)
}

/// Whether a network's bridge is `up`, or `down` because it was cut.
fn state_of(records: &Records, network: Uuid) -> &'static str {
    if records.faults.cuts.contains(&network) { "down" } else { "up" }
}

/// Plugs a server's interfaces into the namespace of the process `pid`, where they appear as eth0, eth1, …, no faster
/// than its flavor says, and deaf to servers it is partitioned from.
///
/// # Errors
/// What `ip` or `tc` says.
pub fn plug(lab: &Lab, records: &Records, server: &Server, pid: i32) -> Result<()> {
    let (mut cables, mut rules) = (String::new(), String::new());
    for (index, nic) in server.nics.iter().enumerate() {
        let (port, bridge, mac) = (port(server.id, index), bridge(nic.network), mac(server.id, index));
        let carrier = if nic.unplugged { "down" } else { "up" };
        let _ = writeln!(
            cables,
            "link add {port} type veth peer name eth{index} address {mac} netns {pid}\n\
             link set {port} master {bridge}\nlink set {port} {carrier}"
        );
        let _ = writeln!(rules, "qdisc add dev {port} clsact");
        if let Some(mbit_per_s) = bandwidth::limit(server, nic) {
            cables.push_str(&bandwidth::links(&meter(server.id, index)));
            rules.push_str(&bandwidth::rules(&port, &meter(server.id, index), mbit_per_s));
        }
        rules.push_str(&silences(records, server, index));
    }
    if cables.is_empty() {
        return Ok(());
    }
    batch("ip", &lab.fabric(), &cables)?;
    batch("tc", &lab.fabric(), &rules)
}

/// Removes what is left of a server's cables.
///
/// # Errors
/// What `ip` says.
pub fn unplug(lab: &Lab, server: &Server) -> Result<()> {
    if server.nics.is_empty() {
        return Ok(());
    }
    let there = links(lab, &[])?;
    let script: String = (0..server.nics.len())
        .flat_map(|index| [port(server.id, index), meter(server.id, index), wire_end(server.id, index)])
        .filter(|link| there.contains(link))
        .map(|link| format!("link del {link}\n"))
        .collect();
    if script.is_empty() {
        return Ok(());
    }
    match batch("ip", &lab.fabric(), &script) {
        // The kernel takes a dead server's cables away by itself, a moment later: the rest is ours to remove.
        Err(_) if links(lab, &[])? != there => unplug(lab, server),
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

/// The rules by which a server's cable drops what comes from servers it is partitioned from.
fn silences(records: &Records, receiver: &Server, index: usize) -> String {
    let (port, network) = (port(receiver.id, index), receiver.nics[index].network);
    let mut rules = String::new();
    for silence in records.faults.silences.iter().filter(|silence| silence.to == receiver.id) {
        let Some(sender) = records.server_by_id(silence.from) else { continue };
        for (index, _) in sender.nics.iter().enumerate().filter(|(_, nic)| nic.network == network) {
            let _ = writeln!(
                rules,
                "filter add dev {port} egress protocol all u32 match ether src {} \
                 action mirred egress redirect dev {VOID}",
                mac(sender.id, index)
            );
        }
    }
    rules
}

/// Makes the running servers' cables drop what comes from servers they are partitioned from, and nothing else.
///
/// # Errors
/// What `tc` says.
pub fn apply_partitions(lab: &Lab, records: &Records) -> Result<()> {
    let there = links(lab, &["type", "veth"])?;
    let mut rules = String::new();
    for receiver in &records.servers {
        for index in 0..receiver.nics.len() {
            let port = port(receiver.id, index);
            if there.contains(&port) {
                let _ = writeln!(rules, "filter del dev {port} egress");
                rules.push_str(&silences(records, receiver, index));
            }
        }
    }
    match batch("tc", &lab.fabric(), &rules) {
        // The kernel took a dead server's cables away meanwhile.
        Err(_) if links(lab, &["type", "veth"])? != there => apply_partitions(lab, records),
        done => done,
    }
}

/// Makes the bridges of cut networks, and no others, pass no frames.
///
/// # Errors
/// What `ip` says.
pub fn apply_cuts(lab: &Lab, records: &Records) -> Result<()> {
    let there = bridges(lab)?;
    let script: String = records
        .networks
        .iter()
        .map(|network| (bridge(network.id), state_of(records, network.id)))
        .filter(|(bridge, _)| there.contains(bridge))
        .map(|(bridge, state)| format!("link set {bridge} {state}\n"))
        .collect();
    batch("ip", &lab.fabric(), &script)
}

/// Removes a network's bridge.
///
/// # Errors
/// What `ip` says.
pub fn remove_bridge(lab: &Lab, network: Uuid) -> Result<()> {
    let bridge = bridge(network);
    if bridges(lab)?.contains(&bridge) {
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
