//! `bench uml`: the kernel's DRBD and ours on the same two nodes of User Mode Linux and the same disks, in turns.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context;
use interop::side::Side;
use interop::tutorial::{Seat, Wish};
use interop::uml::{Node, Segment};
use tempfile::TempDir;

use crate::Effort;
use crate::fio::{self, REGION_MIB, Subject, WRITE_16};
use crate::machine::Machine;
use crate::report::{Ratio, Report, Row};

const RAW: &str = "UML: raw disk";
const KERNEL_C: &str = "UML: kernel, C";
const OURS_C: &str = "UML: ours, C";
const OURS_NBD_C: &str = "UML: ours NBD, C";
const KERNEL_A: &str = "UML: kernel, A";
const OURS_A: &str = "UML: ours, A";
const OURS_NBD_A: &str = "UML: ours NBD, A";

/// What is kept of the raw disk's speed; as measured of the kernel's where nobody else was at work: C 0.60, A 0.79.
const RATIOS: &[Ratio] = &[
    Ratio { of: KERNEL_C, to: RAW, goals: &[] },
    Ratio { of: OURS_C, to: RAW, goals: &[(WRITE_16, 0.6)] },
    Ratio { of: OURS_NBD_C, to: RAW, goals: &[(WRITE_16, 0.6)] },
    Ratio { of: KERNEL_A, to: RAW, goals: &[] },
    Ratio { of: OURS_A, to: RAW, goals: &[(WRITE_16, 0.79)] },
    Ratio { of: OURS_NBD_A, to: RAW, goals: &[(WRITE_16, 0.79)] },
];

/// The region and the meta-data, with room.
const DISK_MIB: u64 = REGION_MIB as u64 + 32;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Maker {
    Kernel,
    Ours,
}

/// Two nodes with one of the two mirrors at a time.
struct Pair {
    nodes: [Node; 2],
    /// Ends after the nodes on it.
    _segment: Segment,
    _folder: TempDir,
}

/// Measures both.
///
/// # Errors
/// Of nodes that do not do what they are told.
pub fn run(effort: Effort) -> anyhow::Result<Report> {
    Ok(Report {
        machine: Machine::this(),
        seconds: effort.seconds,
        ratios: RATIOS,
        rows: rows(effort)?,
        figures: Vec::new(),
        absent: Vec::new(),
    })
}

fn rows(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let mut pair = Pair::boot()?;
    let mut rows = Vec::new();
    let device = Subject::Path("/dev/drbd0".to_owned());
    let nbd = Subject::Nbd { socket: "/run/lockstep/drbd/drbd0.nbd".to_owned(), export: "drbd0".to_owned() };
    for round in 0..effort.rounds {
        let mut measure = |pair: &mut Pair, contender, subject: &Subject| -> anyhow::Result<()> {
            let words = fio::measuring(subject, WRITE_16, effort.seconds).join(" ");
            let text = pair.nodes[0].run(&format!("fio {words}"))?;
            let measured = fio::read_answer(&text, WRITE_16)?;
            eprintln!("round {} {}: {contender} {:.0} /s", round + 1, WRITE_16.name, measured.iops);
            rows.push(Row { contender, work: WRITE_16.name, round, measured });
            Ok(())
        };
        measure(&mut pair, RAW, &Subject::Path("/dev/ubda".to_owned()))?;
        for (protocol, kernel, ours, ours_nbd) in
            [('C', KERNEL_C, OURS_C, OURS_NBD_C), ('A', KERNEL_A, OURS_A, OURS_NBD_A)]
        {
            pair.up(Maker::Kernel, protocol)?;
            measure(&mut pair, kernel, &device)?;
            pair.down(Maker::Kernel)?;
            pair.up(Maker::Ours, protocol)?;
            measure(&mut pair, ours, &device)?;
            measure(&mut pair, ours_nbd, &nbd)?;
            pair.down(Maker::Ours)?;
        }
    }
    Ok(rows)
}

impl Pair {
    /// Both nodes, with disks that have been written to and count as equal.
    fn boot() -> anyhow::Result<Self> {
        let segment = Segment::enter()?;
        let folder = tempfile::Builder::new().prefix("lockstep-bench").tempdir_in("/var/tmp")?;
        let node = |seat: Seat| {
            let disk: PathBuf = folder.path().join(format!("{}.img", seat.name()));
            File::create(&disk)?.set_len(DISK_MIB << 20)?;
            Node::boot(&segment, seat, &folder.path().join(seat.name()), &disk)
        };
        let nodes = [node(Seat::First)?, node(Seat::Second)?];
        let mut pair = Self { nodes, _segment: segment, _folder: folder };
        for node in &mut pair.nodes {
            // Not every path of the host's is one of the node's.
            fs::copy(interop::program_under_test(), node.shelf().join("lockstep"))?;
            let place = node.shelf_inside();
            node.run(&format!(
                "modprobe fuse; mkdir -p /run/ours\n\
                 for name in drbdadm lockstep; do ln -s {place}/lockstep /run/ours/$name; done"
            ))?;
            node.configure(&Wish::TUTORIAL)?;
            node.run("drbdadm create-md --force r0")?;
        }
        for node in &mut pair.nodes {
            node.run("drbdadm up r0")?;
        }
        let [first, second] = &mut pair.nodes;
        first.await_state("Connected Secondary/Secondary Inconsistent/Inconsistent")?;
        first.run("drbdadm new-current-uuid --clear-bitmap r0/0")?;
        second.await_in_sync()?;
        first.run("drbdadm primary r0")?;
        let words = fio::filling(&Subject::Path("/dev/drbd0".to_owned())).join(" ");
        first.run(&format!("fio {words}")).context("filling the disks")?;
        pair.down(Maker::Kernel)?;
        Ok(pair)
    }

    fn up(&mut self, maker: Maker, protocol: char) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.configure(&Wish { protocol, ..Wish::TUTORIAL })?;
            node.run(&format!("{}; drbdadm up r0", stage(maker)))?;
        }
        let state = "for i in $(seq 300); do [ \"$(drbdadm dstate r0)\" = UpToDate/UpToDate ] && exit 0; sleep 0.1; done; exit 1";
        self.nodes[0].run(&format!("{}; {state}", stage(maker)))?;
        self.nodes[0].run(&format!("{}; drbdadm primary r0", stage(maker))).map(drop)
    }

    fn down(&mut self, maker: Maker) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.run(&format!("{}; drbdadm down r0", stage(maker)))?;
        }
        Ok(())
    }
}

/// Whose drbdadm and device it is from here on.
fn stage(maker: Maker) -> &'static str {
    match maker {
        Maker::Kernel => "[ -b /dev/drbd0 ] || mknod /dev/drbd0 b 147 0",
        Maker::Ours => "PATH=/run/ours:$PATH; [ \"$(stat -c %t /dev/drbd0)\" != 93 ] || rm /dev/drbd0",
    }
}
