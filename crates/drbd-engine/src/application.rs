//! Requests of the front: from submission over both disks to completion.

use drbd_format::activity_log::EXTENT_SECTORS;
use drbd_format::names::{DiskState as D, Role};
use drbd_format::wire::{Agreed, BlockAck};
use units::SectorRange;

use crate::admin::ReplicationProtocol;
use crate::device::{Change, FrontFlush, FrontRead, FrontWrite, Held, Leg, Owner, Part, Purpose};
use crate::event::{Action, FrontFault, FrontId, FrontOp, IoFault, Payload, Slice, Tag};
use crate::peer_io::ID_SYNCER;
use crate::replication::Message;
use crate::resource::{Resource, Then, WhenStable};

/// Activity-log extents that a range touches.
pub(crate) fn extents_of(range: SectorRange) -> Vec<u32> {
    let extent = |sector: u64| (sector / EXTENT_SECTORS) as u32;
    (extent(range.start)..=extent(range.end() - 1)).collect()
}

/// Whether the second range is part of the first.
pub(crate) fn encloses(outer: SectorRange, inner: SectorRange) -> bool {
    let end = inner.start.checked_add(inner.count);
    inner.count != 0 && inner.start >= outer.start && end.is_some_and(|end| end <= outer.end())
}

/// Cuts a range at the borders of extents, so that a long discard does not need more extents than there are.
fn pieces(range: SectorRange) -> impl Iterator<Item = SectorRange> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        (start < range.end()).then(|| {
            let border = (start / EXTENT_SECTORS + 1) * EXTENT_SECTORS;
            let piece = SectorRange::new(start, border.min(range.end()) - start);
            start = piece.end();
            piece
        })
    })
}

impl Resource {
    pub(crate) fn submit(&mut self, volume: u16, request: FrontId, op: FrontOp, payload: Option<Payload>) {
        let allowed = self.role == Role::Primary;
        match self.devices.get_mut(&volume).filter(|_| allowed) {
            Some(device) => device.held.push_back(Held { request, op, payload }),
            None => self.fail_front(volume, request, payload, FrontFault::NotPrimary),
        }
    }

    /// Begins what was held back while the state was in flux or the permit was out.
    pub(crate) fn resume_held(&mut self, volume: u16) {
        let permitted = self.permit.allows(self.turn.now);
        let waits = self.suspended.any() || self.is_detaching(volume);
        while let Some(device) = self.devices.get_mut(&volume) {
            if !device.is_stable() || waits {
                return;
            }
            // Reads need no permit.
            let next = device.held.front().map(|h| matches!(h.op, FrontOp::Read(_)) || permitted);
            let Some(held) = next.and_then(|may| if may { device.held.pop_front() } else { None }) else {
                return;
            };
            self.begin(volume, held);
        }
    }

    fn begin(&mut self, volume: u16, Held { request, op, payload }: Held) {
        let range = match op {
            FrontOp::Flush => None,
            FrontOp::Read(range)
            | FrontOp::Write { range, .. }
            | FrontOp::Discard(range)
            | FrontOp::WriteZeroes { range, .. } => Some(range),
        };
        // It was asked for before the device shrank.
        let size = self.devices.get(&volume).map_or(0, |d| d.size_sectors);
        if range.is_some_and(|range| range.end() > size) {
            return self.fail_front(volume, request, payload, FrontFault::Io);
        }
        match op {
            FrontOp::Read(range) => self.begin_read(volume, request, range),
            FrontOp::Write { range, fua } => {
                self.begin_change(volume, request, payload, Change::Write { fua }, [range].into_iter());
            }
            FrontOp::Flush => self.begin_flush(volume, Some(request)),
            FrontOp::Discard(range) => {
                self.begin_change(volume, request, None, Change::Discard, pieces(range));
            }
            FrontOp::WriteZeroes { range, may_unmap } => {
                self.begin_change(volume, request, None, Change::Zeroes { may_unmap }, pieces(range));
            }
        }
    }

    pub(crate) fn fail_front(
        &mut self,
        volume: u16,
        request: FrontId,
        payload: Option<Payload>,
        fault: FrontFault,
    ) {
        self.turn.out.push(Action::Complete { volume, request, outcome: Err(fault) });
        if let Some(payload) = payload {
            self.turn.out.push(Action::Release { payload });
        }
    }

