//! What a resync need not send: blocks with the same checksum on both sides, and zeroes.
//!
//! Upstream: `read_for_csum`, `w_e_send_csum`, `use_checksum_based_resync`, `make_resync_request` (drbd_worker.c),
//! `got_IsInSync`, `receive_rs_deallocated` (drbd_receiver.c).

use drbd_format::auth::Digest;
use drbd_format::wire::{BlockAck, BlockRequest, Features, Packet};
use units::SectorRange;

use crate::device::{BLOCK_SECTORS, Device, Owner, Purpose};
use crate::event::{Action, Finding, IoFault, Payload, Question, Slice, Tag};
use crate::link::Link;
use crate::peer_io::ID_SYNCER;
use crate::resource::Resource;
use crate::time::Instant;
use crate::turn::Turn;

/// From this protocol on there are checksums in a resync.
const HAS_CHECKSUMS: u32 = 89;

/// One checksum covers so many blocks at most: 128 KiB, all of which are sent if one byte differs.
const CHECKSUM_BLOCKS_MAX: u64 = 32;

/// How blocks are asked for, and what that saved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Savings {
    /// The target says what it has: a word is enough if that is right.
    pub checksums: bool,
    /// Blocks that were equal (`rs_same_csum`).
    pub equal: u64,
    /// Zeroes are asked for in runs of so many blocks; 0: not at all.
    pub thin_blocks: u64,
}

impl Savings {
    /// For the target of a resync that begins now.
    pub fn of(device: &Device, link: &Link) -> Self {
        let options = link.options();
        let Some(disk) = &device.disk else { return Self::default() };
        let checksums = link.agreed.protocol >= HAS_CHECKSUMS
            && Digest::by_name(&options.csums_alg).is_some()
            && (!options.csums_after_crash_only || disk.crashed_primary);
        let is_thin = !checksums && disk.discards && link.agreed.has(Features::THIN_RESYNC);
        let granularity = u64::from(disk.options.rs_discard_granularity_bytes) / 512 / BLOCK_SECTORS;
        Self { checksums, equal: 0, thin_blocks: if is_thin { granularity } else { 0 } }
    }

    /// Longest run of blocks to ask for at once from `first` on: checksums cover the same blocks each time, and a run of
    /// zeroes does not begin or end in the middle of what the disk can give back.
    pub fn longest(&self, first: u64) -> u64 {
        if self.checksums {
            let aligned = first.checked_ilog2().map_or(u64::MAX, |_| 1 << first.trailing_zeros());
            return CHECKSUM_BLOCKS_MAX.min(aligned);
        }
        match self.thin_blocks {
            0 => u64::MAX,
            blocks => blocks - first % blocks,
        }
    }

    fn is_thin(&self, range: SectorRange) -> bool {
        self.thin_blocks != 0 && range.count == self.thin_blocks * BLOCK_SECTORS
    }

    /// The line at the end of a resync of `total` blocks, if there is something to say.
    pub fn summary(&self, total: u64) -> Option<String> {
        if !self.checksums || total == 0 {
            return None;
        }
        let equal = self.equal;
        let percent = if total < 100_000 { equal * 100 / total } else { equal / (total / 100) };
        let (eliminated, sent, all) = (equal * 4, total.saturating_sub(equal) * 4, total * 4);
        Some(format!(
            "{percent} % had equal checksums, eliminated: {eliminated}K; transferred {sent}K total {all}K"
        ))
    }
}

impl Device {
    /// Both have the same bytes there, by their digest: nothing needs to travel.
    pub(crate) fn equal_checksum(&mut self, now: Instant, range: SectorRange) {
        let Some(disk) = &mut self.disk else { return };
        disk.bitmap.clear_range(range);
        let left = disk.bitmap.count();
        if let Some(resync) = &mut self.resync {
            resync.progress.mark(now, left);
            resync.savings.checksums = true;
            resync.savings.equal += range.count / BLOCK_SECTORS;
        }
    }
}

