//! A size that changes while the device is in use: `resize`, and a peer that tells another size.
//!
//! While the meta-data are written anew they say that everything is out of sync, as at no instant the old ones are right
//! for the new place or size: a crash in between costs a full resync and nothing else.
//! Upstream: `drbd_adm_resize`, `drbd_determine_dev_size` (drbd_nl.c).

use drbd_format::meta::{AlSize, Layout, MetaFlags};
use drbd_format::names::{ConnectionState as C, Role};

use crate::admin::SizeWish;
use crate::device::{Device, Purpose};
use crate::event::{Action, IoFault, Level, MetaBlock, MetaStep, Tag, Ticket};
use crate::link::Deferred;
use crate::resource::Resource;
use crate::sizes::new_size;
use crate::state::{code, refused};

/// `enum dds_flags`.
pub(crate) mod flags {
    /// `DDSF_FORCED`.
    pub const FORCED: u16 = 1;
    /// `DDSF_NO_RESYNC`.
    pub const NO_RESYNC: u16 = 2;
}

/// The protocol that can do without a resync of what is new.
const ASSUMES_CLEAN: u32 = 93;

/// What is to change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    size: u64,
    layout: Layout,
    /// What is new is marked as out of sync.
    marks_new: bool,
}

/// What the peer told, as far as the answer needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub c_size: u64,
    pub flags: u16,
    /// Number of the connection on which it came.
    pub connection: u64,
}

/// Who wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    Ordered { ticket: Ticket, flags: u16 },
    Told(Told),
}

/// A change of the size under way.
#[derive(Debug)]
pub struct Resizing {
    plan: Plan,
    cause: Cause,
    before: u64,
    /// The meta-data are being written.
    job: Option<Tag>,
}

impl Resizing {
    /// Whether new requests of the front wait: what they are for may be gone.
    pub fn holds_requests(&self) -> bool {
        self.plan.size < self.before
    }
}

impl Resource {
    /// `resize`.
    pub(crate) fn resize(&mut self, ticket: Ticket, volume: u16, wish: SizeWish) {
        let protocol = self.link.agreed.protocol;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if device.resizing.is_some() {
            // One after the other, as with upstream's lock on the meta-data.
            return device.resize_orders.push_back((ticket, wish));
        }
        if let Err(number) = device.may_resize(&wish, protocol) {
            return self.answer(ticket, Err(refused(number)));
        }
        let Some(disk) = &mut device.disk else { return };
        disk.known_bytes = disk.sizes.data_bytes;
        let asked_before = std::mem::replace(&mut disk.options.size_sectors, wish.size_sectors);
        let al = wish.another_al(disk.layout.al_size());
        let flags = if wish.assume_peer_has_space { flags::FORCED } else { 0 }
            | if wish.assume_clean { flags::NO_RESYNC } else { 0 };
        match self.determine_size(volume, flags, al) {
            Ok(Some(plan)) => self.begin_resizing(volume, plan, Cause::Ordered { ticket, flags }),
            Ok(None) => self.order_taken(volume, ticket, flags, false),
            Err(number) => {
                if let Some(disk) = self.devices.get_mut(&volume).and_then(|d| d.disk.as_mut()) {
                    disk.options.size_sectors = asked_before;
                }
                self.answer(ticket, Err(refused(number)));
            }
        }
    }

