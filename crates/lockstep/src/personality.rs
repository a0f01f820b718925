//! The one table of names.

use std::ffi::OsString;
use std::process::ExitCode;

/// One of the programs that this binary is.
pub struct Personality {
    /// As typed: the first word, or the link's name.
    pub name: &'static str,
    /// Runs it with the arguments after the name.
    pub entry: fn(Vec<OsString>) -> ExitCode,
    /// One line for `--help`.
    pub description: &'static str,
    /// Directory below the prefix in which installations and lab servers have a link of this name; none if it is
    /// only ever the first word.
    pub link: Option<&'static str>,
}

/// Every personality, in the order of `--help`.
pub const PERSONALITIES: &[Personality] = &[
    Personality {
        name: "drbdadm",
        entry: drbd_tools::drbdadm,
        description: "Administer replicated block devices by drbd.conf",
        link: Some("sbin"),
    },
    Personality {
        name: "drbdsetup",
        entry: drbd_tools::drbdsetup,
        description: "Give the DRBD daemon one order, without a configuration",
        link: Some("sbin"),
    },
    Personality {
        name: "drbdmeta",
        entry: drbd_tools::drbdmeta,
        description: "Meta-data of a device that is not in use",
        link: Some("sbin"),
    },
    Personality {
        name: "drbd",
        entry: drbd_node::daemon,
        description: "The DRBD daemon of this server: `drbd daemon|upgrade|stop`",
        link: None,
    },
    Personality {
        name: "proc",
        entry: drbd_tools::proc_drbd,
        description: "Print what the kernel's module would have in /proc: `proc drbd`",
        link: None,
    },
    Personality {
        name: "nova",
        entry: lab::nova,
        description: "Servers, networks and volumes on this machine",
        link: Some("bin"),
    },
    Personality {
        name: "lab",
        entry: lab::lab,
        description: "Labs of such servers: `lab ps|show|fault|play|record|forward|down`",
        link: None,
    },
];

#[cfg(test)]
mod tests {
    use super::PERSONALITIES;

    #[test]
    fn names_are_unique_and_described() {
        for (index, personality) in PERSONALITIES.iter().enumerate() {
            assert!(!personality.description.is_empty(), "{} has no description", personality.name);
            assert!(
                PERSONALITIES[index + 1..].iter().all(|other| other.name != personality.name),
                "{} twice",
                personality.name
            );
        }
    }
}
