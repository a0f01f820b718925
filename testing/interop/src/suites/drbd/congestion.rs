//! A network slower than the Primary.

use anyhow::ensure;

use super::meeting::{MIXED, in_sync};
use super::table::Table;
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// The kernel's Primary has more under way than `congestion-fill` allows: it goes Ahead, ours goes Behind and is told
/// which blocks it misses, and gets them as soon as there is room.
pub fn kernel_pulls_ahead(table: &mut Table) -> anyhow::Result<()> {
    let net = "on-congestion pull-ahead; congestion-fill 100k; sndbuf-size 128k;";
    let wish = Wish { protocol: 'A', net, ..Wish::TUTORIAL };
    let mut parties = in_sync(table, MIXED, &wish, Seat::First)?;
    parties[0].run("dmesg -C")?;
    parties[0].run(
        "fio --name=q --filename=/dev/drbd0 --rw=randwrite --bs=64k --ioengine=libaio --iodepth=16 --direct=1 \
         --number_ios=600 --size=40m --randseed=7 >/dev/null",
    )?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    let log = parties[0].run("dmesg")?;
    ensure!(log.contains("conn( Connected -> Ahead )"), "the kernel did not pull ahead:\n{log}");
    ensure!(log.contains("conn( Ahead -> SyncSource )"), "the kernel did not catch up:\n{log}");
    let ours = parties[1].run("cat /var/log/lockstep/drbd.log")?;
    ensure!(ours.contains("conn( Connected -> Behind )"), "we did not fall behind:\n{ours}");
    ensure!(!ours.contains("misbehaved"), "we take the kernel for a liar:\n{ours}");
    parties[0].run("drbdadm secondary r0")?;
    table.part(parties)
}
