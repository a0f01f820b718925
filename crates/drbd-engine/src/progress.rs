//! How far a resync or an online verify has come, and how fast.

use std::time::Duration;

use crate::time::Instant;

/// Upstream keeps eight marks three seconds apart to tell the recent speed (`DRBD_SYNC_MARKS`, `DRBD_SYNC_MARK_STEP`).
const MARK_INTERVAL: Duration = Duration::from_secs(3);

/// Number of those marks.
const MARKS: usize = 8;

/// Blocks done against time, pauses apart.
#[derive(Debug)]
pub struct Progress {
    /// Blocks when it began (`rs_total`).
    pub total: u64,
    /// When it began (`rs_start`).
    pub began: Instant,
    /// When and with how many blocks left the recent speed is measured from.
    marks: Vec<(Instant, u64)>,
    /// Since when it is paused, and how long it was before.
    paused_since: Option<Instant>,
    paused: Duration,
}

impl Progress {
    /// Nothing of `total` blocks is done.
    pub fn new(now: Instant, total: u64) -> Self {
        Self { total, began: now, marks: vec![(now, total)], paused_since: None, paused: Duration::ZERO }
    }

    /// Blocks a second since `mark`, 0 if nothing moved.
    fn speed(mark: (Instant, u64), now: Instant, left: u64) -> u64 {
        let done = mark.1.saturating_sub(left);
        let nanos = u64::try_from(now.since(mark.0).as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
        ((u128::from(done) * 1_000_000_000) / u128::from(nanos)) as u64
    }

    /// KiB per second of late and since the beginning.
    pub fn speeds_kib_per_s(&self, now: Instant, left: u64) -> (u64, u64) {
        let recent = self.marks.first().copied().unwrap_or((self.began, self.total));
        (Self::speed(recent, now, left) * 4, Self::speed((self.began, self.total), now, left) * 4)
    }

    /// Whether it is paused from now on.
    pub fn paused(&mut self, now: Instant, is_paused: bool) {
        match (self.paused_since, is_paused) {
            (None, true) => self.paused_since = Some(now),
            (Some(since), false) => {
                self.paused += now.since(since);
                self.paused_since = None;
            }
            _ => {}
        }
    }

    /// KiB per second over the last two marks, about.
    pub fn late_speed_kib_per_s(&self, now: Instant, left: u64) -> u64 {
        let late = self.marks.iter().rev().nth(1).or(self.marks.first());
        Self::speed(late.copied().unwrap_or((self.began, self.total)), now, left) * 4
    }

    /// Moves the mark that the recent speed is measured from.
    pub fn mark(&mut self, now: Instant, left: u64) {
        if self.marks.last().is_none_or(|(at, _)| now.since(*at) >= MARK_INTERVAL) {
            self.marks.push((now, left));
            if self.marks.len() > MARKS {
                self.marks.remove(0);
            }
        }
    }

    /// The numbers of the line that says that `blocks` are done: seconds in all, seconds paused of them, KiB per second of
    /// the others, which are at least one.
    pub fn summary(&self, now: Instant, blocks: u64) -> (u64, u64, u64) {
        let paused = self.paused.as_secs();
        let active = now.since(self.began).as_secs().saturating_sub(paused).max(1);
        (active + paused, paused, blocks * 4 / active)
    }
}
