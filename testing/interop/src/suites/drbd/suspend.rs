//! Times in which the front waits: by order, and while nobody has current data.

use anyhow::ensure;

use super::fencing::PROC;
use super::meeting::{MIXED, in_sync, seat_of};
use super::table::{Maker, Table};
use crate::side::Side;
use crate::tutorial::Wish;

/// Begins to write; after a while it has not ended.
pub const WRITE: &str = "rm -f /run/written
(dd if=/dev/urandom of=/dev/drbd0 bs=4k count=16 seek=7 oflag=direct; echo >/run/written) >/dev/null 2>&1 &
sleep 2; ! [ -e /run/written ]";

/// It ends.
pub const WRITTEN: &str =
    "for i in $(seq 300); do [ -e /run/written ] && exit 0; sleep 0.1; done; echo it still waits; exit 1";

/// A write waits while IO is suspended, and then goes to both.
pub fn by_order(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, seat)?;
    let node = &mut parties[seat as usize];
    node.run("drbdadm suspend-io r0")?;
    node.run(WRITE)?;
    let shown = node.run(PROC)?;
    ensure!(shown.contains(" C s"), "IO is not shown as suspended:\n{shown}");
    let status = node.run("drbdadm status r0")?;
    ensure!(status.contains("suspended:user"), "the status says\n{status}");
    node.run("drbdadm resume-io r0")?;
    node.run(WRITTEN)?;
    let shown = node.run(PROC)?;
    ensure!(shown.contains(" C r"), "IO does not go on:\n{shown}");
    node.run("drbdadm secondary r0")?;
    table.part(parties)
}

/// A primary without a disk that waits for its peer: what it was to write is written when the peer is back.
pub fn without_data(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, seat)?;
    let node = &mut parties[seat as usize];
    node.run("drbdadm resource-options --on-no-data-accessible=suspend-io r0")?;
    node.run("drbdadm detach r0")?;
    node.await_state("Connected Primary/Secondary Diskless/UpToDate")?;
    parties[seat.other() as usize].run("drbdadm disconnect --force r0")?;
    let node = &mut parties[seat as usize];
    node.await_state("WFConnection Primary/Unknown Diskless/DUnknown")?;
    node.run(WRITE)?;
    let shown = node.run(PROC)?;
    ensure!(shown.contains(" C s"), "IO is not shown as suspended:\n{shown}");
    let status = node.run("drbdadm status r0")?;
    ensure!(status.contains("suspended:no-data"), "the status says\n{status}");
    parties[seat.other() as usize].run("drbdadm connect r0")?;
    let node = &mut parties[seat as usize];
    node.await_state("Connected Primary/Secondary Diskless/UpToDate")?;
    node.run(WRITTEN)?;
    node.run("drbdadm attach r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
