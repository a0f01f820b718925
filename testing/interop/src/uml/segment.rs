//! A network segment that nothing else on this machine sees, and that ends with this process.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::program::{output, words};

/// Set in the process that is inside.
const INSIDE: &str = "LOCKSTEP_INTEROP_INSIDE";

/// The bridge that nodes are plugged into.
pub struct Segment;

impl Segment {
    /// Starts this program again, with the same arguments, where it has network, mounts and processes to itself:
    /// whatever it leaves behind ends with it. Returns only in the process inside, or with an error.
    pub fn enter() -> anyhow::Result<Self> {
        if std::env::var_os(INSIDE).is_none() {
            let error = Command::new("unshare")
                .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
                .args(["--propagation", "private"])
                .arg(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .env(INSIDE, "1")
                .exec();
            return Err(error).context("cannot run `unshare`");
        }
        for line in [
            "ip link set lo up",
            "ip link add br0 type bridge forward_delay 0 stp_state 0",
            "ip link set br0 up",
            // Its network is this namespace's.
            "mount -t sysfs sysfs /sys",
        ] {
            output(&mut words(line))?;
        }
        Ok(Self)
    }

    /// Plugs a node's network card in.
    pub fn plug(&self, tap: &str) -> anyhow::Result<()> {
        output(&mut words(&format!("ip tuntap add {tap} mode tap")))?;
        output(&mut words(&format!("ip link set {tap} master br0 up")))?;
        Ok(())
    }

    /// Pulls it out, if it is there.
    pub fn unplug(tap: &str) {
        let _ = output(&mut words(&format!("ip link del {tap}")));
    }

    /// Plugs a cable into the namespace of a process, where it is eth0.
    pub fn plug_namespace(&self, port: &str, pid: u32) -> anyhow::Result<()> {
        output(&mut words(&format!("ip link add {port} type veth peer name eth0 netns {pid}")))?;
        output(&mut words(&format!("ip link set {port} master br0 up")))?;
        Ok(())
    }

    /// Pulls or plugs in a cable of [`Self::plug_namespace`]: frames are lost, nobody is told. (User Mode Linux does not
    /// recover from a tap that goes down.)
    pub fn set_cable(&self, port: &str, plugged: bool) -> anyhow::Result<()> {
        let state = if plugged { "up" } else { "down" };
        output(&mut words(&format!("ip link set {port} {state}")))?;
        Ok(())
    }
}
