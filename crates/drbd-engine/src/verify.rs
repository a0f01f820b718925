//! Online verify: are both disks the same, block by block?
//!
//! The source asks for a digest of each block, compares it with its own, and says how that came out; both mark what
//! differs. While a block is being compared no front may change it on either node: the source holds its gate from the
//! question on, the target from the question to the result. What the target's front wrote before has reached the source
//! before the digest does, by the same socket; nothing else can come between the two reads.
//! Upstream: `make_ov_request`, `w_e_end_ov_req`, `w_e_end_ov_reply`, `got_OVResult`, `set_ov_position`.

use std::collections::BTreeMap;

use drbd_format::auth::Digest;
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{BlockAck, BlockRequest, Packet};
use units::SectorRange;

use crate::device::{BLOCK_SECTORS, Device, Owner, Purpose};
use crate::event::{Action, Finding, IoFault, Level, Payload, Question, Slice, Tag};
use crate::handlers::Handler;
use crate::link::Link;
use crate::pace::Pace;
use crate::peer_io::ID_SYNCER;
use crate::progress::Progress;
use crate::resource::Resource;
use crate::state::State;
use crate::time::Instant;
use crate::turn::Turn;

/// `ID_IN_SYNC`: the digests were equal.
const ID_IN_SYNC: u64 = 4711;

/// `ID_OUT_OF_SYNC`: they were not.
const ID_OUT_OF_SYNC: u64 = 4712;

/// Blocks asked for at most, in sectors: 8 MiB.
const IN_FLIGHT_SECTORS_MAX: u64 = 16 << 10;

/// From this protocol on a verify may begin anywhere, and the target learns where by the first question.
const BEGINS_ANYWHERE: u32 = 90;

/// Whether the target understands that a verify ends before the device does (`verify_can_do_stop_sector`).
pub(crate) fn can_stop(link: &Link) -> bool {
    link.agreed.protocol >= 97 && link.agreed.protocol != 100
}

/// Whether the device is being verified.
pub(crate) fn is_verifying(conn: C) -> bool {
    matches!(conn, C::VerifyS | C::VerifyT)
}

/// A block that the source has asked for.
#[derive(Debug)]
struct Compared {
    range: SectorRange,
    /// The target's digest, once it is here.
    digest: Option<Payload>,
    /// Our read, then its comparison: those of a verify that was broken off say nothing of this one.
    step: Option<Tag>,
}

/// How the source ends: the target must have all results before it hears of the end by the other socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    NotYet,
    /// Everything is compared; an answer to an older ping would say nothing of the last results.
    Due,
    Pinged,
}

/// A verify under way, on either side.
#[derive(Debug)]
pub struct Verify {
    pub(crate) progress: Progress,
    /// Blocks that are not compared (`ov_left`).
    pub left: u64,
    /// Source: where the next question begins, in sectors.
    position: u64,
    asked: BTreeMap<u64, Compared>,
    /// Source: the block at `position` waits for our own changes there.
    waiting: Option<(Tag, SectorRange)>,
    pub(crate) pace: Pace,
    ending: Ending,
    /// Target: blocks whose result is awaited.
    answered: BTreeMap<u64, SectorRange>,
    /// Target: nothing was asked for yet.
    is_fresh: bool,
    /// What was found to differ last, not yet reported.
    differs: Option<SectorRange>,
}

impl Verify {
    fn new(now: Instant, from: u64, blocks: u64) -> Self {
        let total = blocks - from / BLOCK_SECTORS;
        Self {
            progress: Progress::new(now, total),
            left: total,
            position: from,
            asked: BTreeMap::new(),
            waiting: None,
            pace: Pace::new(now),
            ending: Ending::NotYet,
            answered: BTreeMap::new(),
            is_fresh: true,
            differs: None,
        }
    }

    /// Number of blocks whose result is awaited.
    pub fn answered(&self) -> usize {
        self.answered.len()
    }

    /// Number of blocks that were asked for.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Where the next verify goes on if this one ends here.
    fn reached(&self, blocks: u64) -> u64 {
        let counted = (blocks - self.left.min(blocks)) * BLOCK_SECTORS;
        self.asked.keys().next().map_or(counted, |&first| first.min(counted))
    }
}

impl Device {
    /// Where the source of a verify asks no further, in sectors.
    fn verify_end(&self, stops: bool) -> u64 {
        if stops { self.verify_stop.min(self.size_sectors) } else { self.size_sectors }
    }

