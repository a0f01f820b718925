//! Copying what differs from the source to the target.
//!
//! The target asks for blocks that its bitmap marks, writes them, and says so; both clear their bits. On the target a bit
//! is cleared on the disk only after its block is stable, and nothing is asked for before the disk is marked
//! inconsistent: a crash at any point leaves bits, never a false claim.

use std::collections::BTreeMap;
use std::time::Duration;

use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{BlockAck, Data, Packet};
use units::SectorRange;

use crate::device::{BLOCK_SECTORS, BitmapDue, Device, Owner, Purpose};
use crate::event::{Action, IoFault, Payload, Slice, Tag};
use crate::handlers::{After, Handler, HandlerRun};
use crate::pace::{self, Pace};
use crate::peer_io::ID_SYNCER;
use crate::progress::Progress;
use crate::protocol_version::TARGET_SAYS_WHEN_DONE;
use crate::resource::Resource;
use crate::resync_savings::Savings;
use crate::state::State;
use crate::time::Instant;

/// Longest request in blocks: 512 KiB.
const REQUEST_BLOCKS_MAX: u64 = 128;

/// Requests under way at most, in sectors: 8 MiB.
const IN_FLIGHT_SECTORS_MAX: u64 = 16 << 10;

/// How often the target writes its bitmap while it syncs.
const BITMAP_INTERVAL: Duration = Duration::from_secs(5);

/// A request for a block on its way.
#[derive(Debug)]
struct Asked {
    range: SectorRange,
    payload: Option<Payload>,
    /// The source says that there are only zeroes.
    is_zero: bool,
    /// Our read for its checksum, then that itself.
    checksum: Option<Tag>,
    /// Its answer is being written.
    writing: Option<Tag>,
}

impl Asked {
    fn new(range: SectorRange) -> Self {
        Self { range, payload: None, is_zero: false, checksum: None, writing: None }
    }

    fn has_come(&self) -> bool {
        self.payload.is_some() || self.is_zero
    }
}

/// A resync under way, on either side.
#[derive(Debug)]
pub struct Resync {
    /// How blocks are asked for, and what that saved.
    pub(crate) savings: Savings,
    /// What it had to do when it began, and how fast that goes.
    pub(crate) progress: Progress,
    /// Blocks that could not be synced.
    pub failed: u64,
    /// Source: the target has said that it is done. Its last acknowledgements may come after that, on the other socket.
    pub(crate) target_is_done: bool,
    /// Target: our bitmap is stable, blocks may be asked for once the superblock of this version is stable, too.
    ready_at: Option<u64>,
    /// Target: next bit to look at.
    position: u64,
    in_flight: BTreeMap<u64, Asked>,
    in_flight_sectors: u64,
    /// Target: how fast blocks are asked for.
    pub(crate) pace: Pace,
    bitmap_written: Instant,
    /// The end is being made stable.
    ending: Option<Tag>,
    /// Target: the write of our bitmap before the first question; that of an earlier resync does not count.
    preparing: Option<Tag>,
}

impl Resync {
    pub(crate) fn new(now: Instant, total: u64) -> Self {
        Self {
            savings: Savings::default(),
            progress: Progress::new(now, total),
            failed: 0,
            target_is_done: false,
            ready_at: None,
            position: 0,
            in_flight: BTreeMap::new(),
            in_flight_sectors: 0,
            pace: Pace::new(now),
            bitmap_written: now,
            ending: None,
            preparing: None,
        }
    }
}

impl Resync {
    /// Number of runs that were asked for and have not come.
    pub(crate) fn asked(&self) -> usize {
        self.in_flight.values().filter(|asked| !asked.has_come()).count()
    }

    /// The read for a checksum begins, or its computation.
    pub(crate) fn checksum_begins(&mut self, sector: u64, tag: Tag) {
        if let Some(asked) = self.in_flight.get_mut(&sector) {
            asked.checksum = Some(tag);
        }
    }

    /// Whether this step is that of a block of ours, and not one of a resync that was abandoned.
    pub(crate) fn awaits_checksum(&self, sector: u64, tag: Tag) -> bool {
        self.in_flight.get(&sector).is_some_and(|asked| asked.checksum == Some(tag))
    }

