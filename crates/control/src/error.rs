//! What can go wrong, and whose fault it is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::hello::Versions;

/// A failure of the control path itself. What the daemon refuses is part of its answers, not of this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The socket is not there, or nobody listens on it.
    #[error("no daemon answers on {}: it is not running", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// A daemon listens on the socket already; a second one must not.
    #[error("{} is in use: another daemon listens on it", path.display())]
    AlreadyServed {
        /// The socket.
        path: PathBuf,
    },
    /// An inherited descriptor is not what a server needs.
    #[error("inherited descriptor is not a listening unix stream socket")]
    NotAListener,
    /// The system refused a step of ours.
    #[error("{} {}: {source}", step, path.display())]
    System {
        /// What was tried.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The peer let us wait.
    #[error("peer did not finish its {awaited} within {} ms", timeout.as_millis())]
    Timeout {
        /// What we waited for.
        awaited: &'static str,
        /// How long.
        timeout: Duration,
    },
    /// The peer went away in the middle.
    #[error("peer closed the connection before its {awaited} was complete")]
    Closed {
        /// What we waited for.
        awaited: &'static str,
    },
    /// Transfer failed for another reason.
    #[error("transfer of the {what} failed: {source}")]
    Transfer {
        /// What was on its way.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The peer greets with another magic: not a control socket of ours.
    #[error("peer does not speak the control protocol (it greets with {magic:02x?})")]
    ForeignPeer {
        /// What it said.
        magic: [u8; 8],
    },
    /// No version in common.
    #[error("peer speaks control protocol {theirs}, this program {ours}: update the older of the two")]
    Version {
        /// The peer's.
        theirs: Versions,
        /// Ours.
        ours: Versions,
    },
    /// The daemon does not take commands from this user.
    #[error("not permitted: only root and the daemon's own user may command it")]
    NotPermitted,
    /// The daemon serves as many clients as it can.
    #[error("daemon serves its maximum of clients; try again")]
    TooManyClients,
    /// A frame beyond the bound.
    #[error("{what} of {length_bytes} bytes is beyond the bound of {limit_bytes}")]
    TooLarge {
        /// Request or answer.
        what: &'static str,
        /// Its length.
        length_bytes: u64,
        /// The bound.
        limit_bytes: u32,
    },
    /// Our own value does not go into JSON: a fault of this program.
    #[error("own {what} cannot be encoded: {source}")]
    Encode {
        /// Request or answer.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The peer's JSON does not fit the type: a fault of the peer, or a release apart.
    #[error("peer's {what} is not understood: {source}")]
    Decode {
        /// Request or answer.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The daemon did not understand the request.
    #[error("daemon does not understand the request: {0}")]
    NotUnderstood(String),
}

impl ControlError {
    /// Sorts the outcome of a read or write into the peer's faults and the system's.
    pub(crate) fn transfer(what: &'static str, timeout: Option<Duration>, source: io::Error) -> Self {
        match (source.kind(), timeout) {
            (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(timeout)) => {
                Self::Timeout { awaited: what, timeout }
            }
            (
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset,
                _,
            ) => Self::Closed { awaited: what },
            _ => Self::Transfer { what, source },
        }
    }
}
