//! A resource: its role, its connection, its volumes. One event in, actions out.

use std::collections::{BTreeMap, VecDeque};

use drbd_format::names::{ConnectionState as C, Role};

use crate::admin::{Refusal, ResourceOptions};
use crate::device::Device;
use crate::event::{Action, Actions, Event, FrontId, Order, Tag, Ticket};
use crate::handlers::Handlers;
use crate::link::Link;
use crate::status::ResourceStatus;
use crate::suspension::Suspended;
use crate::time::Instant;
use crate::transfer_log::Sent;
use crate::turn::{Entropy, Turn};

/// Until when writes may complete to the front.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Permit {
    /// None: for ever.
    pub until: Option<Instant>,
}

impl Permit {
    pub(crate) fn allows(self, now: Instant) -> bool {
        self.until.is_none_or(|until| now <= until)
    }
}

/// What waits until a volume's superblock is stable in a version.
#[derive(Debug)]
pub(crate) struct WhenStable {
    pub volume: u16,
    pub version: u64,
    pub then: Then,
}

/// What is done then.
#[derive(Debug)]
pub(crate) enum Then {
    /// Answer an administrator.
    Answer { ticket: Ticket, warnings: Vec<String> },
    /// Complete a write of the front.
    Complete { request: FrontId },
    /// Go on with a write of a peer that has no disk.
    PeerWrite { tag: Tag },
    /// Let the disk go, and answer an administrator.
    Detach { ticket: Ticket },
}

/// A demotion waits until nothing is under way and everything is stable.
#[derive(Debug)]
pub(crate) struct Demotion {
    pub ticket: Ticket,
    pub flushing: bool,
}

/// The engine of one resource.
#[derive(Debug)]
pub struct Resource {
    pub(crate) name: String,
    pub(crate) options: ResourceOptions,
    pub(crate) role: Role,
    pub(crate) link: Link,
    pub(crate) devices: BTreeMap<u16, Device>,
    pub(crate) permit: Permit,
    pub(crate) when_stable: Vec<WhenStable>,
    /// A demotion under way.
    pub(crate) demoting: Option<Demotion>,
    /// Orders that wait until two nodes have introduced themselves.
    pub(crate) delayed: VecDeque<(Ticket, Order)>,
    /// Why the front waits.
    pub(crate) suspended: Suspended,
    /// Writes that the lost peer did not confirm, while the front waits for it.
    pub(crate) frozen: Vec<Sent>,
    /// A promotion waits for the peer to be fenced.
    pub(crate) promoting: bool,
    /// Programs of the administrator that run.
    pub(crate) handlers: Handlers,
    pub(crate) turn: Turn,
}

impl Resource {
    /// A resource without volumes, secondary, not connected, permitted to write for ever.
    pub fn new(name: &str, entropy: Entropy) -> Self {
        Self {
            name: name.to_owned(),
            options: ResourceOptions::default(),
            role: Role::Secondary,
            link: Link::new(),
            devices: BTreeMap::new(),
            permit: Permit { until: None },
            when_stable: Vec::new(),
            demoting: None,
            delayed: VecDeque::new(),
            suspended: Suspended::default(),
            frozen: Vec::new(),
            promoting: false,
            handlers: Handlers::default(),
            turn: Turn::new(name, entropy),
        }
    }

    /// Adds a volume; false if the number is taken.
    pub fn add_volume(&mut self, volume: u16, minor: u32) -> bool {
        if self.devices.contains_key(&volume) {
            return false;
        }
        let mut device = Device::new(volume, minor);
        device.state.role = self.role;
        device.state.conn = self.link.state;
        self.devices.insert(volume, device);
        true
    }

    /// Forgets a volume; false if it is not there, has a disk, is Primary, or something of it is under way
    /// (`adm_del_minor`).
    pub fn remove_volume(&mut self, volume: u16) -> bool {
        let is_removable = self.role == Role::Secondary
            && self.devices.get(&volume).is_some_and(|d| d.disk.is_none() && d.leftovers().is_none());
        if is_removable {
            self.devices.remove(&volume);
        }
        is_removable
    }

