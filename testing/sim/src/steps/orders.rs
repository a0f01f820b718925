//! What an administrator orders in passing.

use drbd_engine::event::Order;
use drbd_format::names::DiskState as D;

use crate::scenario::Step;
use crate::world::{S, VOLUME, World};

/// The roles change hands in order.
pub const SWAP: Step = Step { name: "swap", run: World::swap };
/// One is disconnected.
pub const DISCONNECT: Step = Step { name: "disconnect", run: World::disconnect };
/// A disk is let go, and sometimes taken back.
pub const DETACH: Step = Step { name: "detach", run: World::detach };
/// The resync is paused on one node or both, and sometimes goes on.
pub const PAUSE_SYNC: Step = Step { name: "pause_sync", run: World::pause_sync };
/// One node's data are declared worthless.
pub const INVALIDATE: Step = Step { name: "invalidate", run: World::invalidate };

impl World {
    fn swap(&mut self) {
        let Some(node) = self.primary() else { return };
        if !self.demote(node) {
            return;
        }
        if self.rng.chance(30) {
            self.pause();
        }
        if self.may_be_promoted(1 - node) && self.promote(1 - node, false) {
            self.start_work(1 - node);
            self.pause();
        }
    }

    fn disconnect(&mut self) {
        let node = self.rng.below(2) as usize;
        if self.nodes[node].is_up() {
            let force = self.rng.chance(20);
            self.ordered(node, Order::Disconnect { force });
            self.pause();
        }
    }

    fn detach(&mut self) {
        let node = self.rng.below(2) as usize;
        if self.nodes[node].is_up() {
            self.ordered(node, Order::Detach { volume: VOLUME });
            self.pause();
            if self.rng.chance(50) && self.nodes[node].is_up() && self.nodes[node].disk_state() == D::Diskless
            {
                self.attach_again(node);
                self.pause();
            }
        }
    }

    /// Pauses the resync on one node or both, and sometimes lets it go on.
    fn pause_sync(&mut self) {
        let first = self.rng.below(2) as usize;
        for node in [first, 1 - first] {
            if self.nodes[node].is_up() && self.rng.chance(70) {
                self.ordered(node, Order::PauseSync { volume: VOLUME, paused: true });
            }
        }
        self.pause();
        if self.rng.chance(50) {
            self.resume_sync();
        }
    }

    /// One node's data are declared worthless, by an administrator who knows that the other has everything.
    fn invalidate(&mut self) {
        let victim = self.rng.below(2) as usize;
        let other = 1 - victim;
        let is_whole = self.nodes[other].disk_state() == D::UpToDate
            && self.model.as_ref().is_some_and(|m| m.is_current(other));
        if !is_whole || !self.nodes[victim].is_up() {
            return;
        }
        let by_itself = self.rng.chance(50);
        let answer = if by_itself {
            self.ordered(victim, Order::Invalidate { volume: VOLUME })
        } else {
            self.ordered(other, Order::InvalidateRemote { volume: VOLUME })
        };
        // A peer that is not asked is merely written over at the next connection.
        let accepted = matches!(answer, Some(Ok(_)));
        self.parting_known |= accepted;
        if accepted && (by_itself || self.nodes[victim].disk_state() == D::Inconsistent) {
            self.disk_left(victim);
        }
        self.pause();
    }

    /// The front waits by order, and mostly goes on after a while.
    pub(crate) fn suspend_io(&mut self) {
        let Some(node) = self.primary() else { return };
        self.note(|| "== suspend_io".to_owned());
        self.ordered(node, Order::SuspendIo);
        let time = self.handler_rng.within(1, 3 * S);
        self.run_for(time);
        if self.handler_rng.chance(60) {
            self.resume_io();
        }
    }

    pub(crate) fn resume_io(&mut self) {
        for node in 0..2 {
            if self.nodes[node].device().is_some_and(|d| d.flags.suspended_user) {
                self.ordered(node, Order::ResumeIo { volume: VOLUME });
            }
        }
    }
}
