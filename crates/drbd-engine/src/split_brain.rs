//! Who gives way when both have written alone.
//!
//! Upstream: `drbd_asb_recover_0p`, `_1p`, `_2p`, `convert_after_sb` (drbd_receiver.c). Both nodes decide for themselves,
//! from facts that both know, and must come to opposite results.

use drbd_format::names::Role;

use crate::admin::NetOptions;
use crate::generations::Verdict;

/// `enum drbd_after_sb_p`: the numbers of the policies on the wire; 0 is to disconnect.
pub mod policy {
    /// Who became primary later gives way.
    pub const DISCARD_YOUNGER_PRIMARY: u32 = 1;
    /// Who was primary first gives way.
    pub const DISCARD_OLDER_PRIMARY: u32 = 2;
    /// Who has changed nothing gives way.
    pub const DISCARD_ZERO_CHANGES: u32 = 3;
    /// Who has changed less gives way.
    pub const DISCARD_LEAST_CHANGES: u32 = 4;
    /// We give way.
    pub const DISCARD_LOCAL: u32 = 5;
    /// The peer gives way.
    pub const DISCARD_REMOTE: u32 = 6;
    /// As without primaries, if that is the secondary.
    pub const CONSENSUS: u32 = 7;
    /// The secondary gives way.
    pub const DISCARD_SECONDARY: u32 = 8;
    /// As without primaries; a primary is asked to step down.
    pub const CALL_HELPER: u32 = 9;
    /// As without primaries, whatever that means for a primary.
    pub const VIOLENTLY: u32 = 10;
}

/// The peer's word for a policy, seen from here: its local is our remote.
pub fn seen_from_here(theirs: u32) -> u32 {
    match theirs {
        policy::DISCARD_LOCAL => policy::DISCARD_REMOTE,
        policy::DISCARD_REMOTE => policy::DISCARD_LOCAL,
        other => other,
    }
}

/// What both know.
#[derive(Clone, Copy, Debug)]
pub struct Sides {
    /// Our role.
    pub role: Role,
    /// The peer's role.
    pub peer_role: Role,
    /// Our bitmap identifier; its lowest bit says that we were primary when we parted.
    pub bitmap: u64,
    /// The peer's.
    pub peer_bitmap: u64,
    /// Blocks we have changed, as we told the peer.
    pub changes: u64,
    /// Blocks the peer has changed, as it told us.
    pub peer_changes: u64,
    /// One of the two, the same for both: who decides where nothing else does.
    pub resolves_conflicts: bool,
}

/// What a policy comes to: `Source` or `Target`, or `SplitBrain` if it decides nothing.
pub fn recover(options: &NetOptions, sides: Sides) -> Verdict {
    let is_primary = sides.role == Role::Primary;
    let without = || without_primaries(options.after_sb_0pri, sides);
    match (is_primary, sides.peer_role == Role::Primary) {
        (false, false) => without(),
        (true, true) => match options.after_sb_2pri {
            policy::VIOLENTLY => without(),
            policy::CALL_HELPER => unless_we_must_step_down(without(), is_primary),
            _ => Verdict::SplitBrain,
        },
        _ => match (options.after_sb_1pri, without()) {
            (policy::CONSENSUS, Verdict::Target) if !is_primary => Verdict::Target,
            (policy::CONSENSUS, Verdict::Source) if is_primary => Verdict::Source,
            (policy::VIOLENTLY, verdict) => verdict,
            (policy::DISCARD_SECONDARY, _) if is_primary => Verdict::Source,
            (policy::DISCARD_SECONDARY, _) => Verdict::Target,
            (policy::CALL_HELPER, verdict) => unless_we_must_step_down(verdict, is_primary),
            _ => Verdict::SplitBrain,
        },
    }
}

/// Whether a policy wants us to be the target, and us, who are primary, to step down for that.
pub fn steps_down(options: &NetOptions, sides: Sides) -> bool {
    let chosen = match sides.peer_role {
        Role::Primary => options.after_sb_2pri,
        _ => options.after_sb_1pri,
    };
    sides.role == Role::Primary
        && chosen == policy::CALL_HELPER
        && without_primaries(options.after_sb_0pri, sides) == Verdict::Target
}

/// A primary cannot step down while its front is open, and here it is open as long as it is primary. (Upstream tries, and
/// calls `pri-lost-after-sb` where somebody has the device open.)
fn unless_we_must_step_down(verdict: Verdict, is_primary: bool) -> Verdict {
    if is_primary && verdict == Verdict::Target { Verdict::SplitBrain } else { verdict }
}

