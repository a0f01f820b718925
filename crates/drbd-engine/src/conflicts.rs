//! Two primaries write in the same place at once.
//!
//! Every write goes to both disks, so two that overlap and do not know of each other must end in the same order on both.
//! One of the two nodes resolves conflicts; both know which. A write of its own that the peer has not answered comes
//! after whatever arrives from the peer meanwhile: of the peer's write it writes only what its own leaves over. The other
//! node lets the peer's write wait until its own is answered, and writes it then, over its own. Nobody waits for anything
//! but disks on the node that resolves, so every write is answered.
//!
//! Upstream's resolver does not take the write but answers `P_SUPERSEDED` (its own covers it) or `P_RETRY_WRITE`. An epoch
//! with such a write it never confirms, and its peer, which is confirmed a later one first, ends the connection ("BAD!
//! BarrierAck"). So we answer the plain acknowledgement, which any peer understands, and what an upstream resolver answers
//! is understood here: a write that was superseded is done if what covers it is here already; any other begins anew.
//! Upstream: `handle_write_conflicts`, `wait_for_and_update_peer_seq`, `restart_conflicting_writes` (drbd_receiver.c).

use drbd_format::wire::BlockAck;
use units::SectorRange;

use crate::application::encloses;
use crate::device::{Device, Leg, Owner};
use crate::event::{Action, Tag};
use crate::resource::Resource;

/// Whether one running number comes after another (`seq_greater`: they wrap around).
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

/// What is left of a range without others.
pub(crate) fn without(range: SectorRange, others: &[SectorRange]) -> Vec<SectorRange> {
    let mut left = vec![range];
    for other in others {
        left = left
            .into_iter()
            .flat_map(|piece| {
                let before = (piece.start, piece.end().min(other.start));
                let after = (piece.start.max(other.end()), piece.end());
                [before, after]
            })
            .filter(|(start, end)| start < end)
            .map(|(start, end)| SectorRange::new(start, end - start))
            .collect();
    }
    left
}

impl Device {
    /// Where our changes are that the peer has not answered.
    pub(crate) fn unanswered(&self) -> Vec<SectorRange> {
        let unanswered = self.parts.values().filter(|part| part.started && part.remote == Leg::Pending);
        unanswered.flat_map(|part| without(part.range, &part.answered)).collect()
    }

    fn is_contested(&self, tag: Tag) -> bool {
        let Some(range) = self.peer_writes.get(&tag).map(|write| write.range) else { return false };
        self.unanswered().iter().any(|ours| ours.overlaps(range))
    }

    fn saw_sequence(&mut self, sequence: u32) {
        if is_after(sequence, self.peer_sequence) {
            self.peer_sequence = sequence;
        }
    }
}

impl Resource {
    /// The peer's write waits until the acknowledgements are here that it had sent before: who resolves conflicts must
    /// know whether the peer's write came before ours or after it.
    pub(crate) fn peer_write_in_turn(&mut self, volume: u16, tag: Tag) {
        let orders = self.link.resolves_conflicts && self.link.two_primaries();
        let now = self.turn.now;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(sequence) = device.peer_writes.get(&tag).map(|write| write.sequence) else { return };
        if orders {
            if device.early_writes.is_empty() {
                device.early_since = now;
            }
            device.early_writes.push_back(tag);
            return self.admit_early_writes(volume);
        }
        device.saw_sequence(sequence);
        self.admit_peer_write(volume, tag);
    }

