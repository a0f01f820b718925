//! The numbers that travel in state packets, and the strings the tools print for them.
//!
//! Upstream: `enum drbd_role`, `enum drbd_conns`, `enum drbd_disk_state` (include/linux/drbd.h), strings of
//! `drbd_strings.c`. Each is an open integer: a value that this release does not know survives a round trip.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An open integer with names for the values that upstream knows.
macro_rules! wire_names {
    ($(#[$doc:meta])* $name:ident($repr:ty), $what:literal { $($(#[$vdoc:meta])* $konst:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        pub struct $name(pub $repr);

        #[allow(non_upper_case_globals)]
        impl $name {
            $($(#[$vdoc])* pub const $konst: Self = Self($value);)*

            /// The string the tools print, if the value has a name.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some($text),)* _ => None }
            }

            /// The value a tool's string stands for.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$konst),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, concat!($what, "({})"), self.0),
                }
            }
        }
    };
}

wire_names! {
    /// Role of a node in a resource (`enum drbd_role`).
    Role(u8), "role" {
        /// Not known: no connection.
        Unknown = 0, "Unknown";
        /// May read and write.
        Primary = 1, "Primary";
        /// Receives what the primary writes.
        Secondary = 2, "Secondary";
    }
}

wire_names! {
    /// Connection state of a device (`enum drbd_conns`). Below `WFReportParams` there is no socket.
    ConnectionState(u8), "cs" {
        /// No network configuration in use.
        StandAlone = 0, "StandAlone";
        /// On the way to StandAlone.
        Disconnecting = 1, "Disconnecting";
        /// Before a connection attempt.
        Unconnected = 2, "Unconnected";
        /// The peer did not answer in time.
        Timeout = 3, "Timeout";
        /// The peer's socket broke.
        BrokenPipe = 4, "BrokenPipe";
        /// The network failed.
        NetworkFailure = 5, "NetworkFailure";
        /// The peer said what the protocol forbids.
        ProtocolError = 6, "ProtocolError";
        /// The peer is closing the connection.
        TearDown = 7, "TearDown";
        /// Waiting until the peer is visible on the network.
        WFConnection = 8, "WFConnection";
        /// Connected; waiting for the peer's first packets.
        WFReportParams = 9, "WFReportParams";
        /// Connected, mirroring.
        Connected = 10, "Connected";
        /// A full sync begins, asked for here, as source.
        StartingSyncS = 11, "StartingSyncS";
        /// A full sync begins, asked for here, as target.
        StartingSyncT = 12, "StartingSyncT";
        /// Waiting for the peer's bitmap, as source.
        WFBitMapS = 13, "WFBitMapS";
        /// Waiting for the peer's bitmap, as target.
        WFBitMapT = 14, "WFBitMapT";
        /// Waiting for the source's sync UUID.
        WFSyncUUID = 15, "WFSyncUUID";
        /// Sync runs, this node sends.
        SyncSource = 16, "SyncSource";
        /// Sync runs, this node receives.
        SyncTarget = 17, "SyncTarget";
        /// Online verify runs, this node asked for it.
        VerifyS = 18, "VerifyS";
        /// Online verify runs, the peer asked for it.
        VerifyT = 19, "VerifyT";
        /// Sync is paused, this node would send.
        PausedSyncS = 20, "PausedSyncS";
        /// Sync is paused, this node would receive.
        PausedSyncT = 21, "PausedSyncT";
        /// Runs ahead of a congested peer.
        Ahead = 22, "Ahead";
        /// Lags behind a peer that runs ahead.
        Behind = 23, "Behind";
    }
}

wire_names! {
    /// State of a disk (`enum drbd_disk_state`), in the order of its worth.
    DiskState(u8), "ds" {
        /// No disk.
        Diskless = 0, "Diskless";
        /// Meta-data are being read.
        Attaching = 1, "Attaching";
        /// The disk failed; on the way to Diskless.
        Failed = 2, "Failed";
        /// Attached while connected; waits for the peer's word.
        Negotiating = 3, "Negotiating";
        /// Holds a mixture of old and new.
        Inconsistent = 4, "Inconsistent";
        /// Consistent but known to be old.
        Outdated = 5, "Outdated";
        /// Not known: no connection.
        DUnknown = 6, "DUnknown";
        /// Consistent; whether outdated is open until the peer is seen.
        Consistent = 7, "Consistent";
        /// Current.
        UpToDate = 8, "UpToDate";
    }
}

impl ConnectionState {
    /// Whether packets may be exchanged (`C_WF_REPORT_PARAMS` and above).
    pub fn has_socket(self) -> bool {
        self >= Self::WFReportParams
    }

    /// Whether the handshake is done (`C_CONNECTED` and above).
    pub fn is_connected(self) -> bool {
        self >= Self::Connected
    }

    /// Whether a resync runs or is paused.
    pub fn is_syncing(self) -> bool {
        matches!(self, Self::SyncSource | Self::SyncTarget | Self::PausedSyncS | Self::PausedSyncT)
    }
}

pub(crate) use wire_names;
