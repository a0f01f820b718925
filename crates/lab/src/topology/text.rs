//! The topology as text: networks are lines that run down, servers hang on them.

use std::fmt::Write as _;

use super::{Disk, Interface, Machine, Topology};

/// Columns from one network's line to the next.
const PITCH: usize = 3;

/// Draws it with ASCII characters.
pub fn draw(topology: &Topology) -> String {
    let mut text = format!("lab {}: {}\n", topology.lab, topology.summary());
    legend(&mut text, topology);
    for server in &topology.servers {
        draw_server(&mut text, topology, server);
    }
    section(&mut text, "volumes without a server", topology.volumes.iter().map(about));
    let forwards = topology.forwards.iter();
    section(
        &mut text,
        "forwards",
        forwards.map(|forward| {
            format!(
                "port {} of this machine's loopback -> {}:{}",
                forward.port, forward.server, forward.server_port
            )
        }),
    );
    let commands: Vec<String> = topology.faults.iter().map(|fault| fault.words.join(" ")).collect();
    let width = commands.iter().map(|words| words.chars().count()).max().unwrap_or_default();
    section(
        &mut text,
        "faults in force",
        topology
            .faults
            .iter()
            .zip(&commands)
            .map(|(fault, words)| format!("({}) {words:width$}  {}", fault.number, fault.meaning)),
    );
    text
}

/// Each network's name over its line.
fn legend(text: &mut String, topology: &Topology) {
    if topology.networks.is_empty() {
        return;
    }
    text.push('\n');
    let end = topology.networks.len() * PITCH;
    let width =
        topology.networks.iter().map(|network| network.label.chars().count()).max().unwrap_or_default();
    for (index, network) in topology.networks.iter().enumerate() {
        let lines = rails(topology, index);
        let lead = end - (index + 1) * PITCH + width;
        let mut line = format!("{lines}{:lead$}  {}", network.label, network.cidr);
        if let Some(v6) = network.cidr_v6 {
            let _ = write!(line, "  {v6}");
        }
        if network.cut {
            line.push_str("  CUT");
        }
        mark(&mut line, &network.faults);
        push(text, &line);
    }
}

/// The lines of the first `count` networks: `|  |  `, and `:` for one that is cut.
fn rails(topology: &Topology, count: usize) -> String {
    let pad = " ".repeat(PITCH - 1);
    topology
        .networks
        .iter()
        .take(count)
        .map(|network| format!("{}{pad}", if network.cut { ':' } else { '|' }))
        .collect()
}

fn draw_server(text: &mut String, topology: &Topology, server: &Machine) {
    let lines = rails(topology, topology.networks.len());
    push(text, &lines);
    let mut line = format!("{lines}{}  {}  {}", server.name, server.status, server.flavor);
    mark(&mut line, &server.faults);
    push(text, &line);
    for interface in &server.interfaces {
        let mut line = format!("{}{}", cable(topology, interface), addresses(interface));
        mark(&mut line, &interface.faults);
        push(text, &line);
    }
    for disk in &server.volumes {
        push(text, &format!("{lines}  {}", about(disk)));
    }
}

/// From the network's line to the server: `|  o--|--`.
fn cable(topology: &Topology, interface: &Interface) -> String {
    let mut line = String::new();
    for (index, network) in topology.networks.iter().enumerate() {
        let (rail, pad) = match index.cmp(&interface.segment) {
            std::cmp::Ordering::Less => (if network.cut { ':' } else { '|' }, ' '),
            std::cmp::Ordering::Equal => ('o', '-'),
            std::cmp::Ordering::Greater => (if network.cut { ':' } else { '|' }, '-'),
        };
        line.push(rail);
        line.extend(std::iter::repeat_n(pad, PITCH - 1));
    }
    // A cable that is pulled ends before the server.
    line + if interface.unplugged { "x " } else { "- " }
}

fn addresses(interface: &Interface) -> String {
    let mut text = format!("{}  {:15}", interface.name, interface.address.to_string());
    if let Some(v6) = interface.address_v6 {
        let _ = write!(text, "  {v6}");
    }
    if let Some(mbit_per_s) = interface.mbit_per_s {
        let _ = write!(text, "  {mbit_per_s} Mb/s");
    }
    if interface.unplugged {
        text.push_str("  UNPLUGGED");
    }
    text
}

fn about(disk: &Disk) -> String {
    let mut text = disk.device.as_ref().map_or(String::new(), |device| format!("{device}  "));
    let _ = write!(text, "{}  {} GB {}", disk.name, disk.size_gib, disk.kind);
    mark(&mut text, &disk.faults);
    text
}

/// Adds the numbers of the faults that broke what the line is about: `  (1) (3)`.
fn mark(line: &mut String, faults: &[usize]) {
    if !faults.is_empty() {
        line.truncate(line.trim_end().len());
        line.push(' ');
    }
    for fault in faults {
        let _ = write!(line, " ({fault})");
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = write!(text, "\n{title}:\n");
    }
    for line in lines {
        push(text, &format!("  {line}"));
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}
