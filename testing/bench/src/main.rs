//! Measured side by side: every contender does the same work on files of the same file system, in rounds that take
//! turns, so that what the machine does besides hits all of them alike.

mod contender;
mod drbd;
mod figure;
mod fio;
mod lab;
mod machine;
mod mirrored;
mod plain;
mod program;
mod report;
mod rounds;
mod startup;
mod store;
mod uml;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Write the results there as well
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// One short round: shows that it runs, measures nothing
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Subcommand)]
enum What {
    /// The mirror beside the raw disk, qemu-storage-daemon, nbdkit, and itself without a peer
    Drbd,
    /// The mirror beside the kernel's DRBD, in User Mode Linux
    Uml,
    /// Servers that come up, and the lab's store beside plain loop devices
    Lab,
    /// What is measured inside servers
    #[command(subcommand, hide = true)]
    Plain(plain::Part),
}

/// How long and how often.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Seconds of one measurement.
    pub seconds: u32,
    /// Rounds; the median counts.
    pub rounds: usize,
}

fn main() -> ExitCode {
    // The first process of a User Mode Linux node is this program too.
    if let Some(name) = std::env::var_os(interop::uml::GUEST_VARIABLE) {
        interop::uml::guest_main(&name);
    }
    let cli = Cli::parse();
    let effort = if cli.quick { Effort { seconds: 1, rounds: 1 } } else { Effort { seconds: 4, rounds: 3 } };
    let (name, run) = match &cli.what {
        What::Drbd => ("drbd", drbd::run as fn(Effort) -> anyhow::Result<Report>),
        What::Uml => ("uml", uml::run as _),
        What::Lab => ("lab", store::run as _),
        What::Plain(part) => {
            return plain::run(part).map_or_else(
                |error| {
                    eprintln!("bench plain: {error:#}");
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            );
        }
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("bench {name}: loop devices and servers need root");
        return ExitCode::FAILURE;
    }
    let result = run(effort).and_then(|report| {
        report.print();
        cli.json.map_or(Ok(()), |path| report.write_json(&path))?;
        Ok(report.absent.is_empty())
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
