//! `enum drbd_packet`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::wire_names;

wire_names! {
    /// What a packet is; the name is upstream's identifier. A number that this release does not know survives.
    Command(u16), "packet" {
        /// A write.
        Data = 0x00, "P_DATA";
        /// Answer to `DataRequest`.
        DataReply = 0x01, "P_DATA_REPLY";
        /// Answer to `RsDataRequest`.
        RsDataReply = 0x02, "P_RS_DATA_REPLY";
        /// End of an epoch.
        Barrier = 0x03, "P_BARRIER";
        /// A piece of the bitmap.
        Bitmap = 0x04, "P_BITMAP";
        /// Not sent by 8.4.
        BecomeSyncTarget = 0x05, "P_BECOME_SYNC_TARGET";
        /// Not sent by 8.4.
        BecomeSyncSource = 0x06, "P_BECOME_SYNC_SOURCE";
        /// A hint that a burst of writes is over.
        UnplugRemote = 0x07, "P_UNPLUG_REMOTE";
        /// A read.
        DataRequest = 0x08, "P_DATA_REQUEST";
        /// A read for the resync.
        RsDataRequest = 0x09, "P_RS_DATA_REQUEST";
        /// Resync parameters up to protocol 88.
        SyncParam = 0x0a, "P_SYNC_PARAM";
        /// Settings of the connection.
        Protocol = 0x0b, "P_PROTOCOL";
        /// Generation identifiers.
        Uuids = 0x0c, "P_UUIDS";
        /// Sizes and limits.
        Sizes = 0x0d, "P_SIZES";
        /// State of a device.
        State = 0x0e, "P_STATE";
        /// UUID of the resync that starts.
        SyncUuid = 0x0f, "P_SYNC_UUID";
        /// CRAM-HMAC challenge.
        AuthChallenge = 0x10, "P_AUTH_CHALLENGE";
        /// CRAM-HMAC response.
        AuthResponse = 0x11, "P_AUTH_RESPONSE";
        /// Asks for a change of state.
        StateChgReq = 0x12, "P_STATE_CHG_REQ";
        /// Is the peer alive?
        Ping = 0x13, "P_PING";
        /// It is.
        PingAck = 0x14, "P_PING_ACK";
        /// Write received.
        RecvAck = 0x15, "P_RECV_ACK";
        /// Write done.
        WriteAck = 0x16, "P_WRITE_ACK";
        /// Write done and in sync.
        RsWriteAck = 0x17, "P_RS_WRITE_ACK";
        /// A concurrent write won.
        Superseded = 0x18, "P_SUPERSEDED";
        /// Write failed.
        NegAck = 0x19, "P_NEG_ACK";
        /// Read failed.
        NegDreply = 0x1a, "P_NEG_DREPLY";
        /// Resync read failed.
        NegRsDreply = 0x1b, "P_NEG_RS_DREPLY";
        /// Epoch done.
        BarrierAck = 0x1c, "P_BARRIER_ACK";
        /// Answer to `StateChgReq`.
        StateChgReply = 0x1d, "P_STATE_CHG_REPLY";
        /// Asks for a block's digest.
        OvRequest = 0x1e, "P_OV_REQUEST";
        /// A block's digest.
        OvReply = 0x1f, "P_OV_REPLY";
        /// Whether the digests were equal.
        OvResult = 0x20, "P_OV_RESULT";
        /// Resync request with the target's digest.
        CsumRsRequest = 0x21, "P_CSUM_RS_REQUEST";
        /// The digests were equal.
        RsIsInSync = 0x22, "P_RS_IS_IN_SYNC";
        /// Resync parameters from protocol 89 on.
        SyncParam89 = 0x23, "P_SYNC_PARAM89";
        /// A run-length encoded piece of the bitmap.
        CompressedBitmap = 0x24, "P_COMPRESSED_BITMAP";
        /// Ignored.
        DelayProbe = 0x27, "P_DELAY_PROBE";
        /// A block to be marked out of sync.
        OutOfSync = 0x28, "P_OUT_OF_SYNC";
        /// Resync request refused for now.
        RsCancel = 0x29, "P_RS_CANCEL";
        /// Asks for a change of the connection's state.
        ConnStChgReq = 0x2a, "P_CONN_ST_CHG_REQ";
        /// Answer to `ConnStChgReq`.
        ConnStChgReply = 0x2b, "P_CONN_ST_CHG_REPLY";
        /// A conflicting write is to be sent again.
        RetryWrite = 0x2c, "P_RETRY_WRITE";
        /// `Protocol` in an established connection.
        ProtocolUpdate = 0x2d, "P_PROTOCOL_UPDATE";
        /// A discard.
        Trim = 0x31, "P_TRIM";
        /// Resync request that zeroes may answer.
        RsThinReq = 0x32, "P_RS_THIN_REQ";
        /// The zeroes that answer it.
        RsDeallocated = 0x33, "P_RS_DEALLOCATED";
        /// One block, to be written many times.
        Wsame = 0x34, "P_WSAME";
        /// Zeroes to be written.
        Zeroes = 0x36, "P_ZEROES";
        /// First packet of the meta socket.
        InitialMeta = 0xfff1, "P_INITIAL_META";
        /// First packet of the data socket.
        InitialData = 0xfff2, "P_INITIAL_DATA";
        /// Versions and features.
        ConnectionFeatures = 0xfffe, "P_CONNECTION_FEATURES";
    }
}

impl Command {
    /// Whether the packet comes before a version is agreed, so that its header has the oldest form for ever.
    pub const fn precedes_agreement(self) -> bool {
        matches!(self, Self::InitialMeta | Self::InitialData | Self::ConnectionFeatures)
    }
}
