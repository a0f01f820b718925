//! Packets: which one goes where.

use drbd_format::names::ConnectionState as C;
use drbd_format::wire::Packet;

use crate::device::{Leg, ReadKind};
use crate::event::{Action, Payload, SocketId};
use crate::link::{Deferred, Stage};
use crate::resource::Resource;

impl Resource {
    pub(crate) fn received(
        &mut self,
        socket: SocketId,
        volume: u16,
        packet: Packet,
        payload: Option<(Payload, u32)>,
    ) {
        let taken = packet.is_protected() || matches!(packet, Packet::OvReply(_) | Packet::CsumRsRequest(_));
        if let Some((payload, _)) = payload.filter(|_| !taken || !self.link.is_open()) {
            // No other packet that is served here brings bytes.
            self.turn.out.push(Action::Release { payload });
        }
        if self.link.is_unnamed(socket) {
            return match packet {
                Packet::InitialData => self.named(socket, true),
                Packet::InitialMeta => self.named(socket, false),
                _ => self.malformed(socket, "the first packet is neither InitialData nor InitialMeta"),
            };
        }
        let on_data = self.link.data == Some(socket);
        if !on_data && self.link.meta != Some(socket) {
            return;
        }
        self.link.heard_at = self.turn.now;
        if self.link.stage != Stage::Open {
            let authenticates = on_data && matches!(self.link.stage, Stage::Challenge | Stage::Response);
            return match packet {
                Packet::ConnectionFeatures(features) if on_data => self.features_received(features),
                Packet::AuthChallenge(bytes) if authenticates => self.challenged(&bytes),
                Packet::AuthResponse(bytes) if authenticates => self.responded(&bytes),
                Packet::Ping => self.pinged(),
                other if authenticates => {
                    self.authentication_missed(other.command());
                }
                other => {
                    let text = format!("{} during the handshake", other.command());
                    self.misbehaved(&text);
                }
            };
        }
        if self.link.leaving_at.is_some() {
            match packet {
                Packet::Ping => self.link.send_meta(&mut self.turn, 0, Packet::PingAck),
                Packet::PingAck => self.link.pinged_at = None,
                _ => {}
            }
            if let Some((payload, _)) = payload.filter(|_| taken) {
                self.turn.out.push(Action::Release { payload });
            }
            return;
        }
        if on_data && self.defers() {
            self.link.deferred.push_back(Deferred { volume, packet, payload: payload.filter(|_| taken) });
        } else if on_data {
            self.on_data_socket(volume, packet, payload)
        } else {
            self.on_meta_socket(volume, packet)
        }
    }

    pub(crate) fn on_data_socket(&mut self, volume: u16, packet: Packet, payload: Option<(Payload, u32)>) {
        if self.link.state == C::TearDown
            && matches!(
                packet,
                Packet::Data(_) | Packet::Trim { .. } | Packet::Zeroes { .. } | Packet::Barrier { .. }
            )
        {
            // The peer has left: what is not acknowledged it counts as lost. Nobody here would mark it.
            if let Some((payload, _)) = payload.filter(|_| matches!(packet, Packet::Data(_))) {
                self.turn.out.push(Action::Release { payload });
            }
            return;
        }
        match packet {
            Packet::Data(data) => self.peer_changes(volume, data, None, payload),
            Packet::Trim { data, size } | Packet::Zeroes { data, size } => {
                self.peer_changes(volume, data, Some(size), None);
            }
            Packet::DataReply(data) => self.data_replied(volume, data, payload),
            Packet::RsDataReply(data) => self.resync_data(volume, data, payload),
            Packet::Barrier { barrier } => self.barrier_received(barrier),
            Packet::Bitmap(_) | Packet::CompressedBitmap { .. } => self.bitmap_received(volume, &packet),
            Packet::DataRequest(ask) => self.peer_reads(volume, ask, ReadKind::Front),
            Packet::RsDataRequest(ask) => self.peer_reads(volume, ask, ReadKind::Resync),
            Packet::RsThinReq(ask) => self.peer_reads(volume, ask, ReadKind::Thin),
            Packet::CsumRsRequest(ask) => match payload {
                Some((digest, _)) => self.peer_reads(volume, ask, ReadKind::Checksum(digest)),
                None => self.misbehaved("CsumRSRequest without a checksum"),
            },
            Packet::RsDeallocated { sector, blksize } => self.resync_zeroes(volume, sector, blksize),
            Packet::OvRequest(ask) => self.digest_asked(volume, ask),
            Packet::OvReply(reply) => self.digest_received(volume, reply, payload),
            Packet::SyncParam(theirs) => self.sync_param_received(volume, &theirs),
            Packet::UnplugRemote | Packet::DelayProbe { .. } => {}
            Packet::AuthChallenge(_) => self.unexpected_challenge(),
            Packet::Protocol(theirs) => self.protocol_received(&theirs),
            Packet::ProtocolUpdate(theirs) => self.settings_changed(&theirs),
            Packet::Uuids(uuids) => self.uuids_received(volume, uuids),
            Packet::Sizes(sizes) => self.sizes_received(volume, sizes),
            Packet::State(word) => self.state_received(volume, word),
            Packet::SyncUuid(uuid) => self.sync_uuid_received(volume, uuid),
            Packet::StateChgReq { mask, val } => self.state_change_asked(volume, mask, val),
            Packet::ConnStChgReq { mask, val } => self.connection_change_asked(mask, val),
            Packet::OutOfSync { sector, blksize } => self.out_of_sync_received(volume, sector, blksize),
            other => {
                let text = format!("{} on the data socket is not supported", other.command());
                self.misbehaved(&text);
            }
        }
    }

