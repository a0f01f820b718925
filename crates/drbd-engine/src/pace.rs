//! How fast the target of a resync asks for blocks.
//!
//! With `c-plan-ahead` 0 at a fixed rate. Otherwise a controller keeps `c-fill-target` sectors under way, or what comes in
//! within `c-delay-target`, and spreads each correction over the turns that it plans ahead; never faster than
//! `c-max-rate`. While somebody uses the device the resync goes no faster than `c-min-rate`.
//! Upstream: `drbd_rs_controller`, `drbd_rs_number_requests`, `drbd_rs_c_min_rate_throttle`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::admin::DiskOptions;
use crate::device::{BLOCK_SECTORS, Device};
use crate::time::Instant;

/// Time between two decisions (`SLEEP_TIME`).
pub const TURN: Duration = Duration::from_millis(100);

/// Turns in a second.
const TURNS_PER_S: i64 = 10;

/// Sectors of others' requests within a turn that still count as an idle device.
const IDLE_SECTORS: u64 = 64;

/// Blocks that one request may have when so many sectors are allowed. Where the controller decides, what ends a turn is one
/// block longer than that: `make_resync_request` counts the block that a request begins with only after those that follow
/// it. As the controller asks for what has come and a little more, nearly half of its rise is that block.
pub fn longest_blocks(allowed_sectors: u64, options: &DiskOptions) -> u64 {
    allowed_sectors / BLOCK_SECTORS + u64::from(options.c_plan_ahead_ds != 0)
}

/// The controller, and the allowance that came of its last decision.
#[derive(Debug)]
pub struct Pace {
    /// Sectors that came since the last turn.
    arrived: i64,
    /// Sectors asked for that had not come at the last turn.
    in_flight: i64,
    /// Corrections of the turns to come, the next one first.
    plan: VecDeque<i64>,
    turn_at: Instant,
    /// Sectors that may still be asked for in this turn.
    allowed: u64,
    /// KiB per second as of the last turn.
    wanted: u64,
    /// Somebody uses the device, and the resync is fast enough.
    held: bool,
    /// Fixed rate: sectors since then, and how many of them were asked for.
    fixed_from: Instant,
    fixed_asked: u64,
}

impl Pace {
    /// Nothing asked for; the first turn is due.
    pub fn new(now: Instant) -> Self {
        Self {
            arrived: 0,
            in_flight: 0,
            plan: VecDeque::new(),
            turn_at: now,
            allowed: 0,
            wanted: 0,
            held: false,
            fixed_from: now,
            fixed_asked: 0,
        }
    }

    /// KiB per second that the resync aims at.
    pub fn wanted_kib_per_s(&self) -> u64 {
        self.wanted
    }

    /// Sectors that were asked for have come, or will not.
    pub fn came(&mut self, sectors: u64) {
        self.arrived += sectors as i64;
    }

    /// So many sectors are asked for.
    pub fn asked(&mut self, sectors: u64) {
        self.in_flight += sectors as i64;
        self.allowed = self.allowed.saturating_sub(sectors);
        self.fixed_asked += sectors;
    }

    /// Whether a decision is due.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.turn_at
    }

    /// When there is something to decide.
    pub fn deadline(&self, now: Instant, is_fixed: bool) -> Instant {
        let fixed = now + Duration::from_millis(20);
        match (is_fixed && !self.held, self.turn_at > now) {
            (true, _) => fixed,
            (false, true) => self.turn_at,
            (false, false) => now + TURN,
        }
    }

    /// Decides for the next turn. `held`: others use the device and the resync is fast enough; `buffers` limits what is
    /// under way, in pages.
    pub fn decide(&mut self, now: Instant, options: &DiskOptions, buffers: u32, held: bool) {
        self.turn_at = now + TURN;
        self.held = held;
        let arrived = std::mem::take(&mut self.arrived);
        self.in_flight = (self.in_flight - arrived).max(0);
        if options.c_plan_ahead_ds == 0 {
            self.wanted = u64::from(options.resync_rate_kib_per_s);
            return;
        }
        let sectors = self.controlled(options, arrived) / BLOCK_SECTORS as i64 * BLOCK_SECTORS as i64;
        self.wanted = (sectors / 2 * TURNS_PER_S) as u64;
        let room = i64::from(buffers / 2) * BLOCK_SECTORS as i64 - self.in_flight;
        self.allowed = if held { 0 } else { sectors.min(room).max(0) as u64 };
    }

    /// Sectors to ask for in this turn, after so many have come in the last.
    fn controlled(&mut self, options: &DiskOptions, arrived: i64) -> i64 {
        let steps = i64::from(options.c_plan_ahead_ds);
        if self.plan.len() as i64 != steps {
            self.plan = std::iter::repeat_n(0, options.c_plan_ahead_ds as usize).collect();
        }
        let per_turn = |kib_per_s: u32| i64::from(kib_per_s) * 2 / TURNS_PER_S;
        let want = if self.in_flight + arrived == 0 {
            per_turn(options.resync_rate_kib_per_s) * steps
        } else if options.c_fill_target_sectors != 0 {
            i64::from(options.c_fill_target_sectors)
        } else {
            arrived * i64::from(options.c_delay_target_ds)
        };
        let planned: i64 = self.plan.iter().sum();
        let correction = (want - self.in_flight - planned) / steps;
        for step in &mut self.plan {
            *step += correction;
        }
        let now = self.plan.pop_front().unwrap_or(0);
        self.plan.push_back(0);
        (arrived + now).clamp(0, per_turn(options.c_max_rate_kib_per_s))
    }

    /// Sectors that may be asked for at this moment.
    pub fn allowance(&mut self, now: Instant, options: &DiskOptions) -> u64 {
        if options.c_plan_ahead_ds != 0 || self.held {
            return if self.held { 0 } else { self.allowed };
        }
        // An allowance that was not used does not pile up beyond a tenth of a second.
        let rate = u64::from(options.resync_rate_kib_per_s) * 2;
        let since_ms = now.since(self.fixed_from).as_millis() as u64;
        let mut allowed = rate.saturating_mul(since_ms + 50) / 1000;
        if allowed > self.fixed_asked + rate / 10 {
            self.fixed_from = now;
            self.fixed_asked = 0;
            allowed = rate / 10;
        }
        allowed.saturating_sub(self.fixed_asked)
    }
}

