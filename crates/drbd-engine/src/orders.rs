//! What the administrator orders: attach, connect, roles.

use std::collections::BTreeSet;

use drbd_format::activity_log::CONTEXT_MAX;
use drbd_format::meta::{AlSize, Magic, MetaFlags};
use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{Packet, StateWord};
use units::SectorRange;

use crate::admin::{DiskOptions, Refusal, ReplicationProtocol};
use crate::device::{Device, Disk, Purpose};
use crate::event::{FoundDisk, Level, MetaBlock, MetaStep, Order, Ticket};
use crate::fencing::{DONT_CARE, Fenced, STONITH};
use crate::generations::Generations;
use crate::hot_extents::HotExtents;
use crate::link::{Asked, Configuration};
use crate::net_options;
use crate::resource::{Demotion, Resource, Then};
use crate::sizes::new_size;
use crate::state::{State, code, refused};

/// `DRBD_AL_EXTENTS_MAX`: numbers of slots have 16 bits.
const AL_EXTENTS_MAX: u64 = 65534;

/// Sectors of an activity-log extent.
const EXTENT_SECTORS: u64 = drbd_format::activity_log::EXTENT_SECTORS;

impl Resource {
    pub(crate) fn order(&mut self, ticket: Ticket, order: Order) {
        if self.link.is_introducing() && order.waits_for_introduction() {
            return self.delayed.push_back((ticket, order));
        }
        match order {
            Order::Attach { volume, disk, options } => self.attach(ticket, volume, *disk, options),
            Order::Detach { volume } => self.detach(ticket, volume),
            Order::ForceDetach { volume } => self.detach_by_force(ticket, volume),
            Order::Resize { volume, wish } => self.resize(ticket, volume, wish),
            Order::DiskOptions { volume, options } => {
                if let Some(device) = self.devices.get_mut(&volume)
                    && let Some(disk) = &mut device.disk
                {
                    device.state.fences = options.fencing != DONT_CARE;
                    disk.options = options;
                    return self.answer(ticket, Ok(Vec::new()));
                }
                self.answer(ticket, Err(refused(code::IS_DISKLESS)));
            }
            Order::ResourceOptions(options) => {
                self.options = options;
                self.answer(ticket, Ok(Vec::new()));
            }
            Order::Connect { local, peer, options, discard_my_data } => {
                if self.link.configuration.is_some() {
                    return self.answer(ticket, Err(refused(code::NET_CONFIGURED)));
                }
                if let Some(number) = net_options::fault(&options) {
                    return self.answer(ticket, Err(refused(number)));
                }
                let stonith = self.devices.values().any(|d| d.fencing() == STONITH);
                if stonith && options.protocol == ReplicationProtocol::A {
                    return self.answer(ticket, Err(refused(code::STONITH_AND_PROTOCOL_A)));
                }
                let unfenced = self.devices.values().any(|d| d.fencing() == DONT_CARE);
                if options.allow_two_primaries && unfenced {
                    let text = "two primaries are allowed, and neither is fenced when they lose each other";
                    self.turn.log(Level::Warning, text);
                }
                self.link.fenced = false;
                self.link.configuration = Some(Configuration { local, peer, options, discard_my_data });
                self.start_connecting(true);
                self.answer(ticket, Ok(Vec::new()));
            }
            Order::NetOptions(options) => self.change_net_options(ticket, options),
            Order::SuspendIo => self.suspend_io(ticket),
            Order::ResumeIo { volume } => self.resume_io(ticket, volume),
            Order::Outdate { volume } => self.outdate(ticket, volume),
            Order::Disconnect { force } => self.disconnect(ticket, force),
            Order::Primary { force } => self.promote(ticket, force),
            Order::Secondary => self.demote(ticket),
            Order::PauseSync { volume, paused } => self.pause_sync(ticket, volume, paused),
            Order::Invalidate { volume } => self.invalidate(ticket, volume, C::StartingSyncT),
            Order::InvalidateRemote { volume } => self.invalidate(ticket, volume, C::StartingSyncS),
            Order::Verify { volume, start_sector, stop_sector } => {
                self.verify(ticket, volume, start_sector, stop_sector);
            }
            Order::NewCurrentUuid { volume, clear_bitmap } => {
                self.new_current_uuid(ticket, volume, clear_bitmap);
            }
        }
    }

    /// The introduction is over: what waited for its end is done.
    pub(crate) fn give_delayed_orders(&mut self) {
        while !self.link.is_introducing()
            && let Some((ticket, order)) = self.delayed.pop_front()
        {
            self.order(ticket, order);
        }
    }

