//! What a person types about DRBD: drbdadm and its configuration.

pub mod drbd_conf;
mod drbdadm;
pub mod meta_disk;
mod proc_drbd;
pub mod refusal;
mod service_manager;
pub mod session;
pub mod status_text;
pub mod wait;

pub use drbdadm::cli::command_line as drbdadm_command_line;
pub use drbdadm::drbdadm;
pub use proc_drbd::proc_drbd;

/// Whether texts are those of the tutorial's year: `LOCKSTEP_ERA=2013`.
fn is_era_2013() -> bool {
    std::env::var_os("LOCKSTEP_ERA").is_some_and(|era| era == "2013")
}
