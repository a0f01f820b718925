//! What the peer asks of our disk: its writes and its barriers.

use drbd_format::names::DiskState as D;
use drbd_format::wire::{Data, DataFlags, Packet};
use units::SectorRange;

use crate::admin::ReplicationProtocol;
use crate::application::extents_of;
use crate::conflicts::without;
use crate::device::{Change, Device, Owner, PeerWrite, Purpose};
use crate::event::{Action, IoFault, Payload, Slice, SocketId, Tag};
use crate::link::PeerEpoch;
use crate::protocol_version::CONNECTION_HAS_VOLUMES;
use crate::resource::{Resource, Then};

/// `ID_SYNCER`: the block id of resync requests.
pub const ID_SYNCER: u64 = u64::MAX;

/// Largest request of a peer in bytes (`DRBD_MAX_BIO_SIZE`).
pub(crate) const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// Largest discard of a peer in bytes (`DRBD_MAX_BATCH_BIO_SIZE`).
const DISCARD_BYTES_MAX: u64 = 128 << 20;

/// The peer's requests under way at most, before its socket is left unread.
const PEER_REQUESTS_MAX: usize = 4096;

/// The range a packet names, if a device of this size has it.
pub(crate) fn checked_range(
    sector: u64,
    bytes: u64,
    size_sectors: u64,
    bytes_max: u64,
) -> Option<SectorRange> {
    let sound = bytes != 0 && bytes.is_multiple_of(512) && bytes <= bytes_max;
    let count = bytes / 512;
    (sound && sector.checked_add(count)? <= size_sectors).then(|| SectorRange::new(sector, count))
}

impl Device {
    /// Bytes of the peer's changes, and of its reads that have begun (`pp_in_use`).
    fn peer_buffer_bytes(&self) -> u64 {
        let writes = self.peer_writes.values().filter(|write| write.payload.is_some());
        let slowed = self.slowed_reads.iter().filter_map(|tag| self.peer_reads.get(tag));
        let waiting: u64 = slowed.map(|read| read.range.bytes()).sum();
        let reads: u64 = self.peer_reads.values().map(|read| read.range.bytes()).sum();
        writes.map(|write| write.range.bytes()).sum::<u64>() + reads - waiting
    }
}

impl Resource {
    /// Whether the data socket should be read: bounds what a peer can have under way here.
    pub fn wants_data(&self) -> bool {
        let of_verify = |d: &Device| d.verify.as_ref().map_or(0, |verify| verify.answered());
        let under_way = |d: &Device| d.peer_writes.len() + d.peer_reads.len() + of_verify(d);
        let requests = self.devices.values().map(under_way).sum::<usize>();
        let buffers_bytes = self.link.buffers_bytes();
        let fits = requests as u64 * REQUEST_BYTES_MAX <= buffers_bytes
            || self.devices.values().map(Device::peer_buffer_bytes).sum::<u64>() < buffers_bytes;
        requests < PEER_REQUESTS_MAX && fits && self.link.peer_takes_answers(buffers_bytes) && !self.defers()
    }

    /// Whether this socket carries acknowledgements; it is always read.
    pub fn is_meta_socket(&self, socket: SocketId) -> bool {
        self.link.meta == Some(socket)
    }

    /// The peer writes, discards or zeroes.
    pub(crate) fn peer_changes(
        &mut self,
        volume: u16,
        data: Data,
        size: Option<u32>,
        payload: Option<(Payload, u32)>,
    ) {
        let bytes = size.map_or_else(|| payload.map_or(0, |(_, len)| u64::from(len)), u64::from);
        let release = payload.map(|(payload, _)| payload);
        let limit = if size.is_some() { DISCARD_BYTES_MAX } else { REQUEST_BYTES_MAX };
        let range = self
            .devices
            .get(&volume)
            .and_then(|device| checked_range(data.sector, bytes, device.size_sectors, limit));
        let Some(range) = range else {
            if let Some(payload) = release {
                self.turn.out.push(Action::Release { payload });
            }
            return self.misbehaved("a write beyond the device, or of an odd length");
        };
        let change = match size {
            None => Change::Write { fua: data.flags.has(DataFlags::FUA) },
            Some(_) if data.flags.has(DataFlags::ZEROES) && !data.flags.has(DataFlags::DISCARD) => {
                Change::Zeroes { may_unmap: false }
            }
            Some(_) => Change::Zeroes { may_unmap: true },
        };
        let (receive_ack, write_ack) = self.acks_wanted(data.flags);
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let alone = device.state.pdsk < D::Inconsistent;
        let slots = device.disk.as_ref().map_or(usize::MAX, |disk| disk.superblock.al_extents as usize);
        if alone && extents_of(range).len() > slots {
            if let Some(payload) = release {
                turn.out.push(Action::Release { payload });
            }
            return self.misbehaved("a discard of more extents than the activity log has slots");
        }
        device.counters.received_kib += range.bytes() / 1024;
        let epoch = link.peer_epochs.open();
        if let Some(open) = link.peer_epochs.epochs.back_mut() {
            open.count += 1;
            open.active += 1;
        }
        if receive_ack {
            let ack = link.ack(data.sector, bytes as u32, data.block_id);
            link.send_meta(turn, volume, Packet::RecvAck(ack));
        }
        let tag = turn.tag();
        let write = PeerWrite {
            range,
            change,
            block_id: data.block_id,
            payload: release,
            ack: write_ack,
            written: false,
            flush_first: data.flags.has(DataFlags::FLUSH),
            epoch,
            alone,
            extents: Vec::new(),
            sequence: data.seq_num,
            steps_left: 0,
            failed: false,
        };
        device.peer_writes.insert(tag, write);
        if alone {
            device.set_out_of_sync(range);
        }
        self.peer_write_in_turn(volume, tag);
    }