    /// A block that was asked for need not come; its range.
    pub(crate) fn need_not_come(&mut self, sector: u64, bytes: u32) -> Option<SectorRange> {
        let asked = self.in_flight.get(&sector)?;
        if asked.has_come() || asked.range.bytes() != u64::from(bytes) {
            return None;
        }
        let range = self.in_flight.remove(&sector)?.range;
        self.in_flight_sectors -= range.count;
        self.pace.came(range.count);
        Some(range)
    }

    /// Zeroes have come for a block that was asked for; its range.
    pub(crate) fn zeroes_came(&mut self, sector: u64, bytes: u32) -> Option<SectorRange> {
        let asked = self.in_flight.get_mut(&sector)?;
        if asked.has_come() || asked.range.bytes() != u64::from(bytes) {
            return None;
        }
        asked.is_zero = true;
        self.pace.came(asked.range.count);
        Some(asked.range)
    }
}

impl Device {
    /// When the target of a resync has something to do even if nothing happens.
    pub(crate) fn resync_deadline(&self, now: Instant) -> Option<Instant> {
        let resync = self.resync.as_ref().filter(|_| self.state.conn == C::SyncTarget)?;
        let is_fixed = self.disk.as_ref().is_none_or(|disk| disk.options.c_plan_ahead_ds == 0);
        Some(resync.pace.deadline(now, is_fixed))
    }
}

