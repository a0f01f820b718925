//! A whole run, by seed: what begins, what happens, in which order.

use drbd_engine::event::Order;
use drbd_format::names::ConnectionState as C;

use crate::steps::{disks, network, orders, power, split_brain, two_primaries, verify};
use crate::world::{VOLUME, World};

/// Something that happens to the two servers.
#[derive(Clone, Copy)]
pub struct Step {
    /// Its name in the trace.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&mut World),
}

/// Nothing but work.
const WORK: Step = Step { name: "work", run: World::pause };

/// All that can happen, each as likely as the others.
const STEPS: [Step; 19] = [
    WORK,
    orders::SWAP,
    orders::DISCONNECT,
    orders::DETACH,
    orders::PAUSE_SYNC,
    orders::INVALIDATE,
    verify::VERIFY,
    network::PARTITION,
    network::ONE_WAY,
    network::RESET,
    network::HALF_OPEN,
    network::LOST_ACCEPT,
    network::LAG,
    power::CUT_PRIMARY,
    power::CUT_SECONDARY,
    power::CUT_BOTH,
    power::KILL,
    disks::IO_ERROR,
    split_brain::SPLIT_BRAIN,
];

/// A whole run. What went wrong is in the world.
pub fn run(world: &mut World) {
    world.begin();
    world.handlers_refuse = true;
    for _ in 0..world.rng.within(2, 9) {
        let two = world.plan.net.allow_two_primaries && world.rng.chance(40);
        let step = if two { two_primaries::TWO_PRIMARIES } else { world.rng.pick(&STEPS) };
        world.note(|| format!("== {}", step.name));
        world.promote_somebody();
        world.pause();
        (step.run)(world);
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
            self.nodes[node].disk.failures.per_10000 = per_10000;
        }
        let patience = self.patience();
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
}
