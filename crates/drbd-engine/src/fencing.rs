//! Who has lost the peer and goes on must see to it that the peer does not: policies, the handler `fence-peer`, and what
//! its exit code means.
//!
//! Upstream: `conn_try_outdate_peer`, `highest_fencing_policy`, `drbd_set_role` (drbd_nl.c), `enum drbd_peer_state`.

use std::collections::BTreeSet;

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};

use crate::device::Device;
use crate::event::{Level, Ticket};
use crate::handlers::{After, Handler};
use crate::resource::Resource;
use crate::state::{State, code, refused};

/// `fencing dont-care`.
pub const DONT_CARE: u32 = 0;

/// `fencing resource-and-stonith`.
pub const STONITH: u32 = 2;

/// Exit codes of `fence-peer`.
mod peer_state {
    /// The peer is inconsistent or worse.
    pub const INCONSISTENT: u8 = 3;
    /// It is outdated.
    pub const OUTDATED: u8 = 4;
    /// It cannot be reached.
    pub const DOWN: u8 = 5;
    /// It is primary.
    pub const PRIMARY: u8 = 6;
    /// It was switched off.
    pub const FENCING: u8 = 7;
}

/// What waits for `fence-peer`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FenceFor {
    /// A primary that has lost the peer.
    Loss,
    /// A promotion.
    Promotion { ticket: Ticket, force: bool },
}

/// Volumes that are declared current, and the state each volume goes to.
pub(crate) type Promotion = (BTreeSet<u16>, Vec<(u16, State)>);

/// How a promotion may use what became of `fence-peer`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fenced {
    /// It was not called.
    Unasked,
    /// The peer is outdated, or needs not be.
    Yes,
    /// It is not.
    No,
}

impl Device {
    /// The policy of its disk section; without a disk nothing is fenced.
    pub(crate) fn fencing(&self) -> u32 {
        self.disk.as_ref().map_or(DONT_CARE, |disk| disk.options.fencing)
    }
}

impl Resource {
    /// The strictest policy of those volumes whose data are worth it.
    fn highest_fencing(&self) -> Option<u32> {
        let worth = self.devices.values().filter(|d| d.disk.is_some() && d.state.disk >= D::Consistent);
        worth.map(Device::fencing).max()
    }

    fn is_peer_outdated(&self) -> bool {
        self.devices.values().all(|d| d.state.pdsk <= D::Outdated)
    }

    /// A primary has lost the peer (`conn_disconnect`).
    pub(crate) fn fence_lost_peer(&mut self) {
        let unknown = self.devices.values().any(|d| d.state.pdsk >= D::DUnknown);
        if self.role != Role::Primary || !unknown {
            return;
        }
        match self.highest_fencing() {
            None => {
                if self.suspended.fencing {
                    self.turn.log(Level::Warning, "Not fencing peer, I'm not even Consistent myself.");
                    self.suspended.fencing = false;
                    if !self.suspended.any() {
                        self.give_up_frozen();
                    }
                }
            }
            Some(DONT_CARE) => {}
            Some(_) => {
                let after = After::Fence { met: self.link.met, purpose: FenceFor::Loss };
                self.call_handler_then(Handler::FencePeer, None, after);
            }
        }
    }

    /// A promotion needs the peer outdated: whether the answer waits for that.
    pub(crate) fn fence_for_promotion(&mut self, ticket: Ticket, force: bool) -> bool {
        if self.promoting {
            return false;
        }
        match self.highest_fencing() {
            None => {
                self.turn.log(Level::Warning, "Not fencing peer, I'm not even Consistent myself.");
                false
            }
            Some(DONT_CARE) => false,
            Some(_) => {
                let purpose = FenceFor::Promotion { ticket, force };
                let after = After::Fence { met: self.link.met, purpose };
                self.promoting = self.call_handler_then(Handler::FencePeer, None, after).is_some();
                self.promoting
            }
        }
    }

    /// `fence-peer` has ended.
    pub(crate) fn fence_ended(&mut self, status: u8, met: u64, purpose: FenceFor) {
        let is_fenced = self.take_fence_status(status, met);
        if let FenceFor::Promotion { ticket, force } = purpose {
            self.promoting = false;
            self.promote_after_fencing(ticket, force, if is_fenced { Fenced::Yes } else { Fenced::No });
        }
    }

