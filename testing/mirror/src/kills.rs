//! The daemon is killed under a mounted file system, again and again.

use std::time::Duration;

use testing_lab::TestLab;

use crate::load::Load;
use crate::pair::{Pair, Wish};
use crate::random::SplitMix64;

/// Longer than a worker takes to come back and the peer to notice.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(20);

/// The holder waits for five seconds before it starts a worker whose predecessors died soon.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(45);

/// A holder gives up after ten workers that died within ten seconds each: after every fifth of a server there is a rest.
const REST: Duration = Duration::from_secs(12);
const KILLS_BEFORE_REST: usize = 5;

/// The worker's process id in a server; the holder's is another.
const WORKER: &str = "pgrep -f 'lockstep drbd worker$'";

/// How a worker ends.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// SIGKILL.
    Kill,
    /// Its holder starts another one.
    Upgrade,
}

/// So many SIGKILLs, most of them of the primary's daemon.
pub fn kills(rounds: usize, random: &mut SplitMix64) -> Vec<(&'static str, Death)> {
    (0..rounds).map(|_| (if random.below(3) == 0 { "drbd1" } else { "drbd0" }, Death::Kill)).collect()
}

/// Waits until the worker is another one than `before`.
#[track_caller]
fn await_successor(lab: &TestLab, server: &str, before: &str) {
    let is_new = format!("now=$({WORKER}) && test \"$now\" != {before}");
    lab.within(SUCCESSOR_PATIENCE, server, &is_new);
}

/// Ends daemons one after the other while records are appended to a file, and looks for each of them in the end.
///
/// # Panics
/// If the load stands still, a record is missing or there twice, or the disks differ.
pub fn run(name: &'static str, deaths: &[(&str, Death)], random: &mut SplitMix64, mirror_load: &str) {
    let pair = Pair::mirrored(Wish::small(name), mirror_load);
    let lab = &pair.lab;
    lab.inside("drbd0", "mkfs.ext4 -q /dev/drbd0 && mkdir -p /drbd && mount /dev/drbd0 /drbd");
    let mut load = Load::start(lab, "drbd0", "append /drbd/log");
    let mut told = load.told(ACKNOWLEDGE_PATIENCE);
    for (round, (server, death)) in (1_usize..).zip(deaths) {
        let earlier = deaths[..round - 1].iter().filter(|(other, _)| other == server).count();
        let rests = earlier % KILLS_BEFORE_REST == KILLS_BEFORE_REST - 1;
        let rest = if rests { REST } else { Duration::from_millis(random.below(400)) };
        told.extend(load.told_for(rest));
        let worker = lab.inside(server, WORKER);
        let words = match death {
            Death::Kill => format!("kill -9 {}", worker.trim()),
            Death::Upgrade => "lockstep drbd upgrade".to_owned(),
        };
        lab.inside(server, &words);
        await_successor(lab, server, worker.trim());
        // The writer waits and goes on; what it says after a successor is there is new.
        told.extend(load.told(ACKNOWLEDGE_PATIENCE));
        pair.await_in_sync("drbd0", "Primary/Secondary");
        let before = told.len();
        told.extend(load.told(ACKNOWLEDGE_PATIENCE));
        assert!(told.len() > before, "{server}# {words}: the load stands still");
        eprintln!("round {round}: {death:?} on {server}; {} records acknowledged so far", told.len());
    }
    told.extend(load.end());
    assert_eq!(lab.inside("drbd0", "grep -c ' /drbd ext4 rw' /proc/mounts"), "1\n", "remounted read-only");
    let log = lab.inside("drbd0", "cat /drbd/log");
    let expected: Vec<String> = (0..told.len()).map(|number| number.to_string()).collect();
    assert!(told == expected, "acknowledgements are missing or doubled");
    assert!(log.lines().eq(expected.iter().map(String::as_str)), "records are missing or doubled");
    lab.inside("drbd0", "umount /drbd && e2fsck -fn /dev/drbd0 && drbdadm secondary r0");
    let disks = pair.down_and_read();
    assert!(disks[0] == disks[1], "the disks differ");
}
