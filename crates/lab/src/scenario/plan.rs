//! What happens when: drawn from the seed, before anything happens.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::parser::{self, Entry, Item, Script, Span};
use crate::fault::command::Fault;
use crate::random::SplitMix64;

/// Faults of one play.
const STEPS_MAX: usize = 100_000;

/// One fault of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// The line it comes from.
    pub line: usize,
    /// The words after `lockstep lab fault`.
    pub words: Vec<String>,
    /// The same, understood.
    #[serde(skip)]
    pub fault: Fault,
}

/// Every fault, in the order of time.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What everything was drawn from.
    pub seed: u64,
    /// The faults.
    pub steps: Vec<Step>,
}

/// Draws the plan of a script.
///
/// # Errors
/// More faults than a play may have; the line, and what is wrong with it.
pub fn plan(script: &Script, seed: u64) -> std::result::Result<Plan, (usize, String)> {
    let mut draws = Draws { random: SplitMix64(seed), steps: Vec::new() };
    for item in &script.items {
        match item {
            Item::Once(entry) => draws.step(Duration::ZERO, entry)?,
            Item::Repeat { rounds, from, every, entries } => {
                let mut begins = draws.time(*from);
                for _ in 0..*rounds {
                    entries.iter().try_for_each(|entry| draws.step(begins, entry))?;
                    begins += draws.time(*every);
                }
            }
        }
    }
    let mut steps = draws.steps;
    // Stable: what stands first in the file comes first at the same time.
    steps.sort_by_key(|step| step.at_ms);
    Ok(Plan { seed, steps })
}

/// Draws in the order of the file, so that a line's times depend only on what stands before it.
struct Draws {
    random: SplitMix64,
    steps: Vec<Step>,
}

impl Draws {
    fn time(&mut self, span: Span) -> Duration {
        let range_ms = (span.latest - span.earliest).as_millis() as u64;
        span.earliest + Duration::from_millis(self.random.below(range_ms + 1))
    }

    fn step(&mut self, begins: Duration, entry: &Entry) -> std::result::Result<(), (usize, String)> {
        if self.steps.len() >= STEPS_MAX {
            return Err((entry.line, format!("more than {STEPS_MAX} faults")));
        }
        let at_ms = (begins + self.time(entry.when)).as_millis() as u64;
        let choice = self.random.below(entry.choices.len() as u64) as usize;
        let words =
            entry.choices.get(choice).map_or_else(|| entry.words.clone(), |choice| entry.with(choice));
        let fault = parser::fault(&words).map_err(|what| (entry.line, what))?;
        self.steps.push(Step { at_ms, line: entry.line, words, fault });
        Ok(())
    }
}

impl Step {
    /// As a line for people.
    pub fn text(&self) -> String {
        format!("{:>9.3} s  {}", self.at_ms as f64 / 1e3, self.words.join(" "))
    }
}

impl Plan {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for step in &self.steps {
            let _ = writeln!(text, "{}", step.text());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, plan};
    use crate::scenario::parser::parse;

    const FILE: &str = "at 2s partition a b\nwithin 3s..5s one-of a b c: power-cut $1\nat 2s heal --all\n\
                        repeat 20 from 10s every 1s..2s\n within 0s..500ms one-of a b: pause $1\nend\n";

    fn drawn(seed: u64) -> Plan {
        plan(&parse(FILE).expect("a scenario"), seed).expect("a plan")
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(drawn(7).text(), drawn(7).text());
        assert_ne!(drawn(7).text(), drawn(8).text());
        // What a seed gives is part of what a finding is told by: it must not change from version to version.
        let text = drawn(7).text();
        let first: Vec<&str> = text.lines().take(5).collect();
        let expected = [
            "seed 7",
            "    2.000 s  partition a b",
            "    2.000 s  heal --all",
            "    4.802 s  power-cut b",
            "   10.164 s  pause a",
        ];
        assert_eq!(first, expected);
    }

    #[test]
    fn times_and_choices_are_those_of_the_file() {
        let mut chosen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let plan = drawn(seed);
            assert_eq!(plan.steps.len(), 23);
            assert!(plan.steps.is_sorted_by_key(|step| step.at_ms));
            let cut = &plan.steps[2];
            assert!((3000..=5000).contains(&cut.at_ms) && cut.words[0] == "power-cut", "{cut:?}");
            chosen.insert(cut.words[1].clone());
            assert!(plan.steps[3..].iter().all(|step| step.words[0] == "pause"));
            // Rounds begin one to two seconds apart, and a pause comes up to half a second after.
            let last = plan.steps[22].at_ms;
            assert!((10_000 + 19_000..=10_000 + 38_500).contains(&last), "{last}");
        }
        assert_eq!(chosen.len(), 3, "every choice comes");
    }
}