fn without_primaries(which: u32, sides: Sides) -> Verdict {
    let arbitrary = if sides.resolves_conflicts { Verdict::Target } else { Verdict::Source };
    let (ours, theirs) = (sides.changes, sides.peer_changes);
    let by_age = match (sides.bitmap & 1, sides.peer_bitmap & 1) {
        (0, 1) => Some(Verdict::Target),
        (1, 0) => Some(Verdict::Source),
        _ => None,
    };
    let by_nothing_changed = match (ours, theirs) {
        (0, 0) => Some(arbitrary),
        (_, 0) => Some(Verdict::Source),
        (0, _) => Some(Verdict::Target),
        _ => None,
    };
    let by_changes = match ours.cmp(&theirs) {
        std::cmp::Ordering::Less => Verdict::Target,
        std::cmp::Ordering::Greater => Verdict::Source,
        std::cmp::Ordering::Equal => arbitrary,
    };
    match which {
        policy::DISCARD_YOUNGER_PRIMARY => by_age.or(by_nothing_changed).unwrap_or(by_changes),
        policy::DISCARD_OLDER_PRIMARY => by_age.map(opposite).or(by_nothing_changed).unwrap_or(by_changes),
        policy::DISCARD_ZERO_CHANGES => by_nothing_changed.unwrap_or(Verdict::SplitBrain),
        policy::DISCARD_LEAST_CHANGES => by_changes,
        policy::DISCARD_LOCAL => Verdict::Target,
        policy::DISCARD_REMOTE => Verdict::Source,
        _ => Verdict::SplitBrain,
    }
}

fn opposite(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Target => Verdict::Source,
        Verdict::Source => Verdict::Target,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: std::ops::RangeInclusive<u32> = 0..=policy::VIOLENTLY;

    fn mirrored(sides: Sides) -> Sides {
        Sides {
            role: sides.peer_role,
            peer_role: sides.role,
            bitmap: sides.peer_bitmap,
            peer_bitmap: sides.bitmap,
            changes: sides.peer_changes,
            peer_changes: sides.changes,
            resolves_conflicts: !sides.resolves_conflicts,
        }
    }

    fn all_sides() -> Vec<Sides> {
        let mut all = Vec::new();
        for case in 0..2 * 2 * 2 * 2 * 3 * 3 * 2 {
            let pick = |div: u64, of: u64| case / div % of;
            let role = |n: u64| if n == 0 { Role::Secondary } else { Role::Primary };
            all.push(Sides {
                role: role(pick(1, 2)),
                peer_role: role(pick(2, 2)),
                bitmap: 0x10 | pick(4, 2),
                peer_bitmap: 0x10 | pick(8, 2),
                changes: pick(16, 3) * 7,
                peer_changes: pick(48, 3) * 7,
                resolves_conflicts: pick(144, 2) == 1,
            });
        }
        all
    }

    #[test]
    fn both_come_to_opposite_results() {
        for after_sb_0pri in POLICIES {
            for policy in POLICIES {
                let options = NetOptions {
                    after_sb_0pri,
                    after_sb_1pri: policy,
                    after_sb_2pri: policy,
                    ..NetOptions::default()
                };
                let theirs = NetOptions { after_sb_0pri: seen_from_here(after_sb_0pri), ..options.clone() };
                for sides in all_sides() {
                    let (ours, peers) = (recover(&options, sides), recover(&theirs, mirrored(sides)));
                    // Where only one of the two gives up, it drops the connection, and nothing has happened.
                    let agree = peers == opposite(ours)
                        || ours == Verdict::SplitBrain
                        || peers == Verdict::SplitBrain;
                    assert!(agree, "{ours:?} and {peers:?} by {after_sb_0pri}, {policy} of {sides:?}");
                }
            }
        }
    }

    /// Captures 05c and 05d.
    #[test]
    fn the_captured_scenarios_end_as_captured() {
        let secondary = Sides {
            role: Role::Secondary,
            peer_role: Role::Secondary,
            bitmap: 0x11,
            peer_bitmap: 0x10,
            changes: 0,
            peer_changes: 3,
            resolves_conflicts: true,
        };
        let zero = NetOptions { after_sb_0pri: policy::DISCARD_ZERO_CHANGES, ..NetOptions::default() };
        assert_eq!(recover(&zero, secondary), Verdict::Target);
        assert_eq!(recover(&zero, Sides { changes: 1, ..secondary }), Verdict::SplitBrain);
        let discard = NetOptions { after_sb_1pri: policy::DISCARD_SECONDARY, ..NetOptions::default() };
        let peer_role = Role::Primary;
        assert_eq!(recover(&discard, Sides { peer_role, changes: 9, ..secondary }), Verdict::Target);
        assert_eq!(recover(&discard, secondary), Verdict::SplitBrain);
    }

    #[test]
    fn who_was_primary_first_is_older() {
        let older = Sides {
            role: Role::Secondary,
            peer_role: Role::Secondary,
            bitmap: 0x11,
            peer_bitmap: 0x10,
            changes: 5,
            peer_changes: 5,
            resolves_conflicts: false,
        };
        let by = |after_sb_0pri| recover(&NetOptions { after_sb_0pri, ..NetOptions::default() }, older);
        assert_eq!(by(policy::DISCARD_YOUNGER_PRIMARY), Verdict::Source);
        assert_eq!(by(policy::DISCARD_OLDER_PRIMARY), Verdict::Target);
        assert_eq!(by(policy::DISCARD_LEAST_CHANGES), Verdict::Source, "who resolves conflicts gives way");
    }
}