    /// What must change for the size that both disks and the administrators allow now; none: nothing.
    pub(crate) fn determine_size(
        &mut self,
        volume: u16,
        flags: u16,
        al: Option<AlSize>,
    ) -> Result<Option<Plan>, i32> {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return Ok(None) };
        let (state, known) = (device.state, device.size_sectors);
        let Some(disk) = &device.disk else { return Ok(None) };
        let layout = match al {
            Some(al) => Layout::of(disk.placement, disk.sizes, al).map_err(|_| code::MD_LAYOUT_NO_FIT)?,
            None => disk.present_layout(),
        };
        let own = layout.usable_sectors;
        let mut peer = device.peer_disk_sectors;
        if state.conn < C::Connected && flags & flags::FORCED != 0 {
            turn.log(Level::Warning, "Resize while not connected was forced by the user!");
            peer = own;
        }
        let asked = disk.options.size_sectors;
        let size = new_size(own, peer, known, asked);
        if size < known && al.is_some() && asked == 0 {
            let text = format!("Implicit shrink not allowed. Use --size={size}s for explicit shrink.");
            turn.log(Level::Warning, text);
            return Err(code::IMPLICIT_SHRINK);
        }
        if asked > size {
            let (asked, size) = (asked / 2, size / 2);
            turn.log(Level::Error, format_args!("Requested disk size is too big ({asked} > {size})"));
        }
        if size < known && asked > size {
            return Err(code::MD_LAYOUT_NO_FIT);
        }
        let plan = Plan { size, layout, marks_new: flags & flags::NO_RESYNC == 0 };
        Ok((size != 0 && device.differs(size, &layout)).then_some(plan))
    }

    pub(crate) fn begin_resizing(&mut self, volume: u16, plan: Plan, cause: Cause) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let before = device.size_sectors;
        device.resizing = Some(Resizing { plan, cause, before, job: None });
        self.resize_if_quiet(volume);
    }

    /// Writes the meta-data for the new size. A device that shrinks is quiet before: nothing is under way beyond its end.
    pub(crate) fn resize_if_quiet(&mut self, volume: u16) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(resizing) = device.resizing.as_ref().filter(|r| r.job.is_none()) else { return };
        let quiet = device.parts.is_empty()
            && device.reads.is_empty()
            && device.peer_writes.is_empty()
            && device.peer_reads.is_empty();
        if resizing.holds_requests() && !quiet {
            return;
        }
        let plan = resizing.plan;
        let Some(steps) = device.resized(plan) else { return self.end_resizing(volume, false) };
        let job = device.meta_job(turn, Purpose::Resize, steps);
        if let Some(resizing) = &mut device.resizing {
            resizing.job = Some(job);
        }
        turn.info(format_args!("Writing the whole bitmap, size changed or md moved ({} sectors)", plan.size));
    }

    /// The meta-data for the new size are stable.
    pub(crate) fn resize_written(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        if outcome.is_err() {
            self.disk_failed(volume);
        }
        let awaited = |d: &Device| d.resizing.as_ref().is_some_and(|r| r.job == Some(tag));
        if self.devices.get(&volume).is_some_and(awaited) {
            self.end_resizing(volume, outcome.is_ok());
        }
    }

    fn end_resizing(&mut self, volume: u16, is_written: bool) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(Resizing { plan, cause, before, .. }) = device.resizing.take() else { return };
        let is_written = is_written && device.disk.is_some();
        if is_written && before != plan.size {
            self.size_is_known(volume);
        }
        let grew = is_written && before != 0 && plan.size > before;
        match cause {
            Cause::Ordered { ticket, flags } if is_written => self.order_taken(volume, ticket, flags, grew),
            Cause::Ordered { ticket, .. } => self.answer(ticket, Err(refused(code::IO_MD_DISK))),
            Cause::Told(told) => self.size_taken(volume, told, grew),
        }
        let next = self.devices.get_mut(&volume).and_then(|d| d.resize_orders.pop_front());
        if let Some((ticket, wish)) = next {
            self.resize(ticket, volume, wish);
        }
    }

    /// The order is carried out here; the peer is told, and says then what it has become there.
    fn order_taken(&mut self, volume: u16, ticket: Ticket, flags: u16, grew: bool) {
        let Self { devices, turn, link, .. } = self;
        if let Some(device) = devices.get_mut(&volume).filter(|d| d.state.conn == C::Connected) {
            device.resize_pending |= grew;
            device.send_uuids(turn, link);
            let mut sizes = device.sizes(&link.agreed, flags);
            // No present size: the peer answers with its own.
            sizes.c_size = 0;
            link.send(turn, volume, drbd_format::wire::Packet::Sizes(sizes), None);
        }
        self.answer(ticket, Ok(Vec::new()));
    }

    /// Whether packets of the data socket wait: they follow a size that is not taken yet, or others that wait.
    pub(crate) fn defers(&self) -> bool {
        let takes = |d: &Device| d.resizing.as_ref().is_some_and(|r| matches!(r.cause, Cause::Told(_)));
        !self.link.deferred.is_empty() || self.devices.values().any(takes)
    }

    /// Takes what came while a size was being taken.
    pub(crate) fn take_deferred(&mut self) {
        let takes = |d: &Device| d.resizing.as_ref().is_some_and(|r| matches!(r.cause, Cause::Told(_)));
        while !self.devices.values().any(takes) {
            let Some(Deferred { volume, packet, payload }) = self.link.deferred.pop_front() else { return };
            self.on_data_socket(volume, packet, payload);
        }
    }

    /// The connection is lost, and with it what came on it.
    pub(crate) fn forget_deferred(&mut self) {
        for payload in std::mem::take(&mut self.link.deferred).into_iter().filter_map(|d| d.payload) {
            self.turn.out.push(Action::Release { payload: payload.0 });
        }
        for device in self.devices.values_mut() {
            device.resize_pending = false;
        }
    }
}

