//! `bench drbd`: the mirror beside the raw disk and qemu-storage-daemon.

use std::process::Command;

use crate::Effort;
use crate::contender::Contender;
use crate::fio::Subject;
use crate::machine::Machine;
use crate::mirrored::Mirrored;
use crate::report::Report;
use crate::rounds::{Entrant, rounds};

/// The goals, as ratios of the first entrant's median to the second's.
const RATIOS: &[(&str, &str)] =
    &[("ours, no peer", "qemu NBD"), ("ours, no peer", "qemu FUSE"), ("ours, mirrored", "ours, no peer")];

/// Measures all that can be measured here; what cannot is said in the report.
pub fn run(effort: Effort) -> anyhow::Result<Report> {
    // Not below /tmp, which may be memory: disks are on a disk.
    let folder = tempfile::Builder::new().prefix("lockstep-bench").tempdir_in("/var/tmp")?;
    let mut absent = Vec::new();
    let mut others = Vec::new();
    for contender in [
        Contender::raw(folder.path()),
        Contender::qemu_nbd(folder.path()),
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
        })
        .collect();
    if let Some((lab, _)) = &ours {
        for (name, device) in [("ours, no peer", "/dev/drbd1"), ("ours, mirrored", "/dev/drbd0")] {
            let start = || {
                let mut command = lab.ssh("drbd0");
                command.arg("fio");
                command
            };
            entrants.push(Entrant {
                name,
                subject: Subject::Path(device.to_owned()),
                start: Box::new(start),
            });
        }
    }
    let rows = rounds(&entrants, effort)?;
    let full_sync_mib_per_s = ours.as_ref().map(|(_, sync)| sync.mib / sync.seconds);
    Ok(Report {
        machine: Machine::this(),
        seconds: effort.seconds,
        ratios: RATIOS,
        rows,
        full_sync_mib_per_s,
        startups: Vec::new(),
        absent,
    })
}