impl Device {
    /// Somebody has used the device since this was asked last, and the resync runs faster than `c-min-rate`: it should
    /// not go on now.
    pub(crate) fn resync_should_wait(&mut self, now: Instant) -> bool {
        let (progress, left) = match (&self.verify, &self.resync) {
            (Some(verify), _) => (&verify.progress, verify.left),
            (None, Some(resync)) => (&resync.progress, self.dirty_blocks()),
            (None, None) => return false,
        };
        let least = self.disk.as_ref().map_or(0, |d| d.options.c_min_rate_kib_per_s);
        let used = self.application_sectors - self.application_seen_sectors;
        if least == 0 || used <= IDLE_SECTORS {
            return false;
        }
        self.application_seen_sectors = self.application_sectors;
        progress.late_speed_kib_per_s(now, left) > u64::from(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> DiskOptions {
        DiskOptions { c_plan_ahead_ds: 20, resync_rate_kib_per_s: 30 << 10, ..DiskOptions::default() }
    }

    /// Sectors asked for in each turn if everything comes within the turn.
    fn course(options: &DiskOptions, turns: u64) -> Vec<u64> {
        let mut pace = Pace::new(Instant(0));
        let mut course = Vec::new();
        for turn in 0..turns {
            let now = Instant(0) + TURN * turn as u32;
            assert!(pace.is_due(now));
            pace.decide(now, options, 1 << 20, false);
            let sectors = pace.allowance(now, options);
            pace.asked(sectors);
            assert_eq!(pace.allowance(now, options), 0, "one turn's worth a turn");
            pace.came(sectors);
            course.push(sectors);
        }
        course
    }

    #[test]
    fn it_begins_with_the_rate_and_goes_on_with_the_fill_target() {
        // 30 MiB/s are 6144 sectors a turn. (Capture 01a: 65496 KB in 1.7 to 2.1 s.)
        let course = course(&options(), 600);
        assert_eq!(course[..4], [6144, 6456, 6776, 7120]);
        let first_20_kib = course[..20].iter().sum::<u64>() / 2;
        assert!((65_496..110_000).contains(&first_20_kib), "{first_20_kib} KiB in two seconds");
        assert!(course.iter().all(|&sectors| sectors <= 20480), "at most 100 MiB/s: {course:?}");
    }

    /// Two kernels needed 42.6 s for 512 MiB at the defaults, and nothing but the controller held them back. (Their turns
    /// were a little longer: they end at a tick.)
    #[test]
    fn at_the_defaults_it_rises_as_upstreams() {
        let options = DiskOptions::default();
        let mut pace = Pace::new(Instant(0));
        let (mut came, mut turns) = (0, 0_u32);
        while came < 512 << 11 {
            let now = Instant(0) + TURN * turns;
            pace.decide(now, &options, 2048, false);
            let allowed = pace.allowance(now, &options);
            let sectors =
                if allowed < BLOCK_SECTORS { 0 } else { longest_blocks(allowed, &options) * BLOCK_SECTORS };
            pace.asked(sectors);
            pace.came(sectors);
            came += sectors;
            turns += 1;
        }
        assert!((340..430).contains(&turns), "{turns} turns of a tenth of a second");
    }

    #[test]
    fn a_slow_link_gets_what_fills_it() {
        let options = DiskOptions { c_fill_target_sectors: 800, resync_rate_kib_per_s: 250, ..options() };
        let mut pace = Pace::new(Instant(0));
        let (mut under_way, mut late) = (0, 0);
        for turn in 0..600_u32 {
            let now = Instant(0) + TURN * turn;
            pace.decide(now, &options, 1 << 20, false);
            let sectors = pace.allowance(now, &options);
            pace.asked(sectors);
            under_way += sectors;
            // The link carries 400 sectors a turn.
            let came = under_way.min(400);
            pace.came(came);
            under_way -= came;
            if turn > 500 {
                late = late.max(under_way);
            }
        }
        assert!((200..=1200).contains(&late), "{late} sectors wait with a target of 800");
    }

    #[test]
    fn buffers_and_users_of_the_device_limit_it() {
        let mut pace = Pace::new(Instant(0));
        pace.decide(Instant(0), &options(), 64, false);
        assert_eq!(pace.allowance(Instant(0), &options()), 32 * 8, "half the buffers of a page each");
        pace.decide(Instant(0) + TURN, &options(), 64, true);
        assert_eq!(pace.allowance(Instant(0) + TURN, &options()), 0, "held");
    }

    #[test]
    fn a_fixed_rate_is_kept() {
        let options = DiskOptions { c_plan_ahead_ds: 0, resync_rate_kib_per_s: 1024, ..options() };
        let mut pace = Pace::new(Instant(0));
        let mut asked = 0;
        for ms in 0..2000_u32 {
            let now = Instant(0) + Duration::from_millis(1) * ms;
            let sectors = pace.allowance(now, &options);
            pace.asked(sectors);
            asked += sectors;
        }
        assert!((4096..4096 + 256).contains(&asked), "{asked} sectors in two seconds at 2048 a second");
    }
}
