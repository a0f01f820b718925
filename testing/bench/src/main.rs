//! Measured side by side: every contender does the same work on files of the same file system, in rounds that take
//! turns, so that what the machine does besides hits all of them alike.

mod contender;
mod drbd;
mod fio;
mod lab;
mod machine;
mod mirrored;
mod program;
mod report;
mod rounds;
mod startup;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    /// What: drbd, lab
    name: String,
    /// Write the results there as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round: shows that it runs, measures nothing
    #[arg(long)]
    quick: bool,
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
    let cli = Cli::parse();
    let effort = if cli.quick { Effort { seconds: 1, rounds: 1 } } else { Effort { seconds: 4, rounds: 3 } };
    let run = match cli.name.as_str() {
        "drbd" => drbd::run,
        "lab" => store::run,
        unknown => {
            eprintln!("bench: unknown `{unknown}`; there are drbd, lab");
            return ExitCode::from(2);
        }
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("bench {}: loop devices and servers need root", cli.name);
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
            eprintln!("bench {}: {error:#}", cli.name);
            ExitCode::FAILURE
        }
    }
}