    pub(crate) fn begin_read(&mut self, volume: u16, request: FrontId, range: SectorRange) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let state = device.state;
        let here = match &device.disk {
            Some(_) if state.disk == D::UpToDate => true,
            // An inconsistent disk still holds current data where its bitmap is clear.
            Some(disk) if state.disk == D::Inconsistent && state.conn.is_connected() => {
                !disk.bitmap.any_set(range)
            }
            _ => false,
        };
        let there = link.is_open() && state.conn.is_connected() && state.pdsk == D::UpToDate;
        if !here && !there && self.suspended.any() {
            // It was under way when the last current data went.
            device.held.push_front(Held { request, op: FrontOp::Read(range), payload: None });
            return;
        }
        if !here && !there {
            self.fail_front(volume, request, None, FrontFault::Io);
            return;
        }
        let tag = turn.tag();
        if !here {
            return self.ask_peer_to_read(volume, tag, request, range);
        }
        device.reads.insert(tag, FrontRead { request, range, remote: None });
        device.operations.insert(tag, Purpose::Read);
        device.counters.disk_read_kib += range.bytes() / 1024;
        device.application_sectors += range.count;
        turn.out.push(Action::Read { tag, volume, range });
    }

    /// Our disk has answered a read of the front.
    pub(crate) fn read_done(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        let Some(read) = self.devices.get_mut(&volume).and_then(|d| d.reads.remove(&tag)) else { return };
        if outcome.is_err() {
            self.turn.out.push(Action::Release { payload: Payload(tag.0) });
            self.data_failed(volume, read.range);
            // The peer may still have it.
            self.begin_read(volume, read.request, read.range);
            return;
        }
        self.complete_read(volume, &read, Payload(tag.0));
    }

    pub(crate) fn complete_read(&mut self, volume: u16, read: &FrontRead, payload: Payload) {
        let data = Slice { payload, offset: 0, len: read.range.bytes() as u32 };
        self.turn.out.push(Action::Complete { volume, request: read.request, outcome: Ok(Some(data)) });
        self.turn.out.push(Action::Release { payload });
    }

    fn begin_change(
        &mut self,
        volume: u16,
        request: FrontId,
        payload: Option<Payload>,
        change: Change,
        ranges: impl Iterator<Item = SectorRange>,
    ) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if !device.state.has_current_data() {
            self.fail_front(volume, request, payload, FrontFault::Io);
            return;
        }
        let mut begun = Vec::new();
        for range in ranges {
            assert!(range.end() <= device.size_sectors, "the front checks ranges against the device's size");
            let tag = self.turn.tag();
            let part = Part {
                request,
                range,
                change,
                extents: Vec::new(),
                started: false,
                local: Leg::None,
                remote: Leg::None,
                epoch: None,
                begins_anew: false,
                frozen: false,
                sent_at: self.turn.now,
                acks_left: 0,
                answered: Vec::new(),
                refused: false,
            };
            device.parts.insert(tag, part);
            begun.push((tag, range));
        }
        let parts_left = begun.len() as u32;
        device.writes.insert(request, FrontWrite { payload, parts_left, failed: false });
        for (tag, range) in begun {
            if self.devices.get_mut(&volume).is_some_and(|d| d.gate.lock(range, tag).is_some()) {
                self.gate_passed(volume, tag);
            }
        }
    }

    /// No answer of a resync can overwrite the part any more. Its extents must be hot before it may touch the disk; the
    /// lock comes after them, so that no write of the peer ever waits for our activity log.
    pub(crate) fn gate_passed(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let usable = device.has_usable_disk();
        let Some(part) = device.parts.get_mut(&tag) else { return self.verify_gate_passed(volume, tag) };
        if usable && let Some(disk) = &mut device.disk {
            part.extents = extents_of(part.range);
            if disk.hot.take(&part.extents, tag).is_none() {
                return;
            }
        }
        self.lock_part(volume, tag);
    }

    fn lock_part(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(range) = device.parts.get(&tag).map(|part| part.range) else { return };
        if device.locks.lock(range, Owner::Part(tag)).is_some() {
            self.lock_gained(volume, Owner::Part(tag));
        }
    }

    /// Lets a range of the gate go.
    pub(crate) fn leave_gate(&mut self, volume: u16, range: SectorRange) {
        let admitted = self.devices.get_mut(&volume).map(|d| d.gate.unlock(range)).unwrap_or_default();
        for tag in admitted {
            self.gate_passed(volume, tag);
        }
    }

    /// A range is ours: go on with what wanted it.
    pub(crate) fn lock_gained(&mut self, volume: u16, owner: Owner) {
        match owner {
            Owner::Part(tag) => self.start_part(volume, tag),
            Owner::PeerWrite(tag) => self.peer_write_locked(volume, tag),
            Owner::PeerRead(tag) => self.start_peer_read(volume, tag),
            Owner::Resync(sector) => self.start_resync_write(volume, sector),
            Owner::Verify(sector) => self.read_to_compare(volume, sector),
        }
    }

    /// Lets a range go, and lets those go on who waited for it.
    pub(crate) fn unlock(&mut self, volume: u16, range: SectorRange) {
        let admitted = self.devices.get_mut(&volume).map(|d| d.locks.unlock(range)).unwrap_or_default();
        for owner in admitted {
            self.lock_gained(volume, owner);
        }
    }

    /// Extents are hot (or their log is gone with its disk): go on with what wanted them.
    pub(crate) fn extents_gained(&mut self, volume: u16, tag: Tag) {
        if self.devices.get(&volume).is_some_and(|d| d.parts.contains_key(&tag)) {
            self.lock_part(volume, tag);
        } else {
            self.lock_peer_write(volume, tag);
        }
    }

    /// Sends the part to both disks.
    pub(crate) fn start_part(&mut self, volume: u16, tag: Tag) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let replicate = device.state.replicates() && link.is_open();
        let usable = device.has_usable_disk();
        let may_unmap = device.discards_zero();
        let Some(part) = device.parts.get_mut(&tag) else { return };
        part.started = true;
        let range = part.range;
        let payload = device.writes.get(&part.request).and_then(|w| w.payload);
        let data = payload.map(|payload| Slice { payload, offset: 0, len: range.bytes() as u32 });
        // Extents were taken if there was a disk then; a disk that came since does not see this write.
        let local = usable && !part.extents.is_empty();
        let protocol = link.options().protocol;
        let syncing = device.state.conn.is_syncing();
        let spoken = Agreed { features: link.data_features(), ..link.agreed };
        let message = replicate.then(|| Message::about(part, tag, protocol, &spoken, syncing));
        if local {
            part.local = Leg::Pending;
            device.operations.insert(tag, Purpose::Part);
            device.counters.disk_written_kib += range.bytes() / 1024;
            device.application_sectors += range.count;
            if message.is_none()
                && let Some(disk) = &mut device.disk
            {
                disk.bitmap.set_range(range);
            }
            turn.out.push(match (part.change, data) {
                (Change::Write { fua }, Some(data)) => Action::Write { tag, volume, range, data, fua },
                (Change::Zeroes { may_unmap: false }, _) => {
                    Action::WriteZeroes { tag, volume, range, may_unmap: false }
                }
                // A discarded range reads as zeroes on both disks, or they would differ.
                _ => Action::WriteZeroes { tag, volume, range, may_unmap },
            });
        }
        if let Some(message) = message {
            part.remote = if protocol == ReplicationProtocol::A { Leg::Done } else { Leg::Pending };
            message.send(turn, link, volume, part, data);
            device.counters.sent_kib += range.bytes() / 1024;
        }
        if !local {
            // Whoever waits for the range waits for our disk only: the peer may wait for us in the same place.
            self.unlock(volume, range);
        }
        self.part_progressed(volume, tag);
    }

    /// Our disk is done with a part.
    pub(crate) fn part_written(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(part) = device.parts.get_mut(&tag) else { return };
        part.local = if outcome.is_ok() { Leg::Done } else { Leg::Failed };
        let range = part.range;
        if outcome.is_err() {
            self.data_failed(volume, range);
        }
        self.unlock(volume, range);
        self.part_progressed(volume, tag);
    }

    /// The peer has acknowledged a part (received it, protocol B; written it, protocol C).
    pub(crate) fn part_acked(&mut self, volume: u16, ack: BlockAck, outcome: Leg) {
        let tag = Tag(ack.block_id);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(part) = device.parts.get_mut(&tag) else {
            // With protocols A and B it may have completed before the peer's disk refused it.
            let range = SectorRange::new(ack.sector, u64::from(ack.blksize) / 512);
            let inside = ack.sector.checked_add(range.count).is_some_and(|end| end <= device.size_sectors);
            if outcome == Leg::Failed && inside {
                device.set_out_of_sync(range);
                if ack.block_id == ID_SYNCER {
                    self.resync_block_failed(volume, range);
                }
            }
            return;
        };
        let acked = SectorRange::new(ack.sector, u64::from(ack.blksize) / 512);
        if !part.started || !encloses(part.range, acked) {
            return self.misbehaved("an acknowledgement names another range than its write");
        }
        part.acks_left = part.acks_left.saturating_sub(1);
        part.refused |= outcome == Leg::Failed;
        if part.acks_left == 0 {
            part.remote = if part.refused { Leg::Failed } else { Leg::Done };
        } else {
            part.answered.push(acked);
        }
        if outcome == Leg::Failed {
            device.set_out_of_sync(acked);
        }
        self.part_progressed(volume, tag);
    }

    /// The peer is lost: what it was to do counts as not done there.
    pub(crate) fn parts_lost_peer(&mut self, volume: u16) {
        let waits = self.waits_for_peer();
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let mut waiting = Vec::new();
        for (tag, part) in &mut device.parts {
            if part.remote == Leg::Pending {
                part.remote = Leg::Failed;
                part.frozen = waits;
                waiting.push(*tag);
            }
        }
        for tag in waiting {
            self.part_progressed(volume, tag);
        }
    }

    /// Completes the part once both legs have ended.
    pub(crate) fn part_progressed(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(part) = device.parts.get(&tag) else { return };
        if !part.started || part.local == Leg::Pending || part.remote == Leg::Pending {
            return;
        }
        if self.freeze(volume, tag) {
            return;
        }
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(part) = device.parts.get(&tag) else { return };
        if part.begins_anew {
            return self.begin_part_anew(volume, tag);
        }
        let Some(part) = device.parts.remove(&tag) else { return };
        // An inconsistent disk is filled from the peer again: what only it has is as good as lost.
        let kept_here = part.local == Leg::Done && device.state.disk == D::UpToDate;
        let succeeded = kept_here || part.remote == Leg::Done;
        if part.epoch.is_some() {
            self.link.epoch_has_completed |= self.link.options().protocol != ReplicationProtocol::C;
        } else if let Some(disk) = device.disk.as_mut().filter(|_| !part.extents.is_empty()) {
            disk.hot.release(&part.extents, self.turn.now);
        }
        let done = device.writes.get_mut(&part.request).is_some_and(|write| {
            write.failed |= !succeeded;
            write.parts_left -= 1;
            write.parts_left == 0
        });
        self.leave_gate(volume, part.range);
        if done {
            self.complete_write(volume, part.request);
        }
    }

    /// Completes a change to the front, unless a new generation is not yet stable or the permit is out: a write that only
    /// we have must not be known outside before our meta-data say that we went on alone.
    pub(crate) fn complete_write(&mut self, volume: u16, request: FrontId) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if let Some(disk) = &device.disk
            && disk.stable < disk.completions_after
        {
            let version = disk.completions_after;
            self.when_stable.push(WhenStable { volume, version, then: Then::Complete { request } });
            return;
        }
        if !self.permit.allows(self.turn.now) || self.suspended.any() {
            device.withheld.push(request);
            return;
        }
        let Some(write) = device.writes.remove(&request) else { return };
        let outcome = if write.failed { Err(FrontFault::Io) } else { Ok(None) };
        self.turn.out.push(Action::Complete { volume, request, outcome });
        if let Some(payload) = write.payload {
            self.turn.out.push(Action::Release { payload });
        }
    }

    /// Completes what was withheld, if the permit allows it again.
    pub(crate) fn complete_withheld(&mut self, volume: u16) {
        if !self.permit.allows(self.turn.now) || self.suspended.any() {
            return;
        }
        let withheld =
            self.devices.get_mut(&volume).map(|d| std::mem::take(&mut d.withheld)).unwrap_or_default();
        for request in withheld {
            self.complete_write(volume, request);
        }
    }

    /// Makes everything completed so far stable here and at the peer. Without a request it is the engine's own.
    pub(crate) fn begin_flush(&mut self, volume: u16, request: Option<FrontId>) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let tag = turn.tag();
        let local = if device.has_usable_disk() {
            device.operations.insert(tag, Purpose::FrontFlush);
            turn.out.push(Action::Flush { tag, volume });
            Leg::Pending
        } else {
            Leg::None
        };
        link.close_epoch(turn);
        device.flushes.insert(tag, FrontFlush { request, local, epoch: link.log.newest_closed() });
        self.flush_progressed(volume, tag);
    }

    /// Our disk is flushed.
    pub(crate) fn flushed(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        if let Some(flush) = self.devices.get_mut(&volume).and_then(|d| d.flushes.get_mut(&tag)) {
            flush.local = if outcome.is_ok() { Leg::Done } else { Leg::Failed };
        }
        if outcome.is_err() {
            self.disk_failed(volume);
        }
        self.flush_progressed(volume, tag);
    }

    fn flush_progressed(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let log = &self.link.log;
        let ended = device.flushes.get(&tag).is_some_and(|flush| {
            flush.local != Leg::Pending && flush.epoch.is_none_or(|epoch| log.is_settled(epoch))
        });
        if !ended || self.suspended.fencing {
            return;
        }
        let Some(flush) = device.flushes.remove(&tag) else { return };
        let Some(request) = flush.request else { return };
        // A failed local flush is covered only by a peer that has everything.
        let kept = flush.local != Leg::Failed || device.state.pdsk == D::UpToDate;
        let outcome = if kept { Ok(None) } else { Err(FrontFault::Io) };
        self.turn.out.push(Action::Complete { volume, request, outcome });
    }

    /// Epochs were confirmed or lost: flushes that waited for them may end.
    pub(crate) fn epochs_moved(&mut self) {
        for volume in self.volumes() {
            let tags: Vec<Tag> =
                self.devices.get(&volume).map(|d| d.flushes.keys().copied().collect()).unwrap_or_default();
            for tag in tags {
                self.flush_progressed(volume, tag);
            }
        }
    }
}
