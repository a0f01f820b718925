//! `bench lab`: servers that come up, and the lab's store beside plain loop devices.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::Effort;
use crate::fio::{Subject, WORKS};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::program::output;
use crate::report::{Ratio, Report};
use crate::rounds::{Entrant, rounds};
use crate::startup::{self, BOOTS};

const SERVER: &str = "server1";

const STORE: &str = "the store";
/// Type raw as it is: it reads from and writes to the host's page cache.
const CACHED_LOOP: &str = "loop, cached";
/// The same with direct I/O, which is how a loop device stands on the store: nothing is cached twice.
const DIRECT_LOOP: &str = "loop, direct";

const RATIOS: &[Ratio] = &[
    Ratio {
        of: STORE,
        to: CACHED_LOOP,
        goals: &[
            (WORKS[0], 0.5),
            (WORKS[1], 0.5),
            (WORKS[2], 0.5),
            (WORKS[3], 0.5),
            (WORKS[4], 0.5),
            (WORKS[5], 0.5),
        ],
    },
    Ratio { of: STORE, to: DIRECT_LOOP, goals: &[] },
];

/// Measures both.
///
/// # Errors
/// From the lab, and fio's.
pub fn run(effort: Effort) -> anyhow::Result<Report> {
    let mut figures = Vec::new();
    let mut absent = Vec::new();
    for boot in BOOTS {
        match startup::measure(boot, effort.rounds) {
            Ok(found) => figures.extend(found),
            Err(error) => absent.push(format!("{error:#}")),
        }
    }
    let lab = Lab::new("bench")?;
    output(lab.nova_command(&[]).args(lab.boot_words("tiny", SERVER)?))?;
    let start = || {
        let mut command = lab.ssh(SERVER);
        command.arg("fio");
        command
    };
    let mut entrants = Vec::new();
    for (name, kind, device) in
        [(CACHED_LOOP, "raw", "/dev/xvdc"), (STORE, "SATA", "/dev/xvdb"), (DIRECT_LOOP, "raw", "/dev/xvdd")]
    {
        lab.attach(SERVER, &device[5..], kind, device)?;
        if name == DIRECT_LOOP {
            read_directly(&lab, device)?;
        }
        entrants.push(Entrant {
            name,
            subject: Subject::Path(device.to_owned()),
            start: Box::new(start),
            works: WORKS,
        });
    }
    let rows = rounds(&entrants, effort)?;
    Ok(Report { machine: Machine::this(), seconds: effort.seconds, ratios: RATIOS, rows, figures, absent })
}

/// Turns direct I/O on for the loop device that a server has as `device`.
fn read_directly(lab: &Lab, device: &str) -> anyhow::Result<()> {
    let numbers = lab.sh(SERVER, &format!("printf %d:%d $(stat -c '0x%t 0x%T' {device})"))?;
    let link = std::fs::read_link(Path::new("/sys/dev/block").join(numbers.trim()))
        .with_context(|| format!("find the loop device {numbers}"))?;
    let node = Path::new("/dev").join(link.file_name().context("a device's name")?);
    output(Command::new("losetup").arg("--direct-io=on").arg(node)).map(drop)
}
