//! Orders about the resync: pause and resume it, begin a full one, do without the first.
//!
//! Upstream: `drbd_adm_pause_sync`, `drbd_adm_invalidate`, `drbd_adm_invalidate_peer`, `drbd_adm_new_c_uuid`
//! (drbd_nl.c), `abw_start_sync` (drbd_state.c).

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{Packet, StateWord, UuidFlags, Uuids};
use units::SectorRange;

use crate::device::Purpose;
use crate::event::{IoFault, Tag, Ticket};
use crate::generations::JUST_CREATED;
use crate::link::Asked;
use crate::protocol_version::SKIPS_INITIAL_SYNC;
use crate::resource::{Resource, Then};
use crate::state::{State, code, refused};

impl Resource {
    /// `pause-sync` and `resume-sync`.
    pub(crate) fn pause_sync(&mut self, ticket: Ticket, volume: u16, paused: bool) {
        let Some(state) = self.devices.get(&volume).map(|d| d.state) else { return };
        if state.user_isp == paused {
            let number = match (paused, state.conn) {
                (true, _) => code::PAUSE_IS_SET,
                (false, C::PausedSyncS | C::PausedSyncT) if state.peer_isp => code::PIC_PEER_DEP,
                (false, _) => code::PAUSE_IS_CLEAR,
            };
            return self.answer(ticket, Err(refused(number)));
        }
        let next = State { user_isp: paused, ..state };
        let two = self.link.two_primaries();
        if let Err(number) = state.check(State::sanitized(next), two, self.link.is_introducing()) {
            return self.answer(ticket, Err(refused(number)));
        }
        self.transition(volume, next);
        self.answer(ticket, Ok(Vec::new()));
    }

    /// `invalidate` (our data give way, `side` is `StartingSyncT`) and `invalidate-remote` (`StartingSyncS`). Without a
    /// connection the next one will find that everything differs; otherwise the peer is asked.
    pub(crate) fn invalidate(&mut self, ticket: Ticket, volume: u16, side: C) {
        let Some(device) = self.devices.get(&volume) else { return };
        if device.disk.is_none() {
            return self.answer(ticket, Err(refused(code::NO_DISK)));
        }
        let os = device.state;
        let alone = os.conn == C::StandAlone;
        let ns = match (side, os.role) {
            (C::StartingSyncT, Role::Secondary) if alone => State { disk: D::Inconsistent, ..os },
            (C::StartingSyncS, Role::Primary) if alone => State { pdsk: D::Inconsistent, ..os },
            _ => State { conn: side, ..os },
        };
        let two = self.link.two_primaries();
        if let Err(number) = os.check(State::sanitized(ns), two, self.link.is_introducing()) {
            return self.answer(ticket, Err(refused(number)));
        }
        if ns.conn == side {
            return self.ask_for_resync(ticket, volume, side);
        }
        // Bits before the state: a crash in between leaves bits that nobody needs.
        let Self { devices, turn, .. } = self;
        if let Some(device) = devices.get_mut(&volume) {
            device.set_all_out_of_sync();
            device.write_bitmap(turn, Purpose::BitmapPages);
        }
        self.transition(volume, ns);
        self.when_stable(volume, Then::Answer { ticket, warnings: Vec::new() });
    }

    fn ask_for_resync(&mut self, ticket: Ticket, volume: u16, side: C) {
        if self.link.asked.is_some() || self.demoting.is_some() {
            return self.answer(ticket, Err(refused(code::CONCURRENT_STATE_CHANGE)));
        }
        self.link.asked = Some(Asked::Resync { ticket, volume, side });
        let mask = StateWord(31 << 4);
        let val = StateWord(u32::from(side.0) << 4);
        self.link.send(&mut self.turn, volume, Packet::StateChgReq { mask, val }, None);
    }

