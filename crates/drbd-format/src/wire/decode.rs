//! Bytes to packets.

use zerocopy::FromBytes;

use super::body::{
    NAME_BYTES, OQlim, PBarrier, PBarrierAck, PBlockAck, PBlockDesc, PBlockReq, PConnectionFeatures, PData,
    PDelayProbe, PProtocol, PReqState, PReqStateReply, PRsParam, PRsParam89, PRsParam95, PRsUuid, PSizes,
    PState, PTrim, PUuids,
};
use super::{
    Agreed, Command, DIGEST_BYTES_MAX, Features, PAYLOAD_BYTES_MAX, Packet, Protocol, SOCKET_BUFFER_BYTES,
    Sizes, StateWord, SyncParam, UuidFlags, Uuids,
};
use crate::Malformed;

/// How a command uses the bytes after its header.
enum Shape {
    /// A body of this size and nothing else.
    Fixed(usize),
    /// A body of this size, then at most so much payload.
    Payload(usize, usize),
    /// All of it is body, of a length between the two.
    Whole(usize, usize),
    /// A body of one of two sizes.
    Either(usize, usize),
}

fn shape(command: Command, agreed: &Agreed) -> Option<Shape> {
    use Shape::{Either, Fixed, Payload, Whole};
    Some(match command {
        Command::Data | Command::DataReply | Command::RsDataReply => {
            Payload(size_of::<PData>(), PAYLOAD_BYTES_MAX)
        }
        Command::Wsame => Payload(size_of::<PTrim>(), PAYLOAD_BYTES_MAX),
        Command::OvReply | Command::CsumRsRequest => Payload(size_of::<PBlockReq>(), DIGEST_BYTES_MAX),
        Command::Barrier => Fixed(size_of::<PBarrier>()),
        Command::Bitmap => Whole(0, SOCKET_BUFFER_BYTES),
        Command::CompressedBitmap => Whole(2, SOCKET_BUFFER_BYTES),
        Command::BecomeSyncTarget | Command::BecomeSyncSource | Command::UnplugRemote => Fixed(0),
        Command::Ping | Command::PingAck | Command::InitialMeta | Command::InitialData => Fixed(0),
        Command::DataRequest | Command::RsDataRequest | Command::OvRequest | Command::RsThinReq => {
            Fixed(size_of::<PBlockReq>())
        }
        Command::SyncParam | Command::SyncParam89 => match agreed.protocol {
            ..=87 => Fixed(size_of::<PRsParam>()),
            88 => Whole(size_of::<PRsParam>() + 1, size_of::<PRsParam>() + NAME_BYTES),
            89..=94 => Fixed(size_of::<PRsParam89>()),
            95.. => Fixed(size_of::<PRsParam95>()),
        },
        Command::Protocol | Command::ProtocolUpdate if agreed.protocol < 87 => Fixed(size_of::<PProtocol>()),
        Command::Protocol | Command::ProtocolUpdate => {
            Whole(size_of::<PProtocol>(), size_of::<PProtocol>() + NAME_BYTES)
        }
        Command::Uuids => Fixed(size_of::<PUuids>()),
        // Upstream wants the longer one exactly if WSAME was agreed; either says all that is needed.
        Command::Sizes => Either(size_of::<PSizes>(), size_of::<PSizes>() + size_of::<OQlim>()),
        Command::State => Fixed(size_of::<PState>()),
        Command::SyncUuid => Fixed(size_of::<PRsUuid>()),
        // A challenge shorter than ours would be too easy to meet twice.
        Command::AuthChallenge => Whole(64, 128),
        Command::AuthResponse => Whole(1, DIGEST_BYTES_MAX),
        Command::StateChgReq | Command::ConnStChgReq => Fixed(size_of::<PReqState>()),
        Command::StateChgReply | Command::ConnStChgReply => Fixed(size_of::<PReqStateReply>()),
        Command::RecvAck
        | Command::WriteAck
        | Command::RsWriteAck
        | Command::Superseded
        | Command::NegAck => Fixed(size_of::<PBlockAck>()),
        Command::NegDreply | Command::NegRsDreply | Command::OvResult | Command::RsIsInSync => {
            Fixed(size_of::<PBlockAck>())
        }
        Command::RsCancel | Command::RetryWrite => Fixed(size_of::<PBlockAck>()),
        Command::BarrierAck => Fixed(size_of::<PBarrierAck>()),
        Command::DelayProbe => Fixed(size_of::<PDelayProbe>()),
        Command::OutOfSync | Command::RsDeallocated => Fixed(size_of::<PBlockDesc>()),
        Command::Trim | Command::Zeroes => Fixed(size_of::<PTrim>()),
        Command::ConnectionFeatures => Fixed(size_of::<PConnectionFeatures>()),
        _ => return None,
    })
}

