//! Medians, ratios, and the words around them.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::fio::{Measured, WORKS};
use crate::machine::Machine;
use crate::startup::Startup;

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

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Seconds of each measurement.
    pub seconds: u32,
    /// Whose median is held against whose.
    pub ratios: &'static [(&'static str, &'static str)],
    /// Every round's.
    pub rows: Vec<Row>,
    /// MiB a second of the first full sync; none where ours was not measured.
    pub full_sync_mib_per_s: Option<f64>,
    /// How long servers took to come up; none where that was not measured.
    pub startups: Vec<Startup>,
    /// What was not measured, and why.
    pub absent: Vec<String>,
}

impl Report {
    fn median(&self, contender: &str, work: &str) -> Option<Measured> {
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
        for startup in &self.startups {
            let Startup { what, goal_s, .. } = startup;
            println!("{what}: {:.1} s (goal: under {goal_s} s)", startup.median_s());
        }
        for work in WORKS {
            println!("{}", work.name);
            for contender in self.contenders() {
                if let Some(m) = self.median(contender, work.name) {
                    println!(
                        "  {contender:16} {:9.0} /s {:8.0} MiB/s {:9.0} us",
                        m.iops, m.mib_per_s, m.latency_us
                    );
                }
            }
            for (ours, other) in self.ratios {
                if let (Some(a), Some(b)) = (self.median(ours, work.name), self.median(other, work.name)) {
                    println!("  {ours} / {other}: {:.2}", a.iops / b.iops);
                }
            }
        }
        if let Some(speed) = self.full_sync_mib_per_s {
            println!("full sync: {speed:.0} MiB/s");
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
