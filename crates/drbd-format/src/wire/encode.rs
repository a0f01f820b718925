//! Packets to bytes.

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use super::body::{
    NAME_BYTES, OQlim, PBarrier, PBarrierAck, PBlockAck, PBlockDesc, PBlockReq, PConnectionFeatures, PData,
    PDelayProbe, PProtocol, PReqState, PReqStateReply, PRsParam, PRsParam89, PRsParam95, PRsUuid, PSizes,
    PState, PTrim, PUuids,
};
use super::{
    Agreed, Command, Data, Features, Header, HeaderForm, Packet, Protocol, Sizes, StateWord, SyncParam, Uuids,
};

impl Packet {
    /// What the packet is. The resync parameters go as `SyncParam` to peers below protocol 89; here they are always
    /// `SyncParam89`.
    pub fn command(&self) -> Command {
        match self {
            Self::Data(_) => Command::Data,
            Self::DataReply(_) => Command::DataReply,
            Self::RsDataReply(_) => Command::RsDataReply,
            Self::Barrier { .. } => Command::Barrier,
            Self::Bitmap(_) => Command::Bitmap,
            Self::BecomeSyncTarget => Command::BecomeSyncTarget,
            Self::BecomeSyncSource => Command::BecomeSyncSource,
            Self::UnplugRemote => Command::UnplugRemote,
            Self::DataRequest(_) => Command::DataRequest,
            Self::RsDataRequest(_) => Command::RsDataRequest,
            Self::SyncParam(_) => Command::SyncParam89,
            Self::Protocol(_) => Command::Protocol,
            Self::Uuids(_) => Command::Uuids,
            Self::Sizes(_) => Command::Sizes,
            Self::State(_) => Command::State,
            Self::SyncUuid(_) => Command::SyncUuid,
            Self::AuthChallenge(_) => Command::AuthChallenge,
            Self::AuthResponse(_) => Command::AuthResponse,
            Self::StateChgReq { .. } => Command::StateChgReq,
            Self::Ping => Command::Ping,
            Self::PingAck => Command::PingAck,
            Self::RecvAck(_) => Command::RecvAck,
            Self::WriteAck(_) => Command::WriteAck,
            Self::RsWriteAck(_) => Command::RsWriteAck,
            Self::Superseded(_) => Command::Superseded,
            Self::NegAck(_) => Command::NegAck,
            Self::NegDreply(_) => Command::NegDreply,
            Self::NegRsDreply(_) => Command::NegRsDreply,
            Self::BarrierAck { .. } => Command::BarrierAck,
            Self::StateChgReply(_) => Command::StateChgReply,
            Self::OvRequest(_) => Command::OvRequest,
            Self::OvReply(_) => Command::OvReply,
            Self::OvResult(_) => Command::OvResult,
            Self::CsumRsRequest(_) => Command::CsumRsRequest,
            Self::RsIsInSync(_) => Command::RsIsInSync,
            Self::CompressedBitmap { .. } => Command::CompressedBitmap,
            Self::DelayProbe { .. } => Command::DelayProbe,
            Self::OutOfSync { .. } => Command::OutOfSync,
            Self::RsCancel(_) => Command::RsCancel,
            Self::ConnStChgReq { .. } => Command::ConnStChgReq,
            Self::ConnStChgReply(_) => Command::ConnStChgReply,
            Self::RetryWrite(_) => Command::RetryWrite,
            Self::ProtocolUpdate(_) => Command::ProtocolUpdate,
            Self::Trim { .. } => Command::Trim,
            Self::RsThinReq(_) => Command::RsThinReq,
            Self::RsDeallocated { .. } => Command::RsDeallocated,
            Self::Wsame { .. } => Command::Wsame,
            Self::Zeroes { .. } => Command::Zeroes,
            Self::InitialMeta => Command::InitialMeta,
            Self::InitialData => Command::InitialData,
            Self::ConnectionFeatures(_) => Command::ConnectionFeatures,
        }
    }

