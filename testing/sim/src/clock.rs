//! A node's own clock: it runs a little faster or slower than the world's.

use std::cell::Cell;
use std::rc::Rc;

use drbd_engine::Instant;

/// What the world's clock moves by while this one moves by so much.
const EVEN: u64 = 1000;

/// A monotonic clock.
#[derive(Clone, Debug)]
pub struct Clock {
    world: Rc<Cell<u64>>,
    permille: u64,
}

impl Clock {
    /// A clock that moves by so many thousandths of the world's.
    pub fn new(world: Rc<Cell<u64>>, permille: u64) -> Self {
        Self { world, permille }
    }

    /// What it shows.
    pub fn now(&self) -> Instant {
        Instant(self.world.get() * self.permille / EVEN)
    }

    /// When, by the world's clock, it will show this.
    pub fn shows(&self, instant: Instant) -> u64 {
        (instant.0 * EVEN).div_ceil(self.permille)
    }
}
