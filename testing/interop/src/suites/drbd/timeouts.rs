//! How long two nodes take to find each other again.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::meeting::{KERNELS, MIXED, OURS, in_sync};
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// A node that only listens, or dials in step with the other, needs several times `connect-int`. This is for machines
/// that are busy otherwise.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// Rounds of each kind.
const ROUNDS: u32 = 3;

/// Both are there until the other is, too.
fn seconds_until_connected(parties: &mut [Party; 2], begun: Instant) -> anyhow::Result<f64> {
    for side in parties.iter_mut() {
        side.await_state("Connected * UpToDate/UpToDate")?;
    }
    ensure!(begun.elapsed() < CONNECT_TIME_MAX, "they took {:?}", begun.elapsed());
    Ok(begun.elapsed().as_secs_f64())
}

/// After a disconnect by either, and after a cable that was out: in seconds, for every pair of makers. With the
/// defaults of `connect-int` and `ping-int`.
pub fn connect_times(table: &mut Table) -> anyhow::Result<()> {
    let wish = Wish { net: "connect-int 10; ping-int 10; timeout 60;", ..Wish::TUTORIAL };
    for makers in [KERNELS, MIXED, [Maker::Ours, Maker::Kernel], OURS] {
        let mut parties = in_sync(table, makers, &wish, Seat::First)?;
        parties[0].run("drbdadm secondary r0")?;
        for leaving in Seat::ALL {
            let mut seconds = 0.0;
            for _ in 0..ROUNDS {
                parties[leaving as usize].run("drbdadm disconnect r0")?;
                parties[leaving.other() as usize].await_state("WFConnection *")?;
                let begun = Instant::now();
                parties[leaving as usize].run("drbdadm connect r0")?;
                seconds += seconds_until_connected(&mut parties, begun)?;
            }
            let mean = seconds / f64::from(ROUNDS);
            println!("    {makers:?}: {} left and came back: {mean:.1} s", leaving.name());
        }
        let mut seconds = 0.0;
        for _ in 0..ROUNDS {
            for side in &mut parties {
                side.run("drbdadm disconnect r0")?;
            }
            let begun = Instant::now();
            for side in &mut parties {
                side.run("drbdadm connect r0")?;
            }
            seconds += seconds_until_connected(&mut parties, begun)?;
        }
        println!("    {makers:?}: both connect: {:.1} s", seconds / f64::from(ROUNDS));
        table.part(parties)?;
    }
    Ok(())
}
