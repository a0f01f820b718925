//! Times in which the front waits: by order, while nobody has current data, and until the lost peer is fenced.
//!
//! Upstream: `susp`, `susp_nod`, `susp_fen` of a resource; `RQ_COMPLETION_SUSP`; what `_tl_restart` does with requests that
//! were under way (drbd_req.c): `RESEND`, `RESTART_FROZEN_DISK_IO`, `FAIL_FROZEN_DISK_IO`, `CONNECTION_LOST_WHILE_PENDING`.

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};

use crate::device::Leg;
use crate::event::{Level, Tag, Ticket};
use crate::resource::{Resource, Then};
use crate::state::State;
use crate::transfer_log::Sent;

/// `on-no-data-accessible suspend-io` (`OND_SUSPEND_IO`).
pub(crate) const SUSPEND_IO: u32 = 1;

/// Why the front waits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Suspended {
    /// By order.
    pub user: bool,
    /// No current data within reach.
    pub no_data: bool,
    /// The peer is lost and not yet known to be kept from going on alone.
    pub fencing: bool,
}

impl Suspended {
    pub(crate) fn any(self) -> bool {
        self.user || self.no_data || self.fencing
    }
}

/// Primary, and the peer may go on alone.
fn may_diverge(state: State) -> bool {
    state.role == Role::Primary && state.conn < C::Connected && state.pdsk > D::Outdated
}

/// Primary without current data.
fn is_blind(state: State) -> bool {
    state.role == Role::Primary && state.disk < D::UpToDate && state.pdsk < D::UpToDate
}

impl Resource {
    /// A volume goes from one state to another: whether the front must wait from now on (`sanitize_state`).
    pub(crate) fn suspend_if_due(&mut self, volume: u16, os: State, ns: State) {
        if self.demoting.is_some() {
            // Upstream is Secondary from the order on. The device is closed: a demotion that waited for data or for the
            // lost peer would protect nobody, and might wait for ever.
            return;
        }
        let before = self.suspended;
        let stonith = self.devices.get(&volume).is_some_and(|d| d.fencing() == crate::fencing::STONITH);
        if stonith && may_diverge(ns) && !may_diverge(os) {
            self.suspended.fencing = true;
        }
        let waits = self.options.on_no_data_accessible == SUSPEND_IO;
        if waits && is_blind(ns) && !is_blind(os) {
            self.suspended.no_data = true;
        }
        self.tell_of_suspension(before);
    }

    /// The connection is about to be lost: whether the front must wait, before what was under way is judged.
    pub(crate) fn suspend_before_loss(&mut self, why: C) {
        for volume in self.volumes() {
            let Some(os) = self.devices.get(&volume).map(|d| d.state) else { continue };
            self.suspend_if_due(volume, os, State::sanitized(State { conn: why, ..os }));
        }
    }

    fn tell_of_suspension(&mut self, before: Suspended) {
        if before.any() != self.suspended.any() {
            let (from, to) = (u8::from(before.any()), u8::from(self.suspended.any()));
            self.turn.info(format_args!("susp( {from} -> {to} )"));
        }
    }

    /// Writes that the lost peer may not have on stable storage: out of sync, or kept to be judged when the front goes on.
    pub(crate) fn writes_lost(&mut self, lost: Vec<Sent>) {
        if self.suspended.fencing {
            return self.frozen.extend(lost);
        }
        self.writes_went(lost);
    }

    /// Writes that the peer does not have.
    pub(crate) fn writes_went(&mut self, lost: Vec<Sent>) {
        for sent in lost {
            let Some(device) = self.devices.get_mut(&sent.volume) else { continue };
            device.set_out_of_sync(sent.range);
            if let Some(disk) = device.disk.as_mut().filter(|_| !sent.extents.is_empty()) {
                disk.hot.release(&sent.extents, self.turn.now);
            }
        }
    }

    /// A part whose peer is lost, or that nobody could do: whether it stays until the front goes on.
    pub(crate) fn freeze(&mut self, volume: u16, tag: Tag) -> bool {
        let suspended = self.suspended;
        let Some(device) = self.devices.get_mut(&volume) else { return false };
        let is_current = device.state.disk == D::UpToDate;
        // A peer that is still to be filled from here loses it again to whatever disk comes back.
        let is_peer_current = device.state.pdsk == D::UpToDate;
        let Some(part) = device.parts.get_mut(&tag) else { return false };
        let kept = (part.local == Leg::Done && is_current) || (part.remote == Leg::Done && is_peer_current);
        part.frozen |= suspended.no_data && !kept;
        part.frozen
    }

    /// Whether parts that the lost peer was to do wait for it.
    pub(crate) fn waits_for_peer(&self) -> bool {
        self.suspended.fencing
    }

