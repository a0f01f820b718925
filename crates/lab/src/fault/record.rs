//! What the lab's records say is broken.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::server::Fall;
use crate::wire::quality::{Quality, Wire};

/// Everything that is broken and lasts over reboots, but for pulled cables, which are the interfaces' own.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Faults {
    /// Who does not hear whom.
    pub silences: Vec<Silence>,
    /// Networks that pass no frames.
    pub cuts: Vec<Uuid>,
    /// Servers that a fault ended; the next boot takes one off.
    pub fallen: Vec<(Uuid, Fall)>,
    /// Bad cables.
    pub wires: Vec<Wire>,
    /// Wrong clocks: the server, and milliseconds that its clock is ahead.
    pub clocks: Vec<(Uuid, i64)>,
}

impl Faults {
    /// Drops what is about a server or a network that is no more.
    pub fn forget(&mut self, gone: Uuid) {
        self.silences.retain(|silence| silence.from != gone && silence.to != gone);
        self.cuts.retain(|&network| network != gone);
        self.fallen.retain(|&(server, _)| server != gone);
        self.wires.retain(|wire| wire.server != gone);
        self.clocks.retain(|&(server, _)| server != gone);
    }

    /// Milliseconds that a server's clock is ahead.
    pub fn clock_ahead_ms(&self, server: Uuid) -> i64 {
        self.clocks.iter().find(|&&(other, _)| other == server).map_or(0, |&(_, ahead_ms)| ahead_ms)
    }

    /// What is wrong with a cable, to be changed; nothing yet.
    pub fn wire_mut(&mut self, server: Uuid, index: usize) -> &mut Wire {
        let there = self.wires.iter().position(|wire| (wire.server, wire.index) == (server, index));
        let place = there.unwrap_or_else(|| {
            let perfect = Quality::default();
            self.wires.push(Wire { server, index, inbound: perfect, outbound: perfect });
            self.wires.len() - 1
        });
        &mut self.wires[place]
    }

    /// Whether a server does not hear another.
    pub fn silent(&self, from: Uuid, to: Uuid) -> bool {
        self.silences.contains(&Silence { from, to })
    }
}

/// One server does not hear another, on any network.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Silence {
    /// Whose frames are gone.
    pub from: Uuid,
    /// Who does not get them.
    pub to: Uuid,
}

impl Silence {
    /// The same the other way.
    pub fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }

    /// Whether it is between these two, one way or the other.
    pub fn is_between(self, a: Uuid, b: Uuid) -> bool {
        [(a, b), (b, a)].contains(&(self.from, self.to))
    }
}
