//! When the meta-data are written, and what waits for that.

use drbd_format::bitmap::Bitmap;

use crate::device::{Device, Disk, Purpose};
use crate::event::{Action, IoFault, MetaBlock, MetaStep, Tag};
use crate::hot_extents::Plan;
use crate::resource::{Resource, Then, WhenStable};
use crate::turn::Turn;

/// Bits of the bitmap in one 4 KiB page.
const PAGE_BITS: u64 = 4096 * 8;

/// Blocks of 4 KiB in an activity-log extent.
const EXTENT_BITS: u64 = 1024;

/// The bitmap's changed pages, taken out for writing.
pub(crate) fn changed_pages(bitmap: &mut Bitmap) -> Vec<MetaBlock> {
    let mut blocks = Vec::new();
    while let Some(page) = bitmap.take_dirty_page() {
        blocks.push(MetaBlock::BitmapPage { page: page as u32, bytes: Box::new(bitmap.page(page)) });
    }
    blocks
}

impl Disk {
    /// The superblock must be written anew.
    pub(crate) fn changed(&mut self) {
        self.version += 1;
    }
}

impl Device {
    /// Flags, generations and size as they are now; notes a change.
    fn refresh_superblock(&mut self) {
        let flags = self.meta_flags();
        let size = self.size_sectors;
        let Some(disk) = &mut self.disk else { return };
        let before = disk.superblock.clone();
        disk.superblock.flags = flags;
        disk.superblock.uuids = disk.generations.0;
        if size != 0 {
            disk.superblock.la_size_sectors = size;
        }
        if disk.superblock != before {
            disk.changed();
        }
    }

    /// Issues a meta-data job.
    pub(crate) fn meta_job(&mut self, turn: &mut Turn, purpose: Purpose, steps: Vec<MetaStep>) -> Tag {
        let tag = turn.tag();
        self.operations.insert(tag, purpose);
        turn.out.push(Action::Meta { tag, volume: self.volume, steps });
        tag
    }

    /// Writes all changed pages of the bitmap. The flush before them makes stable what the cleared bits stand for: on a
    /// sync target a bit must not be clear on the disk before its block is.
    pub(crate) fn write_bitmap(&mut self, turn: &mut Turn, purpose: Purpose) -> Option<Tag> {
        let disk = self.disk.as_mut()?;
        let pages = changed_pages(&mut disk.bitmap);
        if pages.is_empty() && matches!(purpose, Purpose::BitmapPages) {
            return None;
        }
        self.counters.bm_writes += pages.len() as u64;
        let steps = if pages.is_empty() {
            vec![MetaStep::Flush]
        } else {
            vec![MetaStep::Flush, MetaStep::Write(pages), MetaStep::Flush]
        };
        Some(self.meta_job(turn, purpose, steps))
    }
}

impl Resource {
    /// Writes the superblock of a volume if it has changed and no write of it is under way.
    pub(crate) fn write_superblock(&mut self, volume: u16) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        device.refresh_superblock();
        let Some(disk) = &mut device.disk else { return };
        if disk.writing.is_some() || disk.version == disk.stable {
            return;
        }
        disk.writing = Some(disk.version);
        let (version, superblock) = (disk.version, disk.superblock.clone());
        let steps = vec![MetaStep::Write(vec![MetaBlock::SuperBlock(superblock)]), MetaStep::Flush];
        device.meta_job(turn, Purpose::SuperBlock(version), steps);
    }

    /// A version of the superblock is stable.
    pub(crate) fn superblock_written(&mut self, volume: u16, version: u64, outcome: Result<(), IoFault>) {
        if let Some(disk) = self.devices.get_mut(&volume).and_then(|d| d.disk.as_mut()) {
            disk.writing = None;
            if outcome.is_ok() {
                disk.stable = version;
            }
        }
        if outcome.is_err() {
            self.disk_failed(volume);
        }
    }

    /// Does `then` when everything the volume's superblock says now is stable; at once without a disk.
    pub(crate) fn when_stable(&mut self, volume: u16, then: Then) {
        let version = self.devices.get_mut(&volume).map_or(0, |device| {
            device.refresh_superblock();
            device.disk.as_ref().map_or(0, |disk| disk.version)
        });
        self.when_stable.push(WhenStable { volume, version, then });
    }

    /// Does what waited for superblocks that are stable by now.
    pub(crate) fn run_when_stable(&mut self) {
        let devices = &self.devices;
        let is_stable = |w: &WhenStable| {
            let disk = devices.get(&w.volume).and_then(|d| d.disk.as_ref());
            disk.is_none_or(|disk| disk.stable >= w.version)
        };
        let (ready, waiting) = std::mem::take(&mut self.when_stable).into_iter().partition(is_stable);
        self.when_stable = waiting;
        let ready: Vec<WhenStable> = ready;
        for WhenStable { volume, then, .. } in ready {
            match then {
                Then::Answer { ticket, warnings } => self.answer(ticket, Ok(warnings)),
                Then::Complete { request } => self.complete_write(volume, request),
                Then::PeerWrite { tag } => self.make_peer_write_hot(volume, tag),
                Then::Detach { ticket } => self.detach_now(ticket, volume),
            }
        }
    }

    /// Writes the next activity-log transaction if a write waits for one.
    pub(crate) fn plan_activity_log(&mut self, volume: u16) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(disk) = &mut device.disk else { return };
        let plan = disk.hot.plan().or_else(|| disk.hot.plan_cooling(turn.now));
        let Some(Plan { transaction, evicted }) = plan else {
            if disk.hot.starves() {
                // Extents are held until the peer confirms their epoch: ask it to.
                link.close_epoch(turn);
                for sent in link.log.give_up_extents() {
                    if sent.volume == volume {
                        disk.bitmap.set_range(sent.range);
                        disk.hot.release(&sent.extents, turn.now);
                    }
                }
            }
            return;
        };
        let mut steps = Vec::new();
        if !evicted.is_empty() {
            // What was written in the extents that go must be stable, and so must their bits, before the log forgets them.
            steps.push(MetaStep::Flush);
            let mut pages: Vec<u64> =
                evicted.iter().map(|&extent| u64::from(extent) * EXTENT_BITS / PAGE_BITS).collect();
            pages.sort_unstable();
            pages.dedup();
            let blocks: Vec<MetaBlock> = pages
                .into_iter()
                .filter_map(|page| {
                    let dirty = disk.bitmap.take_dirty(page);
                    let bytes = || Box::new(disk.bitmap.page(page));
                    dirty.then(|| MetaBlock::BitmapPage { page: page as u32, bytes: bytes() })
                })
                .collect();
            if !blocks.is_empty() {
                device.counters.bm_writes += blocks.len() as u64;
                steps.push(MetaStep::Write(blocks));
                steps.push(MetaStep::Flush);
            }
        }
        steps.push(MetaStep::Write(vec![MetaBlock::ActivityLog(transaction)]));
        steps.push(MetaStep::Flush);
        device.counters.al_writes += 1;
        device.meta_job(turn, Purpose::ActivityLog, steps);
    }

    /// The transaction is stable: the writes that waited for it begin.
    pub(crate) fn activity_log_written(&mut self, volume: u16, outcome: Result<(), IoFault>) {
        let Some(disk) = self.devices.get_mut(&volume).and_then(|d| d.disk.as_mut()) else { return };
        let admitted = disk.hot.committed();
        if outcome.is_err() {
            self.disk_failed(volume);
        }
        for tag in admitted {
            self.extents_gained(volume, tag);
        }
    }
}
