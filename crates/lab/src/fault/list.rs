//! `lockstep lab fault list`: what is in force.

use serde::Serialize;
use uuid::Uuid;

use crate::error::Result;
use crate::life::Life;
use crate::place::Lab;
use crate::state::{Records, Server};
use crate::table;

/// A part of the lab that can be broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// A network.
    Network(Uuid),
    /// A server.
    Server(Uuid),
    /// An interface of a server, by its number.
    Interface(Uuid, usize),
    /// A volume.
    Volume(Uuid),
}

/// One fault that is in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InForce {
    /// The words after `lockstep lab fault` that bring it about.
    pub words: Vec<String>,
    /// What that means now, in a sentence.
    pub meaning: String,
    /// What is broken, for whoever draws it.
    #[serde(skip)]
    pub parts: Vec<Part>,
}

impl InForce {
    /// From its words and its meaning.
    pub fn new<W: Into<String>>(words: impl IntoIterator<Item = W>, meaning: String) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), meaning, parts: Vec::new() }
    }

    /// The same, of these parts.
    pub fn of(self, parts: impl IntoIterator<Item = Part>) -> Self {
        Self { parts: parts.into_iter().collect(), ..self }
    }
}

/// Every fault of the lab that is in force.
///
/// # Errors
/// Records that cannot be read.
pub fn in_force(lab: &Lab) -> Result<Vec<InForce>> {
    let records = Records::load(lab)?;
    let mut all = Vec::new();
    for network in records.networks.iter().filter(|network| records.faults.cuts.contains(&network.id)) {
        let label = &network.label;
        all.push(
            InForce::new(["cut", label], format!("no frame passes network {label}"))
                .of([Part::Network(network.id)]),
        );
    }
    all.extend(partitions(&records));
    for server in &records.servers {
        let paused = Life::running(lab, server.id)?.is_some_and(|life| life.paused);
        all.extend(of_server(&records, server, paused));
    }
    for volume in &records.volumes {
        let name = volume.called();
        all.extend(volume.faults.iter().map(|fault| {
            let typed = fault.to_string();
            let words = ["volume", &name].into_iter().chain(typed.split(' '));
            InForce::new(words, fault.meaning(&name)).of([Part::Volume(volume.id)])
        }));
    }
    Ok(all)
}

fn partitions(records: &Records) -> Vec<InForce> {
    let name = |id| records.server_by_id(id).map_or("?", |server| &server.name);
    let mut all = Vec::new();
    for (place, silence) in records.faults.silences.iter().enumerate() {
        // Of a pair, the first is as it was typed.
        if records.faults.silences[..place].contains(&silence.back()) {
            continue;
        }
        let (a, b) = (name(silence.from), name(silence.to));
        let parts = [Part::Server(silence.from), Part::Server(silence.to)];
        if !records.faults.silences.contains(&silence.back()) {
            all.push(
                InForce::new(["partition", a, b, "--one-way"], format!("{b} does not hear {a}")).of(parts),
            );
        } else {
            all.push(
                InForce::new(["partition", a, b], format!("{a} and {b} do not hear each other")).of(parts),
            );
        }
    }
    all
}

fn of_server(records: &Records, server: &Server, paused: bool) -> Vec<InForce> {
    let name = &server.name;
    let mut all = Vec::new();
    for (_, fall) in records.faults.fallen.iter().filter(|(fallen, _)| *fallen == server.id) {
        all.push(
            InForce::new([fall.word(), name], format!("server {name} is off")).of([Part::Server(server.id)]),
        );
    }
    if paused {
        all.push(
            InForce::new(["pause", name], format!("no process of server {name} runs"))
                .of([Part::Server(server.id)]),
        );
    }
    let ahead_ms = records.faults.clock_ahead_ms(server.id);
    if ahead_ms != 0 {
        let (words, meaning) = super::clock::in_force(name, ahead_ms);
        all.push(InForce::new(words, meaning).of([Part::Server(server.id)]));
    }
    for (index, nic) in server.nics.iter().enumerate() {
        let label = records.networks.iter().find(|n| n.id == nic.network).map_or("?", |n| &n.label);
        let cable = format!("{name}:{label}");
        if nic.unplugged {
            let meaning = format!("the cable of eth{index} of {name} is pulled");
            all.push(InForce::new(["link-down", &cable], meaning).of([Part::Interface(server.id, index)]));
        }
        let wires = records.faults.wires.iter();
        for wire in wires.filter(|wire| (wire.server, wire.index) == (server.id, index)) {
            let ailments = super::cable::in_force(&cable, wire).into_iter();
            let part = Part::Interface(server.id, index);
            all.extend(ailments.map(|(words, meaning)| InForce::new(words, meaning).of([part])));
        }
    }
    all
}

/// As a table for people; nothing but a word if all is well.
pub fn text(all: &[InForce]) -> String {
    if all.is_empty() {
        return "no fault is in force\n".to_owned();
    }
    let rows: Vec<Vec<String>> =
        all.iter().map(|fault| vec![fault.words.join(" "), fault.meaning.clone()]).collect();
    table::render(&["Fault", "In force"], &rows)
}

/// As JSON for programs.
pub fn json(all: &[InForce]) -> String {
    serde_json::to_string_pretty(all).unwrap_or_default() + "\n"
}
