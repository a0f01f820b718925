//! drbdadm and drbdsetup as programs.

mod drbdadm;
mod drbdsetup;
mod place;