    /// The peer's write comes after everything that it sent before. What only our disk will have must survive a crash as
    /// such: the superblock must say that the activity log counts, and then the log must name the extents.
    pub(crate) fn admit_peer_write(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get(&volume) else { return };
        if device.has_usable_disk() && device.peer_writes.get(&tag).is_some_and(|write| write.alone) {
            self.when_stable(volume, Then::PeerWrite { tag });
        } else {
            self.lock_peer_write(volume, tag);
        }
    }

    /// No own change may begin in the range from now on.
    pub(crate) fn lock_peer_write(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(range) = device.peer_writes.get(&tag).map(|write| write.range) else { return };
        if device.locks.lock(range, Owner::PeerWrite(tag)).is_some() {
            self.peer_write_locked(volume, tag);
        }
    }

    /// The superblock says that the activity log counts.
    pub(crate) fn make_peer_write_hot(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if device.has_usable_disk()
            && let Some(disk) = &mut device.disk
            && let Some(write) = device.peer_writes.get_mut(&tag)
        {
            write.extents = extents_of(write.range);
            if disk.hot.take(&write.extents, tag).is_none() {
                return;
            }
        }
        self.lock_peer_write(volume, tag);
    }

    /// Which acknowledgements a write asks for: by its flags since protocol 100, by the connection before.
    fn acks_wanted(&self, flags: DataFlags) -> (bool, bool) {
        if self.link.agreed.protocol >= CONNECTION_HAS_VOLUMES {
            return (flags.has(DataFlags::SEND_RECEIVE_ACK), flags.has(DataFlags::SEND_WRITE_ACK));
        }
        let protocol = self.link.options().protocol;
        (protocol == ReplicationProtocol::B, protocol == ReplicationProtocol::C)
    }

    /// Nothing stands in the way: write, or first flush.
    pub(crate) fn start_peer_write(&mut self, volume: u16, tag: Tag) {
        let resolves_conflicts = self.link.resolves_conflicts;
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let usable = device.has_usable_disk();
        let ours = if resolves_conflicts { device.unanswered() } else { Vec::new() };
        let may_unmap = device.discards_zero();
        let Some(write) = device.peer_writes.get_mut(&tag) else { return };
        if !usable {
            write.failed = true;
            return self.end_peer_write(volume, tag);
        }
        let purpose = || Purpose::PeerWrite { write: tag };
        if std::mem::take(&mut write.flush_first) {
            write.steps_left = 1;
            device.operations.insert(tag, purpose());
            turn.out.push(Action::Flush { tag, volume });
            return;
        }
        write.written = true;
        let pieces = without(write.range, &ours);
        let is_whole = pieces.iter().map(|piece| piece.count).sum::<u64>() == write.range.count;
        if !is_whole && matches!(write.change, Change::Write { fua: true }) {
            // What is there instead must be as durable; it is on the disk, for the range was free.
            write.steps_left += 1;
            let tag = turn.tag();
            device.operations.insert(tag, purpose());
            turn.out.push(Action::Flush { tag, volume });
        }
        for range in pieces {
            write.steps_left += 1;
            let tag = turn.tag();
            device.operations.insert(tag, purpose());
            device.counters.disk_written_kib += range.bytes() / 1024;
            device.application_sectors += range.count;
            let offset = ((range.start - write.range.start) * 512) as u32;
            let data = write.payload.map(|payload| Slice { payload, offset, len: range.bytes() as u32 });
            turn.out.push(match (write.change, data) {
                (Change::Write { fua }, Some(data)) => Action::Write { tag, volume, range, data, fua },
                (Change::Zeroes { may_unmap: false }, _) => {
                    Action::WriteZeroes { tag, volume, range, may_unmap: false }
                }
                _ => Action::WriteZeroes { tag, volume, range, may_unmap },
            });
        }
        if write.steps_left == 0 {
            self.end_peer_write(volume, tag);
        }
    }

