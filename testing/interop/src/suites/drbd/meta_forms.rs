//! Meta-data outside the data's disk, in a slot, and on disks with sectors of 4 KiB.

use anyhow::ensure;

use super::grown::{meta_elsewhere, part, put, put_disk};
use super::load::Writes;
use super::meeting::{MIXED, UP, seat_of};
use super::reconnect::{FULL_SYNC_KIB, announced_kib};
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Where the meta-data are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// A disk of their own, all of it.
    Flexible,
    /// The second slot of 128 MiB of a disk.
    Slot,
}

impl Form {
    fn mib(self) -> u32 {
        match self {
            Self::Flexible => 2,
            Self::Slot => 256,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Flexible => "flexible-meta-disk /dev/own/meta",
            Self::Slot => "meta-disk /dev/own/meta[1]",
        }
    }
}

fn sit(table: &mut Table, seat: Seat, maker: Maker, form: Form) -> anyhow::Result<Party> {
    let wish = Wish { net: "timeout 20; ping-timeout 5;", ..Wish::TUTORIAL };
    let mut party = table.sit(seat, maker, &wish)?;
    put(&mut party, "meta", form.mib(), 512)?;
    meta_elsewhere(&mut party, form.words())?;
    Ok(party)
}

/// Both have their meta-data elsewhere; everything is synced, and after a disconnect only what was written.
pub fn elsewhere(table: &mut Table, form: Form) -> anyhow::Result<()> {
    let mut parties = [sit(table, Seat::First, MIXED[0], form)?, sit(table, Seat::Second, MIXED[1], form)?];
    for party in &mut parties {
        party.run(UP)?;
    }
    parties[1].await_state("Connected *")?;
    parties[1].run("drbdadm primary --force r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    // The whole disk is data's.
    let sectors = parties[1].run("blockdev --getsz /dev/drbd0")?;
    ensure!(sectors.trim() == "131072", "{sectors}");
    parties[0].run("drbdadm disconnect r0")?;
    parties[1].await_state("WFConnection *")?;
    parties[1].run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=1 seek=63 oflag=direct 2>/dev/null")?;
    parties[0].run("dmesg -C; drbdadm connect r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    let announced = announced_kib(&mut parties[0])?;
    ensure!(announced == 1024, "{announced} KiB are synced where 1024 were written");
    part(parties, 1)
}

/// A Primary with its meta-data elsewhere loses its processes and comes back: the log there tells what to sync.
pub fn crash_with_meta_elsewhere(table: &mut Table) -> anyhow::Result<()> {
    let mut kernel = sit(table, Seat::First, Maker::Kernel, Form::Flexible)?;
    let mut ours = sit(table, Seat::Second, Maker::Ours, Form::Flexible)?;
    kernel.run(UP)?;
    ours.run(UP)?;
    ours.await_state("Connected *")?;
    ours.run("drbdadm primary --force r0")?;
    ours.await_in_sync()?;
    kernel.await_in_sync()?;
    let mut writes = Writes::default();
    writes.start(&mut ours)?;
    // The daemon and who would start another one end at once, and the node with its disks stays.
    ours.run(
        "sleep 1; kill -9 $(pidof lockstep); umount -l /run/lockstep/drbd/minor-0; rm -f /dev/drbd0\n\
         for i in $(seq 100); do pidof mirror-load >/dev/null || break; sleep 0.1; done",
    )?;
    writes.cut()?;
    kernel.await_state("WFConnection *")?;
    kernel.run("dmesg -C")?;
    ours.run("drbdadm up r0")?;
    for party in [&mut kernel, &mut ours] {
        party.await_in_sync()?;
    }
    let announced = announced_kib(&mut kernel)?;
    ensure!(announced < FULL_SYNC_KIB, "{announced} KiB were sent: that is a full sync");
    kernel.run("drbdadm primary r0")?;
    part([kernel, ours], 0)
}

/// A disk with its meta-data internal and sectors of 4 KiB on one side, of 512 bytes on the other.
pub fn large_sectors(table: &mut Table, large: Maker, primary: Maker) -> anyhow::Result<()> {
    let (large, primary) = (seat_of(large), seat_of(primary));
    let mut parties = [
        table.sit(Seat::First, MIXED[0], &Wish::TUTORIAL)?,
        table.sit(Seat::Second, MIXED[1], &Wish::TUTORIAL)?,
    ];
    for party in &mut parties {
        let sector_bytes = if party.seat() == large { 4096 } else { 512 };
        put_disk(party, 48, sector_bytes)?;
        party.run(UP)?;
    }
    parties[primary as usize].await_state("Connected *")?;
    parties[primary as usize].run("drbdadm primary --force r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    parties[primary as usize].run(
        "set -e; mkfs.ext4 -q -b 4096 /dev/drbd0; mkdir -p /run/m; mount /dev/drbd0 /run/m\n\
         head -c 3000001 /dev/urandom >/run/m/f; sync; umount /run/m",
    )?;
    part(parties, primary as usize)
}

/// A node that is stopped in order has nothing to mark when it comes back, not even after an earlier crash whose peer it
/// has not met since.
pub fn orderly_stop_marks_nothing(table: &mut Table) -> anyhow::Result<()> {
    let mut parties = super::meeting::in_sync(table, MIXED, &Wish::TUTORIAL, Seat::Second)?;
    const WRITE: &str = "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 oflag=direct 2>/dev/null";
    parties[0].run("drbdadm disconnect r0")?;
    let ours = &mut parties[1];
    ours.await_state("WFConnection *")?;
    ours.run(WRITE)?;
    ours.run("kill -9 $(pidof lockstep); umount -l /run/lockstep/drbd/minor-0; rm -f /dev/drbd0; sleep 0.5")?;
    ours.run(&format!("drbdadm up r0; drbdadm primary r0; {WRITE}; drbdadm secondary r0; drbdadm down r0"))?;
    // What drbdadm says, and what the daemon adds to its log.
    let said = ours.run(
        "lines=$(wc -l </var/log/lockstep/drbd.log); drbdadm up r0 2>&1; tail -n +$((lines + 1)) /var/log/lockstep/drbd.log",
    )?;
    ensure!(said.contains("disk( Attaching -> UpToDate )"), "the log says nothing of the disk:\n{said}");
    ensure!(!said.contains("Marked additional"), "{said}");
    let kernel = &mut parties[0];
    kernel.run("drbdadm connect r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
    }
    table.part(parties)
}
