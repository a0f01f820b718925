//! Generation identifiers, and what two sets of them say about who has newer data.
//!
//! Upstream: `drbd_uuid_compare` (drbd_receiver.c), `drbd_uuid_*` (drbd_main.c). The lowest bit of the current
//! identifier only marks a primary and does not count in comparisons.

use drbd_format::names::Role;
use drbd_format::wire::{Features, UuidFlags, Uuids};

/// `UUID_JUST_CREATED`.
pub const JUST_CREATED: u64 = 4;

/// Added to the bitmap identifier when a resync starts (`UUID_NEW_BM_OFFSET`).
pub const NEW_BITMAP_OFFSET: u64 = 0x0001_0000_0000_0000;

/// Our four identifiers: current, bitmap, and two of history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Generations(pub [u64; 4]);

/// Positions in the array.
const CURRENT: usize = 0;
const BITMAP: usize = 1;
const HISTORY: [usize; 2] = [2, 3];

/// What comes before the random identifier of a resync whose source had no bitmap identifier, so that its histories tell
/// that the bitmap counts from a resync.
fn ancestor(sync_uuid: u64) -> u64 {
    (sync_uuid & !1).wrapping_sub(NEW_BITMAP_OFFSET)
}

impl Generations {
    /// The current identifier.
    pub fn current(&self) -> u64 {
        self.0[CURRENT]
    }

    /// The identifier the bitmap counts from, 0 if none.
    pub fn bitmap(&self) -> u64 {
        self.0[BITMAP]
    }

    /// Sets the current identifier; the lowest bit tells whether we are primary.
    pub fn set_current(&mut self, value: u64, role: Role) {
        self.0[CURRENT] = (value & !1) | u64::from(role == Role::Primary);
    }

    /// A new generation begins here: the former current one becomes the bitmap's.
    pub fn rotate(&mut self, random: u64, role: Role) {
        self.0[BITMAP] = self.0[CURRENT];
        self.set_current(random, role);
    }

    /// Whether the bitmap counts from the beginning of a resync that we are, or were, the source of: its target may have
    /// finished without our knowledge, and have our current identifier since.
    pub fn counts_from_resync(&self) -> bool {
        let (bitmap, history) = (self.0[BITMAP] & !1, self.0[HISTORY[0]] & !1);
        bitmap != 0 && (history == JUST_CREATED || history.wrapping_add(NEW_BITMAP_OFFSET) & !1 == bitmap)
    }

    /// Whether who goes on alone must begin a generation: not if it did already, and has not met its peer since.
    pub fn needs_another(&self) -> bool {
        self.0[BITMAP] == 0 || self.counts_from_resync()
    }

    /// The source of a resync goes on alone: a new generation begins, but the bitmap still counts from that resync. The
    /// former current identifier becomes history, so that a target that has it is known to be older.
    /// (Upstream keeps the current identifier, and does not notice if the finished target goes on, too.)
    pub fn leave_target(&mut self, random: u64, role: Role) {
        self.0[3] = self.0[2];
        self.0[2] = self.0[CURRENT];
        self.set_current(random, role);
    }

    /// The bitmap is empty again: its identifier becomes history.
    pub fn bitmap_done(&mut self) {
        if self.0[BITMAP] != 0 {
            self.0[3] = self.0[2];
            self.0[2] = self.0[BITMAP];
            self.0[BITMAP] = 0;
        }
    }

    /// As a sync source, the identifier of this resync (`drbd_gen_and_send_sync_uuid`): also the new bitmap identifier.
    pub fn begin_sync(&mut self, random: u64) -> u64 {
        let uuid = match self.0[BITMAP] {
            0 | JUST_CREATED => random & !1,
            bitmap => bitmap.wrapping_add(NEW_BITMAP_OFFSET),
        };
        if self.0[BITMAP] == 0 {
            self.0[BITMAP] = ancestor(uuid);
        }
        self.bitmap_done();
        self.0[BITMAP] = uuid;
        uuid
    }

