//! `verify`: what must hold for it, here and at the peer.
//!
//! Upstream: `drbd_adm_start_ov` (drbd_nl.c), `is_valid_state`, `is_valid_soft_transition` (drbd_state.c). There a verify of
//! disks that are not both up to date makes them so (`sanitize_state`); here it is refused.

use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{Packet, StateWord};

use crate::device::BLOCK_SECTORS;
use crate::event::Ticket;
use crate::link::Asked;
use crate::resource::Resource;
use crate::state::{State, code, refused};

/// From this protocol on there is online verify.
const VERIFIES: u32 = 88;

impl Resource {
    /// Why the device cannot be verified in this state, from `os` on.
    pub(crate) fn verify_fault(&self, os: State, conn: C) -> Option<i32> {
        if os.conn < C::Connected {
            return Some(code::NEED_CONNECTION);
        }
        if self.link.options().verify_alg.is_empty() {
            return Some(code::NO_VERIFY_ALG);
        }
        if self.link.agreed.protocol < VERIFIES {
            return Some(code::NOT_SUPPORTED);
        }
        if os.conn > C::Connected && os.conn != conn {
            return Some(code::RESYNC_RUNNING);
        }
        let is_whole = (os.disk, os.pdsk) == (D::UpToDate, D::UpToDate);
        (!is_whole).then_some(code::NO_UP_TO_DATE_DISK)
    }

    /// `verify`, with where it begins and ends if that is said. One that runs already gets another end.
    pub(crate) fn verify(&mut self, ticket: Ticket, volume: u16, start: Option<u64>, stop: Option<u64>) {
        let Some(os) = self.devices.get(&volume).map(|d| d.state) else { return };
        if let Some(number) = self.verify_fault(os, C::VerifyS) {
            return self.answer(ticket, Err(refused(number)));
        }
        let runs = os.conn == C::VerifyS;
        if !runs && (self.link.asked.is_some() || self.demoting.is_some()) {
            return self.answer(ticket, Err(refused(code::CONCURRENT_STATE_CHANGE)));
        }
        if let Some(device) = self.devices.get_mut(&volume) {
            let from = start.unwrap_or(device.verify_from);
            device.verify_from = from / BLOCK_SECTORS * BLOCK_SECTORS;
            device.verify_stop = stop.unwrap_or(u64::MAX);
        }
        if runs {
            return self.answer(ticket, Ok(Vec::new()));
        }
        self.link.asked = Some(Asked::Resync { ticket, volume, side: C::VerifyS });
        let mask = StateWord(31 << 4);
        let val = StateWord(u32::from(C::VerifyS.0) << 4);
        self.link.send(&mut self.turn, volume, Packet::StateChgReq { mask, val }, None);
    }

    /// The peer agrees to a verify, or not.
    pub(crate) fn verify_answered(&mut self, ticket: Ticket, volume: u16, reply: i32) {
        let Some(os) = self.devices.get(&volume).map(|d| d.state) else { return };
        let refusal = if reply < code::SUCCESS {
            self.turn.info(format_args!("Requested state change failed by peer: ({reply})"));
            Some(code::CW_FAILED_BY_PEER)
        } else {
            self.verify_fault(os, C::VerifyS)
        };
        if let Some(number) = refusal {
            let Self { devices, turn, link, .. } = self;
            // A peer that agreed is verifying, and learns that we are not.
            if let Some(device) = devices.get(&volume).filter(|_| reply >= code::SUCCESS) {
                device.send_state(turn, link);
            }
            return self.answer(ticket, Err(refused(number)));
        }
        self.transition(volume, State { conn: C::VerifyS, ..os });
        self.answer(ticket, Ok(Vec::new()));
    }
}
