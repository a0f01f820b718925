//! Waiting until peers have appeared or resyncs have ended: `wait-connect`, `wait-sync`, `wait-con-int`.
//!
//! Upstream: drbdsetup 8.4, which of three timeouts counts, and that a device that stands alone is waited for only with
//! `wait-after-sb`.

use std::thread;
use std::time::{Duration, Instant};

use drbd_format::names::{ConnectionState, DiskState};

use crate::drbd_conf::model::Setting;
use crate::drbd_conf::options::Kind;
use crate::drbd_conf::value;
use crate::session::{Session, SessionError};

/// Exit status if the time is up.
pub const EXIT_TIME_IS_UP: u8 = 5;

/// Exit status if there is nothing to wait for.
const EXIT_NOT_THERE: u8 = 20;

/// Pause between looks at the state.
pub const POLL: Duration = Duration::from_millis(200);

/// What is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Awaited {
    /// The handshake with the peer.
    Connected,
    /// The end of a resync, too.
    Synced,
}

/// The startup section, as far as it is about waiting; 0: for ever.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WaitOptions {
    /// `wfc-timeout`, seconds: the peer was there when this node went down.
    pub wfc_timeout_s: u32,
    /// `degr-wfc-timeout`, seconds: this node was Primary alone then.
    pub degr_wfc_timeout_s: u32,
    /// `outdated-wfc-timeout`, seconds: the peer's data are known to be outdated.
    pub outdated_wfc_timeout_s: u32,
    /// `wait-after-sb`: wait also for one that stands alone.
    pub after_split_brain: bool,
}

impl WaitOptions {
    /// From a startup section; the last word of each counts.
    pub fn from_settings(settings: &[Setting]) -> Self {
        let mut options = Self::default();
        for setting in settings {
            let seconds = match setting.option.kind {
                Kind::Number { scale, .. } => value::number(&setting.value, scale),
                _ => None,
            };
            let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or_default();
            match setting.option.name {
                "wfc-timeout" => options.wfc_timeout_s = seconds,
                "degr-wfc-timeout" => options.degr_wfc_timeout_s = seconds,
                "outdated-wfc-timeout" => options.outdated_wfc_timeout_s = seconds,
                "wait-after-sb" => options.after_split_brain = setting.value == "yes",
                _ => {}
            }
        }
        options
    }

    /// How long to wait for a device that was and is like this at the beginning; none: for ever. A shorter reason to wait
    /// may not last longer than a longer one; what is changed for that is said in the second value.
    pub fn timeout(mut self, peer_disk: DiskState, was_degraded: bool) -> (Option<Duration>, String) {
        let mut said = String::new();
        let is_longer = |shorter: u32, longer: u32| longer > 0 && (longer < shorter || shorter == 0);
        if is_longer(self.degr_wfc_timeout_s, self.wfc_timeout_s) {
            self.degr_wfc_timeout_s = self.wfc_timeout_s;
            said += &format!(
                "degr-wfc-timeout has to be shorter than wfc-timeout\n\
                 degr-wfc-timeout implicitly set to wfc-timeout ({}s)\n",
                self.degr_wfc_timeout_s
            );
        }
        if is_longer(self.outdated_wfc_timeout_s, self.degr_wfc_timeout_s) {
            self.outdated_wfc_timeout_s = self.degr_wfc_timeout_s;
            said += &format!(
                "outdated-wfc-timeout has to be shorter than degr-wfc-timeout\n\
                 outdated-wfc-timeout implicitly set to degr-wfc-timeout ({}s)\n",
                self.degr_wfc_timeout_s
            );
        }
        let seconds = if peer_disk == DiskState::Outdated {
            self.outdated_wfc_timeout_s
        } else if was_degraded {
            self.degr_wfc_timeout_s
        } else {
            self.wfc_timeout_s
        };
        ((seconds > 0).then(|| Duration::from_secs(seconds.into())), said)
    }

    /// Whether the waiting is over for a device in this state.
    pub fn is_over(&self, awaited: Awaited, connection: ConnectionState) -> bool {
        let is_reached = match awaited {
            Awaited::Connected => connection.is_connected(),
            Awaited::Synced => connection == ConnectionState::Connected,
        };
        is_reached || (!self.after_split_brain && connection < ConnectionState::Unconnected)
    }
}

/// Says that a minor cannot be waited for; the exit status.
pub fn no_minor() -> u8 {
    eprintln!("error determining which timeout to use: minor not available");
    EXIT_NOT_THERE
}

/// Waits for one minor; the exit status.
///
/// # Errors
/// If the daemon does not answer.
pub fn wait(
    session: &mut Session,
    minor: u32,
    awaited: Awaited,
    options: WaitOptions,
) -> Result<u8, SessionError> {
    let Some((_, device)) = session.minor(minor)? else {
        return Ok(no_minor());
    };
    let (timeout, said) = options.timeout(device.peer_disk, device.was_degraded);
    eprint!("{said}");
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        // A device that is gone meanwhile is not waited for.
        let found = session.minor(minor)?;
        if found.is_none_or(|(_, device)| options.is_over(awaited, device.connection)) {
            return Ok(0);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(EXIT_TIME_IS_UP);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drbd_format::names::{ConnectionState, DiskState};

    use super::{Awaited, WaitOptions};

    #[test]
    fn which_timeout_counts() {
        let options = |wfc, degr, outdated| WaitOptions {
            wfc_timeout_s: wfc,
            degr_wfc_timeout_s: degr,
            outdated_wfc_timeout_s: outdated,
            after_split_brain: false,
        };
        for (options, pdsk, degraded, seconds, lines) in [
            (options(30, 20, 10), DiskState::DUnknown, false, 30, 0),
            (options(30, 20, 10), DiskState::DUnknown, true, 20, 0),
            (options(30, 20, 10), DiskState::Outdated, true, 10, 0),
            // Not longer than the one before it, and 0 is the longest.
            (options(30, 40, 10), DiskState::DUnknown, true, 30, 2),
            (options(30, 0, 0), DiskState::Outdated, false, 30, 4),
            (options(0, 0, 0), DiskState::DUnknown, true, 0, 0),
            (options(0, 5, 3), DiskState::DUnknown, false, 0, 0),
        ] {
            let (timeout, said) = options.timeout(pdsk, degraded);
            let expected = (seconds > 0).then(|| Duration::from_secs(seconds));
            assert_eq!((timeout, said.lines().count()), (expected, lines), "{options:?} {pdsk} {degraded}");
        }
    }

    #[test]
    fn when_the_waiting_is_over() {
        for (state, after_split_brain, is_connected, is_synced) in [
            (ConnectionState::WFConnection, false, false, false),
            (ConnectionState::WFReportParams, false, false, false),
            (ConnectionState::Connected, false, true, true),
            (ConnectionState::SyncTarget, false, true, false),
            (ConnectionState::StandAlone, false, true, true),
            (ConnectionState::StandAlone, true, false, false),
        ] {
            let options = WaitOptions { after_split_brain, ..WaitOptions::default() };
            let over = [Awaited::Connected, Awaited::Synced].map(|awaited| options.is_over(awaited, state));
            assert_eq!(over, [is_connected, is_synced], "{state}");
        }
    }
}