    /// What the exit code says of the peer, unless it came back meanwhile; whether the peer is outdated now.
    fn take_fence_status(&mut self, status: u8, met: u64) -> bool {
        let is_stonith = self.highest_fencing() == Some(STONITH);
        let is_current = self.devices.values().any(|d| d.state.disk == D::UpToDate);
        let outdate = |state: State| State { pdsk: D::Outdated, ..state };
        type Change = fn(State) -> State;
        let (text, change): (_, Change) = match status {
            peer_state::INCONSISTENT => {
                ("peer is inconsistent or worse", |state| State { pdsk: D::Inconsistent, ..state })
            }
            peer_state::OUTDATED => ("peer was fenced", outdate),
            peer_state::DOWN if is_current => ("peer is unreachable, assumed to be dead", outdate),
            peer_state::DOWN => {
                ("peer unreachable, doing nothing since disk != UpToDate", |state: State| state)
            }
            peer_state::PRIMARY => {
                self.turn.log(Level::Warning, "Peer is primary, outdating myself.");
                ("peer is active", |state| State { disk: D::Outdated, ..state })
            }
            peer_state::FENCING => {
                if !is_stonith {
                    self.turn.log(Level::Error, "fence-peer() = 7 && fencing != Stonith !!!");
                }
                ("peer was stonithed", outdate)
            }
            _ => {
                let text = format!("fence-peer helper broken, returned {status}");
                self.turn.log(Level::Error, text);
                return false;
            }
        };
        self.turn.info(format_args!("fence-peer helper returned {status} ({text})"));
        if self.link.met != met {
            self.turn.info("Ignoring fence-peer exit code");
        } else if self.link.state < C::WFReportParams {
            self.change_while_alone(change);
        }
        self.is_peer_outdated()
    }

    /// All volumes change, or none.
    fn change_while_alone(&mut self, change: fn(State) -> State) {
        let two = self.link.two_primaries();
        let wanted: Vec<_> =
            self.devices.iter().map(|(&v, d)| (v, d.state, State::sanitized(change(d.state)))).collect();
        let refusal = wanted.iter().find_map(|&(_, os, ns)| os.check(ns, two, false).err());
        if let Some(number) = refusal {
            let text = format!("State change failed: ({number})");
            return self.turn.log(Level::Error, text);
        }
        for (volume, _, ns) in wanted {
            self.transition(volume, ns);
        }
    }

    /// The source of a resync has ended it: with all volumes equal, what kept the peer back is taken away.
    pub(crate) fn unfence_if_equal(&mut self, volume: u16) {
        let fenced = self.devices.get(&volume).is_some_and(|d| d.fencing() != DONT_CARE);
        let equal = self.devices.values().all(|d| d.state.disk == D::UpToDate && d.state.pdsk == D::UpToDate);
        if fenced && equal {
            self.call_handler_then(Handler::UnfencePeer, None, After::Nothing);
        }
    }

    /// `outdate`: our data are no longer to be relied upon. In a connection they are as good as the peer's.
    pub(crate) fn outdate(&mut self, ticket: Ticket, volume: u16) {
        let Some(os) = self.devices.get(&volume).map(|d| d.state) else { return };
        let ns = State::sanitized(State { disk: D::Outdated, ..os });
        if ns != os {
            let two = self.link.two_primaries();
            if let Err(number) = os.check(ns, two, self.link.is_introducing()) {
                return self.answer(ticket, Err(refused(number)));
            }
            self.transition(volume, ns);
        }
        self.when_stable(volume, crate::resource::Then::Answer { ticket, warnings: Vec::new() });
    }

    /// Whether all volumes may become primary, and which of them only because they are declared current; the states they go
    /// to may have to say that the peer is outdated.
    pub(crate) fn promotion_states(&self, force: bool, fenced: Fenced) -> Result<Promotion, i32> {
        let two = self.link.two_primaries();
        let introducing = self.link.is_introducing();
        let (mut forced, mut states) = (BTreeSet::new(), Vec::new());
        for (&volume, device) in &self.devices {
            let os = device.state;
            let mut wanted = State { role: Role::Primary, ..os };
            if fenced == Fenced::Yes && os.disk == D::Consistent {
                wanted.disk = D::UpToDate;
            }
            let mut outcome = os.check(State::sanitized(wanted), two, introducing);
            if outcome == Err(code::NO_UP_TO_DATE_DISK)
                && force
                && os.disk >= D::Inconsistent
                && os.disk < D::UpToDate
            {
                wanted.disk = D::UpToDate;
                forced.insert(volume);
                outcome = os.check(State::sanitized(wanted), two, introducing);
            }
            if outcome == Err(code::PRIMARY_NOP) && force && fenced == Fenced::No {
                wanted.pdsk = D::Outdated;
                outcome = os.check(State::sanitized(wanted), two, introducing);
            }
            outcome?;
            states.push((volume, State::sanitized(wanted)));
        }
        Ok((forced, states))
    }
}
