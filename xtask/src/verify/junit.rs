//! cargo-nextest's JUnit report: which tests ran, and which of them say in their output that they could not.

use super::tally::Outcome;

/// One `<testcase>`.
#[derive(Debug, Eq, PartialEq)]
pub struct TestCase {
    /// `binary test`.
    pub name: String,
    /// A test that passes and has printed `skip NAME: reason` has not passed.
    pub outcome: Outcome,
}

/// The test cases of a report. Only what nextest writes is understood: elements on their own, double quotes.
pub fn test_cases(report: &str) -> Vec<TestCase> {
    let mut cases = Vec::new();
    for piece in report.split("<testcase ").skip(1) {
        let Some((attributes, rest)) = piece.split_once('>') else { continue };
        // `<testcase …/>` has no content; what follows belongs to the next one.
        let content = if attributes.ends_with('/') {
            ""
        } else {
            rest.split_once("</testcase>").map_or(rest, |(content, _)| content)
        };
        let attribute = |name: &str| {
            let start = format!("{name}=\"");
            let (_, value) = attributes.split_once(start.as_str())?;
            Some(unescape(value.split_once('"')?.0))
        };
        // `name=` is also the end of `classname=`, which nextest writes second.
        let name = attribute("name").unwrap_or_default();
        let binary = attribute("classname").unwrap_or_default();
        let outcome = if content.contains("<failure") || content.contains("<error") {
            Outcome::Failed
        } else {
            skip_reason(&unescape(content)).map_or(Outcome::Passed, Outcome::Skipped)
        };
        cases.push(TestCase { name: format!("{binary} {name}"), outcome });
    }
    cases
}

/// The reason in the first line `skip NAME: reason` of a test's output.
pub fn skip_reason(output: &str) -> Option<String> {
    output.lines().find_map(|line| {
        // The first line of the output stands directly behind the element's tag.
        let line = line.rsplit_once("<system-out>").map_or(line, |(_, line)| line);
        let line = line.rsplit_once("<system-err>").map_or(line, |(_, line)| line);
        let (name, reason) = line.strip_prefix("skip ")?.split_once(": ")?;
        let reason = reason.split_once("</system-").map_or(reason, |(reason, _)| reason);
        (!name.contains(' ')).then(|| reason.to_owned())
    })
}

fn unescape(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, TestCase, test_cases};

    #[test]
    fn a_report_of_nextest() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0">
    <testsuite name="units" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="range::ends" classname="units" timestamp="2026-11-22T15:40:00.000+00:00" time="0.004">
            <system-out>
running 1 test
test range::ends ... ok
</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="needs_root" classname="lab::boot" time="0.004">
            <system-out>
running 1 test
skip needs_root: no /dev/fuse &amp; no root
test needs_root ... ok
</system-out>
        </testcase>
        <testcase name="first_line" classname="lab::boot" time="0.004">
            <system-err>skip first_line: not root</system-err>
        </testcase>
        <testcase name="breaks" classname="units" time="0.004">
            <failure message="thread panicked" type="test failure">skip breaks: a failure is a failure</failure>
        </testcase>
    </testsuite>
</testsuites>"#;
        let case = |name: &str, outcome| TestCase { name: name.to_owned(), outcome };
        assert_eq!(
            test_cases(report),
            [
                case("units range::ends", Outcome::Passed),
                case("lab::boot needs_root", Outcome::Skipped("no /dev/fuse & no root".to_owned())),
                case("lab::boot first_line", Outcome::Skipped("not root".to_owned())),
                case("units breaks", Outcome::Failed),
            ]
        );
    }
}