    /// Takes a disk into use whose meta-data the shell has read.
    fn attach(&mut self, ticket: Ticket, volume: u16, found: FoundDisk, options: DiskOptions) {
        let connected = self.link.state >= C::Connected;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if device.disk.is_some() || device.resizing.is_some() {
            return self.answer(ticket, Err(refused(code::DISK_CONFIGURED)));
        }
        let flags = found.superblock.flags;
        let size = match attach_size(&found, &options, device) {
            Ok(size) => size,
            Err(refusal) => return self.answer(ticket, Err(refusal)),
        };
        // The new part of a device that grew while this disk was away.
        let grew = found.superblock.la_size_sectors != 0 && size > found.superblock.la_size_sectors;
        device.resync_after_negotiation |= grew;
        let own_generation = found.superblock.uuids[0];
        if device.state.role == Role::Primary
            && device.state.pdsk != D::UpToDate
            && !device.holds_what_was_seen(own_generation)
        {
            return self.answer(ticket, Err(refused(code::DATA_NOT_CURRENT)));
        }
        // A disk that was primary's and was not let go in order: its hot extents may differ from the peer's.
        let was_primary = flags.has(MetaFlags::PRIMARY_IND) || flags.has(MetaFlags::CRASHED_PRIMARY);
        // Its front has waited for it.
        let serves_on = device.state.role == Role::Primary && self.suspended.no_data;
        let mut bitmap = found.bitmap.resized(size);
        if flags.has(MetaFlags::FULL_SYNC) || (was_primary && flags.has(MetaFlags::AL_DISABLED)) {
            bitmap.set_all();
        }
        let before = bitmap.count();
        // Who was not primary at the end has let go in order: its log vouches for nothing (`need_to_apply_al`).
        if flags.has(MetaFlags::PRIMARY_IND) {
            for &extent in &found.hot_extents {
                let start = u64::from(extent) * EXTENT_SECTORS;
                if start < size {
                    bitmap.set_range(SectorRange::new(start, EXTENT_SECTORS.min(size - start)));
                }
            }
        }
        let marked_kib = (bitmap.count() - before) * 4;
        let consistent = flags.has(MetaFlags::CONSISTENT);
        let mut decided = match (consistent, flags.has(MetaFlags::WAS_UP_TO_DATE)) {
            (true, true) => D::Consistent,
            (true, false) => D::Outdated,
            (false, _) => D::Inconsistent,
        };
        let pdsk = if flags.has(MetaFlags::PEER_OUT_DATED) { D::Outdated } else { device.state.pdsk };
        // Without fencing nobody else could have become newer with our knowledge.
        if decided == D::Consistent && (pdsk == D::Outdated || options.fencing == DONT_CARE) {
            decided = D::UpToDate;
        }
        let slots = al_slots(options.al_extents, found.layout.al_size());
        let mut hot = HotExtents::new(slots, found.next_transaction);
        let mut superblock = found.superblock;
        superblock.magic = Magic::V84_UNCLEAN;
        superblock.al_extents = u32::from(slots);
        superblock.flags = superblock.flags.without(MetaFlags::AL_CLEAN).without(MetaFlags::FULL_SYNC);
        let ring = found.layout.al_size().blocks() as u32;
        let fresh = hot.fresh_ring(ring);
        device.counters.al_writes += u64::from(ring);
        let generations = Generations(superblock.uuids);
        device.disk = Some(Disk {
            generations,
            bitmap,
            hot,
            placement: found.placement,
            layout: found.layout,
            sizes: found.sizes,
            known_bytes: found.sizes.data_bytes,
            options,
            logical_block_bytes: found.logical_block_bytes,
            discards: found.discards,
            crashed_primary: was_primary && (!serves_on || flags.has(MetaFlags::CRASHED_PRIMARY)),
            negotiated: decided,
            version: 1,
            writing: None,
            stable: 0,
            completions_after: 0,
            exposed_until_then: 0,
            superblock,
        });
        device.state.fences = device.fencing() != DONT_CARE;
        let role = device.state.role;
        if let Some(disk) = &mut device.disk {
            let current = disk.generations.current();
            disk.generations.set_current(current, role);
        }
        let minor = device.minor;
        let state = device.state;
        self.transition(volume, State { disk: D::Attaching, ..state });
        if marked_kib != 0 {
            self.turn.info(format_args!(
                "drbd{minor}: Marked additional {marked_kib} KB as out-of-sync based on AL."
            ));
        }
        // The bits must be stable before the log that vouched for them is started anew.
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.write_bitmap(turn, Purpose::BitmapPages);
        let blocks = fresh.into_iter().map(MetaBlock::ActivityLog).collect();
        device.meta_job(
            turn,
            Purpose::FreshActivityLog,
            vec![MetaStep::Flush, MetaStep::Write(blocks), MetaStep::Flush],
        );
        self.set_size(volume, size);
        let Some(state) = self.devices.get(&volume).map(|d| d.state) else { return };
        if let Some(device) = self.devices.get_mut(&volume) {
            device.peer_uuids_answer = false;
        }
        let next = if connected {
            State { disk: D::Negotiating, ..state }
        } else {
            State { disk: decided, pdsk, ..state }
        };
        self.transition(volume, next);
        self.begin_generation_alone(volume);
        self.when_stable(volume, Then::Answer { ticket, warnings: Vec::new() });
    }

