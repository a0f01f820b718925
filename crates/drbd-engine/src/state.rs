//! The state of one device, and which states may follow which.
//!
//! Upstream: `union drbd_state`, `sanitize_state`, `is_valid_state`, `is_valid_soft_transition` (drbd_state.c).

use drbd_format::names::{ConnectionState, DiskState, Role};
use drbd_format::wire::StateWord;

use crate::admin::Refusal;

/// `SS_*`: numbers of refusals that concern states.
pub mod code {
    /// Multiple primaries not allowed by config.
    pub const TWO_PRIMARIES: i32 = -1;
    /// Need access to UpToDate data.
    pub const NO_UP_TO_DATE_DISK: i32 = -2;
    /// Can not resync without local disk.
    pub const NO_LOCAL_DISK: i32 = -4;
    /// Can not resync without remote disk.
    pub const NO_REMOTE_DISK: i32 = -5;
    /// Refusing to be Outdated while Connected.
    pub const CONNECTED_OUTDATES: i32 = -6;
    /// Refusing to be Primary while peer is not outdated.
    pub const PRIMARY_NOP: i32 = -7;
    /// Can not start OV/resync since it is already active.
    pub const RESYNC_RUNNING: i32 = -8;
    /// Can not disconnect a StandAlone device.
    pub const ALREADY_STANDALONE: i32 = -9;
    /// State change was refused by peer node.
    pub const CW_FAILED_BY_PEER: i32 = -10;
    /// Device is diskless, the requested operation requires a disk.
    pub const IS_DISKLESS: i32 = -11;
    /// Device is held open by someone.
    pub const DEVICE_IN_USE: i32 = -12;
    /// Have no net/connection configuration.
    pub const NO_NET_CONFIG: i32 = -13;
    /// Need a verify algorithm to start online verify.
    pub const NO_VERIFY_ALG: i32 = -14;
    /// Need a connection to start verify or resync.
    pub const NEED_CONNECTION: i32 = -15;
    /// Disk state is lower than outdated.
    pub const LOWER_THAN_OUTDATED: i32 = -16;
    /// Peer does not support protocol.
    pub const NOT_SUPPORTED: i32 = -17;
    /// In transient state, retry after next state change.
    pub const IN_TRANSIENT_STATE: i32 = -18;
    /// Concurrent state changes detected and aborted.
    pub const CONCURRENT_STATE_CHANGE: i32 = -19;
    /// Success, as a reply on the wire (`SS_SUCCESS`).
    pub const SUCCESS: i32 = 1;
    /// Nothing to do (`SS_NOTHING_TO_DO`).
    pub const NOTHING_TO_DO: i32 = 2;
    /// `ERR_NET_CONFIGURED`.
    pub const NET_CONFIGURED: i32 = 125;
    /// `ERR_DISK_CONFIGURED`.
    pub const DISK_CONFIGURED: i32 = 124;
    /// `ERR_DISK_TOO_SMALL`.
    pub const DISK_TOO_SMALL: i32 = 111;
    /// `ERR_IO_MD_DISK`.
    pub const IO_MD_DISK: i32 = 118;
    /// `ERR_MD_DISK_TOO_SMALL`.
    pub const MD_DISK_TOO_SMALL: i32 = 112;
    /// `ERR_RESIZE_RESYNC`.
    pub const RESIZE_RESYNC: i32 = 130;
    /// `ERR_NO_PRIMARY`.
    pub const NO_PRIMARY: i32 = 131;
    /// `ERR_NEED_APV_93`.
    pub const NEED_APV_93: i32 = 153;
    /// `ERR_MD_LAYOUT_CONNECTED`.
    pub const MD_LAYOUT_CONNECTED: i32 = 166;
    /// `ERR_MD_LAYOUT_TOO_BIG`.
    pub const MD_LAYOUT_TOO_BIG: i32 = 167;
    /// `ERR_MD_LAYOUT_TOO_SMALL`.
    pub const MD_LAYOUT_TOO_SMALL: i32 = 168;
    /// `ERR_MD_LAYOUT_NO_FIT`.
    pub const MD_LAYOUT_NO_FIT: i32 = 169;
    /// `ERR_IMPLICIT_SHRINK`.
    pub const IMPLICIT_SHRINK: i32 = 170;
    /// `ERR_PAUSE_IS_SET`.
    pub const PAUSE_IS_SET: i32 = 134;
    /// `ERR_PAUSE_IS_CLEAR`.
    pub const PAUSE_IS_CLEAR: i32 = 135;
    /// `ERR_NO_DISK`.
    pub const NO_DISK: i32 = 138;
    /// `ERR_CONNECTED`.
    pub const CONNECTED: i32 = 151;
    /// `ERR_PIC_PEER_DEP`.
    pub const PIC_PEER_DEP: i32 = 157;
    /// `ERR_DATA_NOT_CURRENT`.
    pub const DATA_NOT_CURRENT: i32 = 150;
    /// `ERR_INTEGRITY_ALG`.
    pub const INTEGRITY_ALG: i32 = 141;
    /// `ERR_CSUMS_ALG`.
    pub const CSUMS_ALG: i32 = 144;
    /// `ERR_VERIFY_ALG`.
    pub const VERIFY_ALG: i32 = 146;
    /// `ERR_CSUMS_RESYNC_RUNNING`.
    pub const CSUMS_RESYNC_RUNNING: i32 = 148;
    /// `ERR_VERIFY_RUNNING`.
    pub const VERIFY_RUNNING: i32 = 149;
    /// `ERR_NEED_APV_100`.
    pub const NEED_APV_100: i32 = 163;
    /// `ERR_AUTH_ALG`.
    pub const AUTH_ALG: i32 = 120;
    /// `ERR_STONITH_AND_PROT_A`.
    pub const STONITH_AND_PROTOCOL_A: i32 = 154;
    /// `ERR_NOT_PROTO_C`.
    pub const NOT_PROTO_C: i32 = 139;
}

