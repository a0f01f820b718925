//! Connections that end, and what is sent when they are back.

use anyhow::{Context, ensure};

use super::load::Writes;
use super::meeting::{MIXED, UP, in_sync, seat_of};
use super::table::{Maker, Party, Table};
use crate::ours;
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Three quarters of the disk: writers stay in the first one.
pub const FULL_SYNC_KIB: u64 = 48 << 10;

/// What a kernel said of the last resync: KiB that are to be sent.
pub fn announced_kib(kernel: &mut dyn Side) -> anyhow::Result<u64> {
    let log = kernel.run("dmesg")?;
    log.lines()
        .rev()
        .find_map(|line| line.split_once("(will sync ")?.1.split_once(" KB")?.0.parse().ok())
        .with_context(|| format!("the kernel announced no resync:\n{log}"))
}

/// While the Secondary is away the Primary writes 1 MiB; when it is back, that and no more is sent.
pub fn sends_what_differs(table: &mut Table, primary: Maker, wish: &Wish) -> anyhow::Result<()> {
    const WRITTEN_KIB: u64 = 1024;
    let seat = seat_of(primary);
    let mut parties = in_sync(table, MIXED, wish, seat)?;
    parties[seat.other() as usize].run("drbdadm disconnect r0")?;
    let writer = &mut parties[seat as usize];
    writer.await_state("WFConnection Primary/Unknown UpToDate/*")?;
    writer.run(
        "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=15 seek=100 oflag=direct 2>/dev/null\n\
         for k in $(seq 1 2 32); do dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek=$((9000 + k)) oflag=direct 2>/dev/null; done",
    )?;
    parties[0].run("dmesg -C")?;
    parties[seat.other() as usize].run("drbdadm connect r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    let announced = announced_kib(&mut parties[0])?;
    ensure!(announced == WRITTEN_KIB, "{announced} KiB are synced where {WRITTEN_KIB} KiB were written");
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// How the connection ends.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// The Secondary's administrator ends it.
    Disconnect,
    /// Frames are lost in both directions; the timeouts tell.
    Cable,
    /// What this maker's node sends is lost; what it is sent arrives.
    Mute(Maker),
}

/// Whether a node's frames go to nobody. Its peer's still arrive.
fn set_mute(parties: &mut [Party; 2], mute: Seat, is_mute: bool) -> anyhow::Result<()> {
    let address = mute.other().address();
    let node = &mut parties[mute as usize];
    let card = node.run("ip -o -4 addr show to 172.16.16.0/24 | awk '{ print $2; exit }'")?;
    let card = card.trim();
    let change = if is_mute {
        format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev {card} nud permanent")
    } else {
        format!("ip neigh del {address} dev {card}")
    };
    node.run(&change).map(drop)
}

/// The connection is lost and comes back three times while the Primary writes; no acknowledged write is missing.
pub fn under_load(table: &mut Table, primary: Maker, loss: Loss) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let wish = Wish { net: "timeout 20; ping-timeout 5;", ..Wish::TUTORIAL };
    let mut parties = in_sync(table, MIXED, &wish, seat)?;
    let mut writes = Writes::default();
    let cable = ours::cable(seat_of(Maker::Ours));
    writes.start(&mut parties[seat as usize])?;
    for _ in 0..3 {
        match loss {
            Loss::Disconnect => parties[seat.other() as usize].run("drbdadm disconnect r0").map(drop)?,
            Loss::Cable => table.segment().set_cable(&cable, false)?,
            Loss::Mute(maker) => set_mute(&mut parties, seat_of(maker), true)?,
        }
        parties[seat as usize].await_state("WFConnection Primary/Unknown UpToDate/*")?;
        match loss {
            Loss::Disconnect => parties[seat.other() as usize].run("drbdadm connect r0").map(drop)?,
            Loss::Cable => table.segment().set_cable(&cable, true)?,
            Loss::Mute(maker) => set_mute(&mut parties, seat_of(maker), false)?,
        }
        for side in &mut parties {
            side.await_in_sync()?;
        }
    }
    writes.stop(&mut parties[seat as usize])?;
    parties[seat as usize].run("drbdadm secondary r0")?;
    table.part(parties)?;
    writes.check(&table.content(seat)?)
}

