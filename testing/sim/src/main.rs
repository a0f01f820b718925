//! `sim ENGINE --seeds N | --seed S`.

mod campaign;
mod open_seeds;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::campaign::Campaign;

/// Deterministic simulation of an engine; a failing seed replays.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The engine: drbd.
    engine: String,
    /// Runs so many seeds, from `--from` on.
    #[arg(long, default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
    /// First of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// So many at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Keeps there what is done, and goes on from there if the same was begun before.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    state: Option<PathBuf>,
    /// Runs this seed and prints what happens.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.engine != "drbd" {
        eprintln!("sim: unknown engine '{}'; there is: drbd", arguments.engine);
        return ExitCode::from(2);
    }
    if let Some(seed) = arguments.seed {
        return told(seed);
    }
    // What a panic says is printed with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let campaign = Campaign::new(arguments.from, arguments.seeds, arguments.jobs, arguments.state);
    match campaign.and_then(|mut campaign| campaign.run()) {
        Ok(failed) => ExitCode::from(u8::from(failed)),
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One seed, with its story.
fn told(seed: u64) -> ExitCode {
    let outcome = sim::drbd(seed, true);
    println!("{} events, {} requests", outcome.events, outcome.requests);
    if let Some(fault) = &outcome.fault {
        println!("FAIL seed {seed}: {fault}");
    }
    ExitCode::from(u8::from(outcome.fault.is_some()))
}