    /// As a sync target that has reached the source (`peer` as it was told): its identifiers are ours.
    pub fn adopt(&mut self, peer: &Uuids, role: Role) {
        // Our own current one, the sync identifier, ends up in the history before the peer's former ones.
        let sync_uuid = self.0[CURRENT];
        let bitmap = if peer.bitmap == 0 { ancestor(sync_uuid) } else { peer.bitmap };
        self.0 = [sync_uuid, bitmap, peer.history[0], peer.history[1]];
        self.bitmap_done();
        self.0[BITMAP] = sync_uuid;
        self.bitmap_done();
        self.set_current(peer.current, role);
    }
}

/// Who must sync from whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing to do.
    InSync,
    /// We send what the bitmaps say.
    Source,
    /// We send everything.
    SourceFull,
    /// We receive what the bitmaps say.
    Target,
    /// We receive everything.
    TargetFull,
    /// Both changed since they parted; automatic recovery may be tried.
    SplitBrain,
    /// As before, but the common ancestor is only in the histories: nothing is solved automatically.
    SplitBrainDistant,
    /// The two have nothing in common.
    Unrelated,
    /// The rule that would decide needs a newer peer.
    NeedsNewerPeer {
        /// Its version of the protocol.
        protocol: u32,
        /// Its features; 0: any.
        features: u32,
    },
}

const NEEDS_91: Verdict = Verdict::NeedsNewerPeer { protocol: 91, features: 0 };
const NEEDS_WRITE_SAME: Verdict = Verdict::NeedsNewerPeer { protocol: 101, features: Features::WSAME };

/// Facts beside the identifiers.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Agreed protocol.
    pub protocol: u32,
    /// Agreed features.
    pub features: u32,
    /// Our role.
    pub role: Role,
    /// The peer's role.
    pub peer_role: Role,
    /// We were primary when we crashed.
    pub crashed_primary: bool,
    /// We resolve conflicts (the side whose meta socket was accepted).
    pub resolves_conflicts: bool,
}

/// Compares our identifiers with the peer's; corrects both for a resync whose last message was lost. Returns the rule's
/// number for the log beside the verdict.
pub fn compare(own: &mut Generations, peer: &mut Uuids, facts: Circumstances) -> (Verdict, u32) {
    let id = |v: u64| v & !1;
    let (self_current, peer_current) = (id(own.0[CURRENT]), id(peer.current));
    if self_current == JUST_CREATED && peer_current == JUST_CREATED {
        return (Verdict::InSync, 10);
    }
    if (self_current == JUST_CREATED || self_current == 0) && peer_current != JUST_CREATED {
        return (Verdict::TargetFull, 20);
    }
    if self_current != JUST_CREATED && (peer_current == JUST_CREATED || peer_current == 0) {
        return (Verdict::SourceFull, 30);
    }
    if self_current == peer_current {
        return compare_equal(own, peer, facts);
    }
    if self_current == id(peer.bitmap) {
        return (Verdict::Target, 50);
    }
    let peer_h = [id(peer.history[0]), id(peer.history[1])];
    if self_current == peer_h[0] {
        let last_sync_uuid_lost = if facts.protocol < 96 {
            id(own.0[HISTORY[0]]) == peer_h[1]
        } else {
            peer_h[0].wrapping_add(NEW_BITMAP_OFFSET) == id(peer.bitmap)
        };
        if last_sync_uuid_lost {
            if facts.protocol < 91 {
                return (NEEDS_91, 51);
            }
            peer.bitmap = peer.history[0];
            peer.history[0] = peer.history[1];
            return (Verdict::Target, 51);
        }
    }
    if peer_h.contains(&self_current) {
        return (Verdict::TargetFull, 60);
    }
    if id(own.0[BITMAP]) == peer_current {
        return (Verdict::Source, 70);
    }
    let self_h = HISTORY.map(|i| id(own.0[i]));
    if self_h[0] == peer_current {
        let last_sync_uuid_lost = if facts.protocol < 96 {
            self_h[1] == peer_h[0]
        } else {
            self_h[0].wrapping_add(NEW_BITMAP_OFFSET) == id(own.0[BITMAP])
        };
        if last_sync_uuid_lost {
            if facts.protocol < 91 {
                return (NEEDS_91, 71);
            }
            own.0[BITMAP] = own.0[HISTORY[0]];
            own.0[HISTORY[0]] = own.0[HISTORY[1]];
            return (Verdict::Source, 71);
        }
    }
    if self_h.contains(&peer_current) {
        return (Verdict::SourceFull, 80);
    }
    if id(own.0[BITMAP]) == id(peer.bitmap) && id(own.0[BITMAP]) != 0 {
        return (Verdict::SplitBrain, 90);
    }
    if self_h.iter().any(|h| peer_h.contains(h)) || share_a_lineage(own, peer) {
        return (Verdict::SplitBrainDistant, 100);
    }
    (Verdict::Unrelated, 100)
}