impl Resource {
    /// Target: asks for a run of blocks whose gate is ours, in the way that saves most.
    pub(crate) fn ask_for_blocks(&mut self, volume: u16, range: SectorRange) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(resync) = &mut device.resync else { return };
        let ask = BlockRequest { sector: range.start, block_id: ID_SYNCER, blksize: range.bytes() as u32 };
        if resync.savings.checksums {
            let tag = turn.tag();
            resync.checksum_begins(range.start, tag);
            device.operations.insert(tag, Purpose::ChecksumRead { range });
            device.counters.disk_read_kib += range.bytes() / 1024;
            turn.out.push(Action::Read { tag, volume, range });
        } else if resync.savings.is_thin(range) {
            link.send(turn, volume, Packet::RsThinReq(ask), None);
        } else {
            link.send(turn, volume, Packet::RsDataRequest(ask), None);
        }
    }

    /// Target: what we have of a block is here. Changes of the peer need not be kept out: whatever of them the source knows
    /// and this does not is on its way to us.
    pub(crate) fn read_for_checksum(
        &mut self,
        volume: u16,
        tag: Tag,
        range: SectorRange,
        outcome: Result<(), IoFault>,
    ) {
        let alg = Digest::by_name(&self.link.options().csums_alg);
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let block = Payload(tag.0);
        let awaited = device.resync.as_mut().is_some_and(|r| r.awaits_checksum(range.start, tag));
        match (alg, outcome) {
            (Some(alg), Ok(())) if awaited => {
                let next = turn.tag();
                if let Some(resync) = &mut device.resync {
                    resync.checksum_begins(range.start, next);
                }
                device.operations.insert(next, Purpose::Checksum { range, block });
                let data = Some(Slice { payload: block, offset: 0, len: range.bytes() as u32 });
                turn.out.push(Action::Inspect { tag: next, data, question: Question::Digest(alg) });
            }
            (_, Ok(())) => turn.out.push(Action::Release { payload: block }),
            (_, Err(IoFault)) => self.disk_failed(volume),
        }
    }

    /// Target: our checksum is known.
    pub(crate) fn checksum_known(
        &mut self,
        volume: u16,
        tag: Tag,
        range: SectorRange,
        block: Payload,
        finding: Finding,
    ) {
        let Self { devices, turn, link, .. } = self;
        turn.out.push(Action::Release { payload: block });
        let Finding::Digest(payload, len) = finding else { return };
        let awaited = devices
            .get(&volume)
            .and_then(|d| d.resync.as_ref())
            .is_some_and(|r| r.awaits_checksum(range.start, tag));
        if awaited {
            let ask =
                BlockRequest { sector: range.start, block_id: ID_SYNCER, blksize: range.bytes() as u32 };
            link.send(turn, volume, Packet::CsumRsRequest(ask), Some(Slice { payload, offset: 0, len }));
        }
        turn.out.push(Action::Release { payload });
    }

    /// Target: the source has the same.
    pub(crate) fn checksum_is_equal(&mut self, volume: u16, ack: BlockAck) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let asked = device.resync.as_mut().and_then(|r| r.need_not_come(ack.sector, ack.blksize));
        let Some(range) = asked else { return };
        device.equal_checksum(self.turn.now, range);
        self.leave_gate(volume, range);
    }

    /// Target: there are only zeroes in a block that was asked for.
    pub(crate) fn resync_zeroes(&mut self, volume: u16, sector: u64, blksize: u32) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let usable = device.has_usable_disk();
        let asked = device.resync.as_mut().filter(|_| usable).and_then(|r| r.zeroes_came(sector, blksize));
        let Some(range) = asked else { return };
        if device.locks.lock(range, Owner::Resync(range.start)).is_some() {
            self.start_resync_write(volume, range.start);
        }
    }

    /// What the checksums saved, for the log.
    pub(crate) fn report_savings(turn: &mut Turn, minor: u32, savings: Savings, total: u64) {
        if let Some(line) = savings.summary(total) {
            turn.info(format_args!("drbd{minor}: {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_what_is_saved() {
        let checksums = Savings { checksums: true, ..Savings::default() };
        assert_eq!([0, 1, 2, 12, 32, 64].map(|at| checksums.longest(at)), [32, 1, 2, 4, 32, 32]);
        let thin = Savings { thin_blocks: 16, ..Savings::default() };
        assert_eq!([0, 1, 15, 16].map(|at| thin.longest(at)), [16, 15, 1, 16]);
        assert!(thin.is_thin(SectorRange::new(128, 128)) && !thin.is_thin(SectorRange::new(128, 120)));
        assert_eq!(Savings::default().longest(5), u64::MAX);
    }

    #[test]
    fn the_kernels_line() {
        let savings = Savings { checksums: true, equal: 1536, thin_blocks: 0 };
        let line = "75 % had equal checksums, eliminated: 6144K; transferred 2048K total 8192K";
        assert_eq!(savings.summary(2048).as_deref(), Some(line));
        assert_eq!(savings.summary(0), None);
        assert_eq!(Savings::default().summary(2048), None);
    }
}
