//! An administrator who knows what happened: who may be primary, what has to be brought back, who gives up its data.

use drbd_engine::event::Order;
use drbd_format::names::{ConnectionState as C, DiskState as D};

use crate::world::{MS, S, VOLUME, World};

impl World {
    pub(crate) fn random_time(&mut self) -> u64 {
        match self.rng.below(3) {
            0 => self.rng.within(1, 20 * MS),
            1 => self.rng.within(MS, S),
            _ => self.rng.within(MS, 8 * S),
        }
    }

    /// Lets some time pass.
    pub(crate) fn pause(&mut self) {
        let time = self.random_time();
        self.run_for(time);
    }

    /// How long a whole pair may take to find together and to sync.
    pub(crate) fn patience(&self) -> u64 {
        self.plan.patience().as_nanos() as u64
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        (0..2).find(|&n| self.nodes[n].is_primary())
    }

    /// Whether an administrator who knows what happened would make this node primary.
    pub(crate) fn may_be_promoted(&self, node: usize) -> bool {
        self.primary().is_none()
            && self.nodes[node].disk_state() == D::UpToDate
            && self.model.as_ref().is_none_or(|m| m.is_current(node))
            && self.rival.as_ref().is_none_or(|(rival, _)| *rival != node)
    }

    /// Makes a node primary that may be, and lets work come.
    pub(crate) fn promote_somebody(&mut self) {
        if let Some(node) = self.primary() {
            return self.start_work(node);
        }
        let first = self.rng.below(2) as usize;
        for node in [first, 1 - first] {
            if self.may_be_promoted(node) && self.promote(node, false) {
                return self.start_work(node);
            }
        }
    }

    pub(crate) fn resume_sync(&mut self) {
        for node in 0..2 {
            if self.nodes[node].device().is_some_and(|d| d.flags.resync_paused_by_user) {
                self.ordered(node, Order::PauseSync { volume: VOLUME, paused: false });
            }
        }
    }

    /// Brings back whatever is missing.
    pub(crate) fn repair(&mut self) {
        self.heal_network();
        let first = self.rng.below(2) as usize;
        for node in [first, 1 - first] {
            if !self.nodes[node].is_up() {
                self.up(node);
            } else if self.nodes[node].disk_state() == D::Diskless {
                self.attach_again(node);
            }
        }
        self.run_for(S);
        self.resume_sync();
        self.resume_io();
        self.reconnect();
        if self.rng.chance(50) {
            self.run_until(self.patience(), |w| w.was_in_sync);
        } else {
            self.pause();
        }
    }

    /// Connects who is StandAlone; if that is because of a split brain, the one without the current data gives up its own.
    pub(crate) fn reconnect(&mut self) {
        let alone = |n: usize, w: &Self| w.nodes[n].is_up() && w.nodes[n].connection() == C::StandAlone;
        for node in 0..2 {
            // A primary that lost its disk, and whose peer has only older data, is none any more.
            if alone(node, self)
                && self.nodes[node].is_primary()
                && self.nodes[node].disk_state() == D::Diskless
            {
                self.demote(node);
                // Two faults: what only the lost disk held is given up together with it.
                if let Some(model) = &mut self.model {
                    model.surrenders_to(1 - node);
                }
            }
        }
        let split = self.nodes.iter().any(|n| n.split_brain);
        if !split {
            for node in 0..2 {
                if alone(node, self) {
                    self.connect(node, false);
                }
            }
            return;
        }
        if self.nodes.iter().any(|n| n.generations == 0) {
            let generations = self.nodes.each_ref().map(|n| n.generations);
            return self
                .expect(Err(("a_split_brain_has_two_sides", format!("new generations: {generations:?}"))));
        }
        self.run_until(60 * S, |w| alone(0, w) || alone(1, w));
        let loses = |n: usize, w: &Self| w.model.as_ref().is_some_and(|m| !m.is_current(n));
        let victim = if loses(0, self) {
            0
        } else if loses(1, self) {
            1
        } else {
            1 - self.primary().unwrap_or(0)
        };
        self.note(|| format!("node {victim} gives up its data"));
        for node in 0..2 {
            self.ordered(node, Order::Disconnect { force: true });
        }
        if self.nodes[victim].is_primary() {
            self.demote(victim);
        }
        for node in 0..2 {
            self.connect(node, node == victim);
        }
    }
}