/// A refusal by its number alone.
pub fn refused(code: i32) -> Refusal {
    Refusal { code, detail: String::new() }
}

/// `union drbd_state`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    /// Our role.
    pub role: Role,
    /// The peer's role.
    pub peer: Role,
    /// The connection.
    pub conn: ConnectionState,
    /// Our disk.
    pub disk: DiskState,
    /// The peer's disk.
    pub pdsk: DiskState,
    /// Resync paused here.
    pub user_isp: bool,
    /// Resync paused by the peer.
    pub peer_isp: bool,
    /// `fencing` of our disk: a primary must know the peer outdated before it is without it.
    pub fences: bool,
}

use ConnectionState as C;
use DiskState as D;

impl State {
    /// A device that was just made.
    pub const NEW: Self = Self {
        role: Role::Secondary,
        peer: Role::Unknown,
        conn: C::StandAlone,
        disk: D::Diskless,
        pdsk: D::DUnknown,
        user_isp: false,
        peer_isp: false,
        fences: false,
    };

    /// As it travels.
    pub fn word(self) -> StateWord {
        let mut word = StateWord::new(self.role, self.peer, self.conn, self.disk, self.pdsk);
        if self.peer_isp {
            word.0 |= StateWord::PEER_ISP;
        }
        if self.user_isp {
            word.0 |= StateWord::USER_ISP;
        }
        word
    }