/// How many of the `length` bytes that a header announces are body; what remains is payload.
/// Unknown commands and lengths that the command cannot have are refused, so that whatever is accepted is bounded:
/// a body by 4096 bytes, a payload by [`PAYLOAD_BYTES_MAX`].
pub fn body_bytes(command: Command, length: u32, agreed: &Agreed) -> Result<usize, Malformed> {
    let Some(shape) = shape(command, agreed) else {
        let field = "command";
        return Err(Malformed::new(
            "packet header",
            field,
            format!("{:#06x}", command.0),
            "a command of protocol 86 to 101",
        ));
    };
    let length = length as usize;
    let (body, allowed) = match shape {
        Shape::Fixed(body) => (body, body..=body),
        Shape::Payload(body, max) => (body, body..=body + max),
        Shape::Whole(min, max) => (length, min..=max),
        Shape::Either(short, _) if length == short => (length, short..=short),
        Shape::Either(_, long) => (length, long..=long),
    };
    if !allowed.contains(&length) {
        let expected = format!("{} to {}", allowed.start(), allowed.end());
        return Err(Malformed::new(place(command), "length", length, expected));
    }
    Ok(body)
}

impl Packet {
    /// Reads a body of exactly [`body_bytes`] bytes. Reserved and padding bytes are ignored.
    pub fn decode(command: Command, body: &[u8], agreed: &Agreed) -> Result<Self, Malformed> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        if body_bytes(command, length, agreed)? != body.len() {
            return Err(Malformed::new(place(command), "body", body.len(), "the body without its payload"));
        }
        Ok(match command {
            Command::Data => Self::Data(read::<PData>(command, body)?.into()),
            Command::DataReply => Self::DataReply(read::<PData>(command, body)?.into()),
            Command::RsDataReply => Self::RsDataReply(read::<PData>(command, body)?.into()),
            Command::Trim | Command::Wsame | Command::Zeroes => sized_write(command, body)?,
            Command::Barrier => Self::Barrier { barrier: read::<PBarrier>(command, body)?.barrier.get() },
            Command::BarrierAck => {
                let p: PBarrierAck = read(command, body)?;
                Self::BarrierAck { barrier: p.barrier.get(), set_size: p.set_size.get() }
            }
            Command::Bitmap => bitmap(body)?,
            Command::CompressedBitmap => {
                Self::CompressedBitmap { encoding: body[0], code: body[1..].to_vec() }
            }
            Command::BecomeSyncTarget => Self::BecomeSyncTarget,
            Command::BecomeSyncSource => Self::BecomeSyncSource,
            Command::UnplugRemote => Self::UnplugRemote,
            Command::Ping => Self::Ping,
            Command::PingAck => Self::PingAck,
            Command::InitialMeta => Self::InitialMeta,
            Command::InitialData => Self::InitialData,
            Command::SyncParam | Command::SyncParam89 => Self::SyncParam(sync_param(command, body, agreed)?),
            Command::Protocol => Self::Protocol(protocol(command, body)?),
            Command::ProtocolUpdate => Self::ProtocolUpdate(protocol(command, body)?),
            Command::Uuids => Self::Uuids(uuids(&read(command, body)?)),
            Command::Sizes => Self::Sizes(sizes(command, body)?),
            Command::State => Self::State(StateWord(read::<PState>(command, body)?.state.get())),
            Command::SyncUuid => Self::SyncUuid(read::<PRsUuid>(command, body)?.uuid.get()),
            Command::AuthChallenge => Self::AuthChallenge(body.to_vec()),
            Command::AuthResponse => Self::AuthResponse(body.to_vec()),
            Command::StateChgReq => {
                let (mask, val) = state_change(command, body)?;
                Self::StateChgReq { mask, val }
            }
            Command::ConnStChgReq => {
                let (mask, val) = state_change(command, body)?;
                Self::ConnStChgReq { mask, val }
            }
            Command::StateChgReply => {
                Self::StateChgReply(read::<PReqStateReply>(command, body)?.retcode.get())
            }
            Command::ConnStChgReply => {
                Self::ConnStChgReply(read::<PReqStateReply>(command, body)?.retcode.get())
            }
            Command::DelayProbe => {
                let p: PDelayProbe = read(command, body)?;
                Self::DelayProbe { seq_num: p.seq_num.get(), offset: p.offset.get() }
            }
            Command::OutOfSync => {
                let p: PBlockDesc = read(command, body)?;
                Self::OutOfSync { sector: p.sector.get(), blksize: p.blksize.get() }
            }
            Command::RsDeallocated => {
                let p: PBlockDesc = read(command, body)?;
                Self::RsDeallocated { sector: p.sector.get(), blksize: p.blksize.get() }
            }
            Command::ConnectionFeatures => Self::ConnectionFeatures(features(&read(command, body)?)),
            Command::DataRequest
            | Command::RsDataRequest
            | Command::OvRequest
            | Command::OvReply
            | Command::CsumRsRequest
            | Command::RsThinReq => block_request(command, body)?,
            _ => block_ack(command, body)?,
        })
    }
}

