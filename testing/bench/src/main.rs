//! Measured side by side: every contender does the same work on files of the same file system, in rounds that take
//! turns, so that what the machine does besides hits all of them alike.

mod contender;
mod drbd;
mod fio;
mod lab;
mod machine;
mod program;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    /// What: drbd
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
    if cli.name != "drbd" {
        eprintln!("bench: unknown `{}`; there is drbd", cli.name);
        return ExitCode::from(2);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("bench drbd: loop devices and servers need root");
        return ExitCode::FAILURE;
    }
    let result = drbd::run(effort).and_then(|report| {
        report.print();
        cli.json.map_or(Ok(()), |path| report.write_json(&path))?;
        Ok(report.absent.is_empty())
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench drbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
