//! Power cuts at random moments under load, and every acknowledged write.

use std::time::Duration;

use crate::ledger::Ledger;
use crate::load::Load;
use crate::pair::{Pair, SERVERS, Wish};
use crate::random::SplitMix64;

/// Longer than the peer's loss takes to be noticed.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Victim {
    Primary,
    Secondary,
    /// The Primary first: what it writes alone would be owed by nobody else.
    Both,
}

/// Each of them as often as the others, in an order of chance.
fn victims(rounds: usize, random: &mut SplitMix64) -> Vec<Victim> {
    let kinds = [Victim::Primary, Victim::Secondary, Victim::Both];
    let mut victims: Vec<Victim> = kinds.into_iter().cycle().take(rounds).collect();
    for at in (1..victims.len()).rev() {
        let with = random.below(at as u64 + 1);
        victims.swap(at, usize::try_from(with).expect("an index"));
    }
    victims
}

/// What is cut, how often, and on which disks.
#[derive(Clone, Copy, Debug)]
pub struct PowerCuts {
    /// Part of the lab's name.
    pub name: &'static str,
    /// Type of the volumes.
    pub volume_type: &'static str,
    /// So many rounds; in each the power of one server fails, or of both.
    pub rounds: usize,
    /// Of the random sequence.
    pub seed: u64,
}

/// Cuts the power of servers under a load again and again, and holds both disks against what was acknowledged.
///
/// # Panics
/// At the first block that is not what it must be.
pub fn run(wish: PowerCuts, mirror_load: &str) {
    let PowerCuts { name, volume_type, rounds, seed } = wish;
    let mut random = SplitMix64(seed);
    let pair = Pair::mirrored(Wish { volume_type, ..Wish::small(name) }, mirror_load);
    let mut ledger = Ledger::default();
    let mut primary = 0;
    for (round, victim) in (1_u64..).zip(victims(rounds, &mut random)) {
        let load = |primary: usize, part: u64, random: &mut SplitMix64| {
            let words = format!("stamps /dev/drbd0 {} {}", random.next_u64(), round << 40 | part << 32);
            Load::start(&pair.lab, SERVERS[primary], &words)
        };
        let mut load_now = load(primary, 0, &mut random);
        let mut told = load_now.told(ACKNOWLEDGE_PATIENCE);
        let time = Duration::from_millis(200 + random.below(1200));
        told.extend(load_now.told_for(time));
        let (first, second) = (SERVERS[primary], SERVERS[1 - primary]);
        match victim {
            Victim::Primary => {
                pair.lab.fault(&["power-cut", first]);
                told.extend(load_now.cut());
                told.drain(..).for_each(|line| ledger.take(&line));
                // The peer has to notice before it may take over.
                pair.await_any(second, "alone", |found| found.starts_with("WFConnection"));
                pair.lab.inside(second, "drbdadm primary r0");
                load_now = load(1 - primary, 1, &mut random);
                told.extend(load_now.told(ACKNOWLEDGE_PATIENCE));
                come_back(&pair, first);
                primary = 1 - primary;
                told.extend(load_now.told_for(Duration::from_millis(random.below(600))));
                told.extend(load_now.end());
            }
            Victim::Secondary => {
                pair.lab.fault(&["power-cut", second]);
                told.extend(load_now.told_for(Duration::from_millis(random.below(2500))));
                come_back(&pair, second);
                told.extend(load_now.told_for(Duration::from_millis(random.below(600))));
                told.extend(load_now.end());
            }
            Victim::Both => {
                pair.lab.fault(&["power-cut", first]);
                pair.lab.fault(&["power-cut", second]);
                told.extend(load_now.cut());
                told.drain(..).for_each(|line| ledger.take(&line));
                ledger.forget_unflushed();
                come_back(&pair, first);
                come_back(&pair, second);
            }
        }
        told.iter().for_each(|line| ledger.take(line));
        pair.await_any(SERVERS[primary], "in sync", |found| {
            found.starts_with("Connected") && found.ends_with("UpToDate/UpToDate")
        });
        let disks = pair.down_and_read();
        for (server, disk) in SERVERS.iter().zip(&disks) {
            let faults = ledger.faults(disk);
            let shown = faults.iter().take(8).map(|fault| format!("\n  {fault}")).collect::<String>();
            assert!(
                faults.is_empty(),
                "round {round}, {victim:?} cut: {} blocks on {server}:{shown}",
                faults.len()
            );
        }
        assert!(
            disks[0] == disks[1],
            "round {round}, {victim:?} cut: the disks differ: {}",
            first_difference(&disks)
        );
        let (writes, flushes) = ledger.counts;
        eprintln!("round {round}: {victim:?} cut; {writes} writes and {flushes} flushes acknowledged so far");
        for server in SERVERS {
            pair.lab.inside(server, "drbdadm up r0");
        }
        pair.await_in_sync(SERVERS[primary], "Secondary/Secondary");
        pair.lab.inside(SERVERS[primary], "drbdadm primary r0");
    }
}

fn first_difference(disks: &[Vec<u8>; 2]) -> String {
    let differing: Vec<usize> = (disks[0].chunks(4096).zip(disks[1].chunks(4096)).enumerate())
        .filter(|(_, (a, b))| a != b)
        .map(|(block, _)| block)
        .collect();
    format!("{} blocks, {:?}…", differing.len(), &differing[..differing.len().min(8)])
}

fn come_back(pair: &Pair, server: &str) {
    pair.lab.fault(&["power-on", server]);
    pair.lab.inside(server, "drbdadm up r0");
}