fn block_request(command: Command, body: &[u8]) -> Result<Packet, Malformed> {
    let request = read::<PBlockReq>(command, body)?.into();
    Ok(match command {
        Command::DataRequest => Packet::DataRequest(request),
        Command::RsDataRequest => Packet::RsDataRequest(request),
        Command::OvRequest => Packet::OvRequest(request),
        Command::OvReply => Packet::OvReply(request),
        Command::CsumRsRequest => Packet::CsumRsRequest(request),
        _ => Packet::RsThinReq(request),
    })
}

fn block_ack(command: Command, body: &[u8]) -> Result<Packet, Malformed> {
    let ack = read::<PBlockAck>(command, body)?.into();
    Ok(match command {
        Command::RecvAck => Packet::RecvAck(ack),
        Command::WriteAck => Packet::WriteAck(ack),
        Command::RsWriteAck => Packet::RsWriteAck(ack),
        Command::Superseded => Packet::Superseded(ack),
        Command::NegAck => Packet::NegAck(ack),
        Command::NegDreply => Packet::NegDreply(ack),
        Command::NegRsDreply => Packet::NegRsDreply(ack),
        Command::OvResult => Packet::OvResult(ack),
        Command::RsIsInSync => Packet::RsIsInSync(ack),
        Command::RsCancel => Packet::RsCancel(ack),
        Command::RetryWrite => Packet::RetryWrite(ack),
        _ => return Err(Malformed::new("packet header", "command", command, "a command with a body")),
    })
}

fn sized_write(command: Command, body: &[u8]) -> Result<Packet, Malformed> {
    let p: PTrim = read(command, body)?;
    let (data, size) = (p.p_data.into(), p.size.get());
    Ok(match command {
        Command::Trim => Packet::Trim { data, size },
        Command::Wsame => Packet::Wsame { data, size },
        _ => Packet::Zeroes { data, size },
    })
}

fn bitmap(body: &[u8]) -> Result<Packet, Malformed> {
    if !body.len().is_multiple_of(8) {
        return Err(Malformed::new(place(Command::Bitmap), "length", body.len(), "a multiple of 8"));
    }
    Ok(Packet::Bitmap(body.to_vec()))
}