    /// An acknowledgement with this running number has come and has had its effect: what it answers is no longer under way
    /// for the peer's writes that waited for it.
    pub(crate) fn acknowledgement_seen(&mut self, volume: u16, sequence: u32) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        device.saw_sequence(sequence);
        self.admit_early_writes(volume);
    }

    fn admit_early_writes(&mut self, volume: u16) {
        while let Some(device) = self.devices.get_mut(&volume) {
            let Some(&tag) = device.early_writes.front() else { return };
            let sequence = device.peer_writes.get(&tag).map_or(0, |write| write.sequence);
            if is_after(sequence.wrapping_sub(1), device.peer_sequence) {
                return;
            }
            device.saw_sequence(sequence);
            device.early_writes.pop_front();
            device.early_since = self.turn.now;
            self.admit_peer_write(volume, tag);
        }
    }

    /// The connection is lost: what the peer wrote and our disk has not begun is dropped. The peer has no answer and counts
    /// it as lost; written later, it would replace what our front was promised meanwhile. (What only our disk has goes on.)
    pub(crate) fn drop_unwritten_peer_writes(&mut self, volume: u16) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let early = std::mem::take(&mut device.early_writes);
        let contested = std::mem::take(&mut device.contested_writes);
        let unwritten: Vec<Tag> = device
            .peer_writes
            .iter()
            .filter(|(_, write)| !write.alone && !write.written && write.steps_left == 0)
            .map(|(&tag, _)| tag)
            .collect();
        let (_, mut admitted) =
            device.locks.withdraw(|owner| matches!(owner, Owner::PeerWrite(tag) if unwritten.contains(tag)));
        for tag in unwritten {
            let Some(write) = device.peer_writes.remove(&tag) else { continue };
            if let Some(payload) = write.payload {
                self.turn.out.push(Action::Release { payload });
            }
            if contested.contains(&tag) {
                admitted.extend(device.locks.unlock(write.range));
            }
        }
        // What goes on waits for answers that nobody gives any more.
        for tag in contested {
            self.start_peer_write(volume, tag);
        }
        for owner in admitted {
            self.lock_gained(volume, owner);
        }
        for tag in early {
            self.admit_peer_write(volume, tag);
        }
    }

    /// The peer's write has its range. Who does not resolve conflicts waits for the peer's answer to its own first.
    pub(crate) fn peer_write_locked(&mut self, volume: u16, tag: Tag) {
        let resolves = self.link.resolves_conflicts;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if !resolves && device.is_contested(tag) {
            device.contested_writes.push(tag);
            return;
        }
        self.start_peer_write(volume, tag);
    }

    /// Goes on with the peer's writes that waited for its answers.
    pub(crate) fn resume_contested_writes(&mut self, volume: u16) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if device.contested_writes.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut device.contested_writes);
        let (still, ready) = waiting.into_iter().partition(|&tag| device.is_contested(tag));
        device.contested_writes = still;
        let ready: Vec<Tag> = ready;
        for tag in ready {
            self.start_peer_write(volume, tag);
        }
    }

    /// The peer did not take a write of ours, because it overlaps one of its own. `may_be_covered`: it says that its own
    /// replaces ours altogether. Believed if that is here and waits for this answer: upstream says so, too, of a write that
    /// we sent after we had written its own, and then ours would be missing there.
    pub(crate) fn part_contested(&mut self, volume: u16, ack: BlockAck, may_be_covered: bool) {
        let tag = Tag(ack.block_id);
        let Self { devices, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(part) = device.parts.get_mut(&tag).filter(|part| part.remote == Leg::Pending) else {
            return self.misbehaved("a write is contested that does not wait for an answer");
        };
        let range = SectorRange::new(ack.sector, u64::from(ack.blksize) / 512);
        if !encloses(part.range, range) {
            return self.misbehaved("an acknowledgement names another range than its write");
        }
        let covers = |theirs: SectorRange| theirs.start <= range.start && range.end() <= theirs.end();
        let covered = may_be_covered && device.peer_writes.values().any(|write| covers(write.range));
        part.begins_anew |= !covered;
        part.acks_left = part.acks_left.saturating_sub(1);
        if part.acks_left == 0 {
            part.remote = if part.refused { Leg::Failed } else { Leg::Done };
        } else {
            part.answered.push(range);
        }
        if let Some(epoch) = part.epoch {
            link.log.contested(epoch);
        }
        self.part_progressed(volume, tag);
    }

    /// A write that the peer did not take goes to both disks again, after the peer's write that it gave way to. Its gate is
    /// still ours; the extents of the first time belong to their epoch.
    pub(crate) fn begin_part_anew(&mut self, volume: u16, tag: Tag) {
        let Some(part) = self.devices.get_mut(&volume).and_then(|d| d.parts.get_mut(&tag)) else { return };
        part.begins_anew = false;
        part.started = false;
        part.acks_left = 0;
        part.answered.clear();
        part.refused = false;
        part.local = Leg::None;
        part.remote = Leg::None;
        part.epoch = None;
        part.extents = Vec::new();
        self.gate_passed(volume, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(start: u64, end: u64) -> SectorRange {
        SectorRange::new(start, end - start)
    }

    #[test]
    fn what_others_leave_over() {
        assert_eq!(without(r(8, 16), &[]), vec![r(8, 16)]);
        assert_eq!(without(r(8, 16), &[r(0, 8), r(16, 20)]), vec![r(8, 16)]);
        assert_eq!(without(r(8, 16), &[r(10, 12)]), vec![r(8, 10), r(12, 16)]);
        assert_eq!(without(r(8, 16), &[r(0, 9), r(12, 13), r(15, 90)]), vec![r(9, 12), r(13, 15)]);
        assert_eq!(without(r(8, 16), &[r(8, 16)]), vec![]);
        assert_eq!(without(r(8, 16), &[r(0, 10), r(9, 30)]), vec![]);
    }

    #[test]
    fn running_numbers_wrap_around() {
        assert!(is_after(1, u32::MAX));
        assert!(!is_after(u32::MAX, 1));
        assert!(!is_after(7, 7));
    }
}
