//! Servers and administrators: create-md, attach, connect, roles, and power that fails.

use drbd_engine::admin::Refusal;
use drbd_engine::event::{Event as EngineEvent, Order, Ticket};
use drbd_format::activity_log::Transaction;
use drbd_format::meta::{DiskSizes, Layout, Placement, SuperBlock};
use drbd_format::names::DiskState as D;
use drbd_node::attach;

use crate::model::Model;
use crate::world::{S, VOLUME, World};

/// Longest that an order may take.
const ORDER_PATIENCE: u64 = 120 * S;

/// How an order was answered; none if it was not, because the node is gone or the run has failed.
pub type Answer = Option<Result<Vec<String>, Refusal>>;

impl World {
    /// The stamp of what was on a disk before.
    fn former_content(&self, node: usize) -> u64 {
        if self.plan.skips_first_sync { 1 } else { 1 + node as u64 }
    }

    /// `create-md` on a disk full of something else.
    pub fn create_md(&mut self, node: usize) {
        let layout = match Layout::internal(self.plan.disk_bytes as u64) {
            Ok(layout) => layout,
            Err(small) => return self.expect(Err(("create_md", format!("{small:?}")))),
        };
        let superblock = SuperBlock::fresh(&layout, 0).encode();
        let ring = Transaction::initialized().encode();
        let former = self.former_content(node);
        let bitmap = vec![0; layout.bm_bytes as usize];
        let log = ring.repeat(layout.al_bytes as usize / ring.len());
        let disk = &mut self.nodes[node].disk;
        disk.fill(former);
        disk.overwrite(layout.bm_offset_bytes, &bitmap);
        disk.overwrite(layout.al_offset_bytes, &log);
        disk.overwrite(layout.md_offset_bytes, &superblock);
    }

    /// Gives an order.
    pub fn order(&mut self, node: usize, order: Order) -> Ticket {
        let ticket = Ticket(self.nodes[node].next_ticket);
        self.nodes[node].next_ticket += 1;
        let name = match &order {
            Order::Attach { .. } => "attach".to_owned(),
            Order::Connect { discard_my_data, .. } => format!("connect, discard-my-data {discard_my_data}"),
            other => format!("{other:?}"),
        };
        self.note(|| format!("node {node}: ordered to {name}"));
        self.turn(node, |shell| shell.handle(EngineEvent::Admin { ticket, order }));
        ticket
    }

    /// Gives an order and waits for the answer.
    pub fn ordered(&mut self, node: usize, order: Order) -> Answer {
        let life = self.nodes[node].life;
        let ticket = self.order(node, order);
        let done = |w: &Self| w.nodes[node].life != life || w.nodes[node].answers.contains_key(&ticket);
        if !self.run_until(ORDER_PATIENCE, done) && self.fault.is_none() {
            self.expect(Err(("orders_are_answered", format!("node {node}: {ticket:?} is not answered"))));
        }
        self.nodes[node].answers.remove(&ticket)
    }

    /// Attaches the disk, once whoever held it before has let it go.
    pub fn attach(&mut self, node: usize) -> Answer {
        self.run_until(ORDER_PATIENCE, |w| w.nodes[node].disk.busy() == 0);
        let size = self.plan.disk_bytes as u64;
        let disk = &self.nodes[node].disk;
        let mut read = |offset: u64, bytes: &mut [u8]| {
            disk.read(offset, bytes);
            Ok(())
        };
        let found = attach::superblock(&mut read, Placement::Internal, size, size).and_then(
            |(superblock, layout)| {
                let (place, sizes) = (Placement::Internal, DiskSizes::of_one(size));
                attach::found_disk(&mut read, superblock, place, sizes, &layout, 512, true)
                    .map(|found| (found, layout))
            },
        );
        let (found, layout) = match found {
            Ok(found) => found,
            Err(error) => {
                self.expect(Err(("meta_data_survive", format!("node {node}: {error}"))));
                return None;
            }
        };
        self.note(|| {
            format!(
                "node {node}: finds {:x?} flags {:#x} bits {} hot {:?}",
                found.superblock.uuids,
                found.superblock.flags.0,
                found.bitmap.count(),
                found.hot_extents
            )
        });
        if let Some(shell) = &mut self.nodes[node].shell {
            shell.set_layout(VOLUME, layout);
        }
        let options = self.plan.disk.clone();
        self.ordered(node, Order::Attach { volume: VOLUME, disk: Box::new(found), options })
    }

