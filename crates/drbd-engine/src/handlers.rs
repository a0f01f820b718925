//! Programs of the administrator that are run when something happens, and what waits for their exit codes.
//!
//! Upstream: `drbd_khelper`, `conn_khelper` (drbd_nl.c): the kernel runs `drbdadm NAME minor-N` or `drbdadm NAME RESOURCE`,
//! which looks the program up in its configuration. A program may run for minutes: nothing here waits for one, what depends
//! on its word goes on when that comes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::event::{Action, Level};
use crate::fencing::FenceFor;
use crate::resource::Resource;

/// Programs under way at most. A peer that comes and goes starts new ones each time, while an old one may hang.
const RUNS_MAX: usize = 32;

/// The kernel's default `usermode_helper`; it is in its messages.
const HELPER: &str = "/sbin/drbdadm";

/// The `handlers` section's names.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Handler {
    /// A primary has no current data within reach any more.
    PriOnInconDegr,
    /// A primary must become the target of a resync.
    PriLost,
    /// A primary has lost a split brain.
    PriLostAfterSb,
    /// The peer is lost: it must be kept from becoming primary.
    FencePeer,
    /// The peer is equal again.
    UnfencePeer,
    /// The backing device has failed.
    LocalIoError,
    /// A resync to this node will begin; not 0: it may not, and the connection is dropped.
    BeforeResyncTarget,
    /// A resync to this node has ended.
    AfterResyncTarget,
    /// A resync from this node will begin; neither 0 nor 3: it may not, and the connection is dropped.
    BeforeResyncSource,
    /// Both have written alone; it is not yet known whether a policy solves that.
    InitialSplitBrain,
    /// Both have written alone, and no policy solves it.
    SplitBrain,
    /// An online verify has found differences.
    OutOfSync,
}

impl Handler {
    /// As in the configuration and on drbdadm's command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::PriOnInconDegr => "pri-on-incon-degr",
            Self::PriLost => "pri-lost",
            Self::PriLostAfterSb => "pri-lost-after-sb",
            Self::FencePeer => "fence-peer",
            Self::UnfencePeer => "unfence-peer",
            Self::LocalIoError => "local-io-error",
            Self::BeforeResyncTarget => "before-resync-target",
            Self::AfterResyncTarget => "after-resync-target",
            Self::BeforeResyncSource => "before-resync-source",
            Self::InitialSplitBrain => "initial-split-brain",
            Self::SplitBrain => "split-brain",
            Self::OutOfSync => "out-of-sync",
        }
    }
}

/// One run of a program, until its end is reported.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HandlerRun(pub u64);

/// What a handler is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// A device, by its number.
    Minor(u32),
    /// The resource of this name.
    Resource(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "minor-{minor}"),
            Self::Resource(name) => f.write_str(name),
        }
    }
}

/// Order to run a program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HandlerCall {
    /// To be named when it has ended.
    pub run: HandlerRun,
    /// Which.
    pub handler: Handler,
    /// About what.
    pub subject: Subject,
    /// The peer's address, if one is configured: `DRBD_PEER_AF` and `DRBD_PEER_ADDRESS`.
    pub peer: Option<IpAddr>,
}

/// What goes on when a program has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    /// Nothing waits for it.
    Nothing,
    /// The resync of a volume, if it still stands where it stood.
    Resync { volume: u16 },
    /// What the peer is worth now; `met` counts its visits.
    Fence { met: u64, purpose: FenceFor },
}

/// A program that runs.
#[derive(Debug)]
struct Running {
    handler: Handler,
    subject: Subject,
    after: After,
}

/// Programs that run.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    made: u64,
    runs: BTreeMap<HandlerRun, Running>,
}

impl Resource {
    /// Has a program run for a volume; nothing waits for it.
    pub(crate) fn call_handler(&mut self, handler: Handler, volume: u16) {
        self.call_handler_then(handler, Some(volume), After::Nothing);
    }

    /// Has a program run for a volume, or for the resource, and goes on when it has ended. None: too many run already.
    pub(crate) fn call_handler_then(
        &mut self,
        handler: Handler,
        volume: Option<u16>,
        after: After,
    ) -> Option<HandlerRun> {
        let subject = match volume {
            Some(volume) => Subject::Minor(self.devices.get(&volume)?.minor),
            None => Subject::Resource(self.name.clone()),
        };
        if self.handlers.runs.len() >= RUNS_MAX {
            let name = handler.name();
            self.turn.log(
                Level::Error,
                format_args!("{name} is not called for {subject}: {RUNS_MAX} handlers have not ended"),
            );
            return None;
        }
        self.handlers.made += 1;
        let run = HandlerRun(self.handlers.made);
        self.turn.info(format_args!("helper command: {HELPER} {} {subject}", handler.name()));
        let peer = self.link.configuration.as_ref().map(|c| c.peer.ip());
        let call = HandlerCall { run, handler, subject: subject.clone(), peer };
        self.handlers.runs.insert(run, Running { handler, subject, after });
        self.turn.out.push(Action::RunHandler(call));
        Some(run)
    }

    /// A program has ended.
    pub(crate) fn handler_ended(&mut self, run: HandlerRun, status: u8) {
        let Some(Running { handler, subject, after }) = self.handlers.runs.remove(&run) else { return };
        let level = if status == 0 { Level::Info } else { Level::Warning };
        let (name, raw) = (handler.name(), u32::from(status) << 8);
        self.turn.log(
            level,
            format_args!("helper command: {HELPER} {name} {subject} exit code {status} ({raw:#x})"),
        );
        match after {
            After::Nothing => {}
            After::Fence { met, purpose } => self.fence_ended(status, met, purpose),
            After::Resync { volume } => self.resync_permitted(volume, run, handler, status),
        }
    }
}