fn sync_param(command: Command, body: &[u8], agreed: &Agreed) -> Result<SyncParam, Malformed> {
    if agreed.protocol <= 88 {
        let (p, verify_alg) = split::<PRsParam>(command, body)?;
        let verify_alg = name(command, "verify_alg", verify_alg)?;
        let resync_rate_kib_per_s = p.resync_rate.get();
        return Ok(SyncParam { resync_rate_kib_per_s, verify_alg, ..SyncParam::default() });
    }
    let (p89, rest) = split::<PRsParam89>(command, body)?;
    let mut param = SyncParam {
        resync_rate_kib_per_s: p89.resync_rate.get(),
        verify_alg: name(command, "verify_alg", &p89.verify_alg)?,
        csums_alg: name(command, "csums_alg", &p89.csums_alg)?,
        ..SyncParam::default()
    };
    if !rest.is_empty() {
        let p: PRsParam95 = read(command, body)?;
        param.c_plan_ahead_ds = p.c_plan_ahead.get();
        param.c_delay_target_ds = p.c_delay_target.get();
        param.c_fill_target_sectors = p.c_fill_target.get();
        param.c_max_rate_kib_per_s = p.c_max_rate.get();
    }
    Ok(param)
}

fn protocol(command: Command, body: &[u8]) -> Result<Protocol, Malformed> {
    let (p, integrity_alg) = split::<PProtocol>(command, body)?;
    Ok(Protocol {
        protocol: p.protocol.get(),
        after_sb_0p: p.after_sb_0p.get(),
        after_sb_1p: p.after_sb_1p.get(),
        after_sb_2p: p.after_sb_2p.get(),
        conn_flags: p.conn_flags.get(),
        two_primaries: p.two_primaries.get(),
        integrity_alg: name(command, "integrity_alg", integrity_alg)?,
    })
}

fn uuids(p: &PUuids) -> Uuids {
    Uuids {
        current: p.current.get(),
        bitmap: p.bitmap.get(),
        history: [p.history[0].get(), p.history[1].get()],
        dirty_bits: p.dirty_bits.get(),
        flags: UuidFlags(p.flags.get()),
    }
}

fn sizes(command: Command, body: &[u8]) -> Result<Sizes, Malformed> {
    let (p, limits) = split::<PSizes>(command, body)?;
    let limits = match limits {
        [] => None,
        _ => Some(read::<OQlim>(command, limits)?.into()),
    };
    Ok(Sizes {
        d_size: p.d_size.get(),
        u_size: p.u_size.get(),
        c_size: p.c_size.get(),
        max_bio_size: p.max_bio_size.get(),
        queue_order_type: p.queue_order_type.get(),
        dds_flags: p.dds_flags.get(),
        limits,
    })
}

fn state_change(command: Command, body: &[u8]) -> Result<(StateWord, StateWord), Malformed> {
    let p: PReqState = read(command, body)?;
    Ok((StateWord(p.mask.get()), StateWord(p.val.get())))
}

fn features(p: &PConnectionFeatures) -> Features {
    Features {
        protocol_min: p.protocol_min.get(),
        feature_flags: p.feature_flags.get(),
        // A peer that speaks one version only leaves the other field 0.
        protocol_max: if p.protocol_max.get() == 0 { p.protocol_min.get() } else { p.protocol_max.get() },
    }
}

/// The string before the first zero byte; the last of 64 bytes counts as one.
fn name(command: Command, field: &'static str, bytes: &[u8]) -> Result<String, Malformed> {
    let bytes = &bytes[..bytes.len().min(NAME_BYTES - 1)];
    let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Malformed::new(place(command), field, text.escape_ascii(), "the name of an algorithm")),
    }
}

fn read<T: FromBytes>(command: Command, body: &[u8]) -> Result<T, Malformed> {
    T::read_from_bytes(body).map_err(|_| Malformed::new(place(command), "length", body.len(), size_of::<T>()))
}

fn split<T: FromBytes>(command: Command, body: &[u8]) -> Result<(T, &[u8]), Malformed> {
    T::read_from_prefix(body)
        .map_err(|_| Malformed::new(place(command), "length", body.len(), size_of::<T>()))
}

fn place(command: Command) -> &'static str {
    command.name().unwrap_or("packet")
}
