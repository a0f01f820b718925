//! What an administrator orders about a resync, on either end.

use anyhow::ensure;

use super::meeting::{MIXED, in_sync, meet};
use super::table::Table;
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// The target's resync is paused on one end and goes on when that end says so; then it ends.
pub fn paused(table: &mut Table, by: Seat) -> anyhow::Result<()> {
    let mut parties = meet(table, MIXED, &Wish::TUTORIAL)?;
    // So slow that it can be paused.
    parties[1].run("drbdadm disk-options --resync-rate=2M r0")?;
    parties[0].run("drbdadm primary --force r0")?;
    parties[1].await_state("SyncTarget *")?;
    parties[by as usize].run("drbdadm pause-sync r0")?;
    parties[0].await_state("PausedSyncS Primary/Secondary UpToDate/Inconsistent")?;
    parties[1].await_state("PausedSyncT Secondary/Primary Inconsistent/UpToDate")?;
    parties[by as usize].run("drbdadm resume-sync r0")?;
    parties[0].await_state("SyncSource *")?;
    parties[1].await_state("SyncTarget *")?;
    parties[1].run("drbdadm adjust r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    parties[0].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// One end's data are declared worthless by an order given on one of the ends and come from the other.
pub fn invalidated(table: &mut Table, victim: Seat, ordered_there: bool) -> anyhow::Result<()> {
    let keeper = victim.other();
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, keeper)?;
    parties[keeper as usize]
        .run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=4 oflag=direct 2>/dev/null")?;
    let kept = parties[keeper as usize].device_digest()?;
    let (seat, order) = if ordered_there { (victim, "invalidate") } else { (keeper, "invalidate-remote") };
    parties[seat as usize].run(&format!("drbdadm {order} r0"))?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    ensure!(parties[keeper as usize].device_digest()? == kept, "the data that were kept have changed");
    parties[keeper as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// The first resync is spared: both are declared equal by one end.
pub fn first_sync_is_spared(table: &mut Table, by: Seat) -> anyhow::Result<()> {
    let mut parties = meet(table, MIXED, &Wish::TUTORIAL)?;
    parties[by as usize].run("drbdadm new-current-uuid --clear-bitmap r0/0")?;
    for side in &mut parties {
        side.await_state("Connected Secondary/Secondary UpToDate/UpToDate")?;
    }
    parties[by as usize]
        .run("drbdadm primary r0; dd if=/dev/urandom of=/dev/drbd0 bs=1M count=4 oflag=direct 2>/dev/null")?;
    parties[by as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
