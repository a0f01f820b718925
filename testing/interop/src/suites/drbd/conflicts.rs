//! Two primaries that write in the same place at the same time.

use std::thread;

use anyhow::{Context, ensure};

use super::meeting::in_sync;
use super::table::{Maker, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// Where both write, how, and for how long.
#[derive(Clone, Copy)]
pub enum Load {
    /// The same eight sectors, one at a time: the load at which a kernel's pair breaks ("BAD! BarrierAck").
    Sectors,
    /// Requests of one to sixteen sectors in 32 KiB, so that most overlap in part.
    Overlapping,
}

impl Load {
    fn fio(self, seed: u32) -> String {
        let shape = match self {
            Self::Sectors => "--bs=512 --size=4k",
            Self::Overlapping => "--bsrange=512-8k --size=32k",
        };
        format!(
            "fio --name=c --filename=/dev/drbd0 --rw=randwrite {shape} --offset=1m --time_based --runtime=8 \
             --ioengine=libaio --iodepth=8 --direct=1 --randseed={seed} --randrepeat=0 --norandommap \
             --minimal >/dev/null"
        )
    }
}

/// Both write there at once. The connection lives through it, and both read the same in the end. Who is up first is
/// dialled, and the other one resolves conflicts.
pub fn same_place(table: &mut Table, makers: [Maker; 2], load: Load) -> anyhow::Result<()> {
    let wish = Wish { net: "allow-two-primaries; ping-timeout 30;", ..Wish::TUTORIAL };
    let [mut first, mut second] = in_sync(table, makers, &wish, Seat::First)?;
    second.run("drbdadm primary r0")?;
    first.await_state("Connected Primary/Primary UpToDate/UpToDate")?;
    let before = first.run("drbdadm get-gi r0")?;
    let [one, other] = thread::scope(|scope| {
        let one = scope.spawn(|| first.run(&load.fio(1)));
        let other = second.run(&load.fio(2));
        [one.join().unwrap_or_else(|_| anyhow::bail!("the first writer panicked")), other]
    });
    one.context("the writer on drbd0")?;
    other.context("the writer on drbd1")?;
    for side in [&mut first, &mut second] {
        side.await_state("Connected Primary/Primary UpToDate/UpToDate")?;
    }
    let after = first.run("drbdadm get-gi r0")?;
    ensure!(before == after, "the connection was lost meanwhile: generations {before} became {after}");
    let digests = [first.device_digest()?, second.device_digest()?];
    ensure!(digests[0] == digests[1], "the two Primaries read differently");
    // The activity log's extents are given back, and nothing waits for a confirmation that never comes.
    for side in [&mut first, &mut second] {
        side.run(
            "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 seek=8 oflag=direct conv=fsync 2>/dev/null",
        )?;
        side.run("drbdadm secondary r0")?;
    }
    table.part([first, second])
}