    /// What any turn may have brought: the peer or a disk is back, or the peer is known to be outdated.
    pub(crate) fn thaw_if_due(&mut self) {
        if !self.suspended.any() || self.devices.is_empty() {
            return;
        }
        let before = self.suspended;
        let all = |holds: &dyn Fn(State) -> bool| self.devices.values().all(|d| holds(d.state));
        let is_connected = self.link.is_open() && all(&|s| s.conn >= C::Connected);
        let is_peer_outdated = all(&|s| s.pdsk <= D::Outdated);
        let has_data = all(&|s| s.has_current_data());
        if is_connected {
            self.suspended.fencing = false;
            self.suspended.no_data &= !has_data;
            // With the peer's disk the two go on where they were: no generation of our own has begun.
            for device in self.devices.values_mut().filter(|d| d.state.pdsk >= D::Inconsistent) {
                device.new_generation_due = false;
            }
            self.begin_due_generations();
            if !self.suspended.no_data {
                self.begin_frozen_anew();
            }
        } else {
            if before.fencing && is_peer_outdated {
                self.begin_due_generations();
                self.suspended.fencing = false;
            }
            self.suspended.no_data &= !has_data;
            // Whatever else the front waits for: who resumes it must find the writes on the disk that is back.
            if before.no_data && !self.suspended.no_data {
                self.restart_failed();
            }
            if !self.suspended.any() {
                self.give_up_frozen();
            }
        }
        self.tell_of_suspension(before);
    }

    /// The peer is back, and was never without power: what it did not confirm goes to it again (`RESEND`).
    fn begin_frozen_anew(&mut self) {
        for sent in std::mem::take(&mut self.frozen) {
            let disk = self.devices.get_mut(&sent.volume).and_then(|d| d.disk.as_mut());
            if let Some(disk) = disk.filter(|_| !sent.extents.is_empty()) {
                disk.hot.release(&sent.extents, self.turn.now);
            }
        }
        self.restart_failed();
        self.epochs_moved();
    }

    /// Parts that wait begin once more.
    fn restart_failed(&mut self) {
        for volume in self.volumes() {
            for tag in self.frozen_parts(volume) {
                let Some(device) = self.devices.get_mut(&volume) else { continue };
                let Some(part) = device.parts.get_mut(&tag) else { continue };
                part.frozen = false;
                part.begins_anew = true;
                if part.epoch.is_none()
                    && let Some(disk) = device.disk.as_mut().filter(|_| !part.extents.is_empty())
                {
                    disk.hot.release(&part.extents, self.turn.now);
                }
                self.part_progressed(volume, tag);
            }
        }
    }

    /// The front goes on without the peer: what that may not have differs (`CONNECTION_LOST_WHILE_PENDING`).
    pub(crate) fn give_up_frozen(&mut self) {
        let lost = std::mem::take(&mut self.frozen);
        self.writes_went(lost);
        for volume in self.volumes() {
            for tag in self.frozen_parts(volume) {
                if let Some(part) = self.devices.get_mut(&volume).and_then(|d| d.parts.get_mut(&tag)) {
                    part.frozen = false;
                }
                self.part_progressed(volume, tag);
            }
        }
        self.epochs_moved();
    }

    fn frozen_parts(&self, volume: u16) -> Vec<Tag> {
        let parts = self.devices.get(&volume).map(|d| &d.parts);
        parts.into_iter().flatten().filter(|(_, part)| part.frozen).map(|(&tag, _)| tag).collect()
    }

    /// Generations that were to begin when contact was lost.
    pub(crate) fn begin_due_generations(&mut self) {
        for volume in self.volumes() {
            let Some(device) = self.devices.get_mut(&volume).filter(|d| d.new_generation_due) else {
                continue;
            };
            device.new_generation_due = false;
            if device.disk.is_some() {
                self.new_generation(volume);
            } else {
                let random = self.turn.random_u64();
                if let Some(device) = self.devices.get_mut(&volume) {
                    device.exposed = random;
                }
                let text =
                    "Resumed without access to data; please tear down before attempting to re-configure.";
                self.turn.log(Level::Warning, text);
            }
        }
    }

    /// `suspend-io`.
    pub(crate) fn suspend_io(&mut self, ticket: Ticket) {
        let before = self.suspended;
        self.suspended.user = true;
        self.tell_of_suspension(before);
        self.answer(ticket, Ok(Vec::new()));
    }

    /// `resume-io`: whatever the reason, the front goes on with what there is.
    pub(crate) fn resume_io(&mut self, ticket: Ticket, volume: u16) {
        let before = self.suspended;
        self.begin_due_generations();
        self.suspended = Suspended::default();
        if self.link.is_open() && self.devices.values().all(|d| d.state.conn >= C::Connected) {
            self.begin_frozen_anew();
        } else {
            self.give_up_frozen();
        }
        self.tell_of_suspension(before);
        self.when_stable(volume, Then::Answer { ticket, warnings: Vec::new() });
    }
}
