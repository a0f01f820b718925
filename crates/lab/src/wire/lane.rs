//! One way of a wire: frames go in, and come out late or never. Knows no sockets and no clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::quality::Quality;
use crate::random::SplitMix64;

/// What is on the way at most; more is lost. It is what 1 Gbit/s carries in a quarter of a second.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// A limited rate makes frames wait for so long at most; those that would wait longer are lost.
const RATE_WAIT_MAX: Duration = Duration::from_millis(200);

/// Frames on their way. Invariant: they leave in the order in which they came.
#[derive(Debug)]
pub struct Lane {
    quality: Quality,
    random: SplitMix64,
    queue: VecDeque<(Duration, Vec<u8>)>,
    queued_bytes: usize,
    /// When the last frame so far has passed at the limited rate.
    free_at: Duration,
    /// When the last frame so far leaves.
    last_due: Duration,
}

impl Lane {
    /// Nothing on its way; `seed` decides what is lost.
    pub fn new(quality: Quality, seed: u64) -> Self {
        Self {
            quality,
            random: SplitMix64(seed),
            queue: VecDeque::new(),
            queued_bytes: 0,
            free_at: Duration::ZERO,
            last_due: Duration::ZERO,
        }
    }

    /// From now on; what is on its way arrives as it would have.
    pub fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// A frame of `wire_bytes` goes in at `now`. Two draws for each, whatever is wrong: the loss of one fault does not
    /// depend on another.
    pub fn push(&mut self, now: Duration, frame: Vec<u8>, wire_bytes: usize) {
        let (loss, jitter) = (self.random.unit() * 100.0, self.random.unit() * 2.0 - 1.0);
        if loss < self.quality.loss_percent || self.queued_bytes + frame.len() > QUEUE_BYTES_MAX {
            return;
        }
        let mut due = now;
        if self.quality.rate_mbit > 0.0 {
            let begins = now.max(self.free_at);
            if begins - now > RATE_WAIT_MAX {
                return;
            }
            let takes_s = wire_bytes as f64 * 8.0 / (self.quality.rate_mbit * 1e6);
            due = begins + Duration::from_secs_f64(takes_s);
            self.free_at = due;
        }
        let delay_ms = (self.quality.delay_ms + self.quality.jitter_ms * jitter).max(0.0);
        due = (due + Duration::from_secs_f64(delay_ms / 1e3)).max(self.last_due);
        self.last_due = due;
        self.queued_bytes += frame.len();
        self.queue.push_back((due, frame));
    }

    /// The next frame, if it is time for it.
    pub fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.next_due().filter(|&due| due <= now)?;
        let (_, frame) = self.queue.pop_front()?;
        self.queued_bytes -= frame.len();
        Some(frame)
    }

    /// When the next frame leaves.
    pub fn next_due(&self) -> Option<Duration> {
        self.queue.front().map(|&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Lane, QUEUE_BYTES_MAX};
    use crate::wire::quality::Quality;

    const MS: Duration = Duration::from_millis(1);

    /// Pushes frames of 1000 bytes, `gap` apart; gives when which one came out.
    fn carried(quality: Quality, seed: u64, count: u32, gap: Duration) -> Vec<(Duration, u32)> {
        let mut lane = Lane::new(quality, seed);
        let mut out = Vec::new();
        for number in 0..count {
            let mut frame = vec![0; 1000];
            frame[..4].copy_from_slice(&number.to_be_bytes());
            lane.push(gap * number, frame, 1000);
        }
        while let Some(due) = lane.next_due() {
            let early = due.saturating_sub(Duration::from_nanos(1));
            assert!(due.is_zero() || lane.pop(early).is_none(), "a frame came too early");
            let frame = lane.pop(due).expect("it is time");
            out.push((due, u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])));
        }
        out
    }

    #[test]
    fn loss_is_the_seeds_and_as_often_as_said() {
        let lossy = Quality { loss_percent: 10.0, ..Quality::default() };
        let out = carried(lossy, 7, 10_000, MS);
        assert!((8_800..9_200).contains(&out.len()), "{} of 10000", out.len());
        assert_eq!(out, carried(lossy, 7, 10_000, MS));
        assert_ne!(out, carried(lossy, 8, 10_000, MS));
        assert!(carried(Quality { loss_percent: 100.0, ..lossy }, 7, 1000, MS).is_empty());
        assert_eq!(carried(Quality::default(), 7, 1000, MS).len(), 1000);
    }

    #[test]
    fn delay_with_jitter_keeps_the_order() {
        let late = Quality { delay_ms: 20.0, jitter_ms: 5.0, ..Quality::default() };
        let out = carried(late, 1, 1000, MS);
        assert_eq!(out.len(), 1000);
        assert!(out.is_sorted(), "frames overtook each other");
        let took: Vec<Duration> = out.iter().map(|&(due, number)| due - MS * number).collect();
        let (shortest, longest) = (took.iter().min().expect("some"), took.iter().max().expect("some"));
        assert!(*shortest >= MS * 15 && *longest <= MS * 25 && *longest - *shortest > MS * 5, "{took:?}");
    }

    #[test]
    fn rate_spaces_frames_and_what_waits_too_long_is_lost() {
        // 8 Mbit/s: a frame of 1000 bytes a millisecond. They come twice as fast.
        let slow = Quality { rate_mbit: 8.0, ..Quality::default() };
        let out = carried(slow, 1, 2000, MS / 2);
        assert!((1150..1250).contains(&out.len()), "{} frames in a second and what waits", out.len());
        assert!(out.windows(2).all(|pair| pair[1].0 - pair[0].0 >= MS));
    }

    #[test]
    fn the_queue_is_bounded() {
        let late = Quality { delay_ms: 60_000.0, ..Quality::default() };
        let out = carried(late, 1, 40_000, Duration::ZERO);
        assert_eq!(out.len(), QUEUE_BYTES_MAX / 1000);
    }
}
