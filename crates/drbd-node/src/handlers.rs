//! Runs the administrator's programs beside a resource's loop: `drbdadm NAME minor-N`, with the kernel's environment.
//!
//! Upstream: `drbd_khelper` and `conn_khelper` (drbd_nl.c), `call_usermodehelper`. What concerns devices runs one after
//! another, as in the kernel's receiver; what concerns the connection does not wait for that.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use drbd_engine::handlers::{HandlerCall, Subject};

use crate::worker::{self, Handle};

/// This program, even if its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the kernel gives its helper, and nothing else.
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME", "/"), ("TERM", "linux"), ("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")];

/// What is ours in an environment: where the daemon is, and in which year.
const OWN_VARIABLES: [&str; 2] = ["LOCKSTEP_RUN", "LOCKSTEP_ERA"];

/// The ways to the threads that wait for programs; each is started with its first call and ends with the resource.
#[derive(Debug, Default)]
pub struct Handlers {
    devices: Option<Sender<HandlerCall>>,
    connection: Option<Sender<HandlerCall>>,
}

impl Handlers {
    /// Has a program run; `handle` is told when it has ended.
    pub fn run(&mut self, call: HandlerCall, handle: &Handle) {
        let lane = match call.subject {
            Subject::Minor(_) => &mut self.devices,
            Subject::Resource(_) => &mut self.connection,
        };
        if lane.is_none() {
            let (sender, calls) = channel();
            let told = handle.clone();
            match std::thread::Builder::new().name("drbd-handlers".into()).spawn(move || serve(&calls, &told))
            {
                Ok(_) => *lane = Some(sender),
                Err(error) => {
                    tracing::error!(%error, "no thread for handlers");
                    handle.send(worker::Command::HandlerEnded { run: call.run, status: 0 });
                    return;
                }
            }
        }
        if let Some(sender) = lane {
            // The thread ends after its sender only.
            let _ = sender.send(call);
        }
    }
}

fn serve(calls: &Receiver<HandlerCall>, handle: &Handle) {
    while let Ok(call) = calls.recv() {
        let run = call.run;
        let status = status_of(&call);
        if !handle.send(worker::Command::HandlerEnded { run, status }) {
            return;
        }
    }
}

/// The exit code; a program that cannot be run counts as one that had nothing against it, as in the kernel.
fn status_of(call: &HandlerCall) -> u8 {
    let ended = command(call).status();
    match ended {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(0),
        Err(error) => {
            tracing::warn!(handler = call.handler.name(), %error, "the handler cannot be run");
            0
        }
    }
}

fn command(call: &HandlerCall) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0("lockstep").args(["drbd", "helper", call.handler.name(), &call.subject.to_string()]);
    command.env_clear().envs(ENVIRONMENT);
    command.envs(OWN_VARIABLES.iter().filter_map(|&name| Some((name, std::env::var_os(name)?))));
    if let Some(peer) = call.peer {
        let (family, address) = peer_words(peer);
        command.env("DRBD_PEER_AF", family).env("DRBD_PEER_ADDRESS", address);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command
}

/// `%pI4`, and `%pI6`, which leaves no zero out.
fn peer_words(peer: IpAddr) -> (&'static str, String) {
    match peer {
        IpAddr::V4(v4) => ("ipv4", v4.to_string()),
        IpAddr::V6(v6) => {
            let groups: Vec<String> = v6.segments().iter().map(|group| format!("{group:04x}")).collect();
            ("ipv6", groups.join(":"))
        }
    }
}

/// `lockstep drbd helper …`: what becomes drbdadm. It ends with the daemon, and has none of the daemon's privileges over
/// memory.
pub fn helper(words: &[&str]) -> ExitCode {
    let died = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if died.is_err() {
        tracing::debug!("PR_SET_PDEATHSIG is not granted");
    }
    crate::daemon::leave_reclaim_protection();
    let error = Command::new(OWN_PROGRAM).arg0("drbdadm").args(words).exec();
    eprintln!("lockstep drbd helper: {OWN_PROGRAM}: {error}");
    // `call_usermodehelper` fails here, and that counts as success.
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use drbd_engine::handlers::{Handler, HandlerRun};

    use super::*;

    #[test]
    fn the_environment_is_the_kernels() {
        for (peer, family, address) in [
            ("172.16.16.3", "ipv4", "172.16.16.3"),
            ("fd00::3", "ipv6", "fd00:0000:0000:0000:0000:0000:0000:0003"),
        ] {
            let call = HandlerCall {
                run: HandlerRun(1),
                handler: Handler::SplitBrain,
                subject: Subject::Minor(7),
                peer: peer.parse().ok(),
            };
            let command = command(&call);
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            assert_eq!(words, ["drbd", "helper", "split-brain", "minor-7"]);
            let value = |name: &str| {
                let found = command.get_envs().find(|(key, _)| *key == name);
                found.and_then(|(_, value)| value).map(|value| value.to_string_lossy().into_owned())
            };
            assert_eq!(value("DRBD_PEER_AF").as_deref(), Some(family));
            assert_eq!(value("DRBD_PEER_ADDRESS").as_deref(), Some(address));
            assert_eq!(value("HOME").as_deref(), Some("/"));
        }
    }
}
