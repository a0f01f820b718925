//! What an administrator and a hard life do to the two servers, by seed.

use drbd_engine::event::Order;
use drbd_format::names::{ConnectionState as C, DiskState as D};

use crate::check;
use crate::node::Node;
use crate::world::{MS, S, VOLUME, World};

/// The current identifier of a disk that `create-md` has just written.
const JUST_CREATED: u64 = 4;

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Work,
    Swap,
    Disconnect,
    Partition,
    Reset,
    CutPrimary,
    CutSecondary,
    CutBoth,
    Kill,
    Detach,
    SplitBrain,
    PauseSync,
    Invalidate,
    Verify,
    TwoPrimaries,
}

const STEPS: [Step; 14] = [
    Step::Work,
    Step::Swap,
    Step::Disconnect,
    Step::Partition,
    Step::Reset,
    Step::CutPrimary,
    Step::CutSecondary,
    Step::CutBoth,
    Step::Kill,
    Step::Detach,
    Step::SplitBrain,
    Step::PauseSync,
    Step::Invalidate,
    Step::Verify,
];

/// A whole run. What went wrong is in the world.
pub fn run(world: &mut World) {
    world.begin();
    world.handlers_refuse = true;
    for _ in 0..world.rng.within(2, 9) {
        let two = world.plan.net.allow_two_primaries && world.rng.chance(40);
        let step = if two { Step::TwoPrimaries } else { world.rng.pick(&STEPS) };
        world.note(|| format!("== {step:?}"));
        world.perform(step);
        if world.handler_rng.chance(20) && !world.plan.net.allow_two_primaries {
            world.suspend_io();
        }
        if world.rng.chance(40) {
            world.repair();
        }
        if world.fault.is_some() {
            return;
        }
    }
    world.note(|| "== the end".to_owned());
    world.settle();
    world.inspect();
}

impl World {
    fn random_time(&mut self) -> u64 {
        match self.rng.below(3) {
            0 => self.rng.within(1, 20 * MS),
            1 => self.rng.within(MS, S),
            _ => self.rng.within(MS, 8 * S),
        }
    }

    pub(crate) fn pause(&mut self) {
        let time = self.random_time();
        self.run_for(time);
    }

    /// Two fresh disks, a first connection, `primary --force`.
    fn begin(&mut self) {
        let first = self.rng.below(2) as usize;
        for node in [first, 1 - first] {
            self.create_md(node);
            self.up(node);
            if self.rng.chance(50) {
                self.pause();
            }
        }
        if let Some((node, per_10000)) = self.plan.failing {
            self.nodes[node].disk.failures_per_10000 = per_10000;
        }
        let patience = self.plan.patience().as_nanos() as u64;
        let connected = |w: &Self| w.nodes.iter().all(|n| n.connection() == C::Connected);
        if self.plan.failing.is_none() && !self.run_until(patience, connected) {
            return self.stuck("the first connection");
        }
        let primary = self.rng.below(2) as usize;
        if self.plan.skips_first_sync {
            self.ordered(primary, Order::NewCurrentUuid { volume: VOLUME, clear_bitmap: true });
        }
        if !self.promote(primary, true) && self.plan.failing.is_none() {
            return self.stuck("primary --force");
        }
        self.start_work(primary);
        if self.rng.chance(70) && !self.run_until(patience, |w| w.was_in_sync) && self.plan.failing.is_none()
        {
            self.stuck("the first sync");
        }
    }

    fn stuck(&mut self, what: &str) {
        if self.fault.is_none() {
            let states: Vec<String> =
                self.nodes.iter().map(|n| format!("cs:{} ds:{}", n.connection(), n.disk_state())).collect();
            self.expect(Err((
                "the_pair_comes_together",
                format!("{what} does not end: {}", states.join(" | ")),
            )));
        }
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        (0..2).find(|&n| self.nodes[n].is_primary())
    }

    /// Whether an administrator who knows what happened would make this node primary.
    fn may_be_promoted(&self, node: usize) -> bool {
        self.primary().is_none()
            && self.nodes[node].disk_state() == D::UpToDate
            && self.model.as_ref().is_none_or(|m| m.is_current(node))
            && self.rival.as_ref().is_none_or(|(rival, _)| *rival != node)
    }