    /// Our disk has ended a step of a peer's write.
    pub(crate) fn peer_write_done(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(write) = device.peer_writes.get_mut(&tag) else { return };
        write.steps_left -= 1;
        write.failed |= outcome.is_err();
        if write.steps_left > 0 {
            return;
        }
        if write.written || write.failed {
            self.end_peer_write(volume, tag);
        } else {
            self.start_peer_write(volume, tag);
        }
    }

    /// A peer's write is on our disk, or will not be.
    fn end_peer_write(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(write) = device.peer_writes.remove(&tag) else { return };
        let outcome = if write.failed { Err(IoFault) } else { Ok(()) };
        if let Some(disk) = device.disk.as_mut().filter(|_| !write.extents.is_empty()) {
            disk.hot.release(&write.extents, self.turn.now);
        }
        let Self { turn, link, .. } = self;
        if let Some(payload) = write.payload {
            turn.out.push(Action::Release { payload });
        }
        // Epoch numbers are never reused: an epoch of a lost connection is simply gone.
        if let Some(epoch) = link.peer_epochs.get_mut(write.epoch) {
            epoch.active -= 1;
            let ack = link.ack(write.range.start, write.range.bytes() as u32, write.block_id);
            match outcome {
                Ok(()) if write.ack => link.send_meta(turn, volume, Packet::WriteAck(ack)),
                Ok(()) => {}
                Err(IoFault) => link.send_meta(turn, volume, Packet::NegAck(ack)),
            }
        }
        self.unlock(volume, write.range);
        if outcome.is_err() {
            self.data_failed(volume, write.range);
        }
    }

    /// The peer closes its epoch.
    pub(crate) fn barrier_received(&mut self, barrier: u32) {
        let epochs = &mut self.link.peer_epochs.epochs;
        if epochs.len() > PEER_REQUESTS_MAX {
            return self.misbehaved("more barriers than can be open");
        }
        if let Some(open) = epochs.back_mut() {
            open.barrier = Some(barrier);
        }
        epochs.push_back(PeerEpoch::default());
    }

    /// Flushes once for all epochs of the peer whose writes are on the disk; acknowledges them when that is done.
    pub(crate) fn acknowledge_epochs(&mut self) {
        let Self { devices, turn, link, .. } = self;
        if link.peer_epochs.flushing.is_some() {
            return;
        }
        let complete = link.peer_epochs.complete_below();
        if complete == link.peer_epochs.first {
            return;
        }
        link.peer_epochs.flushing = Some(complete);
        link.peer_epochs.flushes_left = 0;
        for device in devices.values_mut().filter(|d| d.has_usable_disk()) {
            if device.disk.as_ref().is_some_and(|disk| disk.options.disk_flushes) {
                let tag = turn.tag();
                device.operations.insert(tag, Purpose::EpochFlush { connection: link.connection });
                link.peer_epochs.flushes_left += 1;
                turn.out.push(Action::Flush { tag, volume: device.volume });
            }
        }
        if link.peer_epochs.flushes_left == 0 {
            self.epochs_flushed();
        }
    }

    /// One volume is flushed for the peer's epochs.
    pub(crate) fn epoch_flush_done(&mut self, volume: u16, connection: u64, outcome: Result<(), IoFault>) {
        if outcome.is_err() {
            // Unconfirmed epochs stay so; a node that cannot flush is no mirror, and its connection goes with its disk.
            return self.disk_failed(volume);
        }
        if connection != self.link.connection {
            return;
        }
        let epochs = &mut self.link.peer_epochs;
        epochs.flushes_left = epochs.flushes_left.saturating_sub(1);
        if epochs.flushes_left == 0 {
            self.epochs_flushed();
        }
    }

    fn epochs_flushed(&mut self) {
        let Self { turn, link, .. } = self;
        let Some(below) = link.peer_epochs.flushing.take() else { return };
        while link.peer_epochs.first < below {
            let Some(epoch) = link.peer_epochs.epochs.pop_front() else { break };
            link.peer_epochs.first += 1;
            if let Some(barrier) = epoch.barrier {
                link.send_meta(turn, 0, Packet::BarrierAck { barrier, set_size: epoch.count });
            }
        }
    }
}
