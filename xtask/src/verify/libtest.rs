//! What `cargo test -- --show-output` prints, where cargo-nextest could not be had.

use super::junit::{TestCase, skip_reason};
use super::tally::Outcome;

/// The test cases of a run over several binaries.
pub fn test_cases(lines: &[String]) -> Vec<TestCase> {
    let mut cases: Vec<TestCase> = Vec::new();
    let mut begin = 0;
    for (index, line) in lines.iter().enumerate() {
        // Each binary's results, outputs and summary form one block.
        if line.starts_with("test result: ") {
            block(&lines[begin..index], &mut cases);
            begin = index + 1;
        }
    }
    cases
}

fn block(lines: &[String], cases: &mut Vec<TestCase>) {
    let first = cases.len();
    for line in lines {
        let Some((name, verdict)) = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
        else {
            continue;
        };
        let outcome = match verdict {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed,
            ignored => Outcome::Skipped(ignored.to_owned()),
        };
        cases.push(TestCase { name: name.to_owned(), outcome });
    }
    let mut of: Option<&str> = None;
    for line in lines {
        if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            of = Some(name);
        } else if let (Some(name), Some(reason)) = (of, skip_reason(line)) {
            for case in cases[first..].iter_mut().filter(|case| case.name == name) {
                if case.outcome == Outcome::Passed {
                    case.outcome = Outcome::Skipped(reason.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, test_cases};

    #[test]
    fn skips_are_found_under_the_test_that_printed_them() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... ignored, needs a tape drive\n\nsuccesses:\n\n\
                    ---- b stdout ----\nskip b: not root\n\n\nsuccesses:\n    a\n    b\n\n\
                    test result: ok. 2 passed; 0 failed; 1 ignored\n";
        let cases = test_cases(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let outcomes: Vec<_> = cases.into_iter().map(|case| case.outcome).collect();
        assert_eq!(
            outcomes,
            [
                Outcome::Passed,
                Outcome::Skipped("not root".to_owned()),
                Outcome::Skipped("ignored, needs a tape drive".to_owned())
            ]
        );
    }
}
