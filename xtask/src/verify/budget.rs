//! How long each part may take, and took.

use std::time::{Duration, Instant};

/// A part of the run that has its own budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Formatting, clippy and the one build.
    BuildAndClippy,
    /// Unit tests and seeds.
    UnitAndSimulation,
    /// Tests in servers.
    Lab,
    /// Quick selections against the originals.
    Interop,
    /// The rules of the house and fuzzing.
    Rest,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::BuildAndClippy => "build and clippy",
            Self::UnitAndSimulation => "unit and simulation",
            Self::Lab => "lab",
            Self::Interop => "interop",
            Self::Rest => "rest",
        }
    }

    fn budget_minutes(self) -> u64 {
        match self {
            Self::BuildAndClippy => 8,
            Self::UnitAndSimulation | Self::Lab | Self::Interop => 6,
            Self::Rest => 4,
        }
    }
}

/// What each part took.
#[derive(Default)]
pub struct Budget {
    spent: Vec<(Part, Duration)>,
}

impl Budget {
    /// Runs the part under its heading and remembers how long it took.
    pub fn time(&mut self, part: Part, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        println!("\n== {}", part.name());
        let begun = Instant::now();
        let result = run();
        self.spent.push((part, begun.elapsed()));
        result
    }

    /// One line a part; loud where it is over its budget.
    pub fn print(&self) {
        println!("\n== time by part");
        for (part, spent) in &self.spent {
            let budget_s = part.budget_minutes() * 60;
            let over = if spent.as_secs() > budget_s { "   *** OVER BUDGET ***" } else { "" };
            println!("{:20} {:6.1} s of {budget_s} s{over}", part.name(), spent.as_secs_f64());
        }
    }
}
