//! How scenarios begin: two nodes that have met, with the same data or with none.

use super::table::{Maker, Party, Table};
use crate::side::Side;
use crate::tutorial::{Seat, Wish};

/// The kernel on `drbd0`, ours on `drbd1`.
pub const MIXED: [Maker; 2] = [Maker::Kernel, Maker::Ours];

/// Ours on `drbd0`, the kernel on `drbd1`.
pub const MIXED_TURNED: [Maker; 2] = [Maker::Ours, Maker::Kernel];

/// Two kernels.
pub const KERNELS: [Maker; 2] = [Maker::Kernel, Maker::Kernel];

/// Two of ours.
pub const OURS: [Maker; 2] = [Maker::Ours, Maker::Ours];

/// Makes meta-data and brings the resource up.
pub const UP: &str = "drbdadm create-md --force r0 && drbdadm up r0";

/// The seat of a maker's node among [`MIXED`].
pub fn seat_of(maker: Maker) -> Seat {
    match maker {
        Maker::Kernel => Seat::First,
        Maker::Ours => Seat::Second,
    }
}

/// Both up and connected, with fresh meta-data; nothing is decided yet.
pub fn meet(table: &mut Table, makers: [Maker; 2], wish: &Wish) -> anyhow::Result<[Party; 2]> {
    let mut first = table.sit(Seat::First, makers[0], wish)?;
    let mut second = table.sit(Seat::Second, makers[1], wish)?;
    first.run(UP)?;
    second.run(UP)?;
    for side in [&mut first, &mut second] {
        side.await_state("Connected Secondary/Secondary Inconsistent/Inconsistent")?;
    }
    Ok([first, second])
}

/// As [`meet`]; then one seat is Primary and everything has gone from it to the other.
pub fn in_sync(
    table: &mut Table,
    makers: [Maker; 2],
    wish: &Wish,
    primary: Seat,
) -> anyhow::Result<[Party; 2]> {
    let mut parties = meet(table, makers, wish)?;
    parties[primary as usize].run("drbdadm primary --force r0")?;
    for side in &mut parties {
        side.await_in_sync()?;
    }
    Ok(parties)
}
