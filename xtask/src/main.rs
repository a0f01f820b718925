//! The project's one front door.

mod bench;
mod demo;
mod install;
mod packages;
mod process;
mod setup;
mod suite;
mod tidy;
mod verify;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List and install the Debian packages that are missing for what is named (default: everything)
    Setup {
        /// What will be done: build, lab, demo, test, interop-…, bench
        what: Vec<String>,
        /// Only list
        #[arg(long)]
        list: bool,
    },
    /// Two servers, one mirrored disk, a power cut: the tutorial's part one
    Demo {
        /// Leave the lab up, and say how to look around
        #[arg(long)]
        keep: bool,
    },
    /// Everything that must be true before a change is taken
    Test {
        /// Install nothing
        #[arg(long)]
        no_setup: bool,
    },
    /// The rules of the house that a program can check
    Tidy,
    /// Our side against the originals
    Interop {
        /// Suite; see `cargo xtask interop --list`
        name: Option<String>,
        /// The selection that `test` runs
        #[arg(long)]
        quick: bool,
        /// Only list
        #[arg(long)]
        list: bool,
        /// Scenarios whose name contains this
        #[arg(long, value_name = "PATTERN")]
        only: Option<String>,
    },
    /// Several nodes of the real engine on a seeded clock, network and disk
    Sim {
        /// Engine: drbd
        engine: String,
        /// Run so many seeds
        #[arg(long, required_unless_present = "seed", conflicts_with = "seed")]
        seeds: Option<u64>,
        /// First of them
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// So many at a time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Keep there what is done, and go on from there
        #[arg(long, value_name = "FILE", conflicts_with = "seed")]
        state: Option<PathBuf>,
        /// Run this seed, and tell its story
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Losses again and again in servers of the lab, under a load that is checked (as root)
    Campaign {
        /// What is lost: power-cuts, kills
        what: String,
        /// So often
        #[arg(long, default_value_t = 6)]
        count: usize,
        /// Start of the random sequence
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Seeded mutation of the corpus against a decoder
    Fuzz {
        /// Decoder; see `cargo xtask fuzz --list`
        target: Option<String>,
        /// How long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Start of the random sequence
        #[arg(long)]
        seed: Option<u64>,
        /// Only list
        #[arg(long)]
        list: bool,
    },
    /// Measured side by side with others on this machine
    Bench {
        /// What: drbd, uml, lab
        name: String,
        /// Write the results there as well
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Short rounds: shows that it runs, measures nothing
        #[arg(long)]
        quick: bool,
    },
    /// The binary, its names as links, units and manual pages
    Install {
        /// Where: /usr/local, or a staging directory
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
    },
}

fn main() -> ExitCode {
    // clap exits with 2 on a usage error by itself.
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether what was asked came out well; an error where it could not be tried.
fn run(command: Command) -> anyhow::Result<bool> {
    let workspace = Workspace::load()?;
    match command {
        Command::Setup { what, list } => setup::run(&what, list),
        Command::Demo { keep } => demo::run(&workspace, keep),
        Command::Test { no_setup } => verify::run(&workspace, no_setup),
        Command::Tidy => tidy::run(&workspace),
        Command::Interop { name, quick, list, only } => {
            suite::interop(&workspace, name.as_deref(), quick, list, only.as_deref())
        }
        Command::Sim { engine, seeds, from, jobs, state, seed } => match seed {
            Some(seed) => suite::sim_seed(&workspace, &engine, seed),
            None => suite::sim(&workspace, &engine, from, seeds.unwrap_or_default(), jobs, state.as_deref()),
        },
        Command::Campaign { what, count, seed } => suite::campaign(&workspace, &what, count, seed),
        Command::Fuzz { target, seconds, seed, list } => {
            suite::fuzz(&workspace, target.as_deref(), seconds, seed, list)
        }
        Command::Bench { name, json, quick } => bench::run(&workspace, &name, json.as_deref(), quick),
        Command::Install { prefix } => install::run(&workspace, &prefix),
    }
}
