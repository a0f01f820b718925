//! `sim ENGINE --seeds N | --seed S`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

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
    let tracing = arguments.seed.is_some();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.from..arguments.from.saturating_add(arguments.seeds),
    };
    if !tracing {
        // What a panic says is printed with its seed.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let began = Instant::now();
    let (mut passed, mut failed, mut events, mut requests) = (0_u64, 0_u64, 0, 0);
    for seed in seeds {
        let outcome = sim::drbd(seed, tracing);
        events += outcome.events;
        requests += outcome.requests;
        match outcome.fault {
            None => passed += 1,
            Some(fault) => {
                failed += 1;
                println!("FAIL seed {seed}: {fault} (replay: cargo xtask sim drbd --seed {seed})");
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{events} events, {requests} requests in {seconds:.1} s");
    println!("{passed} passed, {failed} failed, 0 skipped");
    ExitCode::from(u8::from(failed != 0))
}
