//! `lockstep lab show`: what is plugged into what, and what of it is broken, as text, JSON or a drawing.
//!
//! [`Topology::of`] gathers; [`text`] and [`svg`] draw and know nothing but what it gathered, so that one lab always
//! gives one drawing.

mod svg;
mod text;

#[cfg(test)]
mod golden;

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use uuid::Uuid;

use crate::bandwidth;
use crate::catalog::flavor_of;
use crate::error::{Doing, Result};
use crate::fault::list::{self, InForce, Part};
use crate::forward::{self, Forward};
use crate::life::{Life, Status};
use crate::place::Lab;
use crate::state::{Network, NetworkKind, Records, Server, Volume};

/// How to show it, as typed.
#[derive(Args, Debug)]
pub struct Order {
    /// Print JSON
    #[arg(long, conflicts_with = "svg")]
    json: bool,
    /// Write an SVG drawing into a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    svg: Option<Option<PathBuf>>,
}

/// A lab as it is now.
#[derive(Debug, Serialize)]
struct Topology {
    lab: String,
    /// The cloud's own first, then users', oldest first.
    networks: Vec<Segment>,
    /// Oldest first.
    servers: Vec<Machine>,
    /// Volumes that no server has, oldest first.
    volumes: Vec<Disk>,
    forwards: Vec<Forward>,
    /// Everything that is broken; parts refer to it by number.
    faults: Vec<Fault>,
}

/// A network.
#[derive(Debug, Serialize)]
struct Segment {
    id: Uuid,
    label: String,
    kind: NetworkKind,
    cidr: Ipv4Net,
    cidr_v6: Option<Ipv6Net>,
    /// Whether it passes no frames.
    cut: bool,
    faults: Vec<usize>,
}

/// A server.
#[derive(Debug, Serialize)]
struct Machine {
    id: Uuid,
    name: String,
    /// As `nova list` says it, or `PAUSED`.
    status: &'static str,
    flavor: &'static str,
    interfaces: Vec<Interface>,
    volumes: Vec<Disk>,
    faults: Vec<usize>,
}

/// A server's interface.
#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    /// Place of its network in [`Topology::networks`].
    #[serde(skip)]
    segment: usize,
    /// Label of its network.
    network: String,
    address: Ipv4Addr,
    address_v6: Option<Ipv6Addr>,
    /// None if it is as fast as the machine.
    mbit_per_s: Option<u32>,
    unplugged: bool,
    faults: Vec<usize>,
}

/// A volume.
#[derive(Debug, Serialize)]
struct Disk {
    id: Uuid,
    /// Display name, or the id.
    name: String,
    size_gib: u64,
    kind: &'static str,
    /// Path in the server that has it.
    device: Option<String>,
    faults: Vec<usize>,
}

/// Something that is broken.
#[derive(Debug, Serialize)]
struct Fault {
    /// From 1 on.
    number: usize,
    words: Vec<String>,
    meaning: String,
}

