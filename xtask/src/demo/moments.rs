//! What happened when: the table that closes the demo.

use std::time::{Duration, Instant};

use crate::demo::screen::Screen;

/// Rows of the table, in the order of time.
pub struct Moments {
    begun: Instant,
    rows: Vec<(Duration, String, String)>,
}

impl Moments {
    /// Second 0 is now.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), rows: Vec::new() }
    }

    /// What happened just now, and what was measured of it.
    pub fn note(&mut self, what: &str, measured: impl Into<String>) {
        self.rows.push((self.begun.elapsed(), what.to_owned(), measured.into()));
    }

    /// What was measured of the last moment, known only later.
    pub fn measured(&mut self, measured: String) {
        if let Some((_, _, last)) = self.rows.last_mut() {
            *last = measured;
        }
    }

    /// Prints all rows and the time that all took.
    pub fn print(&self, screen: &Screen) {
        let width = self.rows.iter().map(|(_, what, _)| what.chars().count()).max().unwrap_or(0);
        screen.chapter("What happened when");
        for (when, what, measured) in &self.rows {
            let line = format!("{:6.1} s  {what:width$}  {measured}", when.as_secs_f64());
            screen.output(line.trim_end());
        }
        screen.own(&format!("Every check held. {:.1} s in all.", self.begun.elapsed().as_secs_f64()));
    }
}

/// A speed, of `bytes` in `time`.
pub fn mib_per_s(bytes: u64, time: Duration) -> String {
    // Exact up to 2^53 bytes, which no demo moves.
    format!("{:.1} MiB/s", bytes as f64 / f64::from(1 << 20) / time.as_secs_f64().max(1e-9))
}
