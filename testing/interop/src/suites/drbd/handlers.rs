//! Programs of the administrator: when they are called, with what environment, and what their word counts.

use anyhow::{Context, ensure};

use super::meeting::{MIXED, UP, in_sync, seat_of};
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Writes the environment that a handler gets, and remembers that it was called.
const NOTE: &str = "env | grep ^DRBD_ | sort >/run/called-$0";

/// Gives a node handlers, before it is up: names and what they run.
pub fn add(party: &mut Party, handlers: &[(&str, &str)]) -> anyhow::Result<()> {
    let lines: Vec<String> = handlers.iter().map(|(name, run)| format!("{name} \"{run}\";")).collect();
    // Of two sections of a resource both count.
    party.run(&format!(
        "sed -i '2i\\  handlers {{ {} }}' /etc/drbd.d/r0.res && drbdadm sh-nop",
        lines.join(" ").replace('\'', "'\\''")
    ))?;
    Ok(())
}

fn noting(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), format!("sh -c '{NOTE}' {name}"))).collect()
}

fn add_noting(party: &mut Party, names: &[&str]) -> anyhow::Result<()> {
    party.run("rm -f /run/called-*")?;
    let handlers = noting(names);
    let handlers: Vec<(&str, &str)> = handlers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    add(party, &handlers)
}

/// What a handler was given, once it was called.
fn called(party: &mut Party, name: &str) -> anyhow::Result<String> {
    party.run(&format!(
        "for i in $(seq 300); do [ -s /run/called-{name} ] && break; sleep 0.1; done; cat /run/called-{name}"
    ))
}

/// The same environment as seen from the other seat.
fn mirrored(text: &str) -> String {
    let [first, second] = Seat::ALL;
    let pairs =
        [(first.name(), second.name()), (first.address(), second.address()), (first.disk(), second.disk())];
    let swap = |line: &str| {
        let found = pairs.iter().find_map(|&(a, b)| {
            let (head, value) = line.split_once('=')?;
            (value == a).then(|| format!("{head}={b}")).or((value == b).then(|| format!("{head}={a}")))
        });
        found.unwrap_or_else(|| line.to_owned())
    };
    text.lines().map(|line| swap(line) + "\n").collect()
}

/// The environments on both sides are the same, values mirrored: around a resync in either direction.
pub fn environment(table: &mut Table) -> anyhow::Result<()> {
    const NAMES: [&str; 3] = ["before-resync-target", "before-resync-source", "after-resync-target"];
    let mut kernel = table.sit(Seat::First, Maker::Kernel, &Wish::TUTORIAL)?;
    let mut ours = table.sit(Seat::Second, Maker::Ours, &Wish::TUTORIAL)?;
    for party in [&mut kernel, &mut ours] {
        add_noting(party, &NAMES)?;
        party.run(UP)?;
    }
    kernel.await_state("Connected Secondary/Secondary Inconsistent/Inconsistent")?;
    kernel.run("drbdadm primary --force r0")?;
    for party in [&mut kernel, &mut ours] {
        party.await_in_sync()?;
    }
    let of_kernels_source = called(&mut kernel, NAMES[1])?;
    let of_our_target = [called(&mut ours, NAMES[0])?, called(&mut ours, NAMES[2])?];
    // And back.
    kernel.run("drbdadm secondary r0")?;
    ours.run("drbdadm primary r0 && drbdadm disconnect r0")?;
    ours.run(
        "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=4 oflag=direct 2>/dev/null && drbdadm connect r0",
    )?;
    for party in [&mut kernel, &mut ours] {
        party.run("[ $(drbdadm cstate r0) != StandAlone ] || drbdadm connect r0")?;
        party.await_in_sync()?;
    }
    let of_our_source = called(&mut ours, NAMES[1])?;
    let of_kernels_target = [called(&mut kernel, NAMES[0])?, called(&mut kernel, NAMES[2])?];
    for (which, theirs, own) in [
        (NAMES[1], &of_kernels_source, &of_our_source),
        (NAMES[0], &of_kernels_target[0], &of_our_target[0]),
        (NAMES[2], &of_kernels_target[1], &of_our_target[1]),
    ] {
        ensure!(theirs.lines().count() >= 8, "{which}: the kernel's helper got only\n{theirs}");
        let expected = mirrored(theirs);
        ensure!(*own == expected, "{which}: we gave\n{own}the kernel, mirrored\n{expected}");
    }
    ours.run("drbdadm secondary r0")?;
    table.part([kernel, ours])
}

/// A target whose handler says no leaves, as upstream's does.
pub fn target_refuses(table: &mut Table, target: Maker) -> anyhow::Result<()> {
    let seat = seat_of(target);
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, seat.other())?;
    parties[seat as usize].run("drbdadm disconnect r0")?;
    add(&mut parties[seat as usize], &[("before-resync-target", "exit 1")])?;
    let write = "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=4 oflag=direct 2>/dev/null";
    parties[seat.other() as usize].run(write)?;
    parties[seat as usize].run("drbdadm connect r0")?;
    parties[seat as usize].await_state("StandAlone Secondary/Unknown *")?;
    let said = parties[seat as usize].run(
        "if [ -e /proc/drbd ]; then dmesg | tail -n 60; else tail -n 60 /var/log/lockstep/drbd.log; fi",
    )?;
    let line = "before-resync-target handler returned 1, dropping connection.";
    said.contains(line).then_some(()).with_context(|| format!("no line `{line}` in\n{said}"))?;
    parties[seat as usize].run("sed -i '/before-resync-target/d' /etc/drbd.d/r0.res; drbdadm connect r0")?;
    for party in &mut parties {
        party.run("[ $(drbdadm cstate r0) != StandAlone ] || drbdadm connect r0")?;
        party.await_in_sync()?;
    }
    parties[seat.other() as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
