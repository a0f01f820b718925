//! Two seats on one segment, and who may sit there.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::ours::Ours;
use crate::program::{Finished, output};
use crate::side::Side;
use crate::tutorial::{DISK_BYTES, Seat, USABLE_BYTES, Wish};
use crate::uml::{Node, Segment};

/// Whose node it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Maker {
    /// The kernel's DRBD, in User Mode Linux.
    Kernel,
    /// Our daemon.
    Ours,
}

impl Maker {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Kernel => Self::Ours,
            Self::Ours => Self::Kernel,
        }
    }
}

/// A node on its seat.
pub enum Party {
    /// The kernel's.
    Kernel(Node),
    /// Ours.
    Ours(Ours),
}

impl Party {
    fn side(&mut self) -> &mut dyn Side {
        match self {
            Self::Kernel(node) => node,
            Self::Ours(ours) => ours,
        }
    }
}

impl Side for Party {
    fn seat(&self) -> Seat {
        match self {
            Self::Kernel(node) => node.seat(),
            Self::Ours(ours) => ours.seat(),
        }
    }

    fn shelf(&self) -> &Path {
        match self {
            Self::Kernel(node) => node.shelf(),
            Self::Ours(ours) => ours.shelf(),
        }
    }

    fn shelf_inside(&self) -> String {
        match self {
            Self::Kernel(node) => node.shelf_inside(),
            Self::Ours(ours) => ours.shelf_inside(),
        }
    }

    fn limit_protocol(&mut self, version: Option<u32>) {
        self.side().limit_protocol(version);
    }

    fn finish(&mut self, script: &str, limit: std::time::Duration) -> anyhow::Result<Finished> {
        self.side().finish(script, limit)
    }
}

/// What the scenarios share.
pub struct Table {
    /// Kernel's nodes that nobody uses now; they boot in seconds, so they are kept.
    idle: Vec<Node>,
    /// Ends after the nodes on it.
    segment: Segment,
    folder: TempDir,
}

impl Table {
    /// Nobody is there yet.
    pub fn new(segment: Segment) -> anyhow::Result<Self> {
        Ok(Self { idle: Vec::new(), segment, folder: tempfile::tempdir()? })
    }

    /// Where the nodes stand.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The file that is a seat's disk.
    pub fn disk(&self, seat: Seat) -> PathBuf {
        self.folder.path().join(format!("{}.img", seat.name()))
    }

    /// Seats a node with an empty disk and the resource configured; nothing is up.
    pub fn sit(&mut self, seat: Seat, maker: Maker, wish: &Wish) -> anyhow::Result<Party> {
        let idle = self.idle.iter().position(|node| node.seat() == seat).map(|at| self.idle.swap_remove(at));
        // A node of no use goes before its disk becomes somebody else's.
        let empty = idle.filter(|_| maker == Maker::Kernel).and_then(emptied);
        let mut party = match empty {
            Some(node) => Party::Kernel(node),
            None => {
                File::create(self.disk(seat))?.set_len(DISK_BYTES)?;
                self.take_over(seat, maker)?
            }
        };
        party.configure(wish)?;
        Ok(party)
    }

    /// Seats a node with the disk as another left it. Nothing is configured.
    pub fn take_over(&mut self, seat: Seat, maker: Maker) -> anyhow::Result<Party> {
        self.idle.retain(|node| node.seat() != seat);
        let (disk, folder) = (self.disk(seat), self.folder.path().join(seat.name()));
        match maker {
            Maker::Kernel => {
                let mut node = Node::boot(&self.segment, seat, &folder, &disk)?;
                node.run(&format!("ip -6 addr add {}/64 dev vec0 nodad", seat.address_v6()))?;
                Ok(Party::Kernel(node))
            }
            Maker::Ours => Ours::sit(&self.segment, seat, &folder, &disk).map(Party::Ours),
        }
    }

    /// Both nodes of a scenario come to their end: down, the same bytes and generations on both disks.
    pub fn part(&mut self, parties: [Party; 2]) -> anyhow::Result<()> {
        self.leave(parties)?;
        self.compare_disks()?;
        self.compare_generations()
    }

    /// Both go down; a kernel's node is kept for the next scenario.
    pub fn leave(&mut self, parties: [Party; 2]) -> anyhow::Result<()> {
        for mut party in parties {
            party.run("drbdadm down r0; sync")?;
            if let Party::Kernel(node) = party {
                self.idle.push(node);
            }
        }
        Ok(())
    }

    /// A seat's bytes before the meta-data.
    pub fn content(&self, seat: Seat) -> anyhow::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.disk(seat))?.take(USABLE_BYTES).read_to_end(&mut content)?;
        ensure!(content.len() as u64 == USABLE_BYTES, "{}'s disk has {} bytes", seat.name(), content.len());
        Ok(content)
    }

    /// That both disks hold the same before their meta-data.
    pub fn compare_disks(&self) -> anyhow::Result<()> {
        let sides = [self.content(Seat::First)?, self.content(Seat::Second)?];
        match (0..sides[0].len()).find(|&at| sides[0][at] != sides[1][at]) {
            Some(at) => bail!("the disks differ from byte {at} (sector {}) on", at / 512),
            None => Ok(()),
        }
    }

    /// What drbdmeta reads of a seat's generation identifiers: current, bitmap, history, history, then flags.
    pub fn generations(&self, seat: Seat) -> anyhow::Result<Vec<String>> {
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(self.disk(seat)))?;
        let device = device.trim();
        let said =
            output(Command::new("drbdmeta").args(["--force", "0", "v08", device, "internal", "get-gi"]));
        output(Command::new("losetup").args(["--detach", device]))?;
        let line = said?;
        Ok(line.trim().split(':').map(str::to_owned).collect())
    }

    /// That both disks are of one data generation, by drbdmeta's word, and neither owes the other anything.
    fn compare_generations(&self) -> anyhow::Result<()> {
        let sides = [self.generations(Seat::First)?, self.generations(Seat::Second)?];
        let without_role = |side: &[String]| -> anyhow::Result<u64> {
            let text = side.first().context("an identifier")?;
            // The lowest bit says whether the node was Primary.
            Ok(u64::from_str_radix(text.trim_start_matches("0x"), 16)? & !1)
        };
        ensure!(without_role(&sides[0])? == without_role(&sides[1])?, "generations {sides:?}");
        let none = |text: &String| text.trim_start_matches("0x").chars().all(|digit| digit == '0');
        ensure!(sides.iter().all(|side| side.get(1).is_some_and(none)), "bitmap generations {sides:?}");
        Ok(())
    }
}

/// The node with an empty disk; none if the kernel still holds the disk for something.
fn emptied(mut node: Node) -> Option<Node> {
    let script = "for i in $(seq 20); do blkdiscard -z /dev/ubda 2>&1 && exit 0; sleep 0.1; done; exit 1";
    node.run(script).is_ok().then_some(node)
}
