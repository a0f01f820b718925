//! Every packet as a type. Names are upstream's `P_*` in CamelCase.

use crate::names::{ConnectionState, DiskState, Role};

/// A decoded packet without its payload.
///
/// Variants are in the order of upstream's numbers. `payload` fields are byte counts of what follows on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet {
    /// 0x00: a write; its payload follows.
    Data(Data),
    /// 0x01: the answer to `DataRequest`; payload follows.
    DataReply(Data),
    /// 0x02: the answer to `RsDataRequest`; payload follows.
    RsDataReply(Data),
    /// 0x03: closes an epoch; the handle is echoed byte for byte.
    Barrier {
        /// Opaque.
        barrier: u32,
    },
    /// 0x04: bitmap words, little-endian 64 bit, in order; an empty one ends the transfer.
    Bitmap(Vec<u8>),
    /// 0x05.
    BecomeSyncTarget,
    /// 0x06.
    BecomeSyncSource,
    /// 0x07: a hint.
    UnplugRemote,
    /// 0x08: read a block for the front of a diskless or inconsistent node.
    DataRequest(BlockRequest),
    /// 0x09: read a block for the resync.
    RsDataRequest(BlockRequest),
    /// 0x0a and 0x23: the resync parameters; protocols below 89, 89 to 94, and 95 on differ in length.
    SyncParam(SyncParam),
    /// 0x0b: the connection's settings, at the handshake.
    Protocol(Protocol),
    /// 0x0c.
    Uuids(Uuids),
    /// 0x0d.
    Sizes(Sizes),
    /// 0x0e.
    State(StateWord),
    /// 0x0f: the sync UUID, from the source.
    SyncUuid(u64),
    /// 0x10.
    AuthChallenge(Vec<u8>),
    /// 0x11.
    AuthResponse(Vec<u8>),
    /// 0x12: asks the peer to agree to a change of a device's state.
    StateChgReq {
        /// Which bits change.
        mask: StateWord,
        /// Their new value.
        val: StateWord,
    },
    /// 0x13, meta socket.
    Ping,
    /// 0x14, meta socket.
    PingAck,
    /// 0x15, meta socket: protocol B.
    RecvAck(BlockAck),
    /// 0x16, meta socket: protocol C.
    WriteAck(BlockAck),
    /// 0x17, meta socket: as WriteAck, and the block is in sync.
    RsWriteAck(BlockAck),
    /// 0x18, meta socket: a concurrent write won.
    Superseded(BlockAck),
    /// 0x19, meta socket: the write failed on the peer's disk.
    NegAck(BlockAck),
    /// 0x1a, meta socket: the read failed on the peer's disk.
    NegDreply(BlockAck),
    /// 0x1b, meta socket: the resync read failed.
    NegRsDreply(BlockAck),
    /// 0x1c, meta socket: the epoch is on stable storage.
    BarrierAck {
        /// The handle of the barrier.
        barrier: u32,
        /// Number of writes in the epoch.
        set_size: u32,
    },
    /// 0x1d, meta socket: answer to `StateChgReq`, an `enum drbd_state_rv`.
    StateChgReply(i32),
    /// 0x1e: online verify; the reply's digest follows upstream's sequence.
    OvRequest(BlockRequest),
    /// 0x1f: digest follows as payload.
    OvReply(BlockRequest),
    /// 0x20, meta socket: block id 4711 in sync, 4712 out of sync.
    OvResult(BlockAck),
    /// 0x21: digest follows as payload.
    CsumRsRequest(BlockRequest),
    /// 0x22, meta socket.
    RsIsInSync(BlockAck),
    /// 0x24: run-length encoded bitmap.
    CompressedBitmap {
        /// Encoding, pad bits and polarity, as upstream's `p_compressed_bm`.
        encoding: u8,
        /// The bit stream.
        code: Vec<u8>,
    },
    /// 0x27: both sockets, ignored.
    DelayProbe {
        /// Sequence number.
        seq_num: u32,
        /// Microseconds.
        offset: u32,
    },
    /// 0x28: the block is out of sync from now on.
    OutOfSync {
        /// First sector.
        sector: u64,
        /// Length in bytes.
        blksize: u32,
    },
    /// 0x29, meta socket: the source cannot serve a resync request now.
    RsCancel(BlockAck),
    /// 0x2a: asks the peer to agree to a change of the connection's state.
    ConnStChgReq {
        /// Which bits change.
        mask: StateWord,
        /// Their new value.
        val: StateWord,
    },
    /// 0x2b, meta socket.
    ConnStChgReply(i32),
    /// 0x2c, meta socket: retry a conflicting write.
    RetryWrite(BlockAck),
    /// 0x2d: as `Protocol`, in an established connection.
    ProtocolUpdate(Protocol),
    /// 0x31: discard of `size` bytes.
    Trim {
        /// Where and how acknowledged.
        data: Data,
        /// Length in bytes.
        size: u32,
    },
    /// 0x32.
    RsThinReq(BlockRequest),
    /// 0x33: the block holds only zeroes on the source.
    RsDeallocated {
        /// First sector.
        sector: u64,
        /// Length in bytes.
        blksize: u32,
    },
    /// 0x34: one logical block follows as payload, to be written `size` bytes long.
    Wsame {
        /// Where and how acknowledged.
        data: Data,
        /// Length in bytes.
        size: u32,
    },
    /// 0x36: `size` bytes of zeroes.
    Zeroes {
        /// Where and how acknowledged.
        data: Data,
        /// Length in bytes.
        size: u32,
    },
    /// 0xfff1: first packet on the meta socket.
    InitialMeta,
    /// 0xfff2: first packet on the data socket.
    InitialData,
    /// 0xfffe.
    ConnectionFeatures(Features),
}

