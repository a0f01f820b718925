//! What the peer reads of our disk, for its front, its resync or its verify, and what it is answered.
//!
//! Upstream: `receive_DataRequest` (drbd_receiver.c), `w_e_end_data_req`, `w_e_end_rsdata_req`, `w_e_end_csum_rs_req`,
//! `w_e_end_ov_req` (drbd_worker.c).

use drbd_format::auth::Digest;
use drbd_format::names::{DiskState as D, Role};
use drbd_format::wire::{BlockRequest, Data, DataFlags, Packet};

use crate::device::{Device, Owner, PeerRead, Purpose, ReadKind};
use crate::event::{Action, Finding, IoFault, Payload, Question, Slice, Tag};
use crate::link::Link;
use crate::pace;
use crate::peer_io::{ID_SYNCER, checked_range};
use crate::protocol_version::reply_bytes_max;
use crate::resource::Resource;
use crate::turn::Turn;

impl Resource {
    /// The peer reads: for its front, for its resync or a verify.
    pub(crate) fn peer_reads(&mut self, volume: u16, ask: BlockRequest, kind: ReadKind) {
        let longest = reply_bytes_max(&self.link.agreed);
        let range = self.devices.get(&volume).and_then(|device| {
            checked_range(ask.sector, u64::from(ask.blksize), device.size_sectors, longest)
        });
        let Some(range) = range else {
            if let ReadKind::Checksum(payload) = kind {
                self.turn.out.push(Action::Release { payload });
            }
            return self.misbehaved("a read beyond the device, or of an odd length");
        };
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let tag = self.turn.tag();
        let (block_id, connection) = (ask.block_id, self.link.connection);
        device.peer_reads.insert(tag, PeerRead { range, block_id, kind, waits_for_gate: false, connection });
        if kind == ReadKind::Front {
            device.application_sectors += range.count;
            return self.start_peer_read(volume, tag);
        }
        device.slowed_reads.push_back(tag);
        self.resume_slowed_reads(volume);
    }

    /// Lets the peer's resync reads go on, one in a while as long as others use the disk (upstream: `receive_DataRequest`
    /// sleeps). A primary target would read slowly by that: it holds back itself.
    pub(crate) fn resume_slowed_reads(&mut self, volume: u16) {
        let now = self.turn.now;
        while let Some(device) = self.devices.get_mut(&volume) {
            if now < device.slowed_until {
                return;
            }
            let Some(tag) = device.slowed_reads.pop_front() else { return };
            if device.state.peer != Role::Primary && device.resync_should_wait(now) {
                device.slowed_until = now + pace::TURN;
            }
            let Some(read) = device.peer_reads.get_mut(&tag) else { continue };
            if read.kind == ReadKind::Verify && device.gate.lock(read.range, tag).is_none() {
                read.waits_for_gate = true;
                continue;
            }
            self.lock_peer_read(volume, tag);
        }
    }

    /// A read that is not for a front excludes writes until its answer is queued, so that no newer write overtakes it.
    pub(crate) fn lock_peer_read(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(read) = device.peer_reads.get_mut(&tag) else { return };
        read.waits_for_gate = false;
        if device.locks.lock(read.range, Owner::PeerRead(tag)).is_some() {
            self.start_peer_read(volume, tag);
        }
    }

