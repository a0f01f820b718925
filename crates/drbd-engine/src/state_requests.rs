//! State changes that one node asks the other for.

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{Packet, StateWord};

use crate::fencing::Fenced;
use crate::link::Asked;
use crate::protocol_version::CONNECTION_HAS_VOLUMES;
use crate::resource::Resource;
use crate::state::{State, code, mirrored};
use crate::verify::is_verifying;

impl Resource {
    /// The peer wants to change its state and asks whether we agree (`receive_req_state`).
    pub(crate) fn state_change_asked(&mut self, volume: u16, mask: StateWord, val: StateWord) {
        if self.concerns_connection(val) {
            return self.connection_change_asked(mask, val);
        }
        let concurrent = self.link.resolves_conflicts && self.link.asked.is_some();
        let two = self.link.two_primaries();
        let introducing = self.link.is_introducing();
        let Some(device) = self.devices.get(&volume) else { return };
        let os = device.state;
        let (mask, val) = (mirrored(mask), mirrored(val));
        let mut ns = os;
        if mask.peer != Role::Unknown {
            ns.peer = val.peer;
        }
        if mask.pdsk != D::Diskless {
            ns.pdsk = val.pdsk;
        }
        if mask.disk != D::Diskless {
            ns.disk = val.disk;
        }
        if mask.conn != C::StandAlone {
            ns.conn = val.conn;
        }
        // A peer may declare what we have outdated, or order a full resync or a verify; nothing else of ours.
        let orders = matches!(val.conn, C::StartingSyncS | C::StartingSyncT | C::VerifyT);
        let verify_fault = is_verifying(val.conn).then(|| self.verify_fault(os, val.conn)).flatten();
        let not_served =
            (mask.conn != C::StandAlone && !orders) || (mask.disk != D::Diskless && val.disk != D::Outdated);
        let ns = State::sanitized(ns);
        let reply = if not_served {
            code::NOT_SUPPORTED
        } else if concurrent || (ns.role == Role::Primary && self.demoting.is_some()) {
            code::CONCURRENT_STATE_CHANGE
        } else if ns == os {
            code::NOTHING_TO_DO
        } else if let Some(number) = verify_fault {
            number
        } else {
            os.check(ns, two, introducing).err().unwrap_or(code::SUCCESS)
        };
        if reply == code::SUCCESS {
            self.transition(volume, ns);
        }
        self.link.send_meta(&mut self.turn, volume, Packet::StateChgReply(reply));
    }

    pub(crate) fn state_change_answered(&mut self, volume: u16, reply: i32) {
        if self.link.agreed.protocol < CONNECTION_HAS_VOLUMES
            && matches!(self.link.asked, Some(Asked::Disconnect { .. }))
        {
            return self.connection_change_answered(reply);
        }
        let (ticket, force, mut volumes) = match self.link.asked.take() {
            Some(Asked::Primary { ticket, force, volumes }) => (ticket, force, volumes),
            Some(Asked::Resync { ticket, volume: asked, side: C::VerifyS }) if asked == volume => {
                return self.verify_answered(ticket, volume, reply);
            }
            Some(Asked::Detach { ticket, volume: asked }) if asked == volume => {
                return self.detach_answered(ticket, volume, reply);
            }
            Some(Asked::Resync { ticket, volume: asked, side }) if asked == volume => {
                return self.resync_answered(ticket, volume, side, reply);
            }
            other => {
                self.link.asked = other;
                return;
            }
        };
        if reply < code::SUCCESS {
            return self.promotion_refused(ticket, reply);
        }
        volumes.remove(&volume);
        if volumes.is_empty() {
            self.promote_now(ticket, force, Fenced::Unasked);
        } else {
            self.link.asked = Some(Asked::Primary { ticket, force, volumes });
        }
    }
}
