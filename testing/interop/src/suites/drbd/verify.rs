//! Online verify, checksums of a resync, digests of the data.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};

use super::meeting::{MIXED, in_sync};
use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, USABLE_BYTES, Wish};

/// Bytes of a block.
const BLOCK_BYTES: u64 = 4096;

/// Blocks that are changed behind everybody's back: two side by side, one in the middle, the last one.
const PLANTED: [u64; 4] = [7, 8, 3000, USABLE_BYTES / BLOCK_BYTES - 1];

/// What either log says of them.
const FOUND: [&str; 4] = [
    "Out of sync: start=56, size=16 (sectors)",
    "Out of sync: start=24000, size=8 (sectors)",
    "Out of sync: start=130984, size=8 (sectors)",
    "Online verify found 4 4k block out of sync!",
];

/// Changes blocks of a seat's disk.
fn plant(table: &Table, seat: Seat, blocks: &[u64]) -> anyhow::Result<()> {
    let disk = OpenOptions::new().write(true).open(table.disk(seat))?;
    for block in blocks {
        disk.write_all_at(b"not what was written", block * BLOCK_BYTES + 100)?;
    }
    disk.sync_all()?;
    Ok(())
}

/// Forgets what the node's log says so far.
pub(super) fn forget_log(side: &mut Party) -> anyhow::Result<()> {
    side.run(if is_kernel(side) { "dmesg -C" } else { "truncate -s 0 /var/log/lockstep/drbd.log" }).map(drop)
}

/// What the node's log says since.
pub(super) fn log(side: &mut Party) -> anyhow::Result<String> {
    side.run(if is_kernel(side) { "dmesg" } else { "cat /var/log/lockstep/drbd.log" })
}

pub(super) fn is_kernel(side: &Party) -> bool {
    matches!(side, Party::Kernel(_))
}

/// A number of /proc/drbd by the letters before it.
pub(super) fn counter(side: &mut Party, name: &str) -> anyhow::Result<u64> {
    let text = side.run(if is_kernel(side) { "cat /proc/drbd" } else { "lockstep proc drbd" })?;
    let number = text.split_once(&format!(" {name}:")).and_then(|(_, rest)| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).with_context(|| format!("no {name} in {text}"))
}

fn out_of_sync_kib(side: &mut Party) -> anyhow::Result<u64> {
    counter(side, "oos")
}

/// Starts a verify on a node, and waits until both have ended it.
fn verify(parties: &mut [Party; 2], source: Seat, words: &str) -> anyhow::Result<()> {
    let node = &mut parties[source as usize];
    // The original's drbdadm does not take these words, its drbdsetup does.
    node.run(&match (words, is_kernel(node)) {
        ("", _) => "drbdadm verify r0".to_owned(),
        (words, true) => format!("drbdsetup verify 0 {words}"),
        (words, false) => format!("drbdadm verify {words} r0"),
    })?;
    for side in parties {
        side.await_in_sync()?;
    }
    Ok(())
}

