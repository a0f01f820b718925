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
use units::SectorRange;

use crate::device::{BLOCK_SECTORS, Device, Owner};
use crate::event::{Action, Level, Payload, Tag};
use crate::handlers::Handler;
use crate::link::Link;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::resource::Resource;
use crate::state::State;
use crate::time::Instant;
use crate::turn::Turn;

/// `ID_IN_SYNC`: the digests were equal.
pub(crate) const ID_IN_SYNC: u64 = 4711;

/// `ID_OUT_OF_SYNC`: they were not.
pub(crate) const ID_OUT_OF_SYNC: u64 = 4712;

/// From this protocol on a verify may begin anywhere, and the target learns where by the first question.
pub(crate) const BEGINS_ANYWHERE: u32 = 90;

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
pub(crate) struct Compared {
    pub range: SectorRange,
    /// The target's digest, once it is here.
    pub digest: Option<Payload>,
    /// Our read, then its comparison: those of a verify that was broken off say nothing of this one.
    pub step: Option<Tag>,
}

/// How the source ends: the target must have all results before it hears of the end by the other socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
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
    pub(crate) position: u64,
    pub(crate) asked: BTreeMap<u64, Compared>,
    /// Source: the block at `position` waits for our own changes there.
    pub(crate) waiting: Option<(Tag, SectorRange)>,
    pub(crate) pace: Pace,
    pub(crate) ending: Ending,
    /// Target: blocks whose result is awaited.
    pub(crate) answered: BTreeMap<u64, SectorRange>,
    /// Target: nothing was asked for yet.
    pub(crate) is_fresh: bool,
    /// What was found to differ last, not yet reported.
    differs: Option<SectorRange>,
}

impl Verify {
    pub(crate) fn new(now: Instant, from: u64, blocks: u64) -> Self {
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
    pub(crate) fn verify_end(&self, stops: bool) -> u64 {
        if stops { self.verify_stop.min(self.size_sectors) } else { self.size_sectors }
    }

    /// Number of blocks of the device.
    pub(crate) fn blocks(&self) -> u64 {
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
    pub(crate) fn note_compared(&mut self, turn: &mut Turn, range: SectorRange, is_equal: bool) {
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
    pub(crate) fn count_compared(&mut self, now: Instant) {
        if let Some(verify) = &mut self.verify {
            verify.left = verify.left.saturating_sub(1);
            verify.progress.mark(now, verify.left);
        }
    }
}

impl Resource {
    pub(crate) fn verify_alg(&self) -> Option<Digest> {
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

    /// The gate is ours: somebody of a verify may have waited for it.
    pub(crate) fn verify_gate_passed(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let waited = device.verify.as_mut().and_then(|v| v.waiting.take_if(|(waiting, _)| *waiting == tag));
        if let Some((_, range)) = waited {
            return self.ask_for_digest(volume, range);
        }
        self.lock_peer_read(volume, tag);
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
