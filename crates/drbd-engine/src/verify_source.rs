//! The source of an online verify: it asks, compares, and says how that came out.
//!
//! Upstream: `make_ov_request`, `w_e_end_ov_reply` (drbd_worker.c).

use drbd_format::names::ConnectionState as C;
use drbd_format::wire::{BlockRequest, Packet};
use units::SectorRange;

use crate::device::{BLOCK_SECTORS, Device, Owner, Purpose};
use crate::event::{Action, Finding, IoFault, Payload, Question, Slice, Tag};
use crate::peer_io::ID_SYNCER;
use crate::resource::Resource;
use crate::verify::{Compared, Ending, ID_IN_SYNC, ID_OUT_OF_SYNC, can_stop};

/// Blocks asked for at most, in sectors: 8 MiB.
const IN_FLIGHT_SECTORS_MAX: u64 = 16 << 10;

impl Resource {
    /// Asks for the next digests, as many as the rate and the window allow.
    pub(crate) fn request_digests(&mut self, volume: u16) {
        let now = self.turn.now;
        let stops = can_stop(&self.link);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if device.state.conn != C::VerifyS
            || device.verify.as_ref().is_none_or(|v| v.ending != Ending::NotYet)
        {
            return;
        }
        let is_due = device.verify.as_ref().is_some_and(|v| v.pace.is_due(now));
        let held = is_due && device.resync_should_wait(now);
        let buffers = self.link.options().max_buffers;
        let end = device.verify_end(stops);
        let Device { verify, disk, gate, .. } = device;
        let (Some(verify), Some(disk)) = (verify, disk) else { return };
        if is_due {
            verify.pace.decide(now, &disk.options, buffers, held);
        }
        let mut allowed = verify.pace.allowance(now, &disk.options);
        let size = device.size_sectors;
        let mut begun = Vec::new();
        while allowed >= BLOCK_SECTORS
            && verify.waiting.is_none()
            && (verify.position < end || verify.is_fresh)
            && verify.asked.len() as u64 * BLOCK_SECTORS < IN_FLIGHT_SECTORS_MAX
        {
            let start = verify.position;
            let range = SectorRange::new(start, BLOCK_SECTORS.min(size - start));
            verify.is_fresh = false;
            verify.position += BLOCK_SECTORS;
            verify.asked.insert(start, Compared { range, digest: None, step: None });
            verify.pace.asked(range.count);
            allowed -= BLOCK_SECTORS;
            let tag = self.turn.tag();
            if gate.lock(range, tag).is_some() {
                begun.push(range);
            } else {
                verify.waiting = Some((tag, range));
            }
        }
        for range in begun {
            self.ask_for_digest(volume, range);
        }
    }

    pub(crate) fn ask_for_digest(&mut self, volume: u16, range: SectorRange) {
        let blksize = range.bytes() as u32;
        let ask = BlockRequest { sector: range.start, block_id: ID_SYNCER, blksize };
        self.link.send(&mut self.turn, volume, Packet::OvRequest(ask), None);
    }

    /// Source: the target's digest of a block has come.
    pub(crate) fn digest_received(
        &mut self,
        volume: u16,
        reply: BlockRequest,
        payload: Option<(Payload, u32)>,
    ) {
        let Some((digest, _)) = payload else { return self.misbehaved("OVReply without a digest") };
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let asked = device.verify.as_mut().and_then(|v| v.asked.get_mut(&reply.sector));
        match asked {
            Some(asked) if asked.digest.is_none() && asked.range.bytes() == u64::from(reply.blksize) => {
                asked.digest = Some(digest);
                let range = asked.range;
                if let Some(verify) = &mut device.verify {
                    verify.pace.came(range.count);
                }
                if device.locks.lock(range, Owner::Verify(range.start)).is_some() {
                    self.read_to_compare(volume, range.start);
                }
            }
            // Asked for before the verify was broken off; the target waits for the result all the same.
            _ => {
                turn.out.push(Action::Release { payload: digest });
                let ack = link.ack(reply.sector, reply.blksize, ID_IN_SYNC);
                link.send_meta(turn, volume, Packet::OvResult(ack));
            }
        }
    }