    /// Number of blocks of the device.
    fn blocks(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.bitmap.bits())
    }

    /// When the source of a verify has something to ask even if nothing happens.
    pub(crate) fn verify_deadline(&self, now: Instant) -> Option<Instant> {
        let verify = self
            .verify
            .as_ref()
            .filter(|v| self.state.conn == C::VerifyS && v.ending == Ending::NotYet && v.waiting.is_none())?;
        let is_fixed = self.disk.as_ref().is_none_or(|disk| disk.options.c_plan_ahead_ds == 0);
        Some(verify.pace.deadline(now, is_fixed))
    }

    /// A block differs, or does not: what differs is marked, and told to the log run by run (`drbd_ov_out_of_sync_found`,
    /// `ov_out_of_sync_print`).
    fn note_compared(&mut self, turn: &mut Turn, range: SectorRange, is_equal: bool) {
        if !is_equal {
            self.set_out_of_sync(range);
        }
        let Some(verify) = &mut self.verify else { return };
        let goes_on = verify.differs.filter(|run| !is_equal && run.end() == range.start);
        if let Some(run) = goes_on {
            verify.differs = Some(SectorRange::new(run.start, run.count + range.count));
            return;
        }
        self.report_differences(turn);
        if let Some(verify) = self.verify.as_mut().filter(|_| !is_equal) {
            verify.differs = Some(range);
        }
    }

    fn report_differences(&mut self, turn: &mut Turn) {
        let run = self.verify.as_mut().and_then(|verify| verify.differs.take());
        if let Some(run) = run {
            let (minor, start, count) = (self.minor, run.start, run.count);
            turn.log(
                Level::Error,
                format_args!("drbd{minor}: Out of sync: start={start}, size={count} (sectors)"),
            );
        }
    }

    /// One block less to compare.
    fn count_compared(&mut self, now: Instant) {
        if let Some(verify) = &mut self.verify {
            verify.left = verify.left.saturating_sub(1);
            verify.progress.mark(now, verify.left);
        }
    }
}

impl Resource {
    fn verify_alg(&self) -> Option<Digest> {
        self.link.configuration.as_ref().and_then(|c| Digest::by_name(&c.options.verify_alg))
    }

    /// The state says that a verify runs from now on (`set_ov_position`).
    pub(crate) fn begin_verify(&mut self, volume: u16, conn: C) {
        let anywhere = self.link.agreed.protocol >= BEGINS_ANYWHERE;
        let now = self.turn.now;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let blocks = device.blocks();
        if blocks == 0 {
            return;
        }
        let is_source = conn == C::VerifyS;
        let asked_for = if anywhere && is_source { device.verify_from } else { 0 };
        let from = asked_for.min((blocks - 1) * BLOCK_SECTORS);
        device.verify = Some(Verify::new(now, from, blocks));
        let minor = device.minor;
        if is_source {
            self.turn.info(format_args!("drbd{minor}: Starting Online Verify from sector {from}"));
        }
    }

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

    fn ask_for_digest(&mut self, volume: u16, range: SectorRange) {
        let blksize = range.bytes() as u32;
        let ask = BlockRequest { sector: range.start, block_id: ID_SYNCER, blksize };
        self.link.send(&mut self.turn, volume, Packet::OvRequest(ask), None);
    }

    /// The gate is ours: somebody of a verify may have waited for it.
    pub(crate) fn verify_gate_passed(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let waited = device.verify.as_mut().and_then(|v| v.waiting.take_if(|(waiting, _)| *waiting == tag));
        if let Some((_, range)) = waited {
            return self.ask_for_digest(volume, range);
        }
        self.lock_peer_read(volume, tag);
    }

    /// Target: a question has come.
    pub(crate) fn digest_asked(&mut self, volume: u16, ask: BlockRequest) {
        if self.verify_alg().is_none() {
            return self.misbehaved("OVRequest, and no verify-alg is configured");
        }
        let anywhere = self.link.agreed.protocol >= BEGINS_ANYWHERE;
        let now = self.turn.now;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let (minor, blocks, start) = (device.minor, device.blocks(), ask.sector);
        if let Some(verify) = device.verify.as_mut().filter(|v| v.is_fresh && v.answered.is_empty())
            && anywhere
            && start / BLOCK_SECTORS < blocks
            && device.state.conn == C::VerifyT
        {
            *verify = Verify { is_fresh: false, ..Verify::new(now, start, blocks) };
            self.turn.info(format_args!("drbd{minor}: Online Verify start sector: {start}"));
        }
        self.peer_reads(volume, ask, crate::device::ReadKind::Verify);
    }

