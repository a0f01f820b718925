//! What depends on the version of the protocol that both ends settled on. docs/drbd-protocol.md is the whole table; what
//! concerns layouts is the codec's.

use drbd_format::names::ConnectionState as C;
use drbd_format::wire::{Agreed, DataFlags, Features, PROTOCOL_MAX, PROTOCOL_MIN, Packet, StateWord};

use crate::event::Level;
use crate::resource::Resource;

/// From here on the source of a resync waits for the target's word that it has finished.
pub(crate) const TARGET_SAYS_WHEN_DONE: u32 = 96;

/// From here on the first resync can be skipped (`new-current-uuid --clear-bitmap`).
pub(crate) const SKIPS_INITIAL_SYNC: u32 = 90;

/// From here on writes say themselves whether they are flushes or discards.
const WRITES_HAVE_KINDS: u32 = 95;

/// From here on there are volumes, requests about the connection as a whole, settings that change while connected, and
/// writes that say which acknowledgement they want.
pub(crate) const CONNECTION_HAS_VOLUMES: u32 = 100;

/// What we offer with this highest version. Features came with the newest one: who pretends to be older has none.
pub(crate) fn offer(protocol_max: u32) -> Features {
    let all = Features::TRIM | Features::THIN_RESYNC | Features::WSAME | Features::WZEROES;
    let feature_flags = if protocol_max >= PROTOCOL_MAX { all } else { 0 };
    Features { protocol_min: PROTOCOL_MIN, feature_flags, protocol_max }
}

/// Flags of a write as this version knows them (`bio_flags_to_wire`, `drbd_send_dblock`).
pub(crate) fn known_flags(flags: DataFlags, agreed: &Agreed) -> DataFlags {
    let mut known = DataFlags::MAY_SET_IN_SYNC.0 | DataFlags::SYNC.0;
    if agreed.protocol >= WRITES_HAVE_KINDS {
        known |= DataFlags::FUA.0 | DataFlags::FLUSH.0 | DataFlags::DISCARD.0 | DataFlags::ZEROES.0;
    }
    if agreed.protocol >= CONNECTION_HAS_VOLUMES {
        known |= DataFlags::SEND_RECEIVE_ACK.0 | DataFlags::SEND_WRITE_ACK.0;
    }
    DataFlags(flags.0 & known)
}

/// The longest read of a peer that an answer of this version can carry, in bytes.
pub(crate) fn reply_bytes_max(agreed: &Agreed) -> u64 {
    // Between 95 and 99 what is asked is bounded, but the header has room for anything.
    if agreed.protocol < WRITES_HAVE_KINDS {
        u64::from(agreed.bio_bytes_max())
    } else {
        drbd_format::wire::BIO_BYTES_MAX as u64
    }
}

impl Resource {
    /// The highest version that is offered from the next handshake on, between [`PROTOCOL_MIN`] and [`PROTOCOL_MAX`].
    pub fn limit_protocol(&mut self, protocol_max: u32) {
        self.link.protocol_max = protocol_max.clamp(PROTOCOL_MIN, PROTOCOL_MAX);
    }

    /// Whether all our volumes can be told apart in the agreed version; says so if not.
    pub(crate) fn volumes_fit_protocol(&mut self) -> bool {
        let protocol = self.link.agreed.protocol;
        let fit = protocol >= CONNECTION_HAS_VOLUMES || self.devices.keys().all(|&volume| volume == 0);
        if !fit {
            let text = format!("protocol version {protocol} knows no volumes but 0, and there are more here");
            self.turn.log(Level::Error, text);
        }
        fit
    }

    /// Asks the peer to agree that we leave (`conn_send_state_req`).
    pub(crate) fn send_leave_request(&mut self, mask: StateWord, val: StateWord) {
        let packet = if self.link.agreed.protocol >= CONNECTION_HAS_VOLUMES {
            Packet::ConnStChgReq { mask, val }
        } else {
            Packet::StateChgReq { mask, val }
        };
        self.link.send(&mut self.turn, 0, packet, None);
    }

    /// Whether a request about a device is one about the connection, as older versions have no other.
    pub(crate) fn concerns_connection(&self, val: StateWord) -> bool {
        self.link.agreed.protocol < CONNECTION_HAS_VOLUMES && val.conn() == C::Disconnecting
    }

    /// Answers a request about the connection (`conn_send_sr_reply`).
    pub(crate) fn answer_about_connection(&mut self, reply: i32) {
        let packet = if self.link.agreed.protocol >= CONNECTION_HAS_VOLUMES {
            Packet::ConnStChgReply(reply)
        } else {
            Packet::StateChgReply(reply)
        };
        self.link.send_meta(&mut self.turn, 0, packet);
    }
}
