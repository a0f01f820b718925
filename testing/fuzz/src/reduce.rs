//! A failing input, made small: what is left is what the failure needs.

use std::time::{Duration, Instant};

use crate::execute::{Executor, Verdict};

/// Reduction is a convenience; it ends when it takes long.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The smallest input found that still panics.
pub fn smallest(executor: &Executor, input: &[u8]) -> Vec<u8> {
    let begun = Instant::now();
    let panics =
        |input: &[u8]| begun.elapsed() < TIME_MAX && matches!(executor.run(input), Verdict::Panicked(_));
    let mut best = input.to_vec();
    let mut piece = best.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < best.len() {
            let mut shorter = best.clone();
            shorter.drain(at..(at + piece).min(best.len()));
            if panics(&shorter) {
                best = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    for at in 0..best.len() {
        let kept = std::mem::take(&mut best[at]);
        if kept != 0 && !panics(&best) {
            best[at] = kept;
        }
    }
    best
}