    /// Target: the digest is sent; nothing of ours may change the block until the result is here.
    pub(crate) fn digest_sent(&mut self, volume: u16, range: SectorRange) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        match device.verify.as_mut().filter(|_| device.state.conn == C::VerifyT) {
            Some(verify) => {
                verify.answered.insert(range.start, range);
            }
            None => self.leave_gate(volume, range),
        }
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

    /// Target: how the comparison of a block came out.
    pub(crate) fn result_received(&mut self, volume: u16, ack: BlockAck) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let range = SectorRange::new(ack.sector, u64::from(ack.blksize) / 512);
        let inside = ack.sector.checked_add(range.count).is_some_and(|end| end <= device.size_sectors);
        if !inside || range.count == 0 {
            return self.misbehaved("OVResult beyond the device");
        }
        let awaited = device.verify.as_mut().and_then(|v| v.answered.remove(&ack.sector));
        device.note_compared(&mut self.turn, range, ack.block_id != ID_OUT_OF_SYNC);
        let Some(answered) = awaited else { return };
        device.count_compared(self.turn.now);
        let is_over = device.state.conn == C::VerifyT && device.verify.as_ref().is_some_and(|v| v.left == 0);
        self.leave_gate(volume, answered);
        if is_over {
            self.verify_finished(volume);
        }
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

    /// All that was to be compared is (`drbd_resync_finished`).
    pub(crate) fn verify_finished(&mut self, volume: u16) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.report_differences(turn);
        let Some(verify) = &device.verify else { return };
        let (seconds, paused, speed) =
            verify.progress.summary(turn.now, verify.progress.total - verify.left.min(verify.progress.total));
        let minor = device.minor;
        turn.info(format_args!(
            "drbd{minor}: Online verify done (total {seconds} sec; paused {paused} sec; {speed} K/sec)"
        ));
        let differing = device.dirty_blocks();
        if differing != 0 {
            turn.log(
                Level::Error,
                format_args!("drbd{minor}: Online verify found {differing} 4k block out of sync!"),
            );
        }
        let next = State { conn: C::Connected, disk: D::UpToDate, pdsk: D::UpToDate, ..device.state };
        self.transition(volume, next);
        if differing != 0 {
            self.call_handler(Handler::OutOfSync, volume);
        }
    }

    /// The verify is over, one way or another: nothing waits for it any more.
    pub(crate) fn leave_verify(&mut self, volume: u16) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.report_differences(turn);
        let blocks = device.blocks();
        let Some(mut verify) = device.verify.take() else { return };
        device.verify_from = if verify.left == 0 { 0 } else { verify.reached(blocks) };
        if verify.left != 0 {
            let (minor, reached) = (device.minor, device.verify_from);
            turn.info(format_args!("drbd{minor}: Online Verify reached sector {reached}"));
        }
        let asked = std::mem::take(&mut verify.asked);
        let waiting = verify.waiting.take();
        let reads: Vec<Tag> =
            device.peer_reads.iter().filter(|(_, r)| r.waits_for_gate).map(|(&t, _)| t).collect();
        let (_, mut admitted) = device
            .gate
            .withdraw(|tag| reads.contains(tag) || waiting.is_some_and(|(waits, _)| waits == *tag));
        for tag in reads {
            device.peer_reads.remove(&tag);
        }
        let (_, owners) = device
            .locks
            .withdraw(|owner| matches!(owner, Owner::Verify(sector) if asked.contains_key(sector)));
        let mut left = Vec::new();
        for (start, compared) in asked {
            turn.out.extend(compared.digest.map(|payload| Action::Release { payload }));
            if waiting.is_none_or(|(_, range)| range.start != start) {
                left.push(compared.range);
            }
        }
        left.extend(verify.answered.into_values());
        for range in left {
            admitted.extend(device.gate.unlock(range));
        }
        for tag in admitted {
            self.gate_passed(volume, tag);
        }
        for owner in owners {
            self.lock_gained(volume, owner);
        }
    }
}