    /// What the single fields imply for each other, on the way from `self` to `next`.
    pub fn sanitized(mut next: Self) -> Self {
        if next.conn < C::Connected {
            next.peer_isp = false;
            next.peer = Role::Unknown;
            if next.pdsk > D::DUnknown || next.pdsk < D::Inconsistent {
                next.pdsk = D::DUnknown;
            }
        }
        if next.conn > C::Connected && (next.disk <= D::Failed || next.pdsk <= D::Failed) {
            next.conn = C::Connected;
            // What was to be synced from a disk that is gone is old. It must not become current with the next rule
            // (upstream lets it), or the front would read what was overwritten long ago.
            for disk in [&mut next.disk, &mut next.pdsk] {
                if matches!(*disk, D::Consistent | D::Outdated) {
                    *disk = D::Inconsistent;
                }
            }
        }
        // Consistent and Outdated vanish when we get connected.
        if next.conn >= C::Connected && next.conn < C::Ahead {
            if matches!(next.disk, D::Consistent | D::Outdated) {
                next.disk = D::UpToDate;
            }
            if matches!(next.pdsk, D::Consistent | D::Outdated) {
                next.pdsk = D::UpToDate;
            }
        }
        let (disk, pdsk) = disk_limits(next.conn);
        next.disk = next.disk.clamp(disk.0, disk.1);
        next.pdsk = next.pdsk.clamp(pdsk.0, pdsk.1);
        let paused = next.peer_isp || next.user_isp;
        next.conn = match (next.conn, paused) {
            (C::SyncSource, true) => C::PausedSyncS,
            (C::SyncTarget, true) => C::PausedSyncT,
            (C::PausedSyncS, false) => C::SyncSource,
            (C::PausedSyncT, false) => C::SyncTarget,
            (conn, _) => conn,
        };
        next
    }

    /// Why this state must not be, if so.
    pub fn fault(self, two_primaries_allowed: bool) -> Option<i32> {
        let primary = self.role == Role::Primary;
        let alone_without_data = self.conn < C::Connected && self.disk < D::UpToDate;
        let nobody_has_data = self.disk <= D::Inconsistent && self.pdsk <= D::Inconsistent;
        if primary && self.peer == Role::Primary && !two_primaries_allowed {
            Some(code::TWO_PRIMARIES)
        } else if primary && (alone_without_data || nobody_has_data) {
            Some(code::NO_UP_TO_DATE_DISK)
        } else if self.fences && primary && self.conn < C::Connected && self.pdsk >= D::DUnknown {
            Some(code::PRIMARY_NOP)
        } else if self.conn > C::Connected && self.disk < D::Inconsistent {
            Some(code::NO_LOCAL_DISK)
        } else if self.conn > C::Connected && self.pdsk < D::Inconsistent {
            Some(code::NO_REMOTE_DISK)
        } else if self.conn > C::Connected && self.disk < D::UpToDate && self.pdsk < D::UpToDate {
            Some(code::NO_UP_TO_DATE_DISK)
        } else if matches!(self.conn, C::Connected | C::WFBitMapS | C::SyncSource | C::PausedSyncS)
            && self.disk == D::Outdated
        {
            Some(code::CONNECTED_OUTDATES)
        } else if primary && self.disk < D::UpToDate && self.pdsk < D::UpToDate {
            Some(code::NO_UP_TO_DATE_DISK)
        } else if self.conn >= C::Connected && self.pdsk == D::DUnknown {
            Some(code::CONNECTED_OUTDATES)
        } else {
            None
        }
    }

    /// Whether the step from `self` to `next` is refused although `next` may be.
    pub fn step_fault(self, next: Self, handshake_under_way: bool) -> Option<i32> {
        if next.conn == C::Disconnecting && self.conn == C::StandAlone {
            return Some(code::ALREADY_STANDALONE);
        }
        let starts_sync = matches!(next.conn, C::StartingSyncS | C::StartingSyncT);
        if starts_sync && self.conn > C::Connected {
            return Some(code::RESYNC_RUNNING);
        }
        if next.disk > D::Attaching && self.disk == D::Diskless {
            return Some(code::IS_DISKLESS);
        }
        if next.disk == D::Outdated && self.disk < D::Outdated && self.disk != D::Attaching {
            return Some(code::LOWER_THAN_OUTDATED);
        }
        if starts_sync && self.conn < C::Connected {
            return Some(code::NEED_CONNECTION);
        }
        let connecting = (next.conn == C::WFReportParams && self.conn == C::WFConnection)
            || (next.conn >= C::Connected && self.conn == C::WFReportParams);
        if handshake_under_way && !connecting {
            return Some(code::IN_TRANSIENT_STATE);
        }
        // Do not promote during the handshake of a resync that the peer's `primary --force` began.
        if self.role != Role::Primary
            && next.role == Role::Primary
            && next.pdsk == D::UpToDate
            && next.disk != D::UpToDate
            && next.disk != D::Diskless
            && (next.conn <= C::WFSyncUUID || next.conn != self.conn)
        {
            return Some(code::IN_TRANSIENT_STATE);
        }
        None
    }

