//! Entrants that take turns at the same work.

use std::process::Command;

use crate::Effort;
use crate::fio::{self, Subject, WORKS, Work};
use crate::report::Row;

/// Somebody in a round.
pub struct Entrant<'a> {
    /// As printed.
    pub name: &'static str,
    /// What fio works on.
    pub subject: Subject,
    /// Starts fio where the subject is.
    pub start: Box<dyn Fn() -> Command + 'a>,
    /// What it takes part in.
    pub works: &'static [Work],
}

/// Every kind of work by every entrant that takes part, round after round.
///
/// # Errors
/// fio's.
pub fn rounds(entrants: &[Entrant], effort: Effort) -> anyhow::Result<Vec<Row>> {
    for entrant in entrants {
        fio::prepare(&entrant.start, &entrant.subject)?;
    }
    let mut rows = Vec::new();
    for round in 0..effort.rounds {
        for work in WORKS {
            for entrant in entrants.iter().filter(|entrant| entrant.works.contains(work)) {
                let measured = fio::measure(&entrant.start, &entrant.subject, *work, effort.seconds)?;
                eprintln!("round {} {}: {} {:.0} /s", round + 1, work.name, entrant.name, measured.iops);
                rows.push(Row { contender: entrant.name, work: work.name, round, measured });
            }
        }
    }
    Ok(rows)
}
