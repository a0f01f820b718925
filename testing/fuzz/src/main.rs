//! Seeded mutation fuzzing on stable Rust: the same seed makes the same inputs, on every machine.
//!
//! A corpus lies in `corpus/TARGET/`. Its files are run as they are first: an input that once failed stays there and
//! is a regression test. Then mutations of them run until the time is over. An input that makes its target panic, or
//! take longer than a decoder may, is reduced and kept, and the exit status is 1.

mod corpus;
mod execute;
mod mutate;
mod random;
mod reduce;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use execute::{Executor, Verdict};
use mutate::Mutator;
use targets::{TARGETS, Target};

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    /// Which decoder; see --list
    #[arg(required_unless_present = "list")]
    target: Option<String>,
    /// How long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Start of the random sequence
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run this input and nothing else
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The targets, one a line
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        for target in TARGETS {
            println!("{:18} {}", target.name, target.reads);
        }
        return ExitCode::SUCCESS;
    }
    let name = cli.target.unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("fuzz: unknown target `{name}`; `--list` shows them");
        return ExitCode::from(2);
    };
    let result = match cli.input {
        Some(path) => std::fs::read(path).map_err(Into::into).map(|input| replay(target, &input)),
        None => fuzz(target, Duration::from_secs(cli.seconds), cli.seed),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One input, with the panic's own message.
fn replay(target: &Target, input: &[u8]) -> bool {
    (target.run)(input);
    println!("fuzz {}: {} bytes read without a panic", target.name, input.len());
    true
}

/// True if nothing was found.
fn fuzz(target: &'static Target, time: Duration, seed: u64) -> anyhow::Result<bool> {
    let corpus = corpus::load(target.name)?;
    let executor = Executor::new(target);
    let mut mutator = Mutator::new(seed, target.bytes_max);
    let mut input = Vec::new();
    let mut executions = 0_u64;
    let begun = Instant::now();
    for (path, bytes) in &corpus {
        if let Verdict::Panicked(message) = executor.run(bytes) {
            println!("fuzz {}: {} of the corpus panics: {message}", target.name, path.display());
            return Ok(false);
        }
        executions += 1;
    }
    let seeds: Vec<&[u8]> = corpus.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    while begun.elapsed() < time {
        // The clock is read once a batch: it costs as much as a small packet's decoding.
        for _ in 0..64 {
            mutator.next(&seeds, &mut input);
            executions += 1;
            if let Verdict::Panicked(message) = executor.run(&input) {
                let reduced = reduce::smallest(&executor, &input);
                let path = corpus::keep(target.name, &reduced)?;
                println!("fuzz {}: panics: {message}", target.name);
                println!(
                    "input of {} bytes, reduced from {}: {}",
                    reduced.len(),
                    input.len(),
                    path.display()
                );
                println!("again: cargo run -p fuzz -- {} --input {}", target.name, path.display());
                return Ok(false);
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "fuzz {}: seed {seed}, {} inputs of the corpus, {executions} executions, {:.0}/s, nothing found",
        target.name,
        corpus.len(),
        executions as f64 / seconds
    );
    Ok(true)
}