    /// The whole check of a change that is asked for, not forced: `Err` with the number if refused.
    pub fn check(
        self,
        next: Self,
        two_primaries_allowed: bool,
        handshake_under_way: bool,
    ) -> Result<(), i32> {
        if let Some(code) = next.fault(two_primaries_allowed) {
            // A fault that is there already does not forbid a step that leaves it there.
            if self.fault(two_primaries_allowed) != Some(code) {
                return Err(code);
            }
        }
        self.step_fault(next, handshake_under_way).map_or(Ok(()), Err)
    }

    /// `drbd_should_do_remote`: writes go to the peer too.
    pub fn replicates(self) -> bool {
        self.pdsk == D::UpToDate
            || (self.pdsk >= D::Inconsistent && self.conn >= C::WFBitMapT && self.conn < C::Ahead)
    }

    /// The peer's front writes to our disk only.
    pub fn serves_diskless_primary(self) -> bool {
        self.pdsk < D::Inconsistent && self.peer == Role::Primary
    }

    /// Some disk within reach holds current data.
    pub fn has_current_data(self) -> bool {
        self.disk == D::UpToDate || (self.conn >= C::Connected && self.pdsk == D::UpToDate)
    }
}

/// Which disk states a connection state implies: `((disk min, max), (pdsk min, max))`.
fn disk_limits(conn: ConnectionState) -> ((DiskState, DiskState), (DiskState, DiskState)) {
    match conn {
        C::WFBitMapT | C::PausedSyncT | C::StartingSyncT | C::WFSyncUUID | C::Behind => {
            ((D::Inconsistent, D::Outdated), (D::UpToDate, D::UpToDate))
        }
        C::VerifyS | C::VerifyT => ((D::UpToDate, D::UpToDate), (D::UpToDate, D::UpToDate)),
        C::Connected => ((D::Diskless, D::UpToDate), (D::Diskless, D::UpToDate)),
        C::WFBitMapS | C::PausedSyncS | C::StartingSyncS | C::Ahead => {
            ((D::UpToDate, D::UpToDate), (D::Inconsistent, D::Consistent))
        }
        C::SyncTarget => ((D::Inconsistent, D::Inconsistent), (D::UpToDate, D::UpToDate)),
        C::SyncSource => ((D::UpToDate, D::UpToDate), (D::Inconsistent, D::Inconsistent)),
        _ => ((D::Diskless, D::UpToDate), (D::Inconsistent, D::DUnknown)),
    }
}

/// What the peer's state word means seen from here (`convert_state`).
pub fn mirrored(peer: StateWord) -> State {
    State {
        role: peer.peer(),
        peer: peer.role(),
        conn: match peer.conn() {
            C::StartingSyncS => C::StartingSyncT,
            C::StartingSyncT => C::StartingSyncS,
            C::Disconnecting => C::TearDown,
            C::VerifyS => C::VerifyT,
            other => other,
        },
        disk: peer.pdsk(),
        pdsk: peer.disk(),
        user_isp: false,
        fences: false,
        peer_isp: peer.0 & (StateWord::AFTR_ISP | StateWord::USER_ISP) != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_whose_source_loses_its_disk_is_not_current() {
        let target = State { conn: C::WFBitMapT, disk: D::Outdated, pdsk: D::Failed, ..State::NEW };
        let target = State::sanitized(target);
        assert_eq!((target.conn, target.disk), (C::Connected, D::Inconsistent));
        let source = State { conn: C::WFBitMapS, disk: D::Failed, pdsk: D::Consistent, ..State::NEW };
        let source = State::sanitized(source);
        assert_eq!((source.conn, source.pdsk), (C::Connected, D::Inconsistent));
        assert!(!source.has_current_data());
    }
}