    /// A primary that gets its disk back goes on alone with it, if nobody is there: the peer that served it meanwhile may
    /// have begun a generation of which we were not told.
    fn begin_generation_alone(&mut self, volume: u16) {
        let Some(device) = self.devices.get(&volume) else { return };
        let state = device.state;
        let needs_another = device.disk.as_ref().is_some_and(|d| d.generations.needs_another());
        let alone = state.conn < C::Connected && state.disk == D::UpToDate;
        if state.role == Role::Primary && alone && needs_another {
            self.new_generation(volume);
        }
    }

    fn promote(&mut self, ticket: Ticket, force: bool) {
        if self.role == Role::Primary {
            return self.answer(ticket, Ok(Vec::new()));
        }
        if self.link.asked.is_some() || self.demoting.is_some() || self.promoting {
            return self.answer(ticket, Err(refused(code::CONCURRENT_STATE_CHANGE)));
        }
        if self.link.is_open() {
            self.ping();
        }
        self.promote_after_fencing(ticket, force, Fenced::Unasked);
    }

    /// Becomes primary with what `fence-peer` has come to; calls it if that is what is missing (`drbd_set_role`).
    pub(crate) fn promote_after_fencing(&mut self, ticket: Ticket, force: bool, fenced: Fenced) {
        let is_consistent = self.devices.values().any(|d| d.state.disk == D::Consistent);
        let forced = match self.promotion_states(force, fenced) {
            Ok((forced, _)) => forced,
            Err(number) => {
                let asks =
                    number == code::PRIMARY_NOP || (number == code::NO_UP_TO_DATE_DISK && is_consistent);
                if !(asks && fenced == Fenced::Unasked && self.fence_for_promotion(ticket, force)) {
                    self.answer(ticket, Err(refused(number)));
                }
                return;
            }
        };
        if !(self.link.is_open() && self.link.state >= C::Connected) {
            return self.promote_now(ticket, force, fenced);
        }
        let mut volumes = BTreeSet::new();
        for (&volume, device) in &self.devices {
            let mut mask = StateWord(3);
            let mut val = StateWord(u32::from(Role::Primary.0));
            if forced.contains(&volume) {
                mask.0 |= 15 << 9;
                val.0 |= u32::from(D::UpToDate.0) << 9;
            }
            if device.state.conn >= C::Connected {
                self.link.send(&mut self.turn, volume, Packet::StateChgReq { mask, val }, None);
                volumes.insert(volume);
            }
        }
        self.link.asked = Some(Asked::Primary { ticket, force, volumes });
    }

    /// The peer does not agree.
    pub(crate) fn promotion_refused(&mut self, ticket: Ticket, number: i32) {
        let number = if number == 0 { code::CW_FAILED_BY_PEER } else { number };
        self.answer(ticket, Err(refused(number)));
    }

    /// The peer was lost while it was asked.
    pub(crate) fn promote_alone(&mut self, ticket: Ticket, force: bool) {
        self.promote_after_fencing(ticket, force, Fenced::Unasked);
    }