    /// Source: no change of the peer is under way in a block whose digest has come.
    pub(crate) fn read_to_compare(&mut self, volume: u16, sector: u64) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(asked) = device.verify.as_mut().and_then(|v| v.asked.get_mut(&sector)) else { return };
        let (tag, range) = (turn.tag(), asked.range);
        asked.step = Some(tag);
        device.operations.insert(tag, Purpose::VerifyRead { range });
        device.counters.disk_read_kib += range.bytes() / 1024;
        turn.out.push(Action::Read { tag, volume, range });
    }

    /// Source: our own block is here.
    pub(crate) fn read_for_verify(
        &mut self,
        volume: u16,
        tag: Tag,
        range: SectorRange,
        outcome: Result<(), IoFault>,
    ) {
        self.unlock(volume, range);
        let payload = Payload(tag.0);
        let alg = self.verify_alg();
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let asked = device.verify.as_mut().and_then(|v| v.asked.get_mut(&range.start));
        let next = turn.tag();
        let digest = asked.filter(|asked| asked.step == Some(tag)).and_then(|asked| {
            asked.step = Some(next);
            asked.digest.take()
        });
        match (digest, alg, outcome) {
            (Some(digest), Some(alg), Ok(())) => {
                device.operations.insert(next, Purpose::VerifyCompare { range, block: payload, digest });
                let data = Some(Slice { payload, offset: 0, len: range.bytes() as u32 });
                let question = Question::HasDigest(alg, digest);
                turn.out.push(Action::Inspect { tag: next, data, question });
            }
            (digest, _, outcome) => {
                turn.out.extend(digest.map(|payload| Action::Release { payload }));
                if outcome.is_ok() {
                    turn.out.push(Action::Release { payload });
                }
                if digest.is_some() {
                    // What cannot be read cannot be said to be equal.
                    self.compared(volume, range, false);
                }
                if outcome.is_err() {
                    self.disk_failed(volume);
                }
            }
        }
    }

    /// Source: the digests are equal, or not.
    pub(crate) fn block_inspected(
        &mut self,
        volume: u16,
        tag: Tag,
        range: SectorRange,
        payloads: [Payload; 2],
        finding: Finding,
    ) {
        self.turn.out.extend(payloads.map(|payload| Action::Release { payload }));
        let verify = self.devices.get(&volume).and_then(|d| d.verify.as_ref());
        if verify.and_then(|v| v.asked.get(&range.start)).is_some_and(|a| a.step == Some(tag)) {
            self.compared(volume, range, finding == Finding::Is(true));
        }
    }

    fn compared(&mut self, volume: u16, range: SectorRange, is_equal: bool) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.note_compared(turn, range, is_equal);
        let id = if is_equal { ID_IN_SYNC } else { ID_OUT_OF_SYNC };
        let ack = link.ack(range.start, range.bytes() as u32, id);
        link.send_meta(turn, volume, Packet::OvResult(ack));
        device.count_compared(turn.now);
        if let Some(verify) = &mut device.verify {
            verify.asked.remove(&range.start);
        }
        self.leave_gate(volume, range);
    }

    /// Source: the target cannot read a block. True: it was one of a verify.
    pub(crate) fn digest_refused(&mut self, volume: u16, sector: u64) -> bool {
        let Some(device) = self.devices.get_mut(&volume) else { return false };
        let Some(verify) = &mut device.verify else { return false };
        if verify.asked.get(&sector).is_none_or(|asked| asked.digest.is_some()) {
            return false;
        }
        let Some(asked) = verify.asked.remove(&sector) else { return false };
        verify.pace.came(asked.range.count);
        device.count_compared(self.turn.now);
        self.leave_gate(volume, asked.range);
        true
    }

    /// Source: ends when everything is compared, once the target has all results.
    pub(crate) fn finish_verify_if_done(&mut self, volume: u16) {
        let stops = can_stop(&self.link);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if device.state.conn != C::VerifyS {
            return;
        }
        let end = device.verify_end(stops);
        let Some(verify) = &mut device.verify else { return };
        match verify.ending {
            Ending::NotYet if !verify.is_fresh && verify.position >= end && verify.asked.is_empty() => {
                verify.ending = Ending::Due;
            }
            Ending::NotYet => return,
            Ending::Due | Ending::Pinged => {}
        }
        if self.link.pinged_at.is_some() {
            return;
        }
        if verify.ending == Ending::Pinged {
            return self.verify_finished(volume);
        }
        verify.ending = Ending::Pinged;
        self.ping();
    }
}
