//! One server: its disk outlives it, its shell does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use drbd_engine::admin::Refusal;
use drbd_engine::event::{SocketId, Ticket};
use drbd_engine::status::{DeviceStatus, ResourceStatus};
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_node::shell::Shell;

use crate::disk::Disk;
use crate::ports::SimPorts;

/// A server.
#[derive(Debug)]
pub struct Node {
    /// Its address.
    pub address: SocketAddr,
    /// Its disk.
    pub disk: Disk,
    /// The daemon, while it runs.
    pub shell: Option<Shell<SimPorts>>,
    /// Counts the daemon's lives; what belongs to an earlier one is stale.
    pub life: u64,
    /// It accepts connections.
    pub listening: bool,
    /// When its timer fires, if that is still wanted then.
    pub timer: Option<u64>,
    /// Turns by the timer at one instant.
    pub timer_turns: (u64, u32),
    /// Sockets of this life: connection and side.
    pub sockets: BTreeMap<SocketId, (usize, usize)>,
    /// The next socket's number.
    pub next_socket: u64,
    /// Answers of this life.
    pub answers: BTreeMap<Ticket, Result<Vec<String>, Refusal>>,
    /// The next ticket.
    pub next_ticket: u64,
    /// As of the last turn.
    pub status: Option<ResourceStatus>,
    /// New generations since both were equal.
    pub generations: u32,
    /// "Split-Brain detected" since the last order to connect.
    pub split_brain: bool,
    /// "Split-Brain detected, … solved" since the last order to connect.
    pub split_brain_solved: bool,
    /// Blocks that its log said to be out of sync.
    pub found_differing: BTreeSet<u64>,
    /// The size the front was told.
    pub size_sectors: u64,
}

impl Node {
    /// Off, with this disk.
    pub fn new(address: SocketAddr, disk: Disk) -> Self {
        Self {
            address,
            disk,
            shell: None,
            life: 0,
            listening: false,
            timer: None,
            timer_turns: (0, 0),
            sockets: BTreeMap::new(),
            next_socket: 1,
            answers: BTreeMap::new(),
            next_ticket: 1,
            status: None,
            generations: 0,
            split_brain: false,
            split_brain_solved: false,
            found_differing: BTreeSet::new(),
            size_sectors: 0,
        }
    }

    /// Whether the daemon runs.
    pub fn is_up(&self) -> bool {
        self.shell.is_some()
    }

    /// Its only volume, as of the last turn.
    pub fn device(&self) -> Option<&DeviceStatus> {
        self.status.as_ref().and_then(|s| s.devices.first())
    }

    /// Whether it is primary.
    pub fn is_primary(&self) -> bool {
        self.status.as_ref().is_some_and(|s| s.role == drbd_format::names::Role::Primary)
    }

    /// Connection state of the volume; StandAlone when off.
    pub fn connection(&self) -> C {
        self.device().map_or(C::StandAlone, |d| d.connection)
    }

    /// Disk state; Diskless when off.
    pub fn disk_state(&self) -> D {
        self.device().map_or(D::Diskless, |d| d.disk)
    }

    /// Whether this side believes that both are equal and mirrored.
    pub fn believes_in_sync(&self) -> bool {
        self.device().is_some_and(|d| {
            d.connection == C::Connected && d.disk == D::UpToDate && d.peer_disk == D::UpToDate
        })
    }
}
