//! Losses again and again on the real kernel: `cargo xtask campaign`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use mirror::kills;
use mirror::power_cuts::{self, PowerCuts};
use mirror::random::{SplitMix64, seed};

/// Loses servers or daemons of a mirror under load, and checks every acknowledged write.
#[derive(Parser)]
#[command(name = "mirror-campaign")]
struct Arguments {
    /// What is lost.
    what: What,
    /// So often.
    #[arg(long, default_value_t = 6)]
    count: usize,
    /// Start of the random sequence; from the clock if not given.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The power of one server or both, whose volumes forget what was not flushed.
    PowerCuts,
    /// The daemon, under a mounted file system.
    Kills,
}

fn main() -> ExitCode {
    let Arguments { what, count, seed: given } = Arguments::parse();
    if !testing_lab::can_run("mirror-campaign") {
        return ExitCode::FAILURE;
    }
    // What runs in the servers ends by the signal; then a step fails, and the lab is taken down.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))) {
            eprintln!("mirror-campaign: {error}");
            return ExitCode::FAILURE;
        }
    }
    let seed = given.unwrap_or_else(|| seed("mirror-campaign"));
    let Some(mirror_load) = std::env::current_exe().ok().map(|own| own.with_file_name("mirror-load")) else {
        eprintln!("mirror-campaign: where is mirror-load?");
        return ExitCode::FAILURE;
    };
    let mirror_load = mirror_load.display().to_string();
    let begun = Instant::now();
    match what {
        What::PowerCuts => {
            let wish = PowerCuts { name: "campaign", volume_type: "volatile", rounds: count, seed };
            power_cuts::run(wish, &mirror_load);
        }
        What::Kills => {
            let mut random = SplitMix64(seed);
            let deaths = kills::kills(count, &mut random);
            kills::run("campaign", &deaths, &mut random, &mirror_load);
        }
    }
    println!("{count} rounds with seed {seed} in {:.0} s: nothing was lost", begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
