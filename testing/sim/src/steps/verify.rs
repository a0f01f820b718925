//! Online verify of a pair one disk of which was changed behind everybody's back.

use std::collections::BTreeSet;

use drbd_engine::event::Order;
use drbd_format::names::ConnectionState as C;

use crate::image::Sector;
use crate::node::Node;
use crate::scenario::Step;
use crate::stamp::{self, SECTOR};
use crate::world::{MS, S, VOLUME, World};

/// Sectors of a block.
const BLOCK: u64 = 8;

/// Stamps that no write of the front has.
const FOREIGN_STAMPS: u64 = 1 << 40;

fn is_verifying(node: &Node) -> bool {
    matches!(node.connection(), C::VerifyS | C::VerifyT)
}

/// Both disks are compared online.
pub const VERIFY: Step = Step { name: "verify", run: World::verify };

impl World {
    /// Blocks of both disks that hold different bytes now.
    fn differing_blocks(&self) -> BTreeSet<u64> {
        let [a, b] = self.nodes.each_ref().map(|n| &n.disk.sectors()[..n.size_sectors as usize]);
        let same = |a: &Sector, b: &Sector| a == b;
        (0..)
            .zip(a.iter().zip(b))
            .filter(|(_, (a, b))| !same(a, b))
            .map(|(at, _)| at / BLOCK)
            .collect::<BTreeSet<u64>>()
    }

    /// Changes some blocks of a disk behind everybody's back.
    fn plant(&mut self, node: usize) -> BTreeSet<u64> {
        let sectors = self.nodes[node].size_sectors;
        let mut planted = BTreeSet::new();
        for n in 0..self.rng.below(4) {
            let sector = self.rng.below(sectors);
            let mut bytes = [0; SECTOR];
            stamp::fill(&mut bytes, FOREIGN_STAMPS + n, sector);
            self.nodes[node].disk.overwrite(sector * SECTOR as u64, &bytes);
            planted.insert(sector / BLOCK);
        }
        planted
    }

    /// A verify finds all that was changed and nothing else, whatever the front writes meanwhile; then a resync makes both
    /// equal again.
    fn verify(&mut self) {
        // What is changed behind a front's back it would read.
        let one_serves = self.nodes.iter().filter(|n| n.is_primary()).count() == 1;
        let quiet = self.was_in_sync && !self.is_cut() && self.plan.failing.is_none() && one_serves;
        let Some(primary) = self.primary().filter(|_| quiet && !self.plan.net.verify_alg.is_empty()) else {
            return;
        };
        let victim = 1 - primary;
        self.disks_are_sound();
        self.run_for(S);
        // Writes that are under way at the disks would make a difference of what is none, or the other way round.
        self.stop_work();
        if !self.run_until(60 * S, |w| w.work.pending() == 0 && w.nodes.iter().all(|n| n.disk.busy() == 0)) {
            return;
        }
        let planted = self.plant(victim);
        self.note(|| format!("blocks {planted:?} of node {victim} are changed"));
        for node in &mut self.nodes {
            node.found_differing.clear();
        }
        if self.rng.chance(70) {
            self.start_work(primary);
        }
        let source = self.rng.below(2) as usize;
        let connections = self.connections.len();
        let start_sector = Some(0);
        let answer = self.ordered(source, Order::Verify { volume: VOLUME, start_sector, stop_sector: None });
        if matches!(answer, Some(Ok(_))) {
            if self.rng.chance(20) {
                self.interrupt_and_go_on(source);
            }
            let patience = self.plan.patience().as_nanos() as u64;
            let over = |w: &Self| !w.nodes.iter().any(is_verifying);
            if !self.run_until(patience, over) && self.fault.is_none() {
                return self.expect(Err(("a_verify_ends", "it does not".to_owned())));
            }
            self.stop_work();
            self.run_until(60 * S, |w| w.work.pending() == 0);
            // With protocols A and B writes are acknowledged that are still on their way.
            self.run_for(2 * S);
            self.run_until(60 * S, |w| w.nodes.iter().all(|n| n.disk.busy() == 0));
            // A verify that lost its connection has not seen everything.
            if self.connections.len() == connections
                && self.nodes.iter().all(|n| n.connection() >= C::Connected)
            {
                self.check_what_was_found(&planted);
            }
        }
        self.make_equal(victim);
    }

    /// What was changed is written over, even if a handler does not want that at first.
    fn make_equal(&mut self, victim: usize) {
        let patience = self.plan.patience().as_nanos() as u64;
        let mut is_ordered = false;
        for _ in 0..6 {
            self.stop_work();
            self.reconnect();
            self.resume_sync();
            let in_sync = self.run_until(patience, |w| w.was_in_sync);
            if is_ordered && in_sync || self.fault.is_some() {
                return;
            }
            if !is_ordered {
                let answer = self.ordered(victim, Order::Invalidate { volume: VOLUME });
                is_ordered = matches!(answer, Some(Ok(_)));
                if is_ordered {
                    self.disk_left(victim);
                }
            }
        }
        self.expect(Err(("a_verify_leaves_the_pair_usable", "the resync after it does not end".to_owned())));
    }

    /// The verify stops before its end, and another one goes on where it stopped.
    fn interrupt_and_go_on(&mut self, source: usize) {
        let time = self.rng.within(1, 30 * MS);
        self.run_for(time);
        if !is_verifying(&self.nodes[source]) {
            return;
        }
        self.ordered(source, Order::Verify { volume: VOLUME, start_sector: None, stop_sector: Some(BLOCK) });
        if self.run_until(60 * S, |w| !w.nodes.iter().any(is_verifying)) {
            self.ordered(source, Order::Verify { volume: VOLUME, start_sector: None, stop_sector: None });
        }
    }

    fn check_what_was_found(&mut self, planted: &BTreeSet<u64>) {
        let there = self.differing_blocks();
        for node in 0..2 {
            let found = self.nodes[node].found_differing.clone();
            if self.fault.is_none() && !(there.is_subset(&found) && found.is_subset(planted)) {
                self.expect(Err((
                    "a_verify_finds_what_differs",
                    format!("node {node} found {found:?}; differing {there:?}, planted {planted:?}"),
                )));
            }
        }
    }
}
