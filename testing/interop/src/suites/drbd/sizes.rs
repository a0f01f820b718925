//! Sizes: disks that differ, that grow under a device in use, and sizes that are asked for.

use anyhow::ensure;

use super::grown::{await_sectors, gone, grow, part, put_disk};
use super::meeting::{MIXED, UP, seat_of};
use super::reconnect::announced_kib;
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Sectors of a disk of 32 and of 48 MiB before the meta-data: 4 KiB of bitmap, 32 of log, 4 of superblock.
const SECTORS_32: u64 = 65_536 - 80;
const SECTORS_48: u64 = 98_304 - 80;

/// Bytes where there were none before, and in the old part.
const WRITE_EVERYWHERE: &str = "set -e\n\
     dd if=/dev/urandom of=/dev/drbd0 bs=64k count=4 seek=3 oflag=direct 2>/dev/null\n\
     dd if=/dev/urandom of=/dev/drbd0 bs=64k count=4 seek=$(($(blockdev --getsz /dev/drbd0) / 128 - 5)) oflag=direct 2>/dev/null";

/// Both on disks of these sizes in MiB, connected; nobody is Primary.
fn meet_on(table: &mut Table, mib: [u32; 2], wish: &Wish) -> anyhow::Result<[Party; 2]> {
    let mut parties = [table.sit(Seat::First, MIXED[0], wish)?, table.sit(Seat::Second, MIXED[1], wish)?];
    for (party, mib) in parties.iter_mut().zip(mib) {
        put_disk(party, mib, 512)?;
        party.run(UP)?;
    }
    for party in &mut parties {
        party.await_state("Connected Secondary/Secondary Inconsistent/Inconsistent")?;
    }
    Ok(parties)
}

fn in_sync_on(table: &mut Table, mib: [u32; 2], primary: Seat) -> anyhow::Result<[Party; 2]> {
    let mut parties = meet_on(table, mib, &Wish::TUTORIAL)?;
    parties[primary as usize].run("drbdadm primary --force r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    Ok(parties)
}

/// Both disks grow while the device is in use; one side's administrator has it used. The new part, and no more, is synced.
pub fn grows(table: &mut Table, primary: Maker, by: Maker, assume_clean: bool) -> anyhow::Result<()> {
    let (primary, by) = (seat_of(primary), seat_of(by));
    let mut parties = in_sync_on(table, [32, 32], primary)?;
    await_sectors(&mut parties[primary as usize], SECTORS_32)?;
    parties[primary as usize].run(WRITE_EVERYWHERE)?;
    parties[0].run("dmesg -C")?;
    for party in &mut parties {
        grow(party, 48)?;
    }
    let option = if assume_clean { " -- --assume-clean" } else { "" };
    parties[by as usize].run(&format!("drbdadm{option} resize r0"))?;
    await_sectors(&mut parties[primary as usize], SECTORS_48)?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    if assume_clean {
        ensure!(announced_kib(&mut parties[0]).is_err(), "there was a resync");
    } else {
        let announced = announced_kib(&mut parties[0])?;
        let new = (SECTORS_48 - SECTORS_32) / 2;
        ensure!(announced == new, "{announced} KiB are synced where {new} KiB are new");
    }
    parties[primary as usize].run(WRITE_EVERYWHERE)?;
    // Nobody looks at what counts as equal and is not.
    if assume_clean { gone(parties) } else { part(parties, primary as usize) }
}

/// The smaller disk decides.
pub fn differ(table: &mut Table, smaller: Maker) -> anyhow::Result<()> {
    let smaller = seat_of(smaller);
    let mib = if smaller == Seat::First { [32, 48] } else { [48, 32] };
    let primary = smaller.other();
    let mut parties = in_sync_on(table, mib, primary)?;
    await_sectors(&mut parties[primary as usize], SECTORS_32)?;
    parties[primary as usize].run(WRITE_EVERYWHERE)?;
    // The smaller one grows, and with it the device.
    grow(&mut parties[smaller as usize], 48)?;
    parties[primary as usize].run("drbdadm resize r0")?;
    await_sectors(&mut parties[primary as usize], SECTORS_48)?;
    part(parties, primary as usize)
}

/// A peer with a smaller disk is refused by whoever has data on more than that.
pub fn too_small(table: &mut Table, smaller: Maker) -> anyhow::Result<()> {
    let smaller = seat_of(smaller);
    let keeper = smaller.other();
    let mut parties = in_sync_on(table, [48, 48], keeper)?;
    parties[keeper as usize].run(WRITE_EVERYWHERE)?;
    parties[smaller as usize].run("drbdadm down r0")?;
    super::grown::lose(&mut parties[smaller as usize])?;
    put_disk(&mut parties[smaller as usize], 32, 512)?;
    parties[smaller as usize].run(UP)?;
    parties[keeper as usize].await_state("StandAlone Primary/Unknown UpToDate/DUnknown")?;
    await_sectors(&mut parties[keeper as usize], SECTORS_48)?;
    parties[keeper as usize].run("drbdadm secondary r0")?;
    gone(parties)
}

/// A size that one side's administrator asks for holds on both, smaller and larger.
pub fn asked_for(table: &mut Table, by: Maker) -> anyhow::Result<()> {
    let by = seat_of(by);
    let mut parties = in_sync_on(table, [32, 32], by)?;
    for (size, sectors) in [("16M", 32_768), ("24M", 49_152), ("0", SECTORS_32)] {
        parties[by as usize].run(&format!("drbdadm -- --size={size} resize r0"))?;
        await_sectors(&mut parties[by as usize], sectors)?;
        for party in &mut parties {
            party.await_in_sync()?;
        }
        parties[by as usize].run(WRITE_EVERYWHERE)?;
    }
    part(parties, by as usize)
}

/// The words and numbers with which either refuses.
pub fn refusals(table: &mut Table) -> anyhow::Result<()> {
    let mut parties = meet_on(table, [32, 32], &Wish::TUTORIAL)?;
    for party in &mut parties {
        let said = party.refused("drbdadm resize r0", 10)?;
        ensure!(said.contains("(131) Need one Primary node to resize."), "{said}");
    }
    parties[0].run("drbdadm primary --force r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    for party in &mut parties {
        let said = party.refused("drbdadm -- --al-stripes=1 --al-stripe-size-kB=16 resize r0", 10)?;
        ensure!(said.contains("(168) Resulting AL are too small"), "{said}");
    }
    part(parties, 0)
}
