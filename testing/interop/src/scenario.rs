//! Scenarios: what they need, how they come out, and how that is told.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use crate::lockstep;
use crate::program;

/// One scenario on a suite's context `C`.
pub struct Scenario<C> {
    /// As printed, and matched by `--only`.
    pub name: &'static str,
    /// Whether it belongs to the selection that the tests run.
    pub quick: bool,
    /// What must be here for it to be tried.
    pub needs: &'static [Need],
    /// Ok if everything is as it should be.
    pub run: fn(&mut C) -> anyhow::Result<()>,
}

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Mounts, namespaces, devices.
    Root,
    /// A program in PATH or among root's.
    Program(&'static str),
    /// A file or device.
    Path(&'static str),
    /// A name of ours.
    Personality(&'static str),
}

impl Need {
    /// What is missing, if it is.
    fn missing(self) -> Option<String> {
        let (there, what) = match self {
            Self::Root => (rustix::process::geteuid().is_root(), "not root".to_owned()),
            Self::Program(name) => (program::is_installed(name), format!("no program `{name}`")),
            Self::Path(path) => (Path::new(path).exists(), format!("no {path}")),
            Self::Personality(name) => (lockstep::has(name), format!("lockstep has no `{name}`")),
        };
        (!there).then_some(what)
    }
}

/// Which scenarios of a suite.
pub struct Selection {
    /// Only the quick ones.
    pub quick: bool,
    /// Name them, run none.
    pub list: bool,
    /// Only those whose name contains it.
    pub only: Option<String>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// The closing line.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs the selected scenarios in order. The context is made by `prepare` only if one of them can be tried. True if
/// none failed.
pub fn run<C>(
    scenarios: &[Scenario<C>],
    selection: &Selection,
    prepare: impl FnOnce() -> anyhow::Result<C>,
) -> anyhow::Result<bool> {
    let selected = scenarios.iter().filter(|scenario| {
        (!selection.quick || scenario.quick)
            && selection.only.as_ref().is_none_or(|pattern| scenario.name.contains(pattern.as_str()))
    });
    if selection.list {
        selected.for_each(|scenario| {
            println!("{}{}", scenario.name, if scenario.quick { " (quick)" } else { "" })
        });
        return Ok(true);
    }
    let mut tally = Tally::default();
    let mut prepare = Some(prepare);
    let mut context = None;
    for scenario in selected {
        let missing: Vec<String> = scenario.needs.iter().filter_map(|need| need.missing()).collect();
        if !missing.is_empty() {
            println!("skip {} 0.0 {}", scenario.name, missing.join(", "));
            tally.skipped += 1;
            continue;
        }
        let begun = Instant::now();
        if let Some(prepare) = prepare.take() {
            context = Some(prepare()?);
        }
        let Some(context) = context.as_mut() else { continue };
        let result = (scenario.run)(context);
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                println!("ok {} {seconds:.1}", scenario.name);
                tally.passed += 1;
            }
            Err(error) => {
                println!("FAIL {} {seconds:.1}", scenario.name);
                format!("{error:#}").lines().for_each(|line| println!("    {line}"));
                tally.failed += 1;
            }
        }
    }
    // What the context holds ends before the last word is said.
    drop(context);
    println!("{tally}");
    Ok(tally.failed == 0)
}
