//! Both become primary without each other: this must be found out, and not merged.

use drbd_format::names::ConnectionState as C;

use crate::node::Node;
use crate::scenario::Step;
use crate::world::{S, World};

/// Both are primary, one after the other, while they cannot hear each other.
pub const SPLIT_BRAIN: Step = Step { name: "split_brain", run: World::split_brain };

impl World {
    fn split_brain(&mut self) {
        if !self.was_in_sync || self.is_cut() || self.plan.failing.is_some() || self.plan.disk.fencing != 0 {
            return;
        }
        let Some(node) = self.primary().filter(|&node| !self.nodes[1 - node].is_primary()) else { return };
        let other = 1 - node;
        self.disks_are_sound();
        self.resume_io();
        self.cut_network([true; 2]);
        let apart = |w: &Self| w.nodes.iter().all(|n| n.connection() < C::Connected);
        if !self.run_until(90 * S, apart) {
            self.heal_network();
            return;
        }
        self.stop_work();
        self.run_until(60 * S, |w| w.work.pending() == 0);
        // The other's front writes what nobody will ever see again.
        let kept = self.model.clone();
        if let Some(model) = &mut self.model {
            model.surrenders_to(other);
        }
        if self.promote(other, false) {
            self.start_work(other);
            self.pause();
            self.demote(other);
        }
        self.stop_work();
        self.front_is_gone(other);
        self.front_is_gone(node);
        self.rival = std::mem::replace(&mut self.model, kept).map(|mut model| {
            model.disk_left(node);
            (other, model)
        });
        if let Some(model) = &mut self.model {
            model.disk_left(other);
        }
        if self.rng.chance(50) {
            self.demote(node);
        }
        let diverged = self.nodes.iter().all(|n| n.generations > 0);
        self.heal_network();
        if diverged && self.nodes.iter().all(|n| n.connection() != C::StandAlone) {
            let noticed = |n: &Node| n.connection() == C::StandAlone || n.split_brain_solved;
            self.run_until(60 * S, |w| w.nodes.iter().any(noticed));
            let noticed = |n: &Node| n.split_brain || n.split_brain_solved;
            if self.fault.is_none() && !self.nodes.iter().any(noticed) {
                self.expect(Err(("a_split_brain_is_detected", "both had been primary alone".into())));
            }
        }
    }
}
