//! Digests in front of the data, and of what a resync need not send.

use anyhow::ensure;

use super::meeting::{MIXED, in_sync, seat_of};
use super::table::{Maker, Table};
use super::verify::{counter, forget_log, log};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// With digests in front of the data both replicate: writes, reads of a diskless Primary, a resync, discards.
pub fn integrity(table: &mut Table, net: &'static str) -> anyhow::Result<()> {
    let mut parties = in_sync(table, MIXED, &Wish { net, ..Wish::TUTORIAL }, Seat::First)?;
    for at in 0..2 {
        let node = &mut parties[at];
        node.run(
            "set -e; dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 oflag=direct 2>/dev/null\n\
             dd if=/dev/urandom of=/dev/drbd0 bs=512 count=5 seek=40001 oflag=direct 2>/dev/null\n\
             blkdiscard -o 1048576 -l 1048576 /dev/drbd0",
        )?;
        let before = node.device_digest()?;
        node.run("drbdadm detach r0")?;
        node.await_state("Connected Primary/Secondary Diskless/UpToDate")?;
        ensure!(node.device_digest()? == before, "it reads other bytes through its peer");
        node.run("dd if=/dev/urandom of=/dev/drbd0 bs=64k count=16 seek=100 oflag=direct 2>/dev/null")?;
        node.run("drbdadm attach r0")?;
        for side in &mut parties {
            side.await_in_sync()?;
        }
        parties[at].run("drbdadm secondary r0")?;
        if at == 0 {
            parties[1].run("drbdadm primary r0")?;
        }
    }
    for side in &mut parties {
        let said = log(side)?;
        ensure!(!said.contains("Digest integrity check FAILED"), "{}:\n{said}", side.seat().name());
    }
    table.part(parties)
}

/// A resync with checksums sends only what differs: of what was written again with the same bytes nothing.
pub fn resync(table: &mut Table, source: Maker, net: &'static str) -> anyhow::Result<()> {
    let seat = seat_of(source);
    let mut parties = in_sync(table, MIXED, &Wish { net, ..Wish::TUTORIAL }, seat)?;
    let node = &mut parties[seat as usize];
    node.run(
        "set -e; head -c 8388608 /dev/urandom >/run/piece\n\
         dd if=/run/piece of=/dev/drbd0 bs=64k oflag=direct 2>/dev/null",
    )?;
    node.run("drbdadm disconnect r0")?;
    node.await_state("StandAlone *")?;
    // The same again, and in the last quarter something else.
    node.run(
        "set -e; dd if=/run/piece of=/dev/drbd0 bs=64k oflag=direct 2>/dev/null\n\
         dd if=/dev/urandom of=/dev/drbd0 bs=64k count=32 seek=96 oflag=direct 2>/dev/null",
    )?;
    for side in &mut parties {
        forget_log(side)?;
    }
    parties[seat as usize].run("drbdadm connect r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    let expected = "75 % had equal checksums, eliminated: 6144K; transferred 2048K total 8192K";
    for side in &mut parties {
        let said = log(side)?;
        ensure!(said.contains(expected), "{} does not say {expected:?}:\n{said}", side.seat().name());
    }
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// Zeroes of a resync are not sent but said, if both know how.
pub fn thin(table: &mut Table, source: Maker) -> anyhow::Result<()> {
    let seat = seat_of(source);
    let wish = Wish { disk: "rs-discard-granularity 65536;", ..Wish::TUTORIAL };
    let mut parties = in_sync(table, MIXED, &wish, seat)?;
    let node = &mut parties[seat as usize];
    node.run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=24 oflag=direct 2>/dev/null")?;
    node.run("drbdadm disconnect r0")?;
    node.await_state("StandAlone *")?;
    node.run(
        "set -e; dd if=/dev/zero of=/dev/drbd0 bs=1M count=16 oflag=direct 2>/dev/null\n\
         dd if=/dev/urandom of=/dev/drbd0 bs=4k count=3 seek=100 oflag=direct 2>/dev/null\n\
         drbdadm connect r0",
    )?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    // What the target got over the wire: the few blocks, not 16 MiB of zeroes.
    let received = counter(&mut parties[seat.other() as usize], "nr")?;
    ensure!(received < (64 + 24 + 8) << 10, "the target received {received} KiB");
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