    fn on_meta_socket(&mut self, volume: u16, mut packet: Packet) {
        let sequence = crate::link::numbered_mut(&mut packet).map(|ack| ack.seq_num);
        self.acknowledged_or_answered(volume, packet);
        if let Some(sequence) = sequence {
            self.acknowledgement_seen(volume, sequence);
        }
    }

    fn acknowledged_or_answered(&mut self, volume: u16, packet: Packet) {
        match packet {
            Packet::Ping => self.pinged(),
            Packet::PingAck => self.link.pinged_at = None,
            Packet::WriteAck(ack) | Packet::RecvAck(ack) => self.part_acked(volume, ack, Leg::Done),
            Packet::Superseded(ack) => self.part_contested(volume, ack, true),
            Packet::RetryWrite(ack) => self.part_contested(volume, ack, false),
            Packet::RsWriteAck(ack) => {
                self.block_in_sync(volume, ack);
                // Answers a write during a resync, too.
                self.part_acked(volume, ack, Leg::Done);
            }
            Packet::NegAck(ack) => self.part_acked(volume, ack, Leg::Failed),
            Packet::NegDreply(ack) => self.data_refused(volume, ack),
            Packet::OvResult(ack) => self.result_received(volume, ack),
            Packet::NegRsDreply(ack) | Packet::RsCancel(ack) if self.digest_refused(volume, ack.sector) => {}
            Packet::NegRsDreply(ack) => self.resync_refused(volume, ack, true),
            Packet::RsCancel(ack) => self.resync_refused(volume, ack, false),
            Packet::RsIsInSync(ack) => self.checksum_is_equal(volume, ack),
            Packet::BarrierAck { barrier, set_size } => self.barrier_acked(barrier, set_size),
            Packet::StateChgReply(code) => self.state_change_answered(volume, code),
            Packet::ConnStChgReply(code) => self.connection_change_answered(code),
            Packet::DelayProbe { .. } => {}
            other => {
                let text = format!("{} on the meta socket is not supported", other.command());
                self.misbehaved(&text);
            }
        }
    }

    /// The peer has an epoch on stable storage.
    fn barrier_acked(&mut self, barrier: u32, set_size: u32) {
        match self.link.log.confirmed(barrier, set_size) {
            Ok(writes) => {
                for sent in writes {
                    let disk = self.devices.get_mut(&sent.volume).and_then(|d| d.disk.as_mut());
                    if let Some(disk) = disk.filter(|_| !sent.extents.is_empty()) {
                        disk.hot.release(&sent.extents, self.turn.now);
                    }
                }
                self.epochs_moved();
            }
            Err(wrong) => {
                let text = format!("BarrierAck #{barrier} ({set_size} writes) received, expected {wrong:?}");
                self.misbehaved(&text);
            }
        }
    }

    fn out_of_sync_received(&mut self, volume: u16, sector: u64, blksize: u32) {
        let range = units::SectorRange::new(sector, u64::from(blksize) / 512);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if sector.checked_add(range.count).is_none_or(|end| end > device.size_sectors) {
            return self.misbehaved("OutOfSync beyond the device");
        }
        device.set_out_of_sync(range);
    }
}