    /// Nobody objects.
    pub(crate) fn promote_now(&mut self, ticket: Ticket, force: bool, fenced: Fenced) {
        let (forced, states) = match self.promotion_states(force, fenced) {
            Ok(found) => found,
            Err(number) => return self.answer(ticket, Err(refused(number))),
        };
        self.role = Role::Primary;
        let mut first = None;
        for (volume, state) in states {
            let is_forced = forced.contains(&volume);
            let is_split = self.devices.get(&volume).is_some_and(|d| d.state.pdsk > state.pdsk);
            if is_split && state.fences {
                self.turn.log(Level::Warning, "Forced into split brain situation!");
            }
            self.transition(volume, state);
            if is_forced {
                self.turn.log(Level::Warning, "Forced to consider local data as UpToDate!");
            }
            let Some(device) = self.devices.get_mut(&volume) else { continue };
            let alone = device.state.conn < C::Connected || device.state.pdsk <= D::Failed;
            let needs_another = device.disk.as_ref().is_some_and(|d| d.generations.needs_another());
            if is_forced || (alone && needs_another) {
                self.new_generation(volume);
            } else if let Some(disk) = &mut device.disk {
                let current = disk.generations.current();
                disk.generations.set_current(current, Role::Primary);
                disk.changed();
            }
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get_mut(&volume).filter(|_| link.is_open()) {
                if is_forced {
                    device.send_uuids(turn, link);
                }
                device.send_state(turn, link);
            }
            first = first.or(Some(volume));
        }
        if let Some(configuration) = &mut self.link.configuration {
            configuration.discard_my_data = false;
        }
        match first {
            Some(volume) => self.when_stable(volume, Then::Answer { ticket, warnings: Vec::new() }),
            None => self.answer(ticket, Ok(Vec::new())),
        }
    }

    fn demote(&mut self, ticket: Ticket) {
        if self.role != Role::Primary {
            return self.answer(ticket, Ok(Vec::new()));
        }
        if self.demoting.is_some() {
            return self.answer(ticket, Err(refused(code::CONCURRENT_STATE_CHANGE)));
        }
        self.demoting = Some(Demotion { ticket, flushing: false });
    }

    /// Demotes once nothing is under way and everything is stable on both disks: only then may our meta-data stop to say
    /// that we were primary.
    pub(crate) fn finish_demotion(&mut self) {
        let Some(demotion) = &mut self.demoting else { return };
        let busy = self.devices.values().any(|d| d.is_busy() || !d.held.is_empty());
        if busy {
            return;
        }
        if !demotion.flushing {
            demotion.flushing = true;
            for volume in self.volumes() {
                self.begin_flush(volume, None);
            }
        }
        if self.devices.values().any(|d| !d.flushes.is_empty()) {
            return;
        }
        let Some(Demotion { ticket, .. }) = self.demoting.take() else { return };
        self.role = Role::Secondary;
        let mut first = None;
        for volume in self.volumes() {
            let Some(device) = self.devices.get_mut(&volume) else { continue };
            if let Some(disk) = &mut device.disk {
                let current = disk.generations.current();
                disk.generations.set_current(current, Role::Secondary);
                disk.changed();
            }
            let state = device.state;
            self.transition(volume, State { role: Role::Secondary, ..state });
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get(&volume).filter(|_| link.is_open()) {
                device.send_state(turn, link);
            }
            first = first.or(Some(volume));
        }
        match first {
            Some(volume) => self.when_stable(volume, Then::Answer { ticket, warnings: Vec::new() }),
            None => self.answer(ticket, Ok(Vec::new())),
        }
    }
}

/// Slots of the activity log: as many as asked for and as the contexts of all transactions but one can tell
/// (`drbd_al_extents_max`).
fn al_slots(asked: u32, al: AlSize) -> u16 {
    let told = (al.blocks() - 1).saturating_mul(CONTEXT_MAX as u64).min(AL_EXTENTS_MAX);
    u64::from(asked).clamp(7, told) as u16
}

/// Size of the device when a disk is attached, or why it is not (`drbd_adm_attach`).
fn attach_size(found: &FoundDisk, options: &DiskOptions, device: &Device) -> Result<u64, Refusal> {
    let (own, known) = (found.layout.usable_sectors, found.superblock.la_size_sectors);
    if own < options.size_sectors || own < device.size_sectors {
        return Err(refused(code::DISK_TOO_SMALL));
    }
    let size = new_size(own, device.peer_disk_sectors, known, options.size_sectors);
    let is_consistent = found.superblock.flags.has(MetaFlags::CONSISTENT);
    if is_consistent && size < known && size != options.size_sectors {
        let detail = format!(
            "To-be-attached device has last effective > current size, and is consistent\n({known} > {size} sectors). \
             Refusing to attach."
        );
        return Err(Refusal { code: code::IMPLICIT_SHRINK, detail });
    }
    if size == 0 {
        return Err(refused(code::DISK_TOO_SMALL));
    }
    Ok(size)
}
