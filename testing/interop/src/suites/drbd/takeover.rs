//! A kernel's pair becomes ours, node by node, while it works; and goes back.

use anyhow::ensure;

use super::load::Writes;
use super::meeting::{KERNELS, in_sync};
use super::reconnect::{FULL_SYNC_KIB, announced_kib};
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Replaces the Secondary's node by another maker's on the same disk while the Primary's writer goes on.
fn replace(
    table: &mut Table,
    wish: &Wish,
    leaving: Party,
    maker: Maker,
    primary: &mut Party,
) -> anyhow::Result<Party> {
    let mut leaving = leaving;
    let seat = leaving.seat();
    leaving.run("drbdadm down r0; sync")?;
    drop(leaving);
    primary.await_state("WFConnection Primary/Unknown UpToDate/*")?;
    primary.run("dmesg -C 2>/dev/null; true")?;
    let mut coming = table.take_over(seat, maker)?;
    coming.configure(wish)?;
    coming.run("drbdadm up r0")?;
    coming.await_in_sync()?;
    primary.await_in_sync()?;
    let kernel = [&mut *primary, &mut coming].into_iter().find(|party| matches!(party, Party::Kernel(_)));
    if let Some(kernel) = kernel {
        let kib = announced_kib(kernel)?;
        ensure!(kib < FULL_SYNC_KIB, "{}: {kib} KiB were sent: that is a full sync", seat.name());
    }
    Ok(coming)
}

/// Hands the Primary role over; the writer rests meanwhile.
fn swap(writes: &mut Writes, from: &mut Party, to: &mut Party) -> anyhow::Result<()> {
    writes.stop(from)?;
    from.run("drbdadm secondary r0")?;
    to.run("drbdadm primary r0")?;
    writes.start(to)
}

/// Timeouts that let a node that is gone be noticed soon.
const SOON: &str = "timeout 20; ping-timeout 5;";

/// The same, with protocol A or B, and over IPv6.
pub fn with_protocol(table: &mut Table, protocol: char, ipv6: bool) -> anyhow::Result<()> {
    there_and_back(table, &Wish { protocol, ipv6, net: SOON, ..Wish::TUTORIAL })
}

/// The tutorial's.
pub fn of_the_tutorial(table: &mut Table) -> anyhow::Result<()> {
    there_and_back(table, &Wish { net: SOON, ..Wish::TUTORIAL })
}

/// Kernel and kernel, kernel and ours, ours and ours, ours and kernel, kernel and kernel: under load, with no full sync
/// and no acknowledged write lost. The Primary is on the side that is replaced last.
fn there_and_back(table: &mut Table, wish: &Wish) -> anyhow::Result<()> {
    let [mut first, second] = in_sync(table, KERNELS, wish, Seat::First)?;
    let mut writes = Writes::default();
    writes.start(&mut first)?;
    let mut second = replace(table, wish, second, Maker::Ours, &mut first)?;
    swap(&mut writes, &mut first, &mut second)?;
    let mut first = replace(table, wish, first, Maker::Ours, &mut second)?;
    swap(&mut writes, &mut second, &mut first)?;
    let mut second = replace(table, wish, second, Maker::Kernel, &mut first)?;
    swap(&mut writes, &mut first, &mut second)?;
    let first = replace(table, wish, first, Maker::Kernel, &mut second)?;
    writes.stop(&mut second)?;
    second.run("drbdadm secondary r0")?;
    table.part([first, second])?;
    writes.check(&table.content(Seat::First)?)
}
