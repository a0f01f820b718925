//! Many seeds: several at a time, with the time that is left, and to be continued.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, bail};

use crate::open_seeds;

/// Seeds that one thread takes at a time; what is lost at most of each when a campaign is ended.
const CHUNK: u64 = 100;

/// Between two lines about the progress: on a terminal, and in a log.
const PROGRESS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// First line of the file.
const MAGIC: &str = "lockstep-sim-campaign 1";

/// What became of some seeds.
#[derive(Debug, Default)]
struct Tally {
    seeds: u64,
    events: u64,
    requests: u64,
    failed: Vec<(u64, String)>,
}

impl Tally {
    fn of(seeds: Range<u64>) -> Self {
        let mut tally = Self::default();
        for seed in seeds {
            let outcome = sim::drbd(seed, false);
            tally.seeds += 1;
            tally.events += outcome.events;
            tally.requests += outcome.requests;
            let fault = match (outcome.fault, open_seeds::why(seed)) {
                (Some(_), Some(_)) => None,
                (None, Some(_)) => Some("holds: take it off the list of open seeds".to_owned()),
                (fault, None) => fault,
            };
            tally.failed.extend(fault.map(|fault| (seed, fault)));
        }
        tally
    }

    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.requests += other.requests;
        self.failed.extend(other.failed);
    }
}

/// Seeds to run, and what is known of those that ran.
#[derive(Debug)]
pub struct Campaign {
    all: Range<u64>,
    jobs: usize,
    file: Option<PathBuf>,
    /// Of all seeds below `next`.
    done: Tally,
    next: u64,
}

impl Campaign {
    /// So many seeds from `from` on, `jobs` at a time; what `file` says is done is not done again.
    ///
    /// # Errors
    /// If the file is of other seeds or of another build, or cannot be read.
    pub fn new(from: u64, seeds: u64, jobs: usize, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let all = from..from.saturating_add(seeds);
        let mut campaign = Self { next: all.start, all, jobs: jobs.max(1), file, done: Tally::default() };
        if let Some(path) = campaign.file.clone() {
            match fs::read_to_string(&path) {
                Ok(text) => campaign.recall(&text).with_context(|| path.display().to_string())?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(path.display().to_string()),
            }
        }
        Ok(campaign)
    }

    /// What a file must say of whose it is: seeds mean something else in another build.
    fn heading(&self) -> anyhow::Result<String> {
        let program = fs::read(std::env::current_exe()?)?;
        let build = program.as_chunks().0.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
            (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Ok(format!("{MAGIC}\nseeds {} to {}, build {build:016x}", self.all.start, self.all.end))
    }

    fn recall(&mut self, text: &str) -> anyhow::Result<()> {
        let heading = self.heading()?;
        let Some(rest) = text.strip_prefix(&heading) else {
            bail!("is of other seeds or of another build; remove it to begin anew. Expected:\n{heading}");
        };
        for line in rest.lines().filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let (kind, number, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
            let number: u64 = number.unwrap_or_default().parse().with_context(|| line.to_owned())?;
            match kind {
                Some("next") => self.next = number,
                Some("events") => self.done.events = number,
                Some("requests") => self.done.requests = number,
                Some("failed") => self.done.failed.push((number, rest.to_owned())),
                _ => bail!("unknown line: {line}"),
            }
        }
        if !(self.all.start..=self.all.end).contains(&self.next) {
            bail!("the next seed is {}, not from {} to {}", self.next, self.all.start, self.all.end);
        }
        self.done.seeds = self.next - self.all.start;
        Ok(())
    }

    fn remember(&self, path: &Path, heading: &str) -> anyhow::Result<()> {
        let Tally { events, requests, failed, .. } = &self.done;
        let mut text = format!("{heading}\nnext {}\nevents {events}\nrequests {requests}\n", self.next);
        for (seed, fault) in failed {
            let fault = fault.replace('\n', " ");
            writeln!(text, "failed {seed} {fault}")?;
        }
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).context(path.display().to_string())
    }

    /// Runs what is left, and says what came out; true if a seed failed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn run(&mut self) -> anyhow::Result<bool> {
        let heading = self.heading()?;
        if self.next > self.all.start {
            println!("goes on with seed {}", self.next);
        }
        for (seed, fault) in &self.done.failed {
            failed(*seed, fault);
        }
        let begun = Instant::now();
        let (first, end) = (self.next, self.all.end);
        let taken = AtomicU64::new(first);
        let (sender, receiver) = mpsc::channel();
        let work = |sender: mpsc::Sender<_>| {
            loop {
                let start = taken.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= end || sender.send((start, Tally::of(start..end.min(start + CHUNK)))).is_err() {
                    return;
                }
            }
        };
        thread::scope(|scope| -> anyhow::Result<()> {
            for _ in 0..self.jobs {
                let sender = sender.clone();
                scope.spawn(|| work(sender));
            }
            drop(sender);
            let patience = if io::stderr().is_terminal() { PROGRESS.0 } else { PROGRESS.1 };
            let (mut early, mut said) = (BTreeMap::new(), begun);
            // What comes out of turn waits: the file says of one seed that all before it are done. If it cannot be written,
            // the threads end with their chunks: nobody receives them.
            for (start, tally) in receiver {
                for (seed, fault) in &tally.failed {
                    failed(*seed, fault);
                }
                early.insert(start, tally);
                while let Some(tally) = early.remove(&self.next) {
                    self.next += tally.seeds;
                    self.done.add(tally);
                }
                if let Some(path) = &self.file {
                    self.remember(path, &heading)?;
                }
                if said.elapsed() >= patience {
                    said = Instant::now();
                    self.tell_progress(first, begun);
                }
            }
            Ok(())
        })?;
        let Tally { seeds, events, requests, failed } = &self.done;
        println!("{events} events, {requests} requests; {:.1} s", begun.elapsed().as_secs_f64());
        let has_failed = |seed: &u64| failed.iter().any(|(other, _)| other == seed);
        let mut open = 0;
        for seed in self.all.clone().filter(|seed| !has_failed(seed)) {
            if let Some(why) = open_seeds::why(seed) {
                println!("open seed {seed}: {why}");
                open += 1;
            }
        }
        let passed = seeds - failed.len() as u64 - open;
        println!("{passed} passed, {} failed, {open} open, 0 skipped", failed.len());
        Ok(!failed.is_empty())
    }

    fn tell_progress(&self, first: u64, begun: Instant) {
        let pace = (self.next - first) as f64 / begun.elapsed().as_secs_f64();
        let left_s = (self.all.end - self.next) as f64 / pace.max(1e-3);
        let (hours, minutes) = (left_s as u64 / 3600, left_s as u64 / 60 % 60);
        eprintln!(
            "seed {} of {} to {}, {} failed, {pace:.0}/s, {hours} h {minutes:02} min left",
            self.next,
            self.all.start,
            self.all.end,
            self.done.failed.len()
        );
    }
}

fn failed(seed: u64, fault: &str) {
    println!("FAIL seed {seed}: {fault} (replay: cargo xtask sim drbd --seed {seed})");
}