    /// The peer agrees to a full resync, or not.
    pub(crate) fn resync_answered(&mut self, ticket: Ticket, volume: u16, side: C, reply: i32) {
        let Some(os) = self.devices.get(&volume).map(|d| d.state) else { return };
        let two = self.link.two_primaries();
        let ns = State::sanitized(State { conn: side, ..os });
        // A handshake that came to the same between question and answer gives way: the peer sends no bitmap for it.
        let overtaken = matches!(
            (side, os.conn),
            (C::StartingSyncT, C::WFBitMapT | C::WFSyncUUID) | (C::StartingSyncS, C::WFBitMapS)
        );
        let refusal = match reply {
            reply if reply < code::SUCCESS => Some(reply),
            _ if overtaken => None,
            _ => os.check(ns, two, false).err(),
        };
        if let Some(number) = refusal {
            let number = if number == 0 { code::CW_FAILED_BY_PEER } else { number };
            return self.answer(ticket, Err(refused(number)));
        }
        self.transition(volume, ns);
        self.answer(ticket, Ok(Vec::new()));
    }

    /// A full resync was agreed upon: our bits must be stable before it begins.
    pub(crate) fn mark_everything(&mut self, volume: u16) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.set_all_out_of_sync();
        device.bitmap_job = device.write_bitmap(turn, Purpose::BitmapBeforeFullSync);
    }

    /// All bits are stable: the source begins, the target waits to hear of it.
    pub(crate) fn everything_is_marked(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        if outcome.is_err() {
            return self.disk_failed(volume);
        }
        let Some(device) = self.devices.get_mut(&volume).filter(|d| d.bitmap_job == Some(tag)) else {
            return;
        };
        match device.state.conn {
            C::StartingSyncS => self.begin_resync(volume, C::SyncSource),
            C::StartingSyncT => {
                let early = device.early_sync_uuid.take();
                let next = State { conn: C::WFSyncUUID, ..device.state };
                self.transition(volume, next);
                if let Some(uuid) = early {
                    self.sync_uuid_received(volume, uuid);
                }
            }
            _ => {}
        }
    }

    /// `new-current-uuid`, with `clear_bitmap` also: both disks are declared equal. In a connection that only makes sense
    /// before the first resync, which it spares.
    pub(crate) fn new_current_uuid(&mut self, ticket: Ticket, volume: u16, clear_bitmap: bool) {
        let Some(device) = self.devices.get(&volume) else { return };
        let Some(disk) = &device.disk else { return self.answer(ticket, Err(refused(code::NO_DISK))) };
        let is_new = disk.generations.current() & !1 == JUST_CREATED;
        let skips = clear_bitmap
            && is_new
            && device.state.conn == C::Connected
            && self.link.agreed.protocol >= SKIPS_INITIAL_SYNC;
        if !skips && device.state.conn != C::StandAlone {
            return self.answer(ticket, Err(refused(code::CONNECTED)));
        }
        if skips {
            self.turn.info("Preparing to skip initial sync");
        }
        if let Some(disk) = self.devices.get_mut(&volume).and_then(|d| d.disk.as_mut()) {
            disk.generations.bitmap_done();
        }
        self.new_generation(volume);
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let state = device.state;
        if clear_bitmap {
            let all = SectorRange::new(0, device.size_sectors);
            if let Some(disk) = &mut device.disk {
                disk.bitmap.clear_range(all);
            }
            device.write_bitmap(turn, Purpose::BitmapPages);
        }
        if skips {
            if let Some(mut uuids) = device.uuids(false) {
                uuids.flags.0 |= UuidFlags::SKIP_INITIAL_SYNC;
                link.send(turn, volume, Packet::Uuids(uuids), None);
            }
            if let Some(disk) = &mut device.disk {
                disk.generations.0[1] = 0;
                disk.changed();
                let (current, history) = (disk.generations.current(), [0, 0]);
                if let Some(peer) = &mut device.peer_uuids {
                    *peer = Uuids { current, bitmap: 0, history, ..*peer };
                }
            }
            self.transition(volume, State { disk: D::UpToDate, pdsk: D::UpToDate, ..state });
        }
        self.when_stable(volume, Then::Answer { ticket, warnings: Vec::new() });
    }
}