impl Packet {
    /// Whether the digest of `data-integrity-alg`, if there is one, comes between body and bytes (upstream: `read_in_block`
    /// and `recv_dless_read` read it, `drbd_send_dblock` and `drbd_send_block` write it).
    pub const fn is_protected(&self) -> bool {
        matches!(self, Self::Data(_) | Self::DataReply(_) | Self::RsDataReply(_))
    }
}

/// `struct p_data`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Data {
    /// First sector.
    pub sector: u64,
    /// Opaque to the receiver, echoed in acknowledgements byte for byte.
    pub block_id: u64,
    /// Orders writes against acknowledgements of the other direction.
    pub seq_num: u32,
    /// What kind of write, and which acknowledgement is wanted.
    pub flags: DataFlags,
}

/// `DP_*`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DataFlags(pub u32);

impl DataFlags {
    /// `DP_RW_SYNC`.
    pub const SYNC: Self = Self(2);
    /// `DP_MAY_SET_IN_SYNC`.
    pub const MAY_SET_IN_SYNC: Self = Self(4);
    /// `DP_FUA`.
    pub const FUA: Self = Self(16);
    /// `DP_FLUSH`.
    pub const FLUSH: Self = Self(32);
    /// `DP_DISCARD`.
    pub const DISCARD: Self = Self(64);
    /// `DP_SEND_RECEIVE_ACK`: protocol B.
    pub const SEND_RECEIVE_ACK: Self = Self(128);
    /// `DP_SEND_WRITE_ACK`: protocol C.
    pub const SEND_WRITE_ACK: Self = Self(256);
    /// `DP_WSAME`.
    pub const WSAME: Self = Self(512);
    /// `DP_ZEROES`.
    pub const ZEROES: Self = Self(1024);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `struct p_block_ack`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockAck {
    /// First sector.
    pub sector: u64,
    /// As in the packet that is acknowledged.
    pub block_id: u64,
    /// Length in bytes.
    pub blksize: u32,
    /// Running number of the acknowledging side.
    pub seq_num: u32,
}

/// `struct p_block_req`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockRequest {
    /// First sector.
    pub sector: u64,
    /// To be echoed; all ones (`ID_SYNCER`) for the resync.
    pub block_id: u64,
    /// Length in bytes.
    pub blksize: u32,
}

/// `struct p_protocol`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protocol {
    /// 1 A, 2 B, 3 C.
    pub protocol: u32,
    /// `enum drbd_after_sb_p`.
    pub after_sb_0p: u32,
    /// `enum drbd_after_sb_p`.
    pub after_sb_1p: u32,
    /// `enum drbd_after_sb_p`.
    pub after_sb_2p: u32,
    /// 1 discard-my-data, 2 dry run.
    pub conn_flags: u32,
    /// Whether two primaries are allowed.
    pub two_primaries: u32,
    /// Name of the digest over payloads, empty for none (protocol 87 on).
    pub integrity_alg: String,
}

/// `struct p_rs_param` in its three lengths.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SyncParam {
    /// KiB per second.
    pub resync_rate_kib_per_s: u32,
    /// Empty for none.
    pub verify_alg: String,
    /// Empty for none.
    pub csums_alg: String,
    /// Tenths of a second (protocol 95 on).
    pub c_plan_ahead_ds: u32,
    /// Tenths of a second.
    pub c_delay_target_ds: u32,
    /// Sectors.
    pub c_fill_target_sectors: u32,
    /// KiB per second.
    pub c_max_rate_kib_per_s: u32,
}

