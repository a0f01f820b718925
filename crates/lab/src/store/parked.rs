//! Requests that wait, so that the threads which take requests need not.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::served::Job;

/// Every request of the store that waits: for a time, or for its volume's faults to change.
#[derive(Debug, Default)]
pub struct Parked {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By time, and in order of arrival where that is the same.
    timed: BTreeMap<(Instant, u64), Job>,
    hanging: BTreeMap<u64, Job>,
    arrivals: u64,
    /// Counts releases: a request that was judged before one is judged again.
    releases: u64,
}

impl Parked {
    /// To be remembered before a request is judged, and given to [`Parked::park`].
    pub fn releases(&self) -> u64 {
        self.lock().releases
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request wait; without `after`, until its volume is released.
    pub fn park(&self, job: Job, after: Option<Duration>, judged_at: u64) {
        let mut waiting = self.lock();
        waiting.arrivals += 1;
        let arrival = waiting.arrivals;
        let released_meanwhile = waiting.releases != judged_at;
        match after {
            Some(after) => drop(waiting.timed.insert((Instant::now() + after, arrival), job)),
            None if released_meanwhile => drop(waiting.timed.insert((Instant::now(), arrival), job)),
            None => drop(waiting.hanging.insert(arrival, job)),
        }
        self.changed.notify_one();
    }

    /// Lets every waiting request of a volume be judged again now.
    pub fn release(&self, volume: Uuid) {
        let mut waiting = self.lock();
        waiting.releases += 1;
        let now = Instant::now();
        let theirs = |job: &Job| job.volume_id() == volume;
        let timed: Vec<(Instant, u64)> =
            waiting.timed.iter().filter(|(_, job)| theirs(job)).map(|(&key, _)| key).collect();
        let hanging: Vec<u64> =
            waiting.hanging.iter().filter(|(_, job)| theirs(job)).map(|(&key, _)| key).collect();
        for key in timed {
            if let Some(job) = waiting.timed.remove(&key) {
                waiting.timed.insert((now, key.1), job);
            }
        }
        for arrival in hanging {
            if let Some(job) = waiting.hanging.remove(&arrival) {
                waiting.timed.insert((now, arrival), job);
            }
        }
        self.changed.notify_one();
    }

    /// Carries out what has waited long enough, for ever.
    ///
    /// # Errors
    /// From the FUSE device.
    pub fn run(&self) -> std::io::Result<()> {
        loop {
            self.next().run(self, true)?;
        }
    }

    fn next(&self) -> Job {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let first = waiting.timed.first_key_value().map(|(&(due, _), _)| due);
            waiting = match first {
                Some(due) if due <= now => {
                    if let Some((_, job)) = waiting.timed.pop_first() {
                        return job;
                    }
                    waiting
                }
                Some(due) => {
                    self.changed.wait_timeout(waiting, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
