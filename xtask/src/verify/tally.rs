//! What passed, what failed, and what could not be tried.

use std::fmt;

/// How one test or check came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It ran and holds.
    Passed,
    /// It ran and does not hold.
    Failed,
    /// It could not run here, for this reason.
    Skipped(String),
}

/// Counts, with the names of everything that did not pass.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed.push(name.to_owned()),
            Outcome::Skipped(reason) => self.skipped.push((name.to_owned(), reason)),
        }
    }

    /// Counts one that either holds or does not.
    pub fn check(&mut self, name: &str, holds: bool) {
        self.add(name, if holds { Outcome::Passed } else { Outcome::Failed });
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failed.len()
    }

    /// Counts the scenarios of a suite from its lines (`ok|FAIL|skip NAME …`). A suite that ends badly without a
    /// failed scenario, or whose closing line is missing or says something else, has failed itself.
    pub fn scenarios(&mut self, suite: &str, success: bool, lines: &[String]) {
        let mut counted = Self::default();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (Some(verdict), Some(name)) = (words.next(), words.next()) else { continue };
            let name = format!("{suite} {name}");
            match verdict {
                "ok" => counted.add(&name, Outcome::Passed),
                "FAIL" => counted.add(&name, Outcome::Failed),
                "skip" => counted.add(&name, Outcome::Skipped(words.next().unwrap_or_default().to_owned())),
                _ => {}
            }
        }
        let closing = lines.iter().rev().find(|line| !line.trim().is_empty());
        if closing != Some(&counted.to_string()) || success != (counted.failed() == 0) {
            counted.add(
                &format!("{suite} (ends without its closing line or with another status)"),
                Outcome::Failed,
            );
        }
        self.passed += counted.passed;
        self.failed.extend(counted.failed);
        self.skipped.extend(counted.skipped);
    }

    /// Everything that did not pass, then the closing line.
    pub fn print(&self) {
        println!();
        for (name, reason) in &self.skipped {
            println!("skip {name}: {reason}");
        }
        for name in &self.failed {
            println!("FAIL {name}");
        }
        println!("{self}");
    }
}

/// The closing line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn count(success: bool, text: &str) -> String {
        let mut tally = Tally::default();
        tally.scenarios("nbd", success, &text.lines().map(str::to_owned).collect::<Vec<_>>());
        tally.to_string()
    }

    #[test]
    fn scenarios_are_counted_and_the_closing_line_is_held_against_them() {
        let good = "booting\nok info 0.1\nskip fio 0.0 no fio\n\n1 passed, 0 failed, 1 skipped\n";
        assert_eq!(count(true, good), "1 passed, 0 failed, 1 skipped");
        assert_eq!(
            count(false, "FAIL info 0.1\n0 passed, 1 failed, 0 skipped"),
            "0 passed, 1 failed, 0 skipped"
        );
        // Died in the middle, lied in the end, or said ok and ended with 1: never green.
        assert_eq!(count(false, "ok info 0.1"), "1 passed, 1 failed, 0 skipped");
        assert_eq!(
            count(true, "ok info 0.1\n2 passed, 0 failed, 0 skipped"),
            "1 passed, 1 failed, 0 skipped"
        );
        assert_eq!(count(false, "ok a 0.1\n1 passed, 0 failed, 0 skipped"), "1 passed, 1 failed, 0 skipped");
        assert_eq!(count(true, ""), "0 passed, 1 failed, 0 skipped");
    }
}