/// Shows the lab as it was asked for.
///
/// # Errors
/// Records that cannot be read, or a file that cannot be written.
pub fn show(lab: &Lab, order: &Order) -> Result<()> {
    let topology = Topology::of(lab)?;
    let text = match &order.svg {
        Some(Some(path)) => {
            return fs::write(path, svg::draw(&topology)).doing(|| format!("show: write {}", path.display()));
        }
        Some(None) => svg::draw(&topology),
        None if order.json => serde_json::to_string_pretty(&topology).unwrap_or_default() + "\n",
        None => text::draw(&topology),
    };
    // A reader that has gone away is no fault of ours.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

impl Topology {
    /// What the lab's records and lives say.
    ///
    /// # Errors
    /// Records that cannot be read.
    fn of(lab: &Lab) -> Result<Self> {
        let records = Records::load(lab)?;
        let lives =
            records.servers.iter().map(|server| Life::load(lab, server.id)).collect::<Result<Vec<_>>>()?;
        let statuses: Vec<&'static str> = lives.iter().map(|life| status(life.as_ref())).collect();
        Ok(Self::gathered(lab.name(), &records, &statuses, forward::all(lab), &list::in_force(lab)?))
    }

    /// From records, the servers' statuses in their order, and what is broken.
    fn gathered(
        lab: &str,
        records: &Records,
        statuses: &[&'static str],
        forwards: Vec<Forward>,
        in_force: &[InForce],
    ) -> Self {
        let mut networks: Vec<&Network> = records.networks.iter().collect();
        networks.sort_by_key(|network| match NetworkKind::of(network.id) {
            NetworkKind::Public => 0,
            NetworkKind::Service => 1,
            NetworkKind::Tenant => 2,
        });
        let disk = |volume: &Volume, device: Option<&str>| Disk {
            id: volume.id,
            name: volume.called(),
            size_gib: volume.size_gib,
            kind: volume.kind.word(),
            device: device.map(|device| format!("/dev/{device}")),
            faults: numbers(in_force, Part::Volume(volume.id)),
        };
        let servers = records.servers.iter().zip(statuses).map(|(server, &status)| Machine {
            id: server.id,
            name: server.name.clone(),
            status,
            flavor: flavor_of(server).name,
            interfaces: interfaces(server, &networks, in_force),
            volumes: records
                .volumes_of(server.id)
                .map(|(volume, device)| disk(volume, Some(device)))
                .collect(),
            faults: numbers(in_force, Part::Server(server.id)),
        });
        Self {
            lab: lab.to_owned(),
            servers: servers.collect(),
            volumes: records
                .volumes
                .iter()
                .filter(|v| v.attachment.is_none())
                .map(|v| disk(v, None))
                .collect(),
            forwards,
            faults: (1..)
                .zip(in_force)
                .map(|(number, fault)| Fault {
                    number,
                    words: fault.words.clone(),
                    meaning: fault.meaning.clone(),
                })
                .collect(),
            networks: networks
                .into_iter()
                .map(|network| Segment {
                    id: network.id,
                    label: network.label.clone(),
                    kind: NetworkKind::of(network.id),
                    cidr: network.cidr,
                    cidr_v6: network.cidr_v6,
                    cut: records.faults.cuts.contains(&network.id),
                    faults: numbers(in_force, Part::Network(network.id)),
                })
                .collect(),
        }
    }

    /// `2 networks, 1 server, no volumes`.
    fn summary(&self) -> String {
        let count = |count: usize, what: &str| match count {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let volumes =
            self.volumes.len() + self.servers.iter().map(|server| server.volumes.len()).sum::<usize>();
        let mut parts = vec![
            count(self.networks.len(), "network"),
            count(self.servers.len(), "server"),
            count(volumes, "volume"),
        ];
        if !self.faults.is_empty() {
            parts.push(count(self.faults.len(), "fault") + " in force");
        }
        parts.join(", ")
    }
}

fn status(life: Option<&Life>) -> &'static str {
    match (Life::status(life), life) {
        (Status::Active, Some(life)) if life.paused => "PAUSED",
        (status, _) => status.word(),
    }
}

fn interfaces(server: &Server, networks: &[&Network], in_force: &[InForce]) -> Vec<Interface> {
    let nics = server.nics.iter().enumerate();
    nics.filter_map(|(index, nic)| {
        let segment = networks.iter().position(|network| network.id == nic.network)?;
        Some(Interface {
            name: format!("eth{index}"),
            segment,
            network: networks[segment].label.clone(),
            address: nic.address,
            address_v6: nic.address_v6,
            mbit_per_s: bandwidth::limit(server, nic),
            unplugged: nic.unplugged,
            faults: numbers(in_force, Part::Interface(server.id, index)),
        })
    })
    .collect()
}

/// Numbers of the faults that broke this part.
fn numbers(in_force: &[InForce], part: Part) -> Vec<usize> {
    (1..).zip(in_force).filter(|(_, fault)| fault.parts.contains(&part)).map(|(number, _)| number).collect()
}
