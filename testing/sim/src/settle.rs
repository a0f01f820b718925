//! The end of a run: nothing is broken any more, both come together, and what must hold then is looked at.

use crate::check;
use crate::disk::Failures;
use crate::node::Node;
use crate::world::{S, World};

/// The current identifier of a disk that `create-md` has just written.
const JUST_CREATED: u64 = 4;

impl World {
    pub(crate) fn stuck(&mut self, what: &str) {
        if self.fault.is_none() {
            let states: Vec<String> =
                self.nodes.iter().map(|n| format!("cs:{} ds:{}", n.connection(), n.disk_state())).collect();
            self.expect(Err((
                "the_pair_comes_together",
                format!("{what} does not end: {}", states.join(" | ")),
            )));
        }
    }

    /// After this nothing is broken any more, and both must come together.
    pub(crate) fn settle(&mut self) {
        for node in &mut self.nodes {
            node.disk.failures = Failures::default();
        }
        self.handlers_refuse = false;
        if self.plan.net.allow_two_primaries {
            // An altered byte parts them, and two primaries that are parted are a split brain.
            self.plan.altered_per_10000 = 0;
        }
        self.heal_network();
        let patience = self.patience();
        for _ in 0..4 {
            self.repair();
            self.begin_again_if_nothing_ever_began();
            if self.fault.is_some() || self.run_until(patience, |w| w.was_in_sync) {
                break;
            }
        }
        if !self.was_in_sync {
            return self.stuck("the last sync");
        }
        self.promote_somebody();
        self.run_for(S);
        self.stop_work();
        if !self.run_until(30 * S, |w| w.work.pending() == 0) && self.fault.is_none() {
            let left = self.work.pending();
            return self.expect(Err(("requests_complete", format!("{left} requests are never answered"))));
        }
        // The last epoch is closed when nothing was added to it for a while, and its flush takes its time.
        self.run_for(2 * S);
        // Extents that go cold are written down at any time.
        self.run_until(S, |w| w.nodes.iter().all(|n| n.disk.busy() == 0));
    }

    /// A failing disk was in the way of the first promotion, or lost its superblock at once: an administrator repeats it.
    fn begin_again_if_nothing_ever_began(&mut self) {
        let untouched = |n: &Node| n.device().is_some_and(|d| d.uuids[0] & !1 == JUST_CREATED);
        if self.fault.is_some() || !self.nodes.iter().all(untouched) {
            return;
        }
        if self.work.acked != 0 {
            let acked = self.work.acked;
            return self.expect(Err((
                "an_acknowledged_write_has_a_generation",
                format!("{acked} writes were acknowledged, and both disks are as just created"),
            )));
        }
        if let Some(node) = self.primary() {
            self.demote(node);
        }
        self.model = None;
        self.promote(0, true);
    }

    /// Everything is quiet: what must be equal is, and nothing is left over.
    pub(crate) fn inspect(&mut self) {
        if self.fault.is_some() {
            return;
        }
        if !self.was_in_sync {
            return self.stuck("a quiet minute");
        }
        self.expect(check::disks_are_identical(&self.nodes[0], &self.nodes[1]));
        if self.found_altered > self.altered {
            let (found, altered) = (self.found_altered, self.altered);
            self.expect(Err(("only_what_changed_is_refused", format!("{altered} changed, {found} refused"))));
        }
        for node in 0..2 {
            if let Some(model) = &mut self.model {
                let checked = check::disk_holds_promises(model, &self.nodes[node], node);
                self.expect(checked);
            }
            self.expect(check::nothing_is_kept_when_idle(&self.nodes[node], node));
        }
    }
}
