//! Power that fails, daemons that are killed, and who takes over.

use drbd_format::names::ConnectionState as C;

use crate::check;
use crate::scenario::Step;
use crate::world::{MS, World};

/// The primary's power fails; the other may take over.
pub const CUT_PRIMARY: Step = Step { name: "cut_primary", run: World::cut_primary };
/// The other one's power fails.
pub const CUT_SECONDARY: Step = Step { name: "cut_secondary", run: World::cut_secondary };
/// Both fail, one soon after the other.
pub const CUT_BOTH: Step = Step { name: "cut_both", run: World::cut_both };
/// A daemon is killed; the system below it lives.
pub const KILL: Step = Step { name: "kill", run: World::kill };

impl World {
    fn cut_primary(&mut self) {
        if let Some(node) = self.primary() {
            self.power_cut(node);
            self.take_over(node);
        }
    }

    fn cut_secondary(&mut self) {
        if let Some(node) = self.primary() {
            self.power_cut(1 - node);
            self.pause();
        }
    }

    fn cut_both(&mut self) {
        let first = self.rng.below(2) as usize;
        self.power_cut(first);
        if self.rng.chance(50) {
            let time = self.rng.within(1, 50 * MS);
            self.run_for(time);
        }
        self.power_cut(1 - first);
    }

    fn kill(&mut self) {
        let node = self.rng.below(2) as usize;
        self.kill_daemon(node);
        self.pause();
    }

    fn take_over(&mut self, lost: usize) {
        if self.rng.chance(30) {
            self.pause();
        }
        let node = 1 - lost;
        if self.rng.chance(75) && self.nodes[node].is_up() && self.may_be_promoted(node) {
            if let Some(model) = self.model.as_mut().filter(|_| self.nodes[node].connection() < C::Connected)
            {
                let checked = check::disk_holds_promises(model, &self.nodes[node], node);
                self.expect(checked.map_err(|(_, why)| ("the_survivor_holds_every_acknowledged_write", why)));
            }
            self.run_until(self.patience(), |w| w.nodes[node].connection() < C::Connected);
            if self.may_be_promoted(node) && self.promote(node, false) {
                self.start_work(node);
                self.pause();
            }
        }
    }
}
