//! A primary that loses its peer fences it; what the handler's exit code makes of the states is the same on either side.

use anyhow::ensure;

use super::handlers;
use super::meeting::{MIXED, UP, seat_of};
use super::suspend::{WRITE, WRITTEN};
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// The text of /proc/drbd on either side.
pub const PROC: &str = "if [ -e /proc/drbd ]; then cat /proc/drbd; else lockstep proc drbd; fi";

/// Both in sync, with a policy and a handler on both.
fn fencing_pair(
    table: &mut Table,
    policy: &'static str,
    handler: &str,
    primary: Seat,
) -> anyhow::Result<[Party; 2]> {
    let wish = Wish { disk: policy, ..Wish::TUTORIAL };
    let mut parties = [table.sit(Seat::First, MIXED[0], &wish)?, table.sit(Seat::Second, MIXED[1], &wish)?];
    for party in &mut parties {
        handlers::add(party, &[("fence-peer", handler), ("unfence-peer", "echo >/run/unfenced")])?;
        party.run("rm -f /run/unfenced /run/fence-may-end")?;
        party.run(UP)?;
    }
    for party in &mut parties {
        party.await_state("Connected Secondary/Secondary Inconsistent/Inconsistent")?;
    }
    parties[primary as usize].run("drbdadm primary --force r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    Ok(parties)
}

/// After the handler's word the peer's disk is in this state, and the primary goes on.
pub fn handler_says(
    table: &mut Table,
    primary: Maker,
    handler: &str,
    policy: &'static str,
    peer_disk: &str,
) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = fencing_pair(table, policy, handler, seat)?;
    parties[seat.other() as usize].run("drbdadm disconnect --force r0")?;
    let node = &mut parties[seat as usize];
    node.await_state(&format!("WFConnection Primary/Unknown UpToDate/{peer_disk}"))?;
    node.run("dd if=/dev/urandom of=/dev/drbd0 bs=4k count=16 seek=7 oflag=direct 2>/dev/null")?;
    parties[seat.other() as usize].run("drbdadm connect r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    // The source takes away what kept the other back.
    parties[seat as usize]
        .run("for i in $(seq 200); do [ -e /run/unfenced ] && exit 0; sleep 0.1; done; exit 1")?;
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// With `resource-and-stonith` nothing is written until the handler has ended.
pub fn stonith_freezes(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let handler = "while ! [ -e /run/fence-may-end ]; do sleep 0.2; done; exit 7";
    let mut parties = fencing_pair(table, "fencing resource-and-stonith;", handler, seat)?;
    parties[seat.other() as usize].run("drbdadm disconnect --force r0")?;
    let node = &mut parties[seat as usize];
    node.await_state("WFConnection Primary/Unknown UpToDate/DUnknown")?;
    node.run(WRITE)?;
    let shown = node.run(PROC)?;
    ensure!(shown.contains(" C s"), "IO is not shown as suspended:\n{shown}");
    node.run("touch /run/fence-may-end")?;
    node.run(WRITTEN)?;
    node.await_state("WFConnection Primary/Unknown UpToDate/Outdated")?;
    let shown = node.run(PROC)?;
    ensure!(shown.contains(" C r"), "IO does not go on:\n{shown}");
    parties[seat.other() as usize].run("drbdadm connect r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// A handler that is of no use leaves the front frozen; when the peer is back, the frozen writes go to it, and no resync
/// was needed.
pub fn peer_returns_to_frozen(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = fencing_pair(table, "fencing resource-and-stonith;", "exit 1", seat)?;
    let before = parties[seat as usize].run("drbdadm get-gi r0")?;
    parties[seat.other() as usize].run("drbdadm disconnect --force r0")?;
    let node = &mut parties[seat as usize];
    node.await_state("WFConnection Primary/Unknown UpToDate/DUnknown")?;
    node.run(WRITE)?;
    parties[seat.other() as usize].run("drbdadm connect r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    let node = &mut parties[seat as usize];
    node.run(WRITTEN)?;
    let after = node.run("drbdadm get-gi r0")?;
    let current = |text: &str| text.split(':').next().map(str::to_owned);
    ensure!(current(&before) == current(&after), "a generation has begun: {before} {after}");
    node.run("drbdadm secondary r0")?;
    table.part(parties)
}

/// A primary that fences leaves in order: the peer is outdated by that, and no primary.
pub fn leaving_outdates(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = fencing_pair(table, "fencing resource-only;", "exit 1", seat)?;
    parties[seat as usize].run("drbdadm disconnect r0")?;
    parties[seat as usize].await_state("StandAlone Primary/Unknown UpToDate/Outdated")?;
    parties[seat.other() as usize].await_state("* Secondary/Unknown Outdated/DUnknown")?;
    parties[seat.other() as usize].refused("drbdadm primary r0", 17)?;
    parties[seat as usize].run("drbdadm connect r0")?;
    for party in &mut parties {
        party.run("[ $(drbdadm cstate r0) != StandAlone ] || drbdadm connect r0")?;
        party.await_in_sync()?;
    }
    // The secondary wants to leave: it must outdate itself.
    parties[seat.other() as usize].run("drbdadm disconnect r0")?;
    parties[seat.other() as usize].await_state("StandAlone Secondary/Unknown Outdated/DUnknown")?;
    parties[seat as usize].await_state("* Primary/Unknown UpToDate/Outdated")?;
    parties[seat.other() as usize].run("drbdadm connect r0")?;
    for party in &mut parties {
        party.run("[ $(drbdadm cstate r0) != StandAlone ] || drbdadm connect r0")?;
        party.await_in_sync()?;
    }
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
