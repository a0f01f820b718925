//! The simulation itself: it is deterministic, and a few seeds hold on every build.

/// The same seed is the same course of events, down to every byte of both disks.
#[test]
fn a_seed_replays() {
    for seed in [0, 3, 6, 17] {
        let (first, again) = (sim::drbd(seed, false), sim::drbd(seed, false));
        assert_eq!(first.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(first.events, again.events, "seed {seed}");
        assert!(first.requests > 0, "seed {seed} does something");
    }
    assert_ne!(sim::drbd(0, false).trace_hash, sim::drbd(1, false).trace_hash);
}

/// Seeds that found something once: crossing handshakes, demotion and detaching during a resync, refusals around the
/// exchange of bitmaps, a full activity log during the first sync, jobs of an earlier resync; cooling while the activity
/// log is being written, writes in flight when protocol A gets in sync, a mirror of a diskless primary that crashes, a
/// source that loses its disk before the first block, one that goes on alone while its finished target does, too, a
/// primary that gets its disk back alone, and a split brain whose loser leaves before it hears of the resync;
/// two primaries that part while one has no disk, and one that is written to by the other after that is gone; features
/// told on a dead socket, a log begun anew over bits that were not written, and a source that believed its unfinished target;
/// and a write that only an unfinished target had when a disk came back while the front waited by order, too.
/// a source whose disk fails while its target prepares, a diskless primary that is lost while its writes wait for answers,
/// and reads from a disk that is being let go while the other primary writes.
#[test]
fn seeds_that_found_something_hold() {
    for seed in [
        0, 2, 8, 33, 40, 50, 65, 84, 132, 148, 223, 308, 527, 537, 542, 597, 706, 741, 879, 983, 1048, 1073,
        1388, 1390, 1484, 1551, 1620, 1756, 1841, 1892, 1898, 1901, 1960, 1984, 2144, 2744, 2773, 2777, 2993,
        3608, 3754, 3908, 4003, 7453, 8152, 10569, 11078, 12329, 24678, 50406, 52023, 60181, 60259, 82051,
        82683, 91066, 94391, 96013, 100186, 2001692, 1030, 5501, 640194, 900120, 900731, 1000627, 1003712,
        1004950, 1005645, 1005744, 1005963, 1006362, 1007288, 1007319, 1008501, 1011938,
    ] {
        let outcome = sim::drbd(seed, false);
        assert_eq!(outcome.fault, None, "seed {seed}");
    }
}