/// The Primary's node dies in mid-write: a kernel's loses its power, ours all its processes. The other takes over at
/// once with every acknowledged write, and the dead one is resynced from it when it is back.
pub fn primary_dies(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let wish = Wish { net: "timeout 20; ping-timeout 5;", ..Wish::TUTORIAL };
    let parties = in_sync(table, MIXED, &wish, seat)?;
    let mut writes = Writes::default();
    let [mut dying, mut other] = ordered(parties, seat);
    writes.start(&mut dying)?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    drop(dying);
    writes.cut()?;
    other.await_state("WFConnection Secondary/Unknown UpToDate/DUnknown")?;
    other.run("drbdadm primary r0")?;
    writes.start(&mut other)?;
    let mut back = table.take_over(seat, primary)?;
    back.configure(&wish)?;
    back.run("drbdadm up r0")?;
    for side in [&mut back, &mut other] {
        side.await_in_sync()?;
    }
    writes.stop(&mut other)?;
    other.run("drbdadm secondary r0")?;
    table.part([back, other])?;
    writes.check(&table.content(seat)?)
}

/// The Secondary's node dies in mid-write and comes back; the Primary's writer meets no error.
pub fn secondary_dies(table: &mut Table, dying: Maker) -> anyhow::Result<()> {
    let seat = seat_of(dying);
    let wish = Wish { net: "timeout 20; ping-timeout 5;", ..Wish::TUTORIAL };
    let parties = in_sync(table, MIXED, &wish, seat.other())?;
    let [dead, mut primary] = ordered(parties, seat);
    let mut writes = Writes::default();
    writes.start(&mut primary)?;
    drop(dead);
    primary.await_state("WFConnection Primary/Unknown UpToDate/*")?;
    let mut back = table.take_over(seat, dying)?;
    back.configure(&wish)?;
    back.run("drbdadm up r0")?;
    for side in [&mut back, &mut primary] {
        side.await_in_sync()?;
    }
    writes.stop(&mut primary)?;
    primary.run("drbdadm secondary r0")?;
    table.part([back, primary])?;
    writes.check(&table.content(seat)?)
}

/// The party of this seat first.
fn ordered(parties: [Party; 2], seat: Seat) -> [Party; 2] {
    let [first, second] = parties;
    match seat {
        Seat::First => [first, second],
        Seat::Second => [second, first],
    }
}

/// A disk that changes hands while its node is off: nothing but what its peer wrote meanwhile is sent.
pub fn disk_changes_hands(table: &mut Table, from: Maker, crashed: bool) -> anyhow::Result<()> {
    const SEAT: Seat = Seat::Second;
    let wish = Wish { net: "timeout 20; ping-timeout 5;", ..Wish::TUTORIAL };
    let mut kernel = table.sit(Seat::First, Maker::Kernel, &wish)?;
    let mut leaving = table.sit(SEAT, from, &wish)?;
    kernel.run(UP)?;
    leaving.run(UP)?;
    leaving.await_state("Connected *")?;
    let mut writes = Writes::default();
    leaving.run("drbdadm primary --force r0")?;
    leaving.await_in_sync()?;
    writes.start(&mut leaving)?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    if crashed {
        drop(leaving);
        writes.cut()?;
    } else {
        writes.stop(&mut leaving)?;
        leaving.run("drbdadm secondary r0 && drbdadm down r0 && sync")?;
        drop(leaving);
    }
    kernel.await_state("WFConnection *")?;
    kernel.run("drbdadm primary r0; dmesg -C")?;
    writes.start(&mut kernel)?;
    let mut coming = table.take_over(SEAT, from.other())?;
    coming.configure(&wish)?;
    coming.run("drbdadm up r0")?;
    for side in [&mut kernel, &mut coming] {
        side.await_in_sync()?;
    }
    writes.stop(&mut kernel)?;
    let announced = announced_kib(&mut kernel)?;
    ensure!(announced < FULL_SYNC_KIB, "{announced} KiB were sent: that is a full sync");
    kernel.run("drbdadm secondary r0")?;
    table.part([kernel, coming])?;
    writes.check(&table.content(SEAT)?)
}