impl Device {
    /// Upstream's refusals, in its order.
    fn may_resize(&self, wish: &SizeWish, protocol: u32) -> Result<(), i32> {
        let Some(disk) = &self.disk else { return Err(code::NO_DISK) };
        if self.state.conn > C::Connected {
            return Err(code::RESIZE_RESYNC);
        }
        if self.state.role == Role::Secondary && self.state.peer == Role::Secondary {
            return Err(code::NO_PRIMARY);
        }
        if wish.assume_clean && protocol < ASSUMES_CLEAN {
            return Err(code::NEED_APV_93);
        }
        if let Some(al) = wish.another_al(disk.layout.al_size()) {
            if al.is_too_large() {
                return Err(code::MD_LAYOUT_TOO_BIG);
            }
            if al.is_too_small() {
                return Err(code::MD_LAYOUT_TOO_SMALL);
            }
            if self.state.conn != C::Connected && !wish.assume_peer_has_space {
                return Err(code::MD_LAYOUT_CONNECTED);
            }
        }
        Ok(())
    }

    /// Takes size and layout over in memory; what must be written, in which order. None without a disk.
    fn resized(&mut self, plan: Plan) -> Option<Vec<MetaStep>> {
        self.disk.as_ref()?;
        self.size_sectors = plan.size;
        let flags = self.meta_flags();
        let disk = self.disk.as_mut()?;
        disk.bitmap = if plan.marks_new {
            disk.bitmap.resized(plan.size)
        } else {
            disk.bitmap.resized_clean(plan.size)
        };
        let moved = disk.layout != plan.layout;
        disk.layout = plan.layout;
        let block = &mut disk.superblock;
        block.la_size_sectors = plan.size;
        block.md_size_sectors = plan.layout.md_size_sectors;
        block.al_offset_sectors = plan.layout.al_offset_sectors();
        block.bm_offset_sectors = plan.layout.bm_offset_sectors();
        block.al_stripes = plan.layout.al_stripes;
        block.al_stripe_size_4k = plan.layout.al_stripe_size_4k;
        block.uuids = disk.generations.0;
        block.flags = flags;
        let right = MetaBlock::SuperBlock(block.clone());
        let unreliable = flags.with(MetaFlags::FULL_SYNC).with(MetaFlags::AL_DISABLED);
        let mut meanwhile = block.clone();
        meanwhile.flags = unreliable;
        let ring = disk.hot.fresh_ring(plan.layout.al_size().blocks() as u32);
        self.counters.al_writes += ring.len() as u64;
        let ring = ring.into_iter().map(MetaBlock::ActivityLog).collect();
        let pages = crate::durability::changed_pages(&mut disk.bitmap);
        self.counters.bm_writes += pages.len() as u64;
        disk.changed();
        let mut steps = vec![MetaStep::Flush];
        steps.extend(moved.then_some(MetaStep::Move(plan.layout)));
        steps.extend([
            MetaStep::Write(vec![MetaBlock::SuperBlock(meanwhile)]),
            MetaStep::Flush,
            MetaStep::Write(ring),
            MetaStep::Write(pages),
            MetaStep::Flush,
            MetaStep::Write(vec![right]),
            MetaStep::Flush,
        ]);
        Some(steps)
    }
}