impl Resource {
    /// Makes our bits stable and has them sent then, once no change of the front is under way: one that the peer refuses
    /// would set bits that the peer never learns of. New ones wait for the resync (upstream: `drbd_queue_bitmap_io`).
    pub(crate) fn exchange_bitmap_if_due(&mut self, volume: u16) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(due) = device.bitmap_due else { return };
        if device.state.conn != C::WFBitMapS {
            device.bitmap_due = None;
            return;
        }
        if due == BitmapDue::AfterChanges && device.parts.is_empty() {
            link.close_epoch(turn);
            device.bitmap_due = link.log.newest_closed().map(BitmapDue::AfterEpoch);
        }
        let over = match device.bitmap_due {
            None => true,
            Some(BitmapDue::AfterEpoch(epoch)) => link.log.is_settled(epoch),
            Some(BitmapDue::AfterChanges) => false,
        };
        if over {
            device.bitmap_due = None;
            device.bitmap_job = device.write_bitmap(turn, Purpose::BitmapBeforeExchange);
        }
    }

    /// Both bitmaps are joined: begins the resync on this side, if the administrator's handler does not mind.
    pub(crate) fn begin_resync(&mut self, volume: u16, side: C) {
        let handler = match side {
            C::SyncTarget => Handler::BeforeResyncTarget,
            _ => Handler::BeforeResyncSource,
        };
        let asked = self.call_handler_then(handler, Some(volume), After::Resync { volume });
        match (self.devices.get_mut(&volume), asked) {
            (Some(device), Some(run)) => device.asked_handler = Some(run),
            _ => self.lose(C::ProtocolError),
        }
    }

    /// The handler that may refuse a resync has ended (`drbd_start_resync`).
    pub(crate) fn resync_permitted(&mut self, volume: u16, run: HandlerRun, handler: Handler, status: u8) {
        let Some(device) = self.devices.get_mut(&volume).filter(|d| d.asked_handler == Some(run)) else {
            return;
        };
        device.asked_handler = None;
        let name = handler.name();
        match (handler, status) {
            (_, 0) => {}
            (Handler::BeforeResyncSource, 3) => {
                let text = format!("{name} handler returned 3, ignoring. Old userland tools?");
                self.turn.info(text);
            }
            _ => {
                let text = format!("{name} handler returned {status}, dropping connection.");
                self.turn.info(text);
                return self.stand_alone();
            }
        }
        let side = if handler == Handler::BeforeResyncTarget { C::SyncTarget } else { C::SyncSource };
        self.resync_begins(volume, side);
    }

    fn resync_begins(&mut self, volume: u16, side: C) {
        let now = self.turn.now;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let left = device.dirty_blocks();
        let mut resync = Resync::new(now, left);
        if side == C::SyncTarget {
            resync.savings = Savings::of(device, &self.link);
        }
        device.resync = Some(resync);
        let mut next = State { conn: side, ..device.state };
        match side {
            C::SyncTarget => next.disk = D::Inconsistent,
            _ => next.pdsk = D::Inconsistent,
        }
        self.transition(volume, next);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let conn = device.state.conn;
        let kib = left * 4;
        self.turn.info(format_args!("Began resync as {conn} (will sync {kib} KB [{left} bits set])."));
        if matches!(conn, C::SyncTarget | C::PausedSyncT) {
            let Some(device) = self.devices.get_mut(&volume) else { return };
            let job = device.write_bitmap(&mut self.turn, Purpose::BitmapBeforeResync);
            if let Some(resync) = &mut device.resync {
                resync.preparing = job;
            }
        }
    }

    /// The target's bitmap is stable: blocks may be asked for once the superblock says Inconsistent.
    pub(crate) fn resync_may_begin(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        if outcome.is_err() {
            return self.disk_failed(volume);
        }
        // The superblock of the state change is at least as old as this version.
        self.write_superblock(volume);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let version = device.disk.as_ref().map_or(0, |disk| disk.version);
        if let Some(resync) = device.resync.as_mut().filter(|r| r.preparing == Some(tag)) {
            resync.ready_at = Some(version);
        }
    }

    /// Asks for the next blocks, as many as the rate and the window allow.
    pub(crate) fn request_resync_blocks(&mut self, volume: u16) {
        let Self { devices, turn, link, .. } = self;
        let now = turn.now;
        let Some(device) = devices.get_mut(&volume) else { return };
        let (Some(disk), Some(resync)) = (&mut device.disk, &mut device.resync) else { return };
        let left = disk.bitmap.count();
        resync.progress.mark(now, left);
        let ready = resync.ready_at.is_some_and(|version| disk.stable >= version);
        if device.state.conn != C::SyncTarget || !ready || resync.ending.is_some() {
            return;
        }
        let is_due = resync.pace.is_due(now);
        let held = is_due && device.resync_should_wait(now);
        let (Some(disk), Some(resync)) = (&mut device.disk, &mut device.resync) else { return };
        if is_due {
            resync.pace.decide(now, &disk.options, link.options().max_buffers, held);
        }
        let mut allowed = resync.pace.allowance(now, &disk.options);
        let bits = disk.bitmap.bits();
        let mut wrapped = false;
        let mut begun = Vec::new();
        while resync.in_flight_sectors < IN_FLIGHT_SECTORS_MAX && allowed >= BLOCK_SECTORS {
            let Some(first) = disk.bitmap.next_set(resync.position) else {
                if wrapped || !resync.in_flight.is_empty() {
                    break;
                }
                wrapped = true;
                resync.position = 0;
                continue;
            };
            let mut end = first + 1;
            let answerable = u64::from(link.agreed.bio_bytes_max()) / 512 / BLOCK_SECTORS;
            let longest = REQUEST_BLOCKS_MAX
                .min(answerable)
                .min(pace::longest_blocks(allowed, &disk.options))
                .min(resync.savings.longest(first));
            while end < bits && end - first < longest && disk.bitmap.is_set(end) {
                end += 1;
            }
            resync.position = end;
            let start = first * BLOCK_SECTORS;
            let range = SectorRange::new(start, (end * BLOCK_SECTORS).min(device.size_sectors) - start);
            if resync.in_flight.values().any(|asked| asked.range.overlaps(range))
                || !device.gate.try_lock(range)
            {
                continue;
            }
            resync.in_flight.insert(start, Asked::new(range));
            resync.in_flight_sectors += range.count;
            resync.pace.asked(range.count);
            allowed = allowed.saturating_sub(range.count);
            begun.push(range);
        }
        if now.since(resync.bitmap_written) >= BITMAP_INTERVAL {
            resync.bitmap_written = now;
            device.write_bitmap(turn, Purpose::BitmapPages);
        }
        for range in begun {
            self.ask_for_blocks(volume, range);
        }
    }

    /// A block of the resync has arrived: write it.
    pub(crate) fn resync_data(&mut self, volume: u16, reply: Data, payload: Option<(Payload, u32)>) {
        let Some((payload, len)) = payload else { return self.misbehaved("RSDataReply without data") };
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.counters.received_kib += u64::from(len) / 1024;
        let usable = device.has_usable_disk();
        let asked = device.resync.as_mut().and_then(|r| r.in_flight.get_mut(&reply.sector));
        match asked {
            Some(asked) if asked.range.bytes() == u64::from(len) && !asked.has_come() && usable => {
                asked.payload = Some(payload);
                let range = asked.range;
                if let Some(resync) = &mut device.resync {
                    resync.pace.came(range.count);
                }
                if device.locks.lock(range, Owner::Resync(range.start)).is_some() {
                    self.start_resync_write(volume, range.start);
                }
            }
            Some(_) => {
                turn.out.push(Action::Release { payload });
                self.misbehaved("RSDataReply of another length than was asked for");
            }
            // Asked for before the disk was lost: nobody needs it.
            None => turn.out.push(Action::Release { payload }),
        }
    }

    /// No change of the peer is under way where a block of the resync goes.
    pub(crate) fn start_resync_write(&mut self, volume: u16, sector: u64) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let asked = device.resync.as_mut().and_then(|r| r.in_flight.get_mut(&sector));
        let Some(asked) = asked.filter(|a| a.payload.is_some() || a.is_zero) else { return };
        let tag = turn.tag();
        asked.writing = Some(tag);
        let (range, payload) = (asked.range, asked.payload);
        let may_unmap = device.discards_zero();
        device.operations.insert(tag, Purpose::ResyncWrite { sector });
        device.counters.disk_written_kib += range.bytes() / 1024;
        turn.out.push(match payload {
            Some(payload) => {
                let data = Slice { payload, offset: 0, len: range.bytes() as u32 };
                Action::Write { tag, volume, range, data, fua: false }
            }
            None => Action::WriteZeroes { tag, volume, range, may_unmap },
        });
    }

    /// A block of the resync is on our disk.
    pub(crate) fn resync_written(
        &mut self,
        volume: u16,
        sector: u64,
        tag: Tag,
        outcome: Result<(), IoFault>,
    ) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(resync) = &mut device.resync else { return };
        if resync.in_flight.get(&sector).and_then(|a| a.writing) != Some(tag) {
            return;
        }
        let Some(asked) = resync.in_flight.remove(&sector) else { return };
        resync.in_flight_sectors -= asked.range.count;
        if let Some(payload) = asked.payload {
            turn.out.push(Action::Release { payload });
        }
        let len = asked.range.bytes() as u32;
        match outcome {
            Ok(()) => {
                if let Some(disk) = &mut device.disk {
                    disk.bitmap.clear_range(asked.range);
                }
                let ack = link.ack(sector, len, ID_SYNCER);
                link.send_meta(turn, volume, Packet::RsWriteAck(ack));
            }
            Err(IoFault) => {
                let ack = link.ack(sector, len, ID_SYNCER);
                link.send_meta(turn, volume, Packet::NegAck(ack));
            }
        }
        self.unlock(volume, asked.range);
        self.leave_gate(volume, asked.range);
        if outcome.is_err() {
            self.resync_block_failed(volume, asked.range);
            self.data_failed(volume, asked.range);
        }
    }

    /// The source could not read a block, or not now.
    pub(crate) fn resync_refused(&mut self, volume: u16, ack: BlockAck, for_good: bool) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(resync) = &mut device.resync else { return };
        if resync.in_flight.get(&ack.sector).is_none_or(|asked| asked.has_come()) {
            return;
        }
        let Some(asked) = resync.in_flight.remove(&ack.sector) else { return };
        resync.in_flight_sectors -= asked.range.count;
        resync.pace.came(asked.range.count);
        if for_good {
            resync.failed += asked.range.count.div_ceil(BLOCK_SECTORS);
        }
        self.leave_gate(volume, asked.range);
    }

    /// The target has a block: it is in sync.
    pub(crate) fn block_in_sync(&mut self, volume: u16, ack: BlockAck) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let range = SectorRange::new(ack.sector, u64::from(ack.blksize) / 512);
        let inside = ack.sector.checked_add(range.count).is_some_and(|end| end <= device.size_sectors);
        if !inside || range.count == 0 {
            return self.misbehaved("an acknowledgement beyond the device");
        }
        let now = self.turn.now;
        if let Some(disk) = &mut device.disk {
            disk.bitmap.clear_range(range);
            let left = disk.bitmap.count();
            if let Some(resync) = &mut device.resync {
                resync.progress.mark(now, left);
            }
        }
    }

    /// Ends the resync when no block is left.
    pub(crate) fn finish_resync_if_done(&mut self, volume: u16) {
        let says_when_done = self.link.agreed.protocol >= TARGET_SAYS_WHEN_DONE;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let left = device.dirty_blocks();
        let Some(resync) = &mut device.resync else { return };
        if resync.ending.is_some() || !resync.in_flight.is_empty() || left > resync.failed {
            return;
        }
        match device.state.conn {
            C::SyncTarget | C::PausedSyncT if resync.ready_at.is_some() => {
                // Data first, then the bits that vouch for it; the superblock follows when this is done.
                let job = device.write_bitmap(&mut self.turn, Purpose::ResyncEnd);
                if let Some(resync) = &mut device.resync {
                    resync.ending = job;
                }
            }
            // The target says itself when everything is stable there; until then it is no copy to rely on.
            C::SyncSource | C::PausedSyncS
                if resync.failed != 0 || resync.target_is_done || !says_when_done =>
            {
                self.resync_finished(volume);
            }
            _ => {}
        }
    }

    /// Everything the resync wrote is stable, and its bitmap too.
    pub(crate) fn resync_end_stable(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        if outcome.is_err() {
            return self.disk_failed(volume);
        }
        let ends = |r: &Resync| r.ending == Some(tag);
        let syncing = self.devices.get(&volume).is_some_and(|d| {
            matches!(d.state.conn, C::SyncTarget | C::PausedSyncT) && d.resync.as_ref().is_some_and(ends)
        });
        if syncing {
            self.resync_finished(volume);
        }
    }

    /// The two are equal: generations and states say so (`drbd_resync_finished`).
    pub(crate) fn resync_finished(&mut self, volume: u16) {
        let now = self.turn.now;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(resync) = device.resync.take() else { return };
        let (seconds, paused, speed) = resync.progress.summary(now, resync.progress.total);
        let target = matches!(device.state.conn, C::SyncTarget | C::PausedSyncT);
        let mut next = State { conn: C::Connected, ..device.state };
        if resync.failed == 0 {
            next.disk = D::UpToDate;
            next.pdsk = D::UpToDate;
            let role = device.state.role;
            if let Some(disk) = &mut device.disk {
                if target && let Some(peer) = &device.peer_uuids {
                    disk.generations.adopt(peer, role);
                } else {
                    disk.generations.bitmap_done();
                }
                disk.changed();
                if let Some(peer) = &mut device.peer_uuids {
                    let [current, bitmap, h0, h1] = disk.generations.0;
                    peer.current = current;
                    peer.bitmap = bitmap;
                    peer.history = [h0, h1];
                }
            }
        } else if target {
            next.disk = D::Inconsistent;
            next.pdsk = D::UpToDate;
        } else {
            next.disk = D::UpToDate;
            next.pdsk = D::Inconsistent;
        }
        let minor = device.minor;
        self.turn.info(format_args!("Resync done (total {seconds} sec; paused {paused} sec; {speed} K/sec)"));
        Self::report_savings(&mut self.turn, minor, resync.savings, resync.progress.total);
        if resync.failed != 0 {
            self.turn.log(crate::event::Level::Error, format_args!("{} failed blocks", resync.failed));
        }
        self.transition(volume, next);
        if target {
            self.call_handler(Handler::AfterResyncTarget, volume);
        } else {
            self.unfence_if_equal(volume);
        }
    }

    /// The resync cannot go on: what was asked for will not come.
    pub(crate) fn abandon_resync(&mut self, volume: u16) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(resync) = &mut device.resync else { return };
        // Blocks being written keep their place until the disk is done with them.
        let (kept, gone): (BTreeMap<u64, Asked>, BTreeMap<u64, Asked>) =
            std::mem::take(&mut resync.in_flight).into_iter().partition(|(_, a)| a.writing.is_some());
        let orphans = kept;
        device.resync = None;
        for (_, asked) in orphans {
            if let Some(tag) = asked.writing {
                device
                    .operations
                    .insert(tag, Purpose::OrphanedResyncWrite { range: asked.range, payload: asked.payload });
            }
        }
        let waiting: Vec<u64> = gone
            .iter()
            .filter(|(_, a)| a.payload.is_some() || a.is_zero)
            .map(|(&sector, _)| sector)
            .collect();
        let (_, admitted) =
            device.locks.withdraw(|owner| matches!(owner, Owner::Resync(sector) if waiting.contains(sector)));
        for (_, asked) in gone {
            if let Some(payload) = asked.payload {
                self.turn.out.push(Action::Release { payload });
            }
            self.leave_gate(volume, asked.range);
        }
        for owner in admitted {
            self.lock_gained(volume, owner);
        }
    }
}
