//! Lower versions of the protocol: ours offers no more, and the kernel agrees to that.

use anyhow::ensure;

use super::meeting::{MIXED, in_sync, seat_of};
use super::reconnect::announced_kib;
use super::replication::MIXED_WRITES;
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// What a node writes while it is alone: blocks here and there, and a run of them.
const ALONE: &str = "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=15 seek=100 oflag=direct 2>/dev/null\n\
     for k in $(seq 1 2 32); do dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek=$((9000 + k)) oflag=direct 2>/dev/null; done";

/// How much that is.
const ALONE_KIB: u64 = 1024;

/// Writes larger than a packet of the version carries, discards, and zeroes.
const LARGE_CHANGES: &str = "set -e\n\
     dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 seek=40 oflag=direct 2>/dev/null\n\
     blkdiscard -z -o 44040192 -l 1048576 /dev/drbd0; sync";

/// First sync, writes, a reconnect with bitmaps in either direction, a split brain that one side loses: all of it in
/// this version. `source` is Primary first.
pub fn a_life(table: &mut Table, version: u32, source: Maker) -> anyhow::Result<()> {
    let wish = Wish { protocol_max: Some(version), ..Wish::TUTORIAL };
    let seat = seat_of(source);
    let mut parties = in_sync(table, MIXED, &wish, seat)?;
    let log = parties[Seat::First as usize].run("dmesg")?;
    let agreed = log.lines().rev().find(|line| line.contains("Agreed network protocol version"));
    let expected = format!("Agreed network protocol version {version}");
    // The kernel's line goes on with the features in newer versions.
    let is_agreed = agreed
        .and_then(|line| line.split_once(&expected))
        .is_some_and(|(_, rest)| !rest.starts_with(|next: char| next.is_ascii_digit()));
    ensure!(is_agreed, "not {expected:?} but {agreed:?}");
    for primary in [seat, seat.other()] {
        parties[primary as usize].run("drbdadm primary r0")?;
        parties[primary as usize].run(MIXED_WRITES)?;
        parties[primary as usize].run(LARGE_CHANGES)?;
        reads_through_its_peer(&mut parties, primary)?;
        reconnects(&mut parties, primary)?;
        parties[primary as usize].run("drbdadm secondary r0")?;
    }
    split_brain(&mut parties, seat)?;
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// A Primary whose disk is detached reads long pieces from its peer, and gets its disk back.
fn reads_through_its_peer(parties: &mut [Party; 2], primary: Seat) -> anyhow::Result<()> {
    let node = &mut parties[primary as usize];
    let before = node.device_digest()?;
    node.run("drbdadm detach r0")?;
    node.await_state("Connected Primary/Secondary Diskless/UpToDate")?;
    ensure!(node.device_digest()? == before, "{} reads other bytes through its peer", primary.name());
    node.run("dd if=/dev/urandom of=/dev/drbd0 bs=256k count=4 seek=9 oflag=direct 2>/dev/null")?;
    node.run("drbdadm attach r0")?;
    parties.iter_mut().try_for_each(Side::await_in_sync)
}

/// While the Secondary is away the Primary writes; that and no more is sent when it is back.
fn reconnects(parties: &mut [Party; 2], primary: Seat) -> anyhow::Result<()> {
    parties[primary.other() as usize].run("drbdadm disconnect r0")?;
    parties[primary as usize].await_state("WFConnection Primary/Unknown UpToDate/*")?;
    parties[primary as usize].run(ALONE)?;
    parties[Seat::First as usize].run("dmesg -C")?;
    parties[primary.other() as usize].run("drbdadm connect r0")?;
    parties.iter_mut().try_for_each(Side::await_in_sync)?;
    let announced = announced_kib(&mut parties[Seat::First as usize])?;
    ensure!(announced == ALONE_KIB, "{announced} KiB are synced where {ALONE_KIB} KiB were written");
    Ok(())
}

/// Both are Primary alone; `kept` keeps what it wrote, and is Primary in the end.
fn split_brain(parties: &mut [Party; 2], kept: Seat) -> anyhow::Result<()> {
    for side in parties.iter_mut() {
        side.run("drbdadm disconnect r0")?;
        side.await_state("StandAlone *")?;
    }
    for side in parties.iter_mut() {
        side.run("drbdadm primary --force r0")?;
        side.run("dd if=/dev/urandom of=/dev/drbd0 bs=4k count=3 seek=50 oflag=direct 2>/dev/null")?;
    }
    for side in parties.iter_mut() {
        side.run("drbdadm connect r0")?;
    }
    parties[Seat::Second as usize].await_state("StandAlone Primary/Unknown UpToDate/*")?;
    for side in parties.iter_mut() {
        side.run("[ $(drbdadm cstate r0) = StandAlone ] || drbdadm disconnect r0")?;
        side.await_state("StandAlone Primary/Unknown UpToDate/*")?;
    }
    parties[kept.other() as usize].run("drbdadm secondary r0 && drbdadm connect --discard-my-data r0")?;
    parties[kept as usize].run("drbdadm connect r0")?;
    parties.iter_mut().try_for_each(Side::await_in_sync)
}
