//! The host's udev: it must neither probe nor hold what belongs to servers.
//!
//! `cargo xtask install` puts the rules where they stay. Without an installation they are in /run while there are labs.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// The rules, for udev(7).
const RULES: &str = include_str!("../udev/50-lockstep-lab.rules");

const FILE_NAME: &str = "50-lockstep-lab.rules";

/// Where rules are that end with the machine; of two files of one name the one here counts.
const DIRECTORY: &str = "/run/udev/rules.d";

/// There while udevd runs.
const CONTROL: &str = "/run/udev/control";

/// Directories of rules that stay.
const INSTALLED: &[&str] =
    &["/etc/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];

/// Before the first volume of a lab becomes a block device: udev, where it runs, learns to leave it alone.
pub fn hide_volumes() {
    if !Path::new(CONTROL).exists() || is_installed() {
        return;
    }
    let path = Path::new(DIRECTORY).join(FILE_NAME);
    if fs::read_to_string(&path).is_ok_and(|there| there == RULES) {
        return;
    }
    let put = || -> io::Result<()> {
        fs::create_dir_all(DIRECTORY)?;
        fs::write(&path, RULES)
    };
    match put() {
        Ok(()) => reload(),
        Err(error) => eprintln!("{}: {error}; udev may look into the lab's volumes", path.display()),
    }
}

/// After the last lab.
pub fn forget() {
    if fs::remove_file(Path::new(DIRECTORY).join(FILE_NAME)).is_ok() {
        // Not empty: not ours alone.
        let _ = fs::remove_dir(DIRECTORY);
        reload();
    }
}

fn is_installed() -> bool {
    INSTALLED.iter().any(|directory| {
        fs::read_to_string(Path::new(directory).join(FILE_NAME)).is_ok_and(|there| there == RULES)
    })
}

/// udevd looks for new rules by itself, but only every few seconds.
fn reload() {
    let reload = Command::new("udevadm")
        .args(["control", "--reload"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // Without udevadm the rules count a moment later.
    let _ = reload;
}
