//! `cargo xtask demo`: builds what is shown, checks that it can be shown here, and shows it.

use std::path::Path;
use std::process::Command;

use crate::process;
use crate::setup;
use crate::workspace::{Profile, Workspace};

/// What servers are made of; each with the reason to give when it is not there.
const DEVICES: &[(&str, &str)] = &[
    ("/dev/fuse", "volumes and /dev/drbd0 are FUSE files (modprobe fuse)"),
    ("/dev/loop-control", "volumes and /dev/drbd0 are loop devices (modprobe loop)"),
];

/// Builds and runs the program `demo` with the arguments.
pub fn run(workspace: &Workspace, args: &[String]) -> anyhow::Result<bool> {
    if !rustix::process::geteuid().is_root() {
        println!("The demo makes servers (namespaces, overlay mounts, loop devices) and needs root:");
        println!("  sudo env PATH=\"$PATH\" cargo xtask demo");
        return Ok(false);
    }
    for (device, reason) in DEVICES {
        if !Path::new(device).exists() {
            println!("The demo needs {device}: {reason}");
            return Ok(false);
        }
    }
    if !setup::quietly("demo")? {
        println!("The demo needs the packages above");
        return Ok(false);
    }
    let programs = workspace.build(&["lockstep", "demo"], Profile::Release)?;
    let mut demo = Command::new(programs.join("demo"));
    demo.args(args).env("LOCKSTEP", programs.join("lockstep"));
    process::succeeds(&mut demo)
}