/// One node starts a verify, the disk of one was changed: both find all of it and nothing else, and the next connection
/// brings what the Primary has.
pub fn finds(table: &mut Table, source: Seat, primary: Seat, digest: &'static str) -> anyhow::Result<()> {
    let net = match digest {
        "md5" => "verify-alg md5;",
        "crc32c" => "verify-alg crc32c;",
        _ => "verify-alg sha1;",
    };
    let mut parties = in_sync(table, MIXED, &Wish { net, ..Wish::TUTORIAL }, primary)?;
    parties[primary as usize]
        .run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=16 oflag=direct 2>/dev/null")?;
    verify(&mut parties, source, "")?;
    for side in &mut parties {
        let left = out_of_sync_kib(side)?;
        ensure!(left == 0, "{}: {left} KiB differ before anything was changed", side.seat().name());
        forget_log(side)?;
    }
    plant(table, primary.other(), &PLANTED)?;
    verify(&mut parties, source, "")?;
    for side in &mut parties {
        let kib = out_of_sync_kib(side)?;
        ensure!(kib == 16, "{}: {kib} KiB are out of sync, not 16", side.seat().name());
        let said = log(side)?;
        for line in FOUND {
            ensure!(said.contains(line), "{} does not say {line:?}:\n{said}", side.seat().name());
        }
        ensure!(
            said.matches("Out of sync: start=").count() == 3,
            "{} finds more than there is:\n{said}",
            side.seat().name()
        );
    }
    reconnect(&mut parties, primary)?;
    parties[primary as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// Leaves and comes back: what is out of sync goes from the Primary to the other.
fn reconnect(parties: &mut [Party; 2], primary: Seat) -> anyhow::Result<()> {
    let node = &mut parties[primary as usize];
    node.run("drbdadm disconnect r0")?;
    node.await_state("StandAlone *")?;
    node.run("drbdadm connect r0")?;
    for side in parties {
        side.await_in_sync()?;
        let left = out_of_sync_kib(side)?;
        ensure!(left == 0, "{}: {left} KiB are still out of sync", side.seat().name());
    }
    Ok(())
}

/// A verify of a part finds what is in it, says how far it came, and the next one goes on there.
pub fn finds_in_part(table: &mut Table, source: Maker) -> anyhow::Result<()> {
    let wish = Wish { net: "verify-alg sha1;", ..Wish::TUTORIAL };
    let source = super::meeting::seat_of(source);
    let mut parties = in_sync(table, MIXED, &wish, Seat::First)?;
    plant(table, Seat::Second, &PLANTED)?;
    for side in &mut parties {
        forget_log(side)?;
    }
    verify(&mut parties, source, "--start=8192 --stop=65536")?;
    for side in &mut parties {
        let kib = out_of_sync_kib(side)?;
        ensure!(kib == 4, "{}: {kib} KiB are out of sync, not the 4 of this part", side.seat().name());
        let said = log(side)?;
        ensure!(said.contains("Online Verify reached sector 65536"), "{}:\n{said}", side.seat().name());
        forget_log(side)?;
    }
    verify(&mut parties, source, "")?;
    for side in &mut parties {
        let kib = out_of_sync_kib(side)?;
        ensure!(kib == 8, "{}: {kib} KiB are out of sync, not the 8 behind the start", side.seat().name());
    }
    let said = log(&mut parties[source as usize])?;
    ensure!(said.contains("Starting Online Verify from sector 65536"), "{said}");
    verify(&mut parties, source, "--start=0")?;
    for side in &mut parties {
        let kib = out_of_sync_kib(side)?;
        ensure!(kib == 16, "{}: {kib} KiB are out of sync, not 16", side.seat().name());
    }
    reconnect(&mut parties, Seat::First)?;
    parties[0].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// What no verify can be made of is refused with the original's words.
pub fn refusals(table: &mut Table) -> anyhow::Result<()> {
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, Seat::First)?;
    let mut said = Vec::new();
    for side in &mut parties {
        said.push(side.refused("drbdadm verify r0", 11)?);
    }
    ensure!(
        said.iter().all(|text| text.contains("(-14) Need a verify algorithm to start online verify")),
        "without verify-alg: {said:?}"
    );
    said.clear();
    for side in &mut parties {
        side.run("drbdadm disconnect r0")?;
        side.await_state("StandAlone *")?;
        said.push(side.refused("drbdadm verify r0", 11)?);
    }
    ensure!(
        said.iter().all(|text| text.contains("(-15) Need a connection to start verify or resync")),
        "without a connection: {said:?}"
    );
    for side in &mut parties {
        side.run("drbdadm connect r0")?;
    }
    for side in &mut parties {
        side.await_in_sync()?;
    }
    parties[0].run("drbdadm secondary r0")?;
    table.part(parties)
}