/// `struct p_uuids`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Uuids {
    /// Current generation.
    pub current: u64,
    /// Generation the bitmap counts from, 0 if none.
    pub bitmap: u64,
    /// Two former generations.
    pub history: [u64; 2],
    /// Bits set in the bitmap.
    pub dirty_bits: u64,
    /// See `UuidFlags`.
    pub flags: UuidFlags,
}

/// `UI_FLAGS` of `struct p_uuids`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UuidFlags(pub u64);

impl UuidFlags {
    /// The sender wants its data discarded.
    pub const DISCARD_MY_DATA: u64 = 1;
    /// The sender was primary when it crashed.
    pub const CRASHED_PRIMARY: u64 = 2;
    /// The sender's disk is inconsistent (and a sync target's UUIDs are being taken over).
    pub const INCONSISTENT: u64 = 4;
    /// The bitmap transfer is to be skipped (`new-current-uuid --clear-bitmap`).
    pub const SKIP_INITIAL_SYNC: u64 = 8;
}

/// `struct p_sizes`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    /// Usable size of the sender's disk in sectors, 0 if diskless.
    pub d_size: u64,
    /// Size the user asked for in sectors, 0 if none.
    pub u_size: u64,
    /// Size the device has now in sectors.
    pub c_size: u64,
    /// Largest request in bytes.
    pub max_bio_size: u32,
    /// Unused.
    pub queue_order_type: u16,
    /// `enum dds_flags`.
    pub dds_flags: u16,
    /// Present if WSAME was agreed.
    pub limits: Option<QueueLimits>,
}

/// `struct o_qlim`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueLimits {
    /// Bytes.
    pub physical_block_size: u32,
    /// Bytes.
    pub logical_block_size: u32,
    /// Bytes.
    pub alignment_offset: u32,
    /// Bytes.
    pub io_min: u32,
    /// Bytes.
    pub io_opt: u32,
    /// Whether the disk can discard.
    pub discard_enabled: u8,
    /// Whether discarded ranges read as zeroes.
    pub discard_zeroes_data: u8,
    /// Whether the disk can write-same.
    pub write_same_capable: u8,
}

/// `struct p_connection_features`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Features {
    /// Lowest protocol spoken.
    pub protocol_min: u32,
    /// `DRBD_FF_*`.
    pub feature_flags: u32,
    /// Highest protocol spoken.
    pub protocol_max: u32,
}

impl Features {
    /// `DRBD_FF_TRIM`.
    pub const TRIM: u32 = 1;
    /// `DRBD_FF_THIN_RESYNC`.
    pub const THIN_RESYNC: u32 = 2;
    /// `DRBD_FF_WSAME`.
    pub const WSAME: u32 = 4;
    /// `DRBD_FF_WZEROES`.
    pub const WZEROES: u32 = 8;
}

/// `union drbd_state` as a 32-bit word: role 2 bits, peer 2, conn 5, disk 4, pdsk 4, then single flags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StateWord(pub u32);

impl StateWord {
    /// The five fields that are exchanged.
    pub fn new(role: Role, peer: Role, conn: ConnectionState, disk: DiskState, pdsk: DiskState) -> Self {
        Self(
            u32::from(role.0)
                | u32::from(peer.0) << 2
                | u32::from(conn.0) << 4
                | u32::from(disk.0) << 9
                | u32::from(pdsk.0) << 13,
        )
    }

    /// The sender's role.
    pub fn role(self) -> Role {
        Role((self.0 & 3) as u8)
    }

    /// What the sender holds the receiver's role to be.
    pub fn peer(self) -> Role {
        Role((self.0 >> 2 & 3) as u8)
    }

    /// The sender's connection state.
    pub fn conn(self) -> ConnectionState {
        ConnectionState((self.0 >> 4 & 31) as u8)
    }

    /// The sender's disk.
    pub fn disk(self) -> DiskState {
        DiskState((self.0 >> 9 & 15) as u8)
    }

    /// What the sender holds the receiver's disk to be.
    pub fn pdsk(self) -> DiskState {
        DiskState((self.0 >> 13 & 15) as u8)
    }

    /// Bit 17: IO suspended by the user.
    pub const SUSP: u32 = 1 << 17;
    /// Bit 18: resync paused because of another resource.
    pub const AFTR_ISP: u32 = 1 << 18;
    /// Bit 19: resync paused by the peer.
    pub const PEER_ISP: u32 = 1 << 19;
    /// Bit 20: resync paused by the user.
    pub const USER_ISP: u32 = 1 << 20;
}
