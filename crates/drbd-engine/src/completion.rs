//! Operations at the disks that have ended, and time.

use std::time::Duration;

use drbd_format::names::ConnectionState as C;

use crate::device::Purpose;
use crate::event::{Action, Finding, IoFault, Tag};
use crate::resource::Resource;
use crate::time::Instant;

/// How long an epoch may stay open after its last write, so that extents are released and the peer flushes.
const EPOCH_IDLE: Duration = Duration::from_millis(200);

impl Resource {
    /// Which volume issued an operation.
    fn volume_of(&self, tag: Tag) -> Option<u16> {
        self.devices.iter().find(|(_, d)| d.operations.contains_key(&tag)).map(|(&volume, _)| volume)
    }

    pub(crate) fn io_done(&mut self, tag: Tag, outcome: Result<(), IoFault>) {
        let Some(volume) = self.volume_of(tag) else { return };
        let Some(purpose) = self.devices.get_mut(&volume).and_then(|d| d.operations.remove(&tag)) else {
            return;
        };
        match purpose {
            Purpose::Part => self.part_written(volume, tag, outcome),
            Purpose::Read => self.read_done(volume, tag, outcome),
            Purpose::FrontFlush => self.flushed(volume, tag, outcome),
            Purpose::PeerWrite { write } => self.peer_write_done(volume, write, outcome),
            Purpose::PeerRead => self.peer_read_done(volume, tag, outcome),
            Purpose::VerifyRead { range } => self.read_for_verify(volume, tag, range, outcome),
            // Those are inspections: the shell does not end them like this.
            Purpose::PeerReadInspection | Purpose::VerifyCompare { .. } | Purpose::Checksum { .. } => {}
            Purpose::ChecksumRead { range } => self.read_for_checksum(volume, tag, range, outcome),
            Purpose::ResyncWrite { sector } => self.resync_written(volume, sector, tag, outcome),
            Purpose::OrphanedResyncWrite { range, payload } => {
                if let Some(payload) = payload {
                    self.turn.out.push(Action::Release { payload });
                }
                self.unlock(volume, range);
                self.leave_gate(volume, range);
            }
            Purpose::EpochFlush { connection } => self.epoch_flush_done(volume, connection, outcome),
            Purpose::ActivityLog => self.activity_log_written(volume, outcome),
            Purpose::SuperBlock(version) => self.superblock_written(volume, version, outcome),
            Purpose::BitmapPages | Purpose::FreshActivityLog => {
                if outcome.is_err() {
                    self.disk_failed(volume);
                }
            }
            Purpose::BitmapBeforeExchange => self.bitmap_may_be_sent(volume, tag, outcome),
            Purpose::BitmapBeforeFullSync => self.everything_is_marked(volume, tag, outcome),
            Purpose::BitmapBeforeResync => self.resync_may_begin(volume, tag, outcome),
            Purpose::Resize => self.resize_written(volume, tag, outcome),
            Purpose::ResyncEnd => self.resync_end_stable(volume, tag, outcome),
        }
    }

    /// Bytes were looked at.
    pub(crate) fn inspected(&mut self, tag: Tag, finding: Finding) {
        let Some(volume) = self.volume_of(tag) else { return };
        let purpose = self.devices.get_mut(&volume).and_then(|d| d.operations.remove(&tag));
        match purpose {
            Some(Purpose::PeerReadInspection) => self.peer_read_inspected(volume, tag, finding),
            Some(Purpose::Checksum { range, block }) => {
                self.checksum_known(volume, tag, range, block, finding);
            }
            Some(Purpose::VerifyCompare { range, block, digest }) => {
                self.block_inspected(volume, tag, range, [block, digest], finding);
            }
            _ => {}
        }
    }

    fn bitmap_may_be_sent(&mut self, volume: u16, tag: Tag, outcome: Result<(), IoFault>) {
        if outcome.is_err() {
            return self.disk_failed(volume);
        }
        let awaited = |d: &crate::device::Device| d.state.conn == C::WFBitMapS && d.bitmap_job == Some(tag);
        if self.devices.get(&volume).is_some_and(awaited) {
            self.send_bitmap(volume);
        }
    }

    /// Closes an epoch that nothing was added to for a while.
    pub(crate) fn close_idle_epoch(&mut self) {
        let idle = self.turn.now.since(self.link.epoch_touched_at) >= EPOCH_IDLE;
        if idle && self.link.log.open_len() > 0 && self.link.is_open() {
            self.link.close_epoch(&mut self.turn);
        }
    }

    /// When the shell must send `Event::Timeout`, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let now = self.turn.now;
        let mut deadlines = Vec::new();
        deadlines.extend(self.link_deadline());
        if self.link.is_open() && self.link.log.open_len() > 0 {
            deadlines.push(self.link.epoch_touched_at + EPOCH_IDLE);
        }
        deadlines.extend(self.devices.values().filter_map(|d| d.resync_deadline(now)));
        deadlines.extend(self.devices.values().filter_map(|d| d.verify_deadline(now)));
        let slowed = self.devices.values().filter(|d| !d.slowed_reads.is_empty());
        deadlines.extend(slowed.map(|d| d.slowed_until));
        deadlines.extend(self.devices.values().filter_map(|d| d.disk.as_ref()?.hot.next_cooling()));
        if let Some(until) = self.permit.until.filter(|until| *until >= now) {
            deadlines.push(until + Duration::from_nanos(1));
        }
        deadlines.into_iter().min()
    }
}