    /// Whether a volume has a disk.
    pub fn has_disk(&self, volume: u16) -> bool {
        self.devices.get(&volume).is_some_and(|device| device.disk.is_some())
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Our role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// One turn: takes an event, appends what is to be done. Total: it never blocks and never fails.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Actions) {
        self.turn.now = now;
        self.turn.out = std::mem::take(out);
        match event {
            Event::Submit { volume, request, op, payload } => self.submit(volume, request, op, payload),
            Event::IoDone { tag, outcome } => self.io_done(tag, outcome),
            Event::Inspected { tag, finding } => self.inspected(tag, finding),
            Event::Opened { socket, outgoing } => self.opened(socket, outgoing),
            Event::DialFailed => self.dial_failed(),
            Event::Received { socket, volume, packet, payload } => {
                self.received(socket, volume, packet, payload);
            }
            Event::Altered { socket, volume, packet, bytes } => {
                self.altered(socket, volume, &packet, bytes);
            }
            Event::Malformed { socket, why } => self.malformed(socket, &why),
            Event::Closed { socket } => self.closed(socket),
            Event::DiskMeasured { volume, sizes } => self.disk_measured(volume, sizes),
            Event::Admin { ticket, order } => self.order(ticket, order),
            Event::Permit { until } => self.permit = Permit { until },
            Event::PeerFenced => self.peer_fenced(),
            Event::Sending { socket, waits } => self.sending(socket, waits),
            Event::HandlerEnded { run, status } => self.handler_ended(run, status),
            Event::Timeout => {}
        }
        self.settle();
        *out = std::mem::take(&mut self.turn.out);
    }

    /// What any turn may have made possible or due.
    fn settle(&mut self) {
        self.keep_time();
        self.thaw_if_due();
        self.give_delayed_orders();
        for volume in self.volumes() {
            self.resize_if_quiet(volume);
        }
        self.take_deferred();
        for volume in self.volumes() {
            self.complete_withheld(volume);
            self.resume_held(volume);
            self.plan_activity_log(volume);
            self.exchange_bitmap_if_due(volume);
            self.resume_contested_writes(volume);
            self.resume_slowed_reads(volume);
            self.request_resync_blocks(volume);
            self.finish_resync_if_done(volume);
            self.request_digests(volume);
            self.finish_verify_if_done(volume);
        }
        self.close_idle_epoch();
        self.acknowledge_epochs();
        self.finish_demotion();
        for volume in self.volumes() {
            self.write_superblock(volume);
        }
        self.run_when_stable();
    }

    pub(crate) fn volumes(&self) -> Vec<u16> {
        self.devices.keys().copied().collect()
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, outcome: Result<Vec<String>, Refusal>) {
        self.turn.out.push(Action::Answer { ticket, outcome });
    }

    /// Plain data for tools, metrics and tests.
    pub fn status(&self) -> ResourceStatus {
        ResourceStatus {
            name: self.name.clone(),
            role: self.role,
            peer_role: self.devices.values().map(|d| d.state.peer).max().unwrap_or(Role::Unknown),
            connection: self.link.state,
            protocol: self.link.configuration.as_ref().map(|c| c.options.protocol),
            addresses: self.link.configuration.as_ref().map(|c| (c.local, c.peer)),
            devices: self
                .devices
                .values()
                .map(|d| d.status(&self.link, self.turn.now, self.permit, self.suspended))
                .collect(),
        }
    }

    /// What is still held or under way, for a check that a quiet resource holds nothing; none if so.
    pub fn leftovers(&self) -> Option<String> {
        let link = (!self.link.unnamed.is_empty()).then(|| "an unnamed socket".to_owned());
        let link = link.or_else(|| (!self.link.log.is_empty()).then(|| "unconfirmed epochs".to_owned()));
        let link = link.or_else(|| (!self.frozen.is_empty()).then(|| "frozen writes".to_owned()));
        let waiting =
            (!self.when_stable.is_empty()).then(|| "somebody who waits for a superblock".to_owned());
        link.or(waiting).or_else(|| {
            self.devices
                .values()
                .find_map(|d| d.leftovers().map(|what| format!("volume {}: {what}", d.volume)))
        })
    }

    /// Whether the resource can be forgotten: not connected, no disk, secondary.
    pub fn is_unconfigured(&self) -> bool {
        self.role == Role::Secondary
            && self.link.state == C::StandAlone
            && self.devices.values().all(|d| d.disk.is_none())
    }
}
