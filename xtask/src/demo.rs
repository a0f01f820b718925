//! `cargo xtask demo`: the tutorial's part one in two servers of a lab of its own, then a power cut and the way back.

mod lab;
mod moments;
mod proc_drbd;
mod screen;
mod story;
mod tutorial;
mod writer;

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use crate::process;
use crate::setup;
use crate::workspace::{Profile, Workspace};

use lab::Lab;
use moments::Moments;
use screen::Screen;
use story::Story;

/// What servers are made of; each with the reason to give when it cannot be opened.
const DEVICES: &[(&str, &str)] = &[
    (
        "/dev/fuse",
        "volumes and /dev/drbd0 are FUSE files (modprobe fuse; in a container: --device /dev/fuse)",
    ),
    ("/dev/loop-control", "volumes and /dev/drbd0 are loop devices (modprobe loop)"),
];

/// Log lines shown of each daemon after a failure.
const LOG_LINES: u32 = 15;

/// Tells the story. False if it cannot be told here, was interrupted, or a check did not hold; what and why is then
/// printed. `keep` leaves the lab up.
pub fn run(workspace: &Workspace, keep: bool) -> anyhow::Result<bool> {
    if let Some(obstacle) = obstacle() {
        println!("{obstacle}");
        return Ok(false);
    }
    if !setup::quietly("demo")? {
        println!("The demo needs the packages above.");
        return Ok(false);
    }
    let programs = workspace.build(&["lockstep"], Profile::Release)?;
    let screen = Screen::begin();
    let lab = Lab::named_freely(programs.join("lockstep"))?;
    if lab.settle_disk(&screen).is_err() {
        return Ok(false);
    }
    let mut moments = Moments::begin();
    let told = Story::new(&lab, &screen, &mut moments, keep).tell();
    if lab.is_interrupted() {
        screen.own("Interrupted.");
    }
    match told {
        Ok(()) => {
            moments.print(&screen);
            if keep {
                screen.own(&lab.how_to_look_around());
            } else {
                lab.take_down(&screen)?;
            }
            Ok(true)
        }
        Err(_) if lab.is_interrupted() => {
            lab.take_down(&screen)?;
            Ok(false)
        }
        Err(error) => {
            screen.failure(&format!("{error:#}"));
            print_logs(&lab, &screen);
            screen.own(&lab.how_to_look_around());
            Ok(false)
        }
    }
}

/// Why servers cannot be made here, and what would change that.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "The demo makes servers (namespaces, overlay mounts, loop devices, FUSE) and needs root:\n  \
             sudo env PATH=\"$PATH\" cargo xtask demo"
                .to_owned(),
        );
    }
    for (device, reason) in DEVICES {
        if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
            return Some(format!("The demo needs {device}: {error}\n  {reason}"));
        }
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--pid", "--fork", "true"]).stderr(Stdio::null());
    // Without the program nothing is known yet: setup installs it.
    if process::is_installed("unshare") && !process::succeeds(&mut unshare).unwrap_or(false) {
        return Some(
            "The demo makes servers out of namespaces, and this root may not make any (CAP_SYS_ADMIN);\n  \
             in a container: --privileged"
                .to_owned(),
        );
    }
    None
}

fn print_logs(lab: &Lab, screen: &Screen) {
    for server in tutorial::SERVERS {
        screen.own(&format!("The last lines of {}'s daemon:", server.name));
        let line = format!("{} --lines {LOG_LINES}", tutorial::LOG);
        match lab.run(lab.ssh(server.name, &line)) {
            Ok((_, log)) => screen.output(&log),
            Err(error) => screen.output(&format!("{error:#}")),
        }
    }
}
