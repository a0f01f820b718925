//! `bench drbd`: the mirror beside the raw disk, qemu-storage-daemon and nbdkit, and beside itself without a peer.

use std::process::Command;

use crate::Effort;
use crate::contender::Contender;
use crate::figure::{Figure, Goal};
use crate::fio::{BIG_READ, BIG_WRITE, Subject, WORKS, WRITE_1, WRITE_32};
use crate::machine::Machine;
use crate::mirrored::Mirrored;
use crate::report::{Ratio, Report};
use crate::rounds::{Entrant, rounds};

const ALONE: &str = "ours, no peer";
const ALONE_NBD: &str = "ours NBD, no peer";
const MIRRORED: &str = "ours, mirrored";
const MIRRORED_NBD: &str = "ours NBD, mirrored";
const SLOW_ALONE: &str = "slow disk, no peer";
const SLOW_MIRRORED: &str = "slow disk, mirrored";

/// Where the server finds them.
const OURS: &[(&str, Door, u32)] = &[
    (ALONE, Door::Device, 1),
    (ALONE_NBD, Door::Nbd, 1),
    (MIRRORED, Door::Device, 0),
    (MIRRORED_NBD, Door::Nbd, 0),
    (SLOW_ALONE, Door::SlowNbd, 3),
    (SLOW_MIRRORED, Door::SlowNbd, 2),
];

#[derive(Clone, Copy, Eq, PartialEq)]
enum Door {
    Device,
    Nbd,
    /// NBD, and of a disk that has time for two kinds of work only.
    SlowNbd,
}

const RATIOS: &[Ratio] = &[
    Ratio {
        of: ALONE_NBD,
        to: "qemu NBD",
        goals: &[
            (WORKS[0], 1.0),
            (WORKS[1], 1.0),
            (WORKS[2], 1.0),
            (WORKS[3], 1.0),
            (WORKS[4], 1.0),
            (WORKS[5], 1.0),
        ],
    },
    Ratio { of: ALONE_NBD, to: "nbdkit, cached", goals: &[] },
    Ratio { of: ALONE, to: "qemu FUSE", goals: &[] },
    Ratio { of: MIRRORED_NBD, to: ALONE_NBD, goals: &[(WRITE_32, 0.7), (BIG_WRITE, 0.85), (BIG_READ, 0.85)] },
    Ratio { of: MIRRORED, to: ALONE, goals: &[] },
    Ratio { of: SLOW_MIRRORED, to: SLOW_ALONE, goals: &[(WRITE_32, 0.7)] },
];

/// Beyond the round trip, what a mirrored write that nobody else is waiting with may take longer.
const ADDED_US_MAX: f64 = 60.0;
/// Of the speed of a plain copy.
const SYNC_MIN: f64 = 0.8;
const IDLE_PERCENT_MAX: f64 = 1.0;
const RESIDENT_MIB_MAX: f64 = 64.0;

/// Measures all that can be measured here; what cannot is said in the report.
pub fn run(effort: Effort) -> anyhow::Result<Report> {
    // Not below /tmp, which may be memory: disks are on a disk.
    let folder = tempfile::Builder::new().prefix("lockstep-bench").tempdir_in("/var/tmp")?;
    let mut absent = Vec::new();
    let mut others = Vec::new();
    for contender in [
        Contender::raw(folder.path()),
        Contender::qemu_nbd(folder.path()),
        Contender::nbdkit(folder.path()),
        Contender::qemu_fuse(folder.path()),
    ] {
        match contender {
            Ok(contender) => others.push(contender),
            Err(error) => absent.push(format!("{error:#}")),
        }
    }
    let ours = Mirrored::start().map_err(|error| absent.push(format!("ours: {error:#}"))).ok();
    let mut entrants: Vec<Entrant> = others
        .iter()
        .map(|contender| Entrant {
            name: contender.name,
            subject: contender.subject.clone(),
            start: Box::new(|| Command::new("fio")),
            works: WORKS,
        })
        .collect();
    if let Some(lab) = &ours {
        entrants.extend(OURS.iter().map(|&(name, door, minor)| entrant(lab, name, door, minor)));
    }
    let rows = rounds(&entrants, effort)?;
    let mut report = Report {
        machine: Machine::this(),
        seconds: effort.seconds,
        ratios: RATIOS,
        rows,
        figures: Vec::new(),
        absent,
    };
    if let Some(lab) = &ours {
        report.figures = figures(lab, &report, effort.rounds)?;
    }
    Ok(report)
}

fn entrant<'a>(lab: &'a Mirrored, name: &'static str, door: Door, minor: u32) -> Entrant<'a> {
    let subject = match door {
        Door::Device => Subject::Path(format!("/dev/drbd{minor}")),
        Door::Nbd | Door::SlowNbd => Subject::Nbd {
            socket: format!("/run/lockstep/drbd/drbd{minor}.nbd"),
            export: format!("drbd{minor}"),
        },
    };
    let start = || {
        let mut command = lab.ssh("drbd0");
        command.arg("fio");
        command
    };
    let works = if door == Door::SlowNbd { &[WRITE_1, WRITE_32][..] } else { WORKS };
    Entrant { name, subject, start: Box::new(start), works }
}

/// What is no rate of requests.
fn figures(lab: &Mirrored, report: &Report, rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let round_trip_us = lab.round_trip_us()?;
    figures.push(Figure::once("a round trip between the servers", round_trip_us, "us", None));
    let depth_1 = |contender| report.median(contender, WRITE_1.name);
    if let (Some(mirrored), Some(alone)) = (depth_1(MIRRORED_NBD), depth_1(ALONE_NBD)) {
        let added_us = mirrored.latency_us - alone.latency_us - round_trip_us;
        let what = "what the mirror adds to a write at depth 1, besides a round trip";
        figures.push(Figure::once(what, added_us, "us", Some(Goal::AtMost(ADDED_US_MAX))));
    }
    let [mut copies, mut syncs] = [Vec::new(), Vec::new()];
    // The first of each gets space for what it writes.
    for round in 0..=rounds {
        let (copy, sync) = (lab.copy_mib_per_s()?, lab.sync_mib_per_s()?);
        if round > 0 {
            copies.push(copy);
            syncs.push(sync);
        }
    }
    let shares = syncs.iter().zip(&copies).map(|(sync, copy)| sync / copy).collect();
    let figure = |what: &str, unit, goal, values| Figure { what: what.to_owned(), unit, goal, values };
    figures.push(figure("a plain copy through a socket", "MiB/s", None, copies));
    figures.push(figure("a full sync", "MiB/s", None, syncs));
    let goal = Some(Goal::AtLeast(SYNC_MIN));
    figures.push(figure("a full sync / a plain copy", "", goal, shares));
    let goal = Some(Goal::AtMost(IDLE_PERCENT_MAX));
    figures.push(Figure::once(
        "an idle pair, the busier daemon",
        lab.idle_percent()?,
        "% of a processor",
        goal,
    ));
    let goal = Some(Goal::AtMost(RESIDENT_MIB_MAX));
    figures.push(Figure::once("resident for a device of 100 GB", lab.resident_mib()?, "MiB", goal));
    Ok(figures)
}