    /// Appends header and body. `payload_bytes` of payload will follow on the socket and are counted in the
    /// header's length. The volume is lost in headers that have none.
    ///
    /// # Panics
    /// If the length does not fit the header of the agreed version, see [`Agreed::bio_bytes_max`].
    pub fn encode(&self, volume: u16, payload_bytes: usize, agreed: &Agreed, out: &mut Vec<u8>) {
        let command = match self {
            Self::SyncParam(_) if agreed.protocol <= 88 => Command::SyncParam,
            _ => self.command(),
        };
        // The two forms that depend on the length are equally long.
        let header_bytes = HeaderForm::of(command, 0, agreed).bytes();
        let start = out.len();
        out.resize(start + header_bytes, 0);
        self.encode_body(agreed, out);
        let length = (out.len() - start - header_bytes + payload_bytes) as u32;
        let form = HeaderForm::of(command, length, agreed);
        Header { volume, command, length }.write(form, &mut out[start..start + header_bytes]);
    }

    fn encode_body(&self, agreed: &Agreed, out: &mut Vec<u8>) {
        match self {
            Self::Data(data) | Self::DataReply(data) | Self::RsDataReply(data) => {
                put(out, &PData::from(data))
            }
            Self::Trim { data, size } | Self::Wsame { data, size } | Self::Zeroes { data, size } => {
                put_sized_write(out, data, *size);
            }
            Self::Barrier { barrier } => put(out, &PBarrier { barrier: (*barrier).into(), pad: U32::ZERO }),
            Self::BarrierAck { barrier, set_size } => {
                put(out, &PBarrierAck { barrier: (*barrier).into(), set_size: (*set_size).into() });
            }
            Self::Bitmap(bytes) | Self::AuthChallenge(bytes) | Self::AuthResponse(bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::CompressedBitmap { encoding, code } => {
                out.push(*encoding);
                out.extend_from_slice(code);
            }
            Self::BecomeSyncTarget
            | Self::BecomeSyncSource
            | Self::UnplugRemote
            | Self::Ping
            | Self::PingAck => {}
            Self::InitialMeta | Self::InitialData => {}
            Self::DataRequest(request)
            | Self::RsDataRequest(request)
            | Self::OvRequest(request)
            | Self::OvReply(request)
            | Self::CsumRsRequest(request)
            | Self::RsThinReq(request) => put(out, &PBlockReq::from(request)),
            Self::RecvAck(ack)
            | Self::WriteAck(ack)
            | Self::RsWriteAck(ack)
            | Self::Superseded(ack)
            | Self::NegAck(ack)
            | Self::NegDreply(ack)
            | Self::NegRsDreply(ack)
            | Self::OvResult(ack)
            | Self::RsIsInSync(ack)
            | Self::RsCancel(ack)
            | Self::RetryWrite(ack) => put(out, &PBlockAck::from(ack)),
            Self::OutOfSync { sector, blksize } | Self::RsDeallocated { sector, blksize } => {
                put(
                    out,
                    &PBlockDesc { sector: (*sector).into(), blksize: (*blksize).into(), pad: U32::ZERO },
                );
            }
            Self::SyncParam(param) => put_sync_param(out, param, agreed),
            Self::Protocol(protocol) | Self::ProtocolUpdate(protocol) => put_protocol(out, protocol, agreed),
            Self::Uuids(uuids) => put_uuids(out, uuids),
            Self::Sizes(sizes) => put_sizes(out, sizes, agreed),
            Self::State(state) => put(out, &PState { state: state.0.into() }),
            Self::SyncUuid(uuid) => put(out, &PRsUuid { uuid: (*uuid).into() }),
            Self::StateChgReq { mask, val } | Self::ConnStChgReq { mask, val } => {
                put_state_change(out, *mask, *val)
            }
            Self::StateChgReply(retcode) | Self::ConnStChgReply(retcode) => {
                put(out, &PReqStateReply { retcode: (*retcode).into() });
            }
            Self::DelayProbe { seq_num, offset } => {
                put(out, &PDelayProbe { seq_num: (*seq_num).into(), offset: (*offset).into() });
            }
            Self::ConnectionFeatures(features) => put_features(out, features),
        }
    }
}

fn put(out: &mut Vec<u8>, body: &(impl IntoBytes + zerocopy::Immutable)) {
    out.extend_from_slice(body.as_bytes());
}

fn put_sized_write(out: &mut Vec<u8>, data: &Data, size: u32) {
    put(out, &PTrim { p_data: PData::from(data), size: size.into() });
}

fn put_state_change(out: &mut Vec<u8>, mask: StateWord, val: StateWord) {
    put(out, &PReqState { mask: mask.0.into(), val: val.0.into() });
}

fn put_sync_param(out: &mut Vec<u8>, param: &SyncParam, agreed: &Agreed) {
    let resync_rate = param.resync_rate_kib_per_s.into();
    if agreed.protocol <= 88 {
        put(out, &PRsParam { resync_rate });
        if agreed.protocol == 88 {
            put_name(out, &param.verify_alg);
        }
        return;
    }
    let p89 = PRsParam89 {
        resync_rate,
        verify_alg: padded(&param.verify_alg),
        csums_alg: padded(&param.csums_alg),
    };
    if agreed.protocol <= 94 {
        return put(out, &p89);
    }
    put(
        out,
        &PRsParam95 {
            p89,
            c_plan_ahead: param.c_plan_ahead_ds.into(),
            c_delay_target: param.c_delay_target_ds.into(),
            c_fill_target: param.c_fill_target_sectors.into(),
            c_max_rate: param.c_max_rate_kib_per_s.into(),
        },
    );
}

fn put_protocol(out: &mut Vec<u8>, p: &Protocol, agreed: &Agreed) {
    let body = PProtocol {
        protocol: p.protocol.into(),
        after_sb_0p: p.after_sb_0p.into(),
        after_sb_1p: p.after_sb_1p.into(),
        after_sb_2p: p.after_sb_2p.into(),
        conn_flags: p.conn_flags.into(),
        two_primaries: p.two_primaries.into(),
    };
    put(out, &body);
    if agreed.protocol >= 87 {
        put_name(out, &p.integrity_alg);
    }
}

fn put_uuids(out: &mut Vec<u8>, uuids: &Uuids) {
    let body = PUuids {
        current: uuids.current.into(),
        bitmap: uuids.bitmap.into(),
        history: uuids.history.map(U64::new),
        dirty_bits: uuids.dirty_bits.into(),
        flags: uuids.flags.0.into(),
    };
    put(out, &body);
}

fn put_sizes(out: &mut Vec<u8>, sizes: &Sizes, agreed: &Agreed) {
    let body = PSizes {
        d_size: sizes.d_size.into(),
        u_size: sizes.u_size.into(),
        c_size: sizes.c_size.into(),
        max_bio_size: sizes.max_bio_size.into(),
        queue_order_type: sizes.queue_order_type.into(),
        dds_flags: sizes.dds_flags.into(),
    };
    put(out, &body);
    if agreed.has(Features::WSAME) {
        match &sizes.limits {
            Some(limits) => put(out, &OQlim::from(limits)),
            None => out.resize(out.len() + size_of::<OQlim>(), 0),
        }
    }
}

fn put_features(out: &mut Vec<u8>, features: &Features) {
    let body = PConnectionFeatures {
        protocol_min: features.protocol_min.into(),
        feature_flags: features.feature_flags.into(),
        protocol_max: features.protocol_max.into(),
        pad: U32::ZERO,
        reserved: [U64::ZERO; 7],
    };
    put(out, &body);
}

/// As much of a name as its field takes; no algorithm's name comes near that.
fn name_bytes(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    &bytes[..bytes.len().min(NAME_BYTES - 1)]
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(name_bytes(name));
    out.push(0);
}

fn padded(name: &str) -> [u8; NAME_BYTES] {
    let bytes = name_bytes(name);
    let mut field = [0; NAME_BYTES];
    field[..bytes.len()].copy_from_slice(bytes);
    field
}
