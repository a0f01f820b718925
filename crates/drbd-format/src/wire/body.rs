//! Bodies as they lie on the wire: big-endian, packed, names as in `drbd_protocol.h`.

use zerocopy::big_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::packet;

/// `SHARED_SECRET_MAX`: an algorithm's name with its terminating zero.
pub(super) const NAME_BYTES: usize = 64;

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident($bytes:literal) { $($field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
            #[repr(C)]
            pub(super) struct $name { $(pub $field: $ty,)* }
            const _: () = assert!(size_of::<$name>() == $bytes);
        )*
    };
}

bodies! {
    /// `struct p_data`.
    PData(24) { sector: U64, block_id: U64, seq_num: U32, dp_flags: U32, }
    /// `struct p_trim`, `struct p_wsame`.
    PTrim(28) { p_data: PData, size: U32, }
    /// `struct p_block_ack`.
    PBlockAck(24) { sector: U64, block_id: U64, blksize: U32, seq_num: U32, }
    /// `struct p_block_req`.
    PBlockReq(24) { sector: U64, block_id: U64, blksize: U32, pad: U32, }
    /// `struct p_block_desc`.
    PBlockDesc(16) { sector: U64, blksize: U32, pad: U32, }
    /// `struct p_barrier`.
    PBarrier(8) { barrier: U32, pad: U32, }
    /// `struct p_barrier_ack`.
    PBarrierAck(8) { barrier: U32, set_size: U32, }
    /// `struct p_rs_param`, without the name that protocol 88 appends.
    PRsParam(4) { resync_rate: U32, }
    /// `struct p_rs_param_89`.
    PRsParam89(132) { resync_rate: U32, verify_alg: [u8; NAME_BYTES], csums_alg: [u8; NAME_BYTES], }
    /// `struct p_rs_param_95`.
    PRsParam95(148) {
        p89: PRsParam89, c_plan_ahead: U32, c_delay_target: U32, c_fill_target: U32, c_max_rate: U32,
    }
    /// `struct p_protocol`, without the name that protocol 87 appends.
    PProtocol(24) {
        protocol: U32, after_sb_0p: U32, after_sb_1p: U32, after_sb_2p: U32, conn_flags: U32, two_primaries: U32,
    }
    /// `struct p_uuids`.
    PUuids(48) { current: U64, bitmap: U64, history: [U64; 2], dirty_bits: U64, flags: U64, }
    /// `struct p_rs_uuid`.
    PRsUuid(8) { uuid: U64, }
    /// `struct o_qlim`.
    OQlim(24) {
        physical_block_size: U32, logical_block_size: U32, alignment_offset: U32, io_min: U32, io_opt: U32,
        discard_enabled: u8, discard_zeroes_data: u8, write_same_capable: u8, pad: u8,
    }
    /// `struct p_sizes`, without the limits that `Features::WSAME` appends.
    PSizes(32) {
        d_size: U64, u_size: U64, c_size: U64, max_bio_size: U32, queue_order_type: U16, dds_flags: U16,
    }
    /// `struct p_state`.
    PState(4) { state: U32, }
    /// `struct p_req_state`.
    PReqState(8) { mask: U32, val: U32, }
    /// `struct p_req_state_reply`.
    PReqStateReply(4) { retcode: I32, }
    /// `struct p_delay_probe93`.
    PDelayProbe(8) { seq_num: U32, offset: U32, }
    /// `struct p_connection_features`.
    PConnectionFeatures(72) {
        protocol_min: U32, feature_flags: U32, protocol_max: U32, pad: U32, reserved: [U64; 7],
    }
}

impl From<&packet::Data> for PData {
    fn from(d: &packet::Data) -> Self {
        Self {
            sector: d.sector.into(),
            block_id: d.block_id.into(),
            seq_num: d.seq_num.into(),
            dp_flags: d.flags.0.into(),
        }
    }
}

impl From<PData> for packet::Data {
    fn from(p: PData) -> Self {
        Self {
            sector: p.sector.get(),
            block_id: p.block_id.get(),
            seq_num: p.seq_num.get(),
            flags: packet::DataFlags(p.dp_flags.get()),
        }
    }
}

impl From<&packet::BlockAck> for PBlockAck {
    fn from(a: &packet::BlockAck) -> Self {
        Self {
            sector: a.sector.into(),
            block_id: a.block_id.into(),
            blksize: a.blksize.into(),
            seq_num: a.seq_num.into(),
        }
    }
}

impl From<PBlockAck> for packet::BlockAck {
    fn from(p: PBlockAck) -> Self {
        Self {
            sector: p.sector.get(),
            block_id: p.block_id.get(),
            blksize: p.blksize.get(),
            seq_num: p.seq_num.get(),
        }
    }
}

impl From<&packet::BlockRequest> for PBlockReq {
    fn from(r: &packet::BlockRequest) -> Self {
        Self {
            sector: r.sector.into(),
            block_id: r.block_id.into(),
            blksize: r.blksize.into(),
            pad: U32::ZERO,
        }
    }
}

impl From<PBlockReq> for packet::BlockRequest {
    fn from(p: PBlockReq) -> Self {
        Self { sector: p.sector.get(), block_id: p.block_id.get(), blksize: p.blksize.get() }
    }
}

impl From<&packet::QueueLimits> for OQlim {
    fn from(q: &packet::QueueLimits) -> Self {
        Self {
            physical_block_size: q.physical_block_size.into(),
            logical_block_size: q.logical_block_size.into(),
            alignment_offset: q.alignment_offset.into(),
            io_min: q.io_min.into(),
            io_opt: q.io_opt.into(),
            discard_enabled: q.discard_enabled,
            discard_zeroes_data: q.discard_zeroes_data,
            write_same_capable: q.write_same_capable,
            pad: 0,
        }
    }
}

impl From<OQlim> for packet::QueueLimits {
    fn from(p: OQlim) -> Self {
        Self {
            physical_block_size: p.physical_block_size.get(),
            logical_block_size: p.logical_block_size.get(),
            alignment_offset: p.alignment_offset.get(),
            io_min: p.io_min.get(),
            io_opt: p.io_opt.get(),
            discard_enabled: p.discard_enabled,
            discard_zeroes_data: p.discard_zeroes_data,
            write_same_capable: p.write_same_capable,
        }
    }
}
