//! Time as the engine sees it: handed in with every event, never asked for.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since a beginning that the shell chose (its start; zero in a simulation).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(pub u64);

impl Instant {
    /// Time passed since `earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Tenths of a second, DRBD's favourite unit.
pub fn tenths(ds: u32) -> Duration {
    Duration::from_millis(u64::from(ds) * 100)
}
