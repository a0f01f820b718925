//! What a person types about DRBD: drbdadm and its configuration.

pub mod drbd_conf;
mod drbdadm;
mod drbdmeta;
mod drbdsetup;
mod indented;
pub mod meta_disk;
mod proc_drbd;
pub mod refusal;
mod service_manager;
pub mod session;
pub mod status_json;
pub mod status_shell;
pub mod status_text;
pub mod wait;
mod wrapped;

pub use drbdadm::cli::command_line as drbdadm_command_line;
pub use drbdadm::drbdadm;
pub use drbdmeta::{USAGE as DRBDMETA_USAGE, drbdmeta};
pub use drbdsetup::{drbdsetup, usage as drbdsetup_usage};
pub use proc_drbd::proc_drbd;

/// What `--version` prints.
fn drbdadm_version() -> String {
    format!("LOCKSTEP_VERSION={}\n{}", env!("CARGO_PKG_VERSION"), drbdadm::cli::VERSION)
}

/// The minor that a word means: a number, `minor-N`, or the path of a device.
fn minor_of(word: &str) -> Option<u32> {
    // A link below /dev/drbd leads to the device.
    let link = word.strip_prefix("/dev/drbd/").and_then(|_| std::fs::read_link(word).ok());
    let target =
        link.as_deref().and_then(|link| link.file_name()).map(|name| name.to_string_lossy().into_owned());
    let word = target.as_deref().unwrap_or(word);
    let number = ["minor-", "/dev/drbd/by-minor/", "/dev/drbd", "drbd"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix))
        .unwrap_or(word);
    number.parse().ok()
}

/// Whether texts are those of the tutorial's year: `LOCKSTEP_ERA=2013`.
fn is_era_2013() -> bool {
    std::env::var_os("LOCKSTEP_ERA").is_some_and(|era| era == "2013")
}
