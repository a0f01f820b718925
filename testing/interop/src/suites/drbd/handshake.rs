//! Who may talk to whom.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::meeting::{MIXED, UP, in_sync};
use super::table::{Maker, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// How long two that do not fit may take to notice.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(30);

/// Two whose configurations do not fit never connect: whoever notices first ends StandAlone and says why; the other may
/// go on trying.
pub fn refused(table: &mut Table, wishes: [Wish; 2], why: &str) -> anyhow::Result<()> {
    let mut parties =
        [table.sit(Seat::First, MIXED[0], &wishes[0])?, table.sit(Seat::Second, MIXED[1], &wishes[1])?];
    for side in &mut parties {
        side.run("dmesg -C 2>/dev/null; true")?;
        side.run(UP)?;
    }
    let begun = Instant::now();
    let alone = 'alone: loop {
        for side in &mut parties {
            let connection = side.run("drbdadm cstate r0")?;
            ensure!(connection.trim() != "Connected", "{} is connected", side.seat().name());
            if connection.trim() == "StandAlone" {
                break 'alone side;
            }
        }
        ensure!(begun.elapsed() < NOTICE_TIME_MAX, "neither noticed");
    };
    let log = match MIXED[alone.seat() as usize] {
        Maker::Kernel => alone.run("dmesg")?,
        Maker::Ours => alone.run("cat /var/log/lockstep/drbd.log")?,
    };
    ensure!(log.contains(why), "{}'s log does not say {why:?}:\n{log}", alone.seat().name());
    table.leave(parties)
}

/// With this configuration they do connect, and replicate.
pub fn agrees(table: &mut Table, wish: &Wish) -> anyhow::Result<()> {
    let mut parties = in_sync(table, MIXED, wish, Seat::First)?;
    parties[0].run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=4 oflag=direct 2>/dev/null")?;
    parties[0].run("drbdadm secondary r0")?;
    parties[1].run("drbdadm primary r0")?;
    parties[1].run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=4 seek=8 oflag=direct 2>/dev/null")?;
    parties[1].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// `cram-hmac-alg` takes digests with a key, and says in the same words what is none.
pub fn digests_that_are_none(table: &mut Table) -> anyhow::Result<()> {
    for name in ["crc32c", "nonsense"] {
        let wish = Wish { digest: name, ..Wish::TUTORIAL };
        let mut parties =
            [Seat::First, Seat::Second].map(|seat| table.sit(seat, MIXED[seat as usize], &wish));
        let mut said = Vec::new();
        for party in &mut parties {
            let side = party.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            side.run("drbdadm create-md --force r0")?;
            let finished = side.finish("drbdadm up r0", NOTICE_TIME_MAX)?;
            let text = finished.stdout + &finished.stderr;
            let line = text.lines().find(|line| line.contains("Failure:")).unwrap_or_default();
            said.push((finished.status, line.trim().replace("r0: ", "")));
        }
        ensure!(said[0].0 != Some(0) && said[0].1.contains("(120)"), "the kernel says {said:?}");
        ensure!(said[0] == said[1], "{name}: the kernel's and ours say {said:?}");
        let [first, second] = parties;
        table.leave([first?, second?])?;
    }
    Ok(())
}

/// One side wants the other to prove itself, which does not know of that: the one that does ends StandAlone.
pub fn one_authenticates(table: &mut Table, strict: Maker) -> anyhow::Result<()> {
    let strict = super::meeting::seat_of(strict);
    let mut parties = [
        table.sit(Seat::First, MIXED[0], &Wish::TUTORIAL)?,
        table.sit(Seat::Second, MIXED[1], &Wish::TUTORIAL)?,
    ];
    parties[strict.other() as usize]
        .run("sed -i 's/cram-hmac-alg [^;]*; shared-secret [^;]*;//' /etc/drbd.d/r0.res")?;
    for side in &mut parties {
        side.run("dmesg -C 2>/dev/null; true")?;
        side.run(UP)?;
    }
    parties[strict as usize].await_state("StandAlone *")?;
    let log = match MIXED[strict as usize] {
        Maker::Kernel => parties[strict as usize].run("dmesg")?,
        Maker::Ours => parties[strict as usize].run("cat /var/log/lockstep/drbd.log")?,
    };
    for text in ["expected AuthChallenge packet, received: ", "Authentication of peer failed"] {
        ensure!(log.contains(text), "its log does not say {text:?}:\n{log}");
    }
    parties[strict.other() as usize].await_state("WFConnection *")?;
    table.leave(parties)
}

/// A second Primary is refused, with the exit status and the words of the original, on either side.
pub fn one_primary_only(table: &mut Table) -> anyhow::Result<()> {
    let [mut first, mut second] = in_sync(table, MIXED, &Wish::TUTORIAL, Seat::First)?;
    let ours = second.refused("drbdadm primary r0", 11)?;
    ensure!(ours.contains("(-1) Multiple primaries not allowed by config"), "ours says {ours}");
    first.run("drbdadm secondary r0")?;
    second.run("drbdadm primary r0")?;
    let kernels = first.refused("drbdadm primary r0", 11)?;
    ensure!(kernels.contains("(-1) Multiple primaries not allowed by config"), "the kernel says {kernels}");
    second.run("drbdadm secondary r0")?;
    table.part([first, second])
}

/// An outdated node does not become Primary, whoever's it is.
pub fn outdated_is_no_primary(table: &mut Table, outdated: Maker) -> anyhow::Result<()> {
    let seat = super::meeting::seat_of(outdated);
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, seat.other())?;
    let node = &mut parties[seat as usize];
    node.run("drbdadm disconnect r0 && drbdadm outdate r0")?;
    node.await_state("StandAlone Secondary/Unknown Outdated/DUnknown")?;
    let said = node.refused("drbdadm primary r0", 17)?;
    ensure!(said.contains("(-2) Need access to UpToDate data"), "it says {said}");
    node.run("drbdadm connect r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    parties[seat.other() as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}
