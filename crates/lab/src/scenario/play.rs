//! Following a plan.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::parser::{self, Script};
use super::plan::{Plan, Step, plan};
use super::{at, load};
use crate::error::{Doing, Result};
use crate::events::{self, Kind};
use crate::fault::list::{self, InForce};
use crate::fault::{command::Fault, heal};
use crate::place::Lab;
use crate::state::Records;

/// How long a signal waits for us at most.
const NAP: Duration = Duration::from_millis(20);

/// Signals that end a play.
const ENDS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The command line.
#[derive(Args, Debug)]
pub struct PlayCommand {
    /// The scenario
    file: PathBuf,
    /// Draw times and choices from this number, whatever the file says
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print what would happen when, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Undo every fault at the end, interrupted or not
    #[arg(long)]
    heal_after: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of a step.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    step: &'a Step,
    /// Milliseconds after the play's beginning.
    began_ms: u64,
    /// Why it was refused, if it was.
    refused: Option<String>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    seed: u64,
    steps: Vec<Outcome<'a>>,
    interrupted: bool,
    in_force: Vec<InForce>,
}

/// Plays a scenario, or tells what it would do.
///
/// # Errors
/// A mistake in the file, a name that the lab does not know, or what the system says.
pub fn run(lab: &Lab, command: &PlayCommand) -> Result<ExitCode> {
    let file = &command.file;
    let script = load(file)?;
    let seed = command.seed.or(script.seed).unwrap_or_else(any_seed);
    let plan = plan(&script, seed).map_err(|(line, what)| at(file, line, &what))?;
    if command.dry_run {
        let json = || serde_json::to_string_pretty(&plan).unwrap_or_default() + "\n";
        print(&if command.json { json() } else { plan.text() });
        return Ok(ExitCode::SUCCESS);
    }
    check_names(lab, file, &script)?;
    let ended = Arc::new(AtomicUsize::new(0));
    for signal in ENDS {
        signal_hook::flag::register_usize(signal, ended.clone(), signal as usize)
            .doing(|| "wait for signals".into())?;
    }
    events::append(lab, Kind::Play, &[file.display().to_string(), seed.to_string()])?;
    if !command.json {
        print(&format!("seed {seed}\n"));
    }
    let steps = follow(lab, file, &plan, command.json, &ended);
    let signal = ended.load(Ordering::Relaxed);
    if command.heal_after {
        heal::all(lab)?;
    }
    let in_force = list::in_force(lab)?;
    let any_refused = steps.iter().any(|step| step.refused.is_some());
    if signal != 0 {
        eprintln!(
            "interrupted; {} of {} faults were done; in force:\n{}",
            steps.len(),
            plan.steps.len(),
            list::text(&in_force)
        );
    }
    if command.json {
        let report = Report { seed, steps, interrupted: signal != 0, in_force };
        print(&(serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"));
    }
    Ok(match signal {
        // As shells tell of a command that a signal ended.
        1.. => ExitCode::from(128 + signal as u8),
        0 => ExitCode::from(u8::from(any_refused)),
    })
}

/// A seed that nobody chose; small, since people type it.
fn any_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 44
}

/// Also of choices that this seed does not make: whether a file is right must not depend on the seed.
fn check_names(lab: &Lab, file: &Path, script: &Script) -> Result<()> {
    let records = Records::load(lab)?;
    for entry in script.entries() {
        for words in entry.alternatives() {
            let fault = parser::fault(&words).map_err(|what| at(file, entry.line, &what))?;
            fault.check(&records).map_err(|error| at(file, entry.line, &error.to_string()))?;
        }
    }
    Ok(())
}

/// Does every step at its time, until a signal comes.
fn follow<'a>(lab: &Lab, file: &Path, plan: &'a Plan, quiet: bool, ended: &AtomicUsize) -> Vec<Outcome<'a>> {
    let begun = Instant::now();
    let mut outcomes = Vec::new();
    for step in &plan.steps {
        if !wait_until(begun, step, ended) {
            break;
        }
        let began_ms = begun.elapsed().as_millis() as u64;
        let refused = act(lab, &step.fault).map_err(|error| error.to_string()).err();
        match &refused {
            Some(why) => eprintln!("{}:{}: {why}", file.display(), step.line),
            None if !quiet => print(&format!("{}\n", step.text())),
            None => {}
        }
        outcomes.push(Outcome { step, began_ms, refused });
    }
    outcomes
}

fn act(lab: &Lab, fault: &Fault) -> Result<()> {
    fault.run(lab).map(drop)
}

/// Waits for a step's time; false if a signal came. A person at a terminal sees what comes next.
fn wait_until(begun: Instant, step: &Step, ended: &AtomicUsize) -> bool {
    let due = Duration::from_millis(step.at_ms);
    let terminal = io::stderr().is_terminal();
    let mut shown_s = u64::MAX;
    let alive = loop {
        if ended.load(Ordering::Relaxed) != 0 {
            break false;
        }
        let left = due.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break true;
        }
        if terminal && shown_s != left.as_secs() {
            shown_s = left.as_secs();
            eprint!("\r\x1b[Kin {} s: {}", shown_s + 1, step.words.join(" "));
        }
        std::thread::sleep(left.min(NAP));
    };
    if shown_s != u64::MAX {
        eprint!("\r\x1b[K");
    }
    alive
}

/// Writes to stdout at once; a reader that has gone away is no fault of ours.
fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
