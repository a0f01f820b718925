//! `data-integrity-alg`: a digest in front of the bytes of writes, and of answers to reads.
//!
//! The shell computes and compares; here it is decided which digest counts from when on, and what follows if bytes and
//! digest do not go together. Upstream: `integrity_tfm`, `peer_integrity_tfm`, `receive_protocol`, `read_in_block`.

use drbd_format::auth::Digest;
use drbd_format::names::ConnectionState as C;
use drbd_format::wire::{Packet, Protocol};

use crate::event::{Action, Integrity, Level, SocketId};
use crate::resource::Resource;

impl Resource {
    /// Before the first packet that could carry a digest: what we send has one if so configured; what the peer sends is
    /// known when its settings have come.
    pub(crate) fn begin_integrity(&mut self) {
        let sent = Digest::by_name(&self.link.options().data_integrity_alg);
        self.set_integrity(Integrity { sent, received: None });
    }

    /// What we send has another digest from now on; the peer was told just before.
    pub(crate) fn change_sent_integrity(&mut self) {
        let sent = Digest::by_name(&self.link.options().data_integrity_alg);
        self.set_integrity(Integrity { sent, ..self.link.integrity });
    }

    /// The peer's packets carry this digest from the next one on. False: we cannot compute it, and part.
    pub(crate) fn peer_integrity(&mut self, theirs: &Protocol) -> bool {
        let name = &theirs.integrity_alg;
        let received = Digest::by_name(name);
        if received.is_none() && !name.is_empty() {
            self.turn.log(Level::Error, format_args!("peer data-integrity-alg {name} not supported"));
            self.stand_alone();
            return false;
        }
        if self.link.options().data_integrity_alg != *name {
            let shown = if name.is_empty() { "(none)" } else { name };
            self.turn.info(format_args!("peer data-integrity-alg: {shown}"));
        }
        self.set_integrity(Integrity { received, ..self.link.integrity });
        true
    }

    fn set_integrity(&mut self, integrity: Integrity) {
        self.link.integrity = integrity;
        self.turn.out.push(Action::Integrity(integrity));
    }

    /// Bytes came that are not what the peer computed its digest of. Nothing on this connection is believed any more: what
    /// the peer has no acknowledgement for it marks, and sends again in a resync.
    pub(crate) fn altered(&mut self, socket: SocketId, volume: u16, packet: &Packet, bytes: u32) {
        if self.link.data != Some(socket) {
            return;
        }
        let minor = self.devices.get(&volume).map_or(0, |d| d.minor);
        match packet {
            Packet::Data(data) | Packet::RsDataReply(data) => self.turn.log(
                Level::Error,
                format_args!("drbd{minor}: Digest integrity check FAILED: {} +{bytes}", data.sector),
            ),
            _ => self
                .turn
                .log(Level::Error, format_args!("drbd{minor}: Digest integrity check FAILED. Broken NICs?")),
        }
        self.lose(C::ProtocolError);
    }
}
