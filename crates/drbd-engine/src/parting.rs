//! Two nodes part in order, so that neither takes the other's leaving for a failure.
//!
//! Upstream: `conn_try_disconnect` (drbd_nl.c), `receive_req_conn_state` (drbd_receiver.c).

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::StateWord;

use crate::event::Ticket;
use crate::link::{Asked, Outdates};
use crate::resource::Resource;
use crate::state::{State, code, mirrored, refused};

/// Places of the disks in a state word.
const DISK_SHIFT: u32 = 9;
const PEER_DISK_SHIFT: u32 = 13;

/// All bits of a disk state.
const DISK_MASK: u32 = 15;

impl Resource {
    /// Asks the peer whether we may go. A primary that fences wants to see it outdated.
    pub(crate) fn leave_fencing(&mut self, ticket: Ticket) {
        let fences = self.role == Role::Primary && self.devices.values().any(|d| d.state.fences);
        self.ask_to_leave(ticket, if fences { Outdates::Peer } else { Outdates::Nobody });
    }

    fn ask_to_leave(&mut self, ticket: Ticket, outdates: Outdates) {
        let (mut mask, mut val) = (31 << 4, u32::from(C::Disconnecting.0) << 4);
        let shift = match outdates {
            Outdates::Nobody => None,
            Outdates::Peer => Some(PEER_DISK_SHIFT),
            Outdates::Us => Some(DISK_SHIFT),
        };
        if let Some(shift) = shift {
            mask |= DISK_MASK << shift;
            val |= u32::from(D::Outdated.0) << shift;
        }
        self.link.asked = Some(Asked::Disconnect { ticket, outdates });
        self.send_leave_request(StateWord(mask), StateWord(val));
    }

    /// The peer leaves in order.
    pub(crate) fn connection_change_asked(&mut self, mask: StateWord, val: StateWord) {
        let leaving = val.conn() == C::Disconnecting;
        let (mask, val) = (mirrored(mask), mirrored(val));
        let outdated = |asked: D, value: D, present: D| {
            let is_meant = asked != D::Diskless && value == D::Outdated && present > D::Outdated;
            if is_meant { D::Outdated } else { present }
        };
        let after = |state: State| {
            let disk = outdated(mask.disk, val.disk, state.disk);
            let pdsk = outdated(mask.pdsk, val.pdsk, state.pdsk);
            State { conn: C::TearDown, disk, pdsk, ..state }
        };
        let two = self.link.two_primaries();
        let must_be_outdated = self
            .devices
            .values()
            .any(|d| State::sanitized(after(d.state)).fault(two) == Some(code::PRIMARY_NOP));
        let reply = match (leaving, must_be_outdated) {
            (true, false) => code::SUCCESS,
            (true, true) => code::PRIMARY_NOP,
            (false, _) => code::IN_TRANSIENT_STATE,
        };
        self.answer_about_connection(reply);
        if reply == code::SUCCESS {
            self.link.state = C::TearDown;
            for volume in self.volumes() {
                if let Some(state) = self.devices.get(&volume).map(|d| d.state) {
                    self.transition(volume, after(state));
                }
            }
        }
    }

    /// The peer agrees to our leaving, or not.
    pub(crate) fn connection_change_answered(&mut self, reply: i32) {
        let Some(Asked::Disconnect { ticket, outdates }) = self.link.asked else { return };
        self.link.asked = None;
        if reply < code::SUCCESS {
            return self.leaving_refused(ticket, outdates);
        }
        if outdates != Outdates::Nobody {
            self.link.state = C::Disconnecting;
            for volume in self.volumes() {
                let Some(state) = self.devices.get(&volume).map(|d| d.state) else { continue };
                let next = match outdates {
                    Outdates::Us => State { disk: state.disk.min(D::Outdated), ..state },
                    _ => State { pdsk: state.pdsk.min(D::Outdated), ..state },
                };
                self.transition(volume, State { conn: C::Disconnecting, ..next });
            }
        }
        self.stand_alone();
        self.answer(ticket, Ok(Vec::new()));
    }

    /// The peer probably wants to see us outdated.
    fn leaving_refused(&mut self, ticket: Ticket, outdates: Outdates) {
        if outdates != Outdates::Nobody {
            return self.answer(ticket, Err(refused(code::CW_FAILED_BY_PEER)));
        }
        if self.devices.values().all(|d| d.state.disk >= D::Outdated) {
            return self.ask_to_leave(ticket, Outdates::Us);
        }
        self.stand_alone();
        self.answer(ticket, Ok(Vec::new()));
    }
}
