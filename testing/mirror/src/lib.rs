//! Two servers, one mirrored disk: the ground that the tests in `tests/` stand on.
//!
//! [`pair`] is the two servers in a lab that goes with its test, with their resource `r0`, [`load`] the program that
//! writes in a server, and [`ledger`] what it was promised and what the disks must therefore hold.
//! [`power_cuts`] and [`kills`] go on for as many rounds as they are told: a few in tests, hundreds by `mirror-campaign`.

pub mod kills;
pub mod ledger;
pub mod load;
pub mod pair;
pub mod power_cuts;
pub mod random;
pub mod stamp;
