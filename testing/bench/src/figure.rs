//! A quantity that is no rate of requests, with its goal.

use serde::Serialize;

/// What a figure should be, in the figure's unit.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "at most {bound}"),
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
        }
    }
}

/// Something measured, once or in several rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// As printed.
    pub what: String,
    /// As printed; empty for a ratio.
    pub unit: &'static str,
    /// If there is one.
    pub goal: Option<Goal>,
    /// One for each round.
    pub values: Vec<f64>,
}

impl Figure {
    /// Measured once.
    pub fn once(what: impl Into<String>, value: f64, unit: &'static str, goal: Option<Goal>) -> Self {
        Self { what: what.into(), unit, goal, values: vec![value] }
    }

    /// The median; no number if nothing was measured.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let median = self.median();
        let decimals = if median < 10.0 { 2 } else { 0 };
        write!(f, "{}: {median:.decimals$}", self.what)?;
        if !self.unit.is_empty() {
            write!(f, " {}", self.unit)?;
        }
        self.goal.map_or(Ok(()), |goal| write!(f, " (goal: {goal})"))
    }
}
