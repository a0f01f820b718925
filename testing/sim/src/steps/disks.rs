//! Disks that fail.

use crate::disk::Kind;
use crate::scenario::Step;
use crate::world::World;

/// One operation of one disk fails, and the next ones may.
pub const IO_ERROR: Step = Step { name: "io_error", run: World::io_error };

impl World {
    /// No operation fails that was to.
    pub(crate) fn disks_are_sound(&mut self) {
        for node in &mut self.nodes {
            node.disk.failures.next = None;
        }
    }

    fn io_error(&mut self) {
        let node = self.rng.below(2) as usize;
        let kind = self.rng.pick(&[Kind::Read, Kind::Write, Kind::Meta, Kind::Flush]);
        let count = self.rng.pick(&[1, 1, 1, 3]);
        self.note(|| format!("node {node}: {count} operations will fail: {kind:?}"));
        self.nodes[node].disk.failures.next = Some((kind, count));
        self.pause();
        if self.rng.chance(50) {
            self.nodes[node].disk.failures.next = None;
        }
    }
}
