//! Seeds that fail and are not mended yet. They are named so that any other that fails is seen at once, and so that one that
//! holds again is taken off the list.

/// The seed, and what is known of it.
const OPEN: &[(u64, &str)] = &[
    (
        871,
        "the model: two primaries part, one goes on without a disk through the other, whose promises then count",
    ),
    (2456, "the administrator: a primary that was fenced must be demoted before it can become a target"),
    (
        2652,
        "the administrator: rule 41 without the feature it needs, which upstream refuses, too; a disk must be invalidated",
    ),
];

/// Why a seed is expected to fail; none if it is not.
pub fn why(seed: u64) -> Option<&'static str> {
    OPEN.iter().find(|(open, _)| *open == seed).map(|(_, why)| *why)
}