    /// Makes a node primary that may be, and lets work come.
    fn promote_somebody(&mut self) {
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

    fn perform(&mut self, step: Step) {
        self.promote_somebody();
        self.pause();
        match step {
            Step::Work => self.pause(),
            Step::Swap => self.swap(),
            Step::Disconnect => self.disconnect(),
            Step::Partition => {
                self.set_partition(true);
                self.pause();
                if self.rng.chance(50) {
                    self.run_for(20 * S);
                }
                if self.rng.chance(80) {
                    self.set_partition(false);
                }
            }
            Step::Reset => {
                for _ in 0..self.rng.within(1, 4) {
                    self.reset_connections();
                    self.pause();
                }
            }
            Step::CutPrimary => {
                if let Some(node) = self.primary() {
                    self.power_cut(node);
                    self.take_over(node);
                }
            }
            Step::CutSecondary => {
                if let Some(node) = self.primary() {
                    self.power_cut(1 - node);
                    self.pause();
                }
            }
            Step::CutBoth => {
                let first = self.rng.below(2) as usize;
                self.power_cut(first);
                if self.rng.chance(50) {
                    let time = self.rng.within(1, 50 * MS);
                    self.run_for(time);
                }
                self.power_cut(1 - first);
            }
            Step::Kill => {
                let node = self.rng.below(2) as usize;
                self.kill_daemon(node);
                self.pause();
            }
            Step::Detach => self.detach(),
            Step::SplitBrain => self.split_brain(),
            Step::PauseSync => self.pause_sync(),
            Step::Invalidate => self.invalidate(),
            Step::Verify => self.verify(),
            Step::TwoPrimaries => self.two_primaries(),
        }
    }

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
            let patience = self.plan.patience().as_nanos() as u64;
            self.run_until(patience, |w| w.nodes[node].connection() < C::Connected);
            if self.may_be_promoted(node) && self.promote(node, false) {
                self.start_work(node);
                self.pause();
            }
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

    /// The front waits by order, and mostly goes on after a while.
    fn suspend_io(&mut self) {
        let Some(node) = self.primary() else { return };
        self.note(|| "== SuspendIo".to_owned());
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

    pub(crate) fn resume_sync(&mut self) {
        for node in 0..2 {
            if self.nodes[node].device().is_some_and(|d| d.flags.resync_paused_by_user) {
                self.ordered(node, Order::PauseSync { volume: VOLUME, paused: false });
            }
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

    /// Both become primary without each other: this must be found out, and not merged.
    fn split_brain(&mut self) {
        if !self.was_in_sync || self.partitioned || self.plan.failing.is_some() || self.plan.disk.fencing != 0
        {
            return;
        }
        let Some(node) = self.primary().filter(|&node| !self.nodes[1 - node].is_primary()) else { return };
        let other = 1 - node;
        self.resume_io();
        self.set_partition(true);
        let apart = |w: &Self| w.nodes.iter().all(|n| n.connection() < C::Connected);
        if !self.run_until(90 * S, apart) {
            self.set_partition(false);
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
        self.set_partition(false);
        if diverged && self.nodes.iter().all(|n| n.connection() != C::StandAlone) {
            let noticed = |n: &Node| n.connection() == C::StandAlone || n.split_brain_solved;
            self.run_until(60 * S, |w| w.nodes.iter().any(noticed));
            let noticed = |n: &Node| n.split_brain || n.split_brain_solved;
            if self.fault.is_none() && !self.nodes.iter().any(noticed) {
                self.expect(Err(("a_split_brain_is_detected", "both had been primary alone".into())));
            }
        }
    }

    /// Brings back whatever is missing.
    fn repair(&mut self) {
        if self.partitioned {
            self.set_partition(false);
        }
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
            let patience = self.plan.patience().as_nanos() as u64;
            self.run_until(patience, |w| w.was_in_sync);
        } else {
            self.pause();
        }
    }

    /// Connects who is StandAlone; if that is because of a split brain, the one without the current data gives up its own.
    pub(crate) fn reconnect(&mut self) {
        let alone = |n: usize, w: &Self| w.nodes[n].is_up() && w.nodes[n].connection() == C::StandAlone;
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

    /// After this nothing is broken any more, and both must come together.
    fn settle(&mut self) {
        self.handlers_refuse = false;
        for node in &mut self.nodes {
            node.disk.failures_per_10000 = 0;
        }
        self.set_partition(false);
        let patience = self.plan.patience().as_nanos() as u64;
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
    fn inspect(&mut self) {
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
