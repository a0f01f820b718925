//! A network that fails in its ways.

use crate::scenario::Step;
use crate::world::{MS, S, World};

/// Nothing passes for a while.
pub const PARTITION: Step = Step { name: "partition", run: World::partition };
/// What one sends does not arrive, what the other sends does.
pub const ONE_WAY: Step = Step { name: "one_way", run: World::one_way };
/// Connections break, and both see it.
pub const RESET: Step = Step { name: "reset", run: World::reset };
/// A connection breaks, and only one of the two sees it.
pub const HALF_OPEN: Step = Step { name: "half_open", run: World::half_open };
/// The next dials succeed for the dialler only.
pub const LOST_ACCEPT: Step = Step { name: "lost_accept", run: World::lost_accept };
/// One of two sockets is slow: what goes over the other arrives long before.
pub const LAG: Step = Step { name: "lag", run: World::lag };

impl World {
    fn cut_for_a_while(&mut self, cut: [bool; 2]) {
        self.cut_network(cut);
        self.pause();
        if self.rng.chance(50) {
            self.run_for(20 * S);
        }
        if self.rng.chance(80) {
            self.heal_network();
        }
    }

    fn partition(&mut self) {
        self.cut_for_a_while([true; 2]);
    }

    fn one_way(&mut self) {
        let silent = self.rng.below(2) as usize;
        self.cut_for_a_while([0, 1].map(|node| node == silent));
    }

    fn reset(&mut self) {
        for _ in 0..self.rng.within(1, 4) {
            self.reset_connections();
            self.pause();
        }
    }

    fn half_open(&mut self) {
        let sees_it = self.rng.below(2) as usize;
        self.break_connections_for(sees_it);
        self.pause();
    }

    fn lost_accept(&mut self) {
        self.lost_accepts = self.rng.within(1, 4) as u32;
        self.reset_connections();
        self.pause();
    }

    fn lag(&mut self) {
        let slow = self.rng.below(2) as usize;
        let delay = self.rng.within(MS, 400 * MS);
        self.note(|| format!("every other connection is slower by {} ms", delay / MS));
        self.lag = [0, 1].map(|parity| if parity == slow { delay } else { 0 });
        self.pause();
        if self.rng.chance(70) {
            self.lag = [0; 2];
        }
    }
}