    /// The connection is lost: nobody waits for the resync reads that had not begun.
    pub(crate) fn drop_slowed_reads(&mut self, volume: u16) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        for tag in std::mem::take(&mut device.slowed_reads) {
            if let Some(PeerRead { kind: ReadKind::Checksum(payload), .. }) = device.peer_reads.remove(&tag) {
                self.turn.out.push(Action::Release { payload });
            }
        }
        device.slowed_until = self.turn.now;
    }

    /// Nothing stands in the way of a peer's read.
    pub(crate) fn start_peer_read(&mut self, volume: u16, tag: Tag) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(range) = device.peer_reads.get(&tag).map(|r| r.range) else { return };
        if device.state.disk != D::UpToDate || device.disk.is_none() {
            return self.end_peer_read(volume, tag, None);
        }
        device.operations.insert(tag, Purpose::PeerRead);
        device.counters.disk_read_kib += range.bytes() / 1024;
        turn.out.push(Action::Read { tag, volume, range });
    }

    /// Our disk has answered a read of the peer.
    pub(crate) fn peer_read_done(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        let question = self.question_about(volume, tag, outcome);
        let asked = self.devices.get(&volume).and_then(|d| d.peer_reads.get(&tag));
        let asked = asked.map(|read| read.range);
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        if let (Some(question), Some(read)) = (question, device.peer_reads.get(&tag)) {
            let data = Slice { payload: Payload(tag.0), offset: 0, len: read.range.bytes() as u32 };
            device.operations.insert(tag, Purpose::PeerReadInspection);
            turn.out.push(Action::Inspect { tag, data: outcome.is_ok().then_some(data), question });
        } else {
            self.end_peer_read(volume, tag, outcome.is_ok().then_some(PeerAnswer::Data));
        }
        if let (true, Some(range)) = (outcome.is_err(), asked) {
            self.resync_block_failed(volume, range);
            self.data_failed(volume, range);
        }
    }

    /// What must be known of the bytes before they are answered with.
    fn question_about(&self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) -> Option<Question> {
        let read = self.devices.get(&volume)?.peer_reads.get(&tag)?;
        let digest = |name: &str| Digest::by_name(name);
        let options = self.link.options();
        if read.connection != self.link.connection {
            return None;
        }
        match read.kind {
            ReadKind::Verify => digest(&options.verify_alg).map(Question::Digest),
            ReadKind::Thin if outcome.is_ok() => Some(Question::IsZero),
            ReadKind::Checksum(theirs) if outcome.is_ok() => {
                digest(&options.csums_alg).map(|alg| Question::HasDigest(alg, theirs))
            }
            _ => None,
        }
    }

    /// It is known what there was to be known of the bytes.
    pub(crate) fn peer_read_inspected(&mut self, volume: u16, tag: Tag, finding: Finding) {
        let Some(read) = self.devices.get(&volume).and_then(|d| d.peer_reads.get(&tag)) else { return };
        let answer = match (read.kind, finding) {
            (ReadKind::Verify, Finding::Digest(payload, len)) => PeerAnswer::Digest(payload, len),
            (ReadKind::Thin, Finding::Is(true)) => PeerAnswer::Zeroes,
            (ReadKind::Checksum(_), Finding::Is(true)) => PeerAnswer::InSync,
            _ => PeerAnswer::Data,
        };
        self.end_peer_read(volume, tag, Some(answer));
    }

    /// Answers a read of the peer, and lets go what it held. None: it cannot be read.
    fn end_peer_read(&mut self, volume: u16, tag: Tag, answer: Option<PeerAnswer>) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(read) = device.peer_reads.remove(&tag) else { return };
        let is_awaited = read.connection == link.connection;
        if is_awaited {
            device.answer_peer_read(turn, link, tag, &read, answer);
        }
        // Of bytes that could not be read there is no payload, and letting go of none does nothing.
        turn.out.push(Action::Release { payload: Payload(tag.0) });
        if let ReadKind::Checksum(payload) = read.kind {
            turn.out.push(Action::Release { payload });
        }
        if let Some(PeerAnswer::Digest(payload, _)) = answer {
            turn.out.push(Action::Release { payload });
        }
        if read.kind == ReadKind::Front {
            return;
        }
        if read.kind == ReadKind::Verify {
            if is_awaited && answer.is_some() {
                self.digest_sent(volume, read.range);
            } else {
                self.leave_gate(volume, read.range);
            }
        }
        self.unlock(volume, read.range);
    }
}

/// What a read of the peer is answered with.
#[derive(Clone, Copy, Debug)]
enum PeerAnswer {
    /// The bytes.
    Data,
    /// Their digest, and its length.
    Digest(Payload, u32),
    /// There are only zeroes.
    Zeroes,
    /// The peer has the same.
    InSync,
}

impl Device {
    fn answer_peer_read(
        &mut self,
        turn: &mut Turn,
        link: &mut Link,
        tag: Tag,
        read: &PeerRead,
        answer: Option<PeerAnswer>,
    ) {
        let (volume, sector, blksize) = (self.volume, read.range.start, read.range.bytes() as u32);
        let is_front = read.kind == ReadKind::Front;
        match answer {
            Some(PeerAnswer::Data) => {
                let block_id = if is_front { read.block_id } else { ID_SYNCER };
                let head = Data { sector, block_id, seq_num: 0, flags: DataFlags(0) };
                let packet = if is_front { Packet::DataReply(head) } else { Packet::RsDataReply(head) };
                self.counters.sent_kib += u64::from(blksize) / 1024;
                link.replies(u64::from(blksize));
                link.send(
                    turn,
                    volume,
                    packet,
                    Some(Slice { payload: Payload(tag.0), offset: 0, len: blksize }),
                );
            }
            Some(PeerAnswer::Digest(payload, len)) => {
                let reply = BlockRequest { sector, block_id: ID_SYNCER, blksize };
                link.send(turn, volume, Packet::OvReply(reply), Some(Slice { payload, offset: 0, len }));
            }
            Some(PeerAnswer::Zeroes) => {
                link.send(turn, volume, Packet::RsDeallocated { sector, blksize }, None);
            }
            Some(PeerAnswer::InSync) => {
                self.equal_checksum(turn.now, read.range);
                let ack = link.ack(sector, blksize, read.block_id);
                link.send_meta(turn, volume, Packet::RsIsInSync(ack));
            }
            None => {
                let ack = link.ack(sector, blksize, read.block_id);
                let packet = if is_front { Packet::NegDreply(ack) } else { Packet::NegRsDreply(ack) };
                link.send_meta(turn, volume, packet);
            }
        }
    }
}
