//! What a volume's faults make of a request.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rustix::io::Errno;

use crate::volume_fault::{Kind, VolumeFault};

/// What a request wants of the medium.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    /// Bytes of it.
    Read(Range<u64>),
    /// To change bytes of it; `fills` if it needs room where there is no data yet.
    Write {
        /// Which.
        bytes: Range<u64>,
        /// Discards do not.
        fills: bool,
    },
    /// What was written before to be kept.
    Flush,
    /// Nothing that the medium does not have already.
    Nothing,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It goes to the medium.
    Pass,
    /// It fails.
    Fail(Errno),
    /// It is asked again after so long.
    Wait(Duration),
    /// It is asked again when the faults are others.
    Hang,
}

/// The faults of an open volume.
#[derive(Debug, Default)]
pub struct Faults {
    /// Whether there is anything to look at: most volumes are sound.
    any: AtomicBool,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    list: Vec<VolumeFault>,
    frozen: bool,
}

impl Faults {
    /// These, from the volume's record.
    pub fn new(list: Vec<VolumeFault>) -> Self {
        let faults = Self::default();
        faults.set(list);
        faults
    }

    /// From now on these.
    pub fn set(&self, list: Vec<VolumeFault>) {
        self.change(|state| state.list = list);
    }

    /// Whether writes wait, for a snapshot.
    pub fn freeze(&self, frozen: bool) {
        self.change(|state| state.frozen = frozen);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.any.store(state.frozen || !state.list.is_empty(), Ordering::Release);
    }

    /// What becomes of a request. `waited`: it was told to wait before, and has. `has_hole` tells whether a range holds a
    /// part without data.
    pub fn verdict(&self, access: &Access, waited: bool, has_hole: impl Fn(&Range<u64>) -> bool) -> Verdict {
        if !self.any.load(Ordering::Acquire) {
            return Verdict::Pass;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let met: Vec<Kind> =
            state.list.iter().filter(|fault| meets(fault, access)).map(|fault| fault.kind).collect();
        let slow_us: u64 = met.iter().map(|kind| if let Kind::Slow { us } = kind { *us } else { 0 }).sum();
        if slow_us > 0 && !waited {
            return Verdict::Wait(Duration::from_micros(slow_us));
        }
        if met.contains(&Kind::Hang) || state.frozen && matches!(access, Access::Write { .. } | Access::Flush)
        {
            return Verdict::Hang;
        }
        if met.contains(&Kind::Error) {
            return Verdict::Fail(Errno::IO);
        }
        if let Access::Write { bytes, fills } = access {
            if met.contains(&Kind::ReadOnly) {
                return Verdict::Fail(Errno::ROFS);
            }
            if *fills && met.contains(&Kind::Full) && has_hole(bytes) {
                return Verdict::Fail(Errno::NOSPC);
            }
        }
        Verdict::Pass
    }
}

/// A flush concerns the whole medium, so a fault of a part leaves it alone.
fn meets(fault: &VolumeFault, access: &Access) -> bool {
    let touches =
        |bytes: &Range<u64>| fault.range.is_none_or(|range| range.from < bytes.end && bytes.start < range.to);
    match access {
        Access::Read(bytes) => fault.reads && touches(bytes),
        Access::Write { bytes, .. } => fault.writes && touches(bytes),
        Access::Flush => fault.writes && fault.range.is_none(),
        Access::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::io::Errno;

    use super::{Access, Faults, Verdict};
    use crate::volume_fault::{ByteRange, Kind, VolumeFault};

    fn fault(kind: Kind, reads: bool, range: Option<(u64, u64)>) -> VolumeFault {
        let range = range.map(|(from, to)| ByteRange { from, to });
        VolumeFault { kind, reads, writes: !reads, range }
    }

    #[test]
    fn each_request_meets_what_concerns_it() {
        let read = Access::Read(4096..8192);
        let write = Access::Write { bytes: 4096..8192, fills: true };
        let discard = Access::Write { bytes: 4096..8192, fills: false };
        let cases = [
            (fault(Kind::Error, true, None), &read, Verdict::Fail(Errno::IO)),
            (fault(Kind::Error, true, None), &write, Verdict::Pass),
            (fault(Kind::Error, true, Some((0, 4096))), &read, Verdict::Pass),
            (fault(Kind::Error, true, Some((8191, 8192))), &read, Verdict::Fail(Errno::IO)),
            (fault(Kind::Hang, false, None), &Access::Flush, Verdict::Hang),
            (fault(Kind::Hang, false, Some((0, 1 << 40))), &Access::Flush, Verdict::Pass),
            (fault(Kind::Slow { us: 7000 }, true, None), &read, Verdict::Wait(Duration::from_millis(7))),
            (fault(Kind::ReadOnly, false, None), &discard, Verdict::Fail(Errno::ROFS)),
            (fault(Kind::ReadOnly, false, None), &Access::Flush, Verdict::Pass),
            (fault(Kind::Full, false, None), &write, Verdict::Fail(Errno::NOSPC)),
            (fault(Kind::Full, false, None), &discard, Verdict::Pass),
        ];
        for (fault, access, expected) in cases {
            let faults = Faults::new(vec![fault]);
            assert_eq!(faults.verdict(access, false, |_| true), expected, "{fault} {access:?}");
        }
        let full = Faults::new(vec![fault(Kind::Full, false, None)]);
        assert_eq!(full.verdict(&write, false, |_| false), Verdict::Pass, "there is room already");
    }

    #[test]
    fn slow_ones_add_up_and_what_else_is_wrong_comes_after() {
        let slow = |ms: u64| fault(Kind::Slow { us: 1000 * ms }, true, None);
        let faults = Faults::new(vec![slow(5), slow(6), fault(Kind::Error, true, None)]);
        let read = Access::Read(0..1);
        assert_eq!(faults.verdict(&read, false, |_| true), Verdict::Wait(Duration::from_millis(11)));
        assert_eq!(faults.verdict(&read, true, |_| true), Verdict::Fail(Errno::IO));
        faults.freeze(true);
        let write = Access::Write { bytes: 0..1, fills: true };
        assert_eq!(faults.verdict(&write, true, |_| true), Verdict::Hang);
        faults.set(Vec::new());
        assert_eq!(faults.verdict(&write, true, |_| true), Verdict::Hang, "still frozen");
        faults.freeze(false);
        assert_eq!(faults.verdict(&write, true, |_| true), Verdict::Pass);
    }
}