    /// Looks for the peer.
    pub fn connect(&mut self, node: usize, discard_my_data: bool) -> Answer {
        self.nodes[node].split_brain = false;
        self.nodes[node].split_brain_solved = false;
        self.discarding |= discard_my_data;
        let (local, peer) = (self.nodes[node].address, self.nodes[1 - node].address);
        let options = self.plan.net.clone();
        self.ordered(node, Order::Connect { local, peer, options, discard_my_data })
    }

    /// The server starts: daemon, disk, connection.
    pub fn up(&mut self, node: usize) {
        self.start_daemon(node);
        self.attach(node);
        self.connect(node, false);
    }

    /// Becomes primary; true if so.
    pub fn promote(&mut self, node: usize, force: bool) -> bool {
        let answer = self.ordered(node, Order::Primary { force });
        if !matches!(answer, Some(Ok(_))) {
            return false;
        }
        self.unsucceeded = [false; 2];
        self.lost_primaries = [false; 2];
        let other_serves = self.nodes[1 - node].is_primary();
        match &mut self.model {
            Some(_) if other_serves => {}
            Some(model) => model.follows(node),
            None => {
                let (sectors, former) = (self.nodes[node].size_sectors, self.former_content(node));
                self.model = Some(Model::new(sectors, former, node));
            }
        }
        true
    }

    /// Becomes secondary once its front is quiet.
    pub fn demote(&mut self, node: usize) -> bool {
        // What waits for data would keep it primary for ever.
        if self.nodes[node].device().is_some_and(|d| d.flags.suspended_user || d.flags.suspended_no_data) {
            self.ordered(node, Order::ResumeIo { volume: VOLUME });
        }
        self.stop_work_on(node);
        matches!(self.ordered(node, Order::Secondary), Some(Ok(_)))
    }

    /// The disk of a node no longer takes part: what counts is with the other, if that mirrors.
    pub(crate) fn disk_left(&mut self, node: usize) {
        let other = &self.nodes[1 - node];
        if other.disk_state() == D::UpToDate
            && self.rival.is_none()
            && let Some(model) = &mut self.model
        {
            model.disk_left(node);
        }
    }

    fn daemon_is_gone(&mut self, node: usize, silently: bool) {
        if self.nodes[node].is_primary() {
            self.front_is_gone(node);
        }
        self.drop_sockets(node, silently);
        self.was_in_sync = false;
        let n = &mut self.nodes[node];
        n.shell = None;
        n.life += 1;
        n.listening = false;
        n.timer = None;
        n.status = None;
        n.answers.clear();
    }

    /// The power of a server fails.
    pub fn power_cut(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        let was_primary = self.nodes[node].is_primary();
        self.note(|| format!("node {node}: POWER CUT{}", if was_primary { " of the primary" } else { "" }));
        self.daemon_is_gone(node, true);
        self.nodes[node].disk.power_cut(&mut self.disk_rng);
        let rival = self.rival.as_mut().map(|(_, model)| model);
        for model in self.model.iter_mut().chain(rival) {
            model.power_cut(node);
        }
        self.lost_primaries[node] |= was_primary;
        self.unsucceeded[node] |= was_primary && !self.nodes[1 - node].is_primary();
    }

    /// The daemon of a server dies; the system below it lives.
    pub fn kill_daemon(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        self.note(|| format!("node {node}: the daemon is killed"));
        let was_primary = self.nodes[node].is_primary();
        self.daemon_is_gone(node, false);
        self.nodes[node].disk.abandon();
        self.lost_primaries[node] |= was_primary;
        self.unsucceeded[node] |= was_primary && !self.nodes[1 - node].is_primary();
    }
}
