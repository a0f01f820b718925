//! Both were Primary, each for itself.

use anyhow::ensure;

use super::meeting::{MIXED, in_sync};
use super::table::{Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Writes of a node that is alone.
const WRITE: [&str; 2] = [
    "dd if=/dev/urandom of=/dev/drbd0 bs=4k count=3 seek=50 oflag=direct 2>/dev/null",
    "dd if=/dev/urandom of=/dev/drbd0 bs=4k count=5 seek=60 oflag=direct 2>/dev/null",
];

/// Both become Primary for themselves; those of `writers` write. Both are disconnected then.
fn divide(table: &mut Table, wish: &Wish, writers: &[Seat]) -> anyhow::Result<[Party; 2]> {
    let mut parties = in_sync(table, MIXED, wish, Seat::First)?;
    for side in &mut parties {
        side.run("drbdadm disconnect r0")?;
        side.await_state("StandAlone *")?;
    }
    parties[1].run("drbdadm primary --force r0")?;
    for &seat in writers {
        parties[seat as usize].run(WRITE[seat as usize])?;
    }
    Ok(parties)
}

/// They notice, and neither gives up what it has until told; then the one that was told does.
pub fn told_who_loses(table: &mut Table, loser: Seat) -> anyhow::Result<()> {
    let mut parties = divide(table, &Wish::TUTORIAL, &Seat::ALL)?;
    let kept = parties[loser.other() as usize].device_digest()?;
    for side in &mut parties {
        side.run("drbdadm connect r0")?;
    }
    for side in &mut parties {
        side.await_state("StandAlone Primary/Unknown UpToDate/*")?;
    }
    parties[loser as usize].run("drbdadm secondary r0 && drbdadm connect --discard-my-data r0")?;
    parties[loser.other() as usize].run("drbdadm connect r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    ensure!(parties[loser.other() as usize].device_digest()? == kept, "the winner's bytes have changed");
    parties[loser.other() as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
