//! Medians, ratios, and the words around them.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::figure::Figure;
use crate::fio::{Measured, WORKS, WRITE_16, Work};
use crate::machine::Machine;

/// One measurement.
#[derive(Serialize)]
pub struct Row {
    /// Who.
    pub contender: &'static str,
    /// What.
    pub work: &'static str,
    /// In which round.
    pub round: usize,
    /// How fast.
    pub measured: Measured,
}

/// Whose speed is held against whose.
#[derive(Serialize)]
pub struct Ratio {
    /// The one in question.
    pub of: &'static str,
    /// The measure.
    pub to: &'static str,
    /// How much it should be, by kind of work.
    pub goals: &'static [(Work, f64)],
}

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Seconds of each measurement.
    pub seconds: u32,
    /// Of medians.
    pub ratios: &'static [Ratio],
    /// Every round's.
    pub rows: Vec<Row>,
    /// Everything else.
    pub figures: Vec<Figure>,
    /// What was not measured, and why.
    pub absent: Vec<String>,
}

impl Report {
    /// The middle one of a contender's rounds.
    pub fn median(&self, contender: &str, work: &str) -> Option<Measured> {
        let mut found: Vec<Measured> = self
            .rows
            .iter()
            .filter(|row| row.contender == contender && row.work == work)
            .map(|row| row.measured)
            .collect();
        found.sort_by(|a, b| a.iops.total_cmp(&b.iops));
        found.get(found.len() / 2).copied()
    }

    fn contenders(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.contender) {
                names.push(row.contender);
            }
        }
        names
    }

    /// A table a kind of work, then the ratios.
    pub fn print(&self) {
        let machine = &self.machine;
        println!(
            "{}, {} processors, {} MiB, Linux {}, {}",
            machine.processor,
            machine.processors,
            machine.memory_kib / 1024,
            machine.kernel,
            machine.date
        );
        println!(
            "medians of {} rounds of {} s\n",
            self.rows.iter().map(|row| row.round + 1).max().unwrap_or(0),
            self.seconds
        );
        let is_measured = |work: &&Work| self.rows.iter().any(|row| row.work == work.name);
        for work in WORKS.iter().chain([&WRITE_16]).filter(is_measured) {
            println!("{}", work.name);
            for contender in self.contenders() {
                if let Some(m) = self.median(contender, work.name) {
                    println!(
                        "  {contender:24} {:9.0} /s {:8.0} MiB/s {:9.0} us",
                        m.iops, m.mib_per_s, m.latency_us
                    );
                }
            }
            for Ratio { of, to, goals } in self.ratios {
                if let (Some(a), Some(b)) = (self.median(of, work.name), self.median(to, work.name)) {
                    let goal = goals.iter().find(|(goal, _)| goal == work);
                    let goal = goal.map_or_else(String::new, |(_, goal)| format!(" (goal: {goal})"));
                    println!("  {of} / {to}: {:.2}{goal}", a.iops / b.iops);
                }
            }
        }
        for figure in &self.figures {
            println!("{figure}");
        }
        for absent in &self.absent {
            println!("not measured: {absent}");
        }
    }

    /// All of it, for programs.
    pub fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }
}