/// Whether an identifier of ours and one of the peer's come from the same generation. Resyncs that began move the bitmap's
/// identifier on by [`NEW_BITMAP_OFFSET`] and push what was common out of the histories; the lower 48 bits stay. Their
/// targets have such an identifier as their current one, which a source that crashed may not remember.
/// (Upstream looks at equal histories only, and calls such a pair unrelated: then not even an administrator can solve it.)
fn share_a_lineage(own: &Generations, peer: &Uuids) -> bool {
    let lineage = |v: u64| v & (NEW_BITMAP_OFFSET - 1) & !1;
    let theirs = [peer.current, peer.bitmap, peer.history[0], peer.history[1]].map(lineage);
    own.0.iter().map(|&v| lineage(v)).any(|l| l > JUST_CREATED && theirs.contains(&l))
}

/// Both are of the same generation.
fn compare_equal(own: &mut Generations, peer: &mut Uuids, facts: Circumstances) -> (Verdict, u32) {
    let id = |v: u64| v & !1;
    if peer.bitmap == 0 && own.0[BITMAP] != 0 {
        if facts.protocol < 91 {
            return (NEEDS_91, 34);
        }
        // We were source, and the message that the resync had finished did not reach us.
        let missed = id(own.0[BITMAP]) == id(peer.history[0]) && id(own.0[2]) == id(peer.history[1]);
        if missed {
            own.bitmap_done();
        }
        return (Verdict::Source, if missed { 34 } else { 36 });
    }
    if own.0[BITMAP] == 0 && peer.bitmap != 0 {
        if facts.protocol < 91 {
            return (NEEDS_91, 35);
        }
        let missed = id(own.0[2]) == id(peer.bitmap) && id(own.0[3]) == id(peer.history[0]);
        if missed {
            peer.history = [peer.bitmap, peer.history[0]];
            peer.bitmap = 0;
        }
        return (Verdict::Target, if missed { 35 } else { 37 });
    }
    let peer_crashed = peer.flags.0 & UuidFlags::CRASHED_PRIMARY != 0;
    if !facts.crashed_primary && !peer_crashed {
        return (Verdict::InSync, 40);
    }
    match (facts.role == Role::Primary, facts.peer_role == Role::Primary) {
        (false, false) => {}
        _ if facts.features & Features::WSAME == 0 => return (NEEDS_WRITE_SAME, 41),
        (true, true) => return (Verdict::SplitBrainDistant, 41),
        (true, false) => return (Verdict::Source, 41),
        (false, true) => return (Verdict::Target, 41),
    }
    let verdict = match (facts.crashed_primary, peer_crashed) {
        (true, true) if facts.resolves_conflicts => Verdict::Target,
        (true, _) => Verdict::Source,
        (false, _) => Verdict::Target,
    };
    (verdict, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Circumstances = Circumstances {
        protocol: 101,
        features: 0,
        role: Role::Secondary,
        peer_role: Role::Secondary,
        crashed_primary: false,
        resolves_conflicts: false,
    };

    fn told(g: Generations) -> Uuids {
        let [current, bitmap, h0, h1] = g.0;
        Uuids { current, bitmap, history: [h0, h1], dirty_bits: 0, flags: UuidFlags(0) }
    }

    /// Both sides' verdicts.
    fn meet(a: Generations, b: Generations) -> (Verdict, Verdict) {
        let (mut own_a, mut own_b) = (a, b);
        (compare(&mut own_a, &mut told(b), FACTS).0, compare(&mut own_b, &mut told(a), FACTS).0)
    }

    /// The source once its resync has begun, and the target then and when it has finished.
    fn resync(before: Generations, target: Generations) -> (Generations, Generations, Generations) {
        let mut source = before;
        let uuid = source.begin_sync(0xaaaa_0000_0000_0000);
        let mut begun = target;
        begun.set_current(uuid, Role::Secondary);
        begun.0[BITMAP] = 0;
        let mut finished = begun;
        finished.adopt(&told(before), Role::Secondary);
        (source, begun, finished)
    }

    /// A source without bitmap identifier, one that had gone on alone, and one whose peer is new.
    fn beginnings() -> [(Generations, Generations); 3] {
        let (own, common, old) = (0x1111_0000_0000_0000, 0x2222_0000_0000_0000, 0x3333_0000_0000_0000);
        [
            (Generations([common, 0, old, 0]), Generations([common, 0, old, 0])),
            (Generations([own, common, old, 0]), Generations([common, 0, old, 0])),
            (Generations([own, JUST_CREATED, 0, 0]), Generations([JUST_CREATED, 0, 0, 0])),
        ]
    }

    #[test]
    fn a_source_that_goes_on_alone_is_not_taken_for_its_finished_target() {
        for (source, target) in beginnings() {
            let (mut source, begun, finished) = resync(source, target);
            assert!(source.counts_from_resync(), "{source:x?}");
            let together = source;
            source.leave_target(0xbbbb_0000_0000_0000, Role::Primary);
            assert!(!source.counts_from_resync(), "once is enough: {source:x?}");
            assert_eq!(meet(source, begun), (Verdict::Source, Verdict::Target), "still inconsistent");
            assert_eq!(meet(source, finished), (Verdict::SourceFull, Verdict::TargetFull), "finished");
            let mut promoted = finished;
            promoted.rotate(0xcccc_0000_0000_0000, Role::Primary);
            let split = |v| matches!(v, Verdict::SplitBrain | Verdict::SplitBrainDistant);
            let (a, b) = meet(source, promoted);
            assert!(split(a) && split(b), "finished and promoted: {a:?} {b:?}");
            assert_eq!(
                meet(together, promoted),
                (Verdict::Target, Verdict::Source),
                "the source did nothing"
            );
        }
    }

    #[test]
    fn a_split_brain_stays_one_after_resyncs_that_came_to_nothing() {
        let (common, old) = (0x2222_0000_0000_1110, 0x3333_0000_0000_2220);
        let mut winner = Generations([0x1111_0000_0000_4440, common, old, JUST_CREATED]);
        let loser = Generations([0x4444_0000_0000_5550, common, old, JUST_CREATED]);
        assert_eq!(meet(winner, loser), (Verdict::SplitBrain, Verdict::SplitBrain));
        for round in 1..4_u64 {
            // The loser gives up, but leaves before it hears of the resync; the winner goes on alone.
            winner.begin_sync(0);
            winner.leave_target(round << 56 | 0x6666_0000_0000, Role::Primary);
            let distant = (Verdict::SplitBrainDistant, Verdict::SplitBrainDistant);
            assert_eq!(meet(winner, loser), distant, "after {round}: {winner:x?}");
        }
        // A source that crashed has forgotten that its resync began.
        let source = Generations([0x1111_0000_0000_4440, common, old, JUST_CREATED]);
        let (_, begun, _) = resync(source, Generations([0x5555_0000_0000_0000, 0, old, 0]));
        assert_eq!(meet(source, begun).0, Verdict::SplitBrainDistant, "one is inconsistent: a full sync");
        let stranger = Generations([0x7777_0000_0000_7770, 0x8888_0000_0000_8880, 0, JUST_CREATED]);
        let fresh = Generations([0x9999_0000_0000_9990, 0xaaaa_0000_0000_aaa0, 0xbbbb_0000_0000_bbb0, 0x10]);
        assert_eq!(meet(stranger, fresh), (Verdict::Unrelated, Verdict::Unrelated));
    }

    #[test]
    fn an_unsaid_end_of_a_resync_is_found_by_both() {
        for (source, target) in beginnings() {
            let (mut source, _, finished) = resync(source, target);
            let (verdict, rule) = compare(&mut source, &mut told(finished), FACTS);
            assert_eq!((verdict, rule), (Verdict::Source, 34));
            assert_eq!(source, finished);
        }
    }
}
