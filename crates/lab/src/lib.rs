//! A cloud in a box: servers, networks and volumes on one machine.
//!
//! A server is a container over the host's own root ([`root`]), a network a bridge in a namespace of the lab's own
//! ([`fabric`]), a volume a sparse file behind a loop device ([`disk`]), most often through the lab's own store
//! ([`store`]), so that a power cut ([`power`]) loses what a disk would lose. What was asked for is on disk
//! ([`state`]), what runs is below /run ([`life`]); every tool takes the lab's lock ([`place`]), changes both and
//! goes. Two kinds of process stay: a supervisor for each running server, and one store for each lab.
//!
//! Entry points are [`nova`] (as the tutorial types it) and [`lab`] (what a cloud does not offer: faults, an
//! overview, removal). A server is not a security boundary: root in it is root.

pub mod addresses;
pub mod bandwidth;
pub mod catalog;
pub mod cgroup;
pub mod clock;
mod copying;
pub mod disk;
pub mod down;
pub mod enter;
pub mod era;
pub mod error;
pub mod events;
pub mod fabric;
pub mod fault;
pub mod forward;
mod fstab;
pub mod init;
pub mod interfaces;
pub mod inventory;
mod lab_command;
pub mod life;
pub mod loopdev;
pub mod mountinfo;
pub mod netns;
pub mod networks;
mod nova_command;
pub mod partition;
pub mod place;
pub mod power;
pub mod process;
pub mod random;
pub mod record;
pub mod root;
pub mod scenario;
pub mod servers;
pub mod snapshots;
pub mod state;
pub mod store;
pub mod supervisor;
pub mod systemd;
pub mod table;
mod terminal;
pub mod topology;
mod udev;
pub mod volume_fault;
pub mod volumes;
pub mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Exit status of something that was refused or failed.
const REFUSED: u8 = 1;

/// Exit status of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs `nova` with the arguments after its name.
pub fn nova(args: Vec<OsString>) -> ExitCode {
    run("nova", args, nova_command::run)
}

/// Runs `lockstep lab` with the arguments after its name.
pub fn lab(args: Vec<OsString>) -> ExitCode {
    run("lockstep lab", args, lab_command::run)
}

/// The language of scenarios, for its manual page.
pub const SCENARIO_MANUAL: &str = scenario::MANUAL;

/// The command line of `nova`, for its manual page.
pub fn nova_command_line() -> clap::Command {
    nova_command::Nova::command()
}

/// The command line of `lockstep lab`, for its manual page.
pub fn lab_command_line() -> clap::Command {
    lab_command::LabCommand::command()
}

fn run<P: Parser>(name: &str, args: Vec<OsString>, command: fn(P) -> error::Result<ExitCode>) -> ExitCode {
    let words = [OsString::from(name)].into_iter().chain(args);
    match P::try_parse_from(words) {
        Ok(parsed) => command(parsed).unwrap_or_else(|error| {
            eprintln!("{name}: {error}");
            ExitCode::from(REFUSED)
        }),
        Err(error) => {
            // Help goes to stdout and is no mistake; a closed stdout is nobody's.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
    }
}
