//! drbdsetup as a program of its own: what tests run.

fn main() -> std::process::ExitCode {
    drbd_tools::drbdsetup(std::env::args_os().skip(1).collect())
}
