//! What one writes, the other has.

use anyhow::{Context, ensure};

use super::meeting::{MIXED, in_sync, meet, seat_of};
use super::table::{Maker, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// ext4 on the device, three files of random bytes, and their digests.
const MAKE_FILES: &str = "set -e; mkfs.ext4 -q /dev/drbd0; mkdir -p /run/m; mount /dev/drbd0 /run/m\n\
     for i in 1 2 3; do head -c 40000 /dev/urandom >/run/m/f$i; done\n\
     cd /run/m; sha256sum f*; cd /; umount /run/m";

/// The digests of files that the other side made.
const CHECK_FILES: &str =
    "set -e; mkdir -p /run/m; mount /dev/drbd0 /run/m; cd /run/m; sha256sum f*; cd /; umount /run/m";

/// Single blocks, a large one, single sectors, a deep queue, and writes with an fsync behind each.
pub const MIXED_WRITES: &str = "set -e\n\
     for i in 1 2 3 4; do dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek=$((i*10)) oflag=direct 2>/dev/null; done\n\
     dd if=/dev/urandom of=/dev/drbd0 bs=512k count=2 seek=8 oflag=direct iflag=fullblock 2>/dev/null\n\
     dd if=/dev/urandom of=/dev/drbd0 bs=512 count=3 seek=777 oflag=direct 2>/dev/null\n\
     fio --name=q --filename=/dev/drbd0 --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 \
     --number_ios=400 --size=8m --offset=16m --randseed=7 >/dev/null\n\
     fio --name=s --filename=/dev/drbd0 --rw=write --bs=4k --ioengine=sync --direct=1 --fsync=1 --number_ios=32 \
     --size=8m --offset=32m >/dev/null\n\
     sync";

/// Everything goes from one side to the other, then what its ext4 writes.
pub fn first_sync(table: &mut Table, makers: [Maker; 2], source: Seat) -> anyhow::Result<()> {
    let mut parties = meet(table, makers, &Wish::TUTORIAL)?;
    parties[source as usize].run("drbdadm -- --overwrite-data-of-peer primary all")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    parties[source as usize].run(MAKE_FILES)?;
    parties[source as usize].run("drbdadm secondary r0")?;
    table.part(parties)
}

/// Files made on each side are read on the other.
pub fn role_swap(table: &mut Table, makers: [Maker; 2]) -> anyhow::Result<()> {
    let [mut first, mut second] = in_sync(table, makers, &Wish::TUTORIAL, Seat::First)?;
    let made = first.run(MAKE_FILES)?;
    first.run("drbdadm secondary r0")?;
    second.run("drbdadm primary r0")?;
    let found = second.run(CHECK_FILES)?;
    ensure!(made == found, "made on drbd0\n{made}and found on drbd1\n{found}");
    let made = second.run(MAKE_FILES)?;
    second.run("drbdadm secondary r0")?;
    first.run("drbdadm primary r0")?;
    let found = first.run(CHECK_FILES)?;
    ensure!(made == found, "made on drbd1\n{made}and found on drbd0\n{found}");
    first.run("drbdadm secondary r0")?;
    table.part([first, second])
}

/// Writes of all shapes by one side's Primary, with this protocol.
pub fn writes(table: &mut Table, primary: Maker, wish: &Wish) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = in_sync(table, MIXED, wish, seat)?;
    let writer = &mut parties[seat as usize];
    writer.run(MIXED_WRITES)?;
    writer.run("drbdadm secondary r0")?;
    table.part(parties)
}

/// Discards and zeroes of one side's Primary reach the other, which reads zeroes there.
pub fn discards(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, seat)?;
    let writer = &mut parties[seat as usize];
    writer.run(
        "set -e; dd if=/dev/urandom of=/dev/drbd0 bs=1M count=24 oflag=direct 2>/dev/null\n\
         blkdiscard -o 65536 -l 1048576 /dev/drbd0; blkdiscard -z -o 1310720 -l 65536 /dev/drbd0\n\
         blkdiscard -o 4194304 -l 16777216 /dev/drbd0; sync\n\
         cmp -n 1048576 -i 65536:0 /dev/drbd0 /dev/zero",
    )?;
    writer.run("drbdadm secondary r0")?;
    table.part(parties)
}

/// Both are Primary and write, each in its own half and both in the same sectors one after the other.
pub fn two_primaries(table: &mut Table) -> anyhow::Result<()> {
    let wish = Wish { net: "allow-two-primaries;", ..Wish::TUTORIAL };
    let [mut first, mut second] = in_sync(table, MIXED, &wish, Seat::First)?;
    second.run("drbdadm primary r0")?;
    first.await_state("Connected Primary/Primary UpToDate/UpToDate")?;
    let half = |offset: &str| {
        format!(
            "fio --name=h --filename=/dev/drbd0 --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 \
             --number_ios=500 --size=16m --offset={offset} --randrepeat=0 >/dev/null"
        )
    };
    let (ours, kernels) = (half("32m"), half("8m"));
    let [theirs, our_own] = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| first.run(&kernels));
        let our_own = second.run(&ours);
        [theirs.join().unwrap_or_else(|_| anyhow::bail!("the kernel's writer panicked")), our_own]
    });
    theirs?;
    our_own?;
    for round in 0..8 {
        for side in [&mut first, &mut second] {
            side.run(&format!(
                "dd if=/dev/urandom of=/dev/drbd0 bs=4k count=2 seek={round} oflag=direct 2>/dev/null"
            ))?;
        }
    }
    let digests = [first.device_digest()?, second.device_digest()?];
    ensure!(digests[0] == digests[1], "the two Primaries read differently");
    for side in [&mut first, &mut second] {
        side.run("drbdadm secondary r0")?;
    }
    table.part([first, second])
}

/// A Primary whose disk is detached reads and writes through its peer; attached again, it gets what it missed.
pub fn diskless_primary(table: &mut Table, primary: Maker) -> anyhow::Result<()> {
    let seat = seat_of(primary);
    let mut parties = in_sync(table, MIXED, &Wish::TUTORIAL, seat)?;
    let node = &mut parties[seat as usize];
    node.run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 oflag=direct 2>/dev/null")?;
    let before = node.device_digest()?;
    node.run("drbdadm detach r0")?;
    node.await_state("Connected Primary/Secondary Diskless/UpToDate")?;
    ensure!(node.device_digest()? == before, "it reads other bytes through its peer");
    node.run(
        "set -e; head -c 1048576 /dev/urandom >/run/piece\n\
         dd if=/run/piece of=/dev/drbd0 bs=64k seek=100 oflag=direct 2>/dev/null\n\
         dd if=/dev/drbd0 bs=64k skip=100 count=16 iflag=direct 2>/dev/null | cmp - /run/piece",
    )?;
    node.run("drbdadm attach r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    let node = &mut parties[seat as usize];
    node.run("dd if=/dev/drbd0 bs=64k skip=100 count=16 iflag=direct 2>/dev/null | cmp - /run/piece")
        .context("after the disk was attached again")?;
    node.run("drbdadm secondary r0")?;
    table.part(parties)
}
