//! Both nodes primary at once, and what may happen to them then.

use drbd_engine::event::Order;
use drbd_format::names::ConnectionState as C;

use crate::scenario::Step;
use crate::world::{VOLUME, World};

/// Both are primary, and connected.
pub const TWO_PRIMARIES: Step = Step { name: "two_primaries", run: World::two_primaries };

impl World {
    /// The second node becomes primary, too, and both fronts write in the same places; sometimes one node or the connection
    /// is lost meanwhile. If they are together at the end, one of them may step down.
    fn two_primaries(&mut self) {
        let Some(node) = (0..2).find(|&n| self.nodes[n].is_primary()) else { return };
        let other = 1 - node;
        let may = self.was_in_sync && self.rival.is_none() && !self.is_cut();
        if !may || !(self.nodes[other].is_primary() || self.promote(other, false)) {
            return;
        }
        self.start_work(node);
        self.start_work(other);
        self.pause();
        let victim = self.rng.below(2) as usize;
        match self.rng.below(12) {
            0..6 => self.pause(),
            6 => self.reset_connections(),
            7 => {
                self.cut_network([true; 2]);
                self.pause();
                self.heal_network();
            }
            8 => self.power_cut(victim),
            9 => self.kill_daemon(victim),
            10 => {
                self.ordered(victim, Order::Detach { volume: VOLUME });
            }
            _ => {
                self.ordered(victim, Order::Disconnect { force: false });
            }
        }
        self.pause();
        let together = self.nodes.iter().all(|n| n.connection() >= C::Connected);
        if together && self.rng.chance(70) {
            self.demote(victim);
        }
    }

    /// Attaches a disk that was let go. A primary that lost it, and then the other primary, would go on from what the other
    /// has replaced since: an administrator who knows that has it step down first.
    pub(crate) fn attach_again(&mut self, node: usize) {
        let n = &self.nodes[node];
        let goes_on_alone = n.is_primary() && n.connection() < C::Connected;
        let is_old = self.plan.net.allow_two_primaries
            && self.model.as_ref().is_some_and(|model| !model.is_current(node));
        if !(goes_on_alone && is_old) || self.demote(node) {
            self.attach(node);
        }
    }
}
