//! A disk is let go by order. In a connection the peer is asked: it must not let its own go in the same moment, and knows
//! from its answer on that ours is no copy to rely on.
//!
//! Upstream: `adm_detach` (drbd_nl.c), `request_detach`, `drbd_req_state` (drbd_state.c).

use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{Packet, StateWord};

use crate::device::Purpose;
use crate::event::Ticket;
use crate::link::Asked;
use crate::resource::{Resource, Then};
use crate::state::{State, code, refused};

/// Place of our disk in a state word.
const DISK_SHIFT: u32 = 9;

/// All bits of a disk state.
const DISK_MASK: u32 = 15;

impl Resource {
    pub(crate) fn detach(&mut self, ticket: Ticket, volume: u16) {
        let Some(device) = self.devices.get(&volume) else { return };
        if device.disk.is_none() {
            return self.answer(ticket, Ok(Vec::new()));
        }
        let is_connected = self.link.is_open() && device.state.conn >= C::Connected;
        if let Err(number) = self.may_detach(volume) {
            return self.answer(ticket, Err(refused(number)));
        }
        if !is_connected {
            return self.detach_agreed(ticket, volume);
        }
        if self.link.asked.is_some() {
            return self.answer(ticket, Err(refused(code::CONCURRENT_STATE_CHANGE)));
        }
        self.link.asked = Some(Asked::Detach { ticket, volume });
        let mask = StateWord(DISK_MASK << DISK_SHIFT);
        let val = StateWord(u32::from(D::Failed.0) << DISK_SHIFT);
        self.link.send(&mut self.turn, volume, Packet::StateChgReq { mask, val }, None);
    }

    /// From the question on until the disk is gone the front waits (`drbd_suspend_io`): a peer that has agreed no longer
    /// writes to this disk, and a read from it would be of the past.
    pub(crate) fn is_detaching(&self, volume: u16) -> bool {
        matches!(self.link.asked, Some(Asked::Detach { volume: asked, .. }) if asked == volume)
            || self.when_stable.iter().any(|w| w.volume == volume && matches!(w.then, Then::Detach { .. }))
    }

    fn may_detach(&self, volume: u16) -> Result<(), i32> {
        let Some(os) = self.devices.get(&volume).map(|d| d.state) else { return Ok(()) };
        let next = State::sanitized(State { disk: D::Diskless, ..os });
        os.check(next, self.link.two_primaries(), self.link.is_introducing())
    }

    /// The peer agrees, or not, or is lost (then there is nobody to ask).
    pub(crate) fn detach_answered(&mut self, ticket: Ticket, volume: u16, reply: i32) {
        let reply = if reply == 0 { code::CW_FAILED_BY_PEER } else { reply };
        let outcome = if reply < code::SUCCESS { Err(reply) } else { self.may_detach(volume) };
        let Err(number) = outcome else { return self.detach_agreed(ticket, volume) };
        if reply >= code::SUCCESS && self.link.is_open() {
            // It has counted our disk as gone.
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get(&volume) {
                device.send_state(turn, link);
            }
        }
        self.answer(ticket, Err(refused(number)));
    }

    /// Bitmap and superblock are stable before the disk goes: what the next attach reads is what is true now.
    fn detach_agreed(&mut self, ticket: Ticket, volume: u16) {
        let Self { devices, turn, .. } = self;
        if let Some(device) = devices.get_mut(&volume) {
            device.write_bitmap(turn, Purpose::BitmapPages);
            if let Some(disk) = &mut device.disk {
                disk.changed();
            }
        }
        self.when_stable(volume, Then::Detach { ticket });
    }

    /// The last words of a disk are stable.
    pub(crate) fn detach_now(&mut self, ticket: Ticket, volume: u16) {
        self.drop_disk(volume);
        self.answer(ticket, Ok(Vec::new()));
    }

    /// `detach --force`: whatever that takes away.
    pub(crate) fn detach_by_force(&mut self, ticket: Ticket, volume: u16) {
        self.drop_disk(volume);
        self.answer(ticket, Ok(Vec::new()));
    }
}
