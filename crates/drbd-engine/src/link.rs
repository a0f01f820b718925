//! The connection to the peer: its sockets, what was agreed on them, and what is under way on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use drbd_format::names::ConnectionState;
use drbd_format::wire::{Agreed, BlockAck, Features, PROTOCOL_MAX, Packet};

use crate::admin::NetOptions;
use crate::event::{Action, Integrity, Payload, Slice, SocketId, Ticket};
use crate::patience::Stall;
use crate::time::Instant;
use crate::transfer_log::TransferLog;
use crate::turn::Turn;

/// What `Connect` brought.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// The net section.
    pub options: NetOptions,
    /// For the next handshake only.
    pub discard_my_data: bool,
}

/// A packet that waits.
#[derive(Debug)]
pub struct Deferred {
    /// Volume of its header.
    pub volume: u16,
    /// What.
    pub packet: Packet,
    /// Bytes after the body that are not released yet.
    pub payload: Option<(Payload, u32)>,
}

/// How far the handshake has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// The sockets are not both there.
    Sockets,
    /// Waiting for the peer's features.
    Features,
    /// Waiting for the peer's challenge.
    Challenge,
    /// Waiting for the peer's response.
    Response,
    /// Authenticated; parameters and states are exchanged.
    Open,
}

/// Whose data are no longer to be relied upon when two nodes part in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outdates {
    /// Nobody's.
    Nobody,
    /// The peer's: we are primary, and fence.
    Peer,
    /// Ours: the peer wants that.
    Us,
}

/// A change of state that the peer is asked to agree to.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Become primary.
    Primary {
        /// Whom to answer.
        ticket: Ticket,
        /// With our data declared current.
        force: bool,
        /// Volumes whose answer is awaited.
        volumes: BTreeSet<u16>,
    },
    /// Begin a full resync.
    Resync {
        /// Whom to answer.
        ticket: Ticket,
        /// Of which volume.
        volume: u16,
        /// `StartingSyncS` or `StartingSyncT`, seen from here; `VerifyS`: not a resync, but a verify.
        side: ConnectionState,
    },
    /// Let a disk go.
    Detach {
        /// Whom to answer.
        ticket: Ticket,
        /// Of which volume.
        volume: u16,
    },
    /// Leave.
    Disconnect {
        /// Whom to answer.
        ticket: Ticket,
        /// Who is outdated by it.
        outdates: Outdates,
    },
}

/// An epoch of the peer's writes.
#[derive(Debug, Default)]
pub struct PeerEpoch {
    /// Its barrier, once it came.
    pub barrier: Option<u32>,
    /// Writes received.
    pub count: u32,
    /// Writes not yet on the disk.
    pub active: u32,
}

/// The peer's epochs that we have not acknowledged, oldest first; the last one is open.
#[derive(Debug)]
pub struct PeerEpochs {
    /// Number of the first in `epochs`.
    pub first: u64,
    /// Never empty.
    pub epochs: VecDeque<PeerEpoch>,
    /// Epochs below this number are covered by the flush under way.
    pub flushing: Option<u64>,
    /// Volumes whose flush is not yet done.
    pub flushes_left: u32,
}

impl PeerEpochs {
    /// Nothing received.
    pub fn new() -> Self {
        Self { first: 0, epochs: VecDeque::from([PeerEpoch::default()]), flushing: None, flushes_left: 0 }
    }

    /// Nothing received on a new connection; numbers go on, so that late writes of the old one name no epoch.
    pub fn after(old: &Self) -> Self {
        Self { first: old.open() + 1, ..Self::new() }
    }

    /// Number of the open epoch.
    pub fn open(&self) -> u64 {
        self.first + self.epochs.len() as u64 - 1
    }

    /// The epoch of this number, unless it is acknowledged.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut PeerEpoch> {
        number.checked_sub(self.first).and_then(|i| self.epochs.get_mut(i as usize))
    }

    /// Whether there are writes that the peer does not yet know to be on stable storage here.
    pub fn hold_writes(&self) -> bool {
        self.epochs.iter().any(|epoch| epoch.count > 0)
    }

    /// One past the newest epoch that is closed and whose writes are all on the disk, with all before it.
    pub fn complete_below(&self) -> u64 {
        let complete = self.epochs.iter().take_while(|e| e.barrier.is_some() && e.active == 0).count();
        self.first + complete as u64
    }
}

impl Default for PeerEpochs {
    fn default() -> Self {
        Self::new()
    }
}

/// A socket that has not said which it is.
#[derive(Clone, Copy, Debug)]
pub struct Unnamed {
    /// Its name.
    pub socket: SocketId,
    /// When it was accepted.
    pub since: Instant,
}

/// The connection of a resource.
#[derive(Debug)]
pub struct Link {
    /// None: no network configuration, StandAlone.
    pub configuration: Option<Configuration>,
    /// State of the connection as a whole, at most `Connected`.
    pub state: ConnectionState,
    /// The data socket.
    pub data: Option<SocketId>,
    /// The meta socket.
    pub meta: Option<SocketId>,
    /// Counts the handshakes that led to a connection.
    pub met: u64,
    /// Accepted, first packet not yet seen; the oldest first.
    pub unnamed: Vec<Unnamed>,
    /// Which of our sockets we dialled ourselves.
    pub dialled: Vec<SocketId>,
    /// Sockets that take no more bytes.
    pub stalls: Vec<Stall>,
    /// Bytes of answers that were sent since the data socket takes no more.
    pub unsent_reply_bytes: u64,
    /// Answers to pings that were sent since the meta socket takes no more.
    pub unread_ping_acks: u32,
    /// When the last barrier was sent.
    pub barrier_sent_at: Instant,
    /// Counts the connections that were lost.
    pub connection: u64,
    /// How far the handshake is.
    pub stage: Stage,
    /// The peer's features, if they came before the meta socket had its name: the two sockets are not ordered.
    pub early_features: Option<Features>,
    /// The highest version that we offer.
    pub protocol_max: u32,
    /// What is spoken.
    pub agreed: Agreed,
    /// Digests in front of bytes.
    pub integrity: Integrity,
    /// Ours, while we authenticate.
    pub challenge: [u8; 64],
    /// Our meta socket was accepted, not dialled.
    pub resolves_conflicts: bool,
    /// When to dial again.
    pub dial_at: Option<Instant>,
    /// A dial is under way.
    pub dialling: bool,
    /// When the handshake must have come further.
    pub stage_deadline: Option<Instant>,
    /// The two do not go together: nothing but pings is answered any more, and this is when we leave for good.
    pub leaving_at: Option<Instant>,
    /// When something came from the peer last.
    pub heard_at: Instant,
    /// When a ping went out that is not yet answered.
    pub pinged_at: Option<Instant>,
    /// Our writes at the peer.
    pub log: TransferLog,
    /// When the open epoch was last written to.
    pub epoch_touched_at: Instant,
    /// A write of the open epoch has completed to the front (protocols A and B): the next one opens another.
    pub epoch_has_completed: bool,
    /// The peer's writes here.
    pub peer_epochs: PeerEpochs,
    /// Running number of our writes and acknowledgements, for each volume (`packet_seq`).
    sequences: BTreeMap<u16, u32>,
    /// The peer was fenced: no handshake until the next `Connect`.
    pub fenced: bool,
    /// A change the peer is asked for.
    pub asked: Option<Asked>,
    /// What came on the data socket while a size that the peer told was being taken.
    pub deferred: VecDeque<Deferred>,
}

impl Link {
    /// StandAlone.
    pub fn new() -> Self {
        Self {
            configuration: None,
            state: ConnectionState::StandAlone,
            data: None,
            meta: None,
            unnamed: Vec::new(),
            met: 0,
            dialled: Vec::new(),
            stalls: Vec::new(),
            unsent_reply_bytes: 0,
            unread_ping_acks: 0,
            barrier_sent_at: Instant(0),
            connection: 0,
            stage: Stage::Sockets,
            early_features: None,
            protocol_max: PROTOCOL_MAX,
            agreed: Agreed::NOTHING,
            integrity: Integrity::default(),
            challenge: [0; 64],
            resolves_conflicts: false,
            dial_at: None,
            dialling: false,
            stage_deadline: None,
            leaving_at: None,
            heard_at: Instant(0),
            pinged_at: None,
            log: TransferLog::new(),
            epoch_touched_at: Instant(0),
            epoch_has_completed: false,
            peer_epochs: PeerEpochs::new(),
            sequences: BTreeMap::new(),
            fenced: false,
            asked: None,
            deferred: VecDeque::new(),
        }
    }

    /// The net section, or its defaults.
    pub fn options(&self) -> NetOptions {
        self.configuration.as_ref().map_or_else(NetOptions::default, |c| c.options.clone())
    }

    /// Whether both primaries are allowed.
    pub fn two_primaries(&self) -> bool {
        self.configuration.as_ref().is_none_or(|c| c.options.allow_two_primaries)
    }

    /// Features that packets of changes may use. With a digest `P_ZEROES` is none of them: upstream's receiver looks for one
    /// behind its body (`read_in_block`), its sender writes none, and the connection breaks. A discard says it as well.
    pub fn data_features(&self) -> u32 {
        let without = if self.integrity.sent.is_some() { Features::WZEROES } else { 0 };
        self.agreed.features & !without
    }

    /// Whether packets of devices may be sent.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open && self.data.is_some() && self.meta.is_some()
    }

    /// The handshake has begun and is not done: roles and disks stand still.
    pub fn is_introducing(&self) -> bool {
        self.state == ConnectionState::WFReportParams
    }

    /// Sends on the data socket.
    pub fn send(&self, turn: &mut Turn, volume: u16, packet: Packet, data: Option<Slice>) {
        if let Some(socket) = self.data {
            turn.out.push(Action::Send { socket, volume, packet, data });
        }
    }

    /// Sends on the meta socket; an acknowledgement gets the volume's next running number.
    pub fn send_meta(&mut self, turn: &mut Turn, volume: u16, mut packet: Packet) {
        if let Some(ack) = numbered_mut(&mut packet) {
            ack.seq_num = self.next_sequence(volume);
        }
        if let Some(socket) = self.meta {
            turn.out.push(Action::Send { socket, volume, packet, data: None });
        }
    }

    /// The next running number of a volume. Writes and acknowledgements share it, so that the peer can tell in which order
    /// they left here although they travel on two sockets.
    pub fn next_sequence(&mut self, volume: u16) -> u32 {
        let sequence = self.sequences.entry(volume).or_default();
        *sequence = sequence.wrapping_add(1);
        *sequence
    }

    /// A connection stands: everything is numbered from 1 on.
    pub fn number_anew(&mut self) {
        self.sequences.clear();
    }

    /// An acknowledgement; its number comes when it is sent.
    pub fn ack(&self, sector: u64, blksize: u32, block_id: u64) -> BlockAck {
        BlockAck { sector, block_id, blksize, seq_num: 0 }
    }

    /// Whether a socket has not said which it is.
    pub fn is_unnamed(&self, socket: SocketId) -> bool {
        self.unnamed.iter().any(|unnamed| unnamed.socket == socket)
    }

    /// It has, or is gone; false if it had before.
    pub fn forget_unnamed(&mut self, socket: SocketId) -> bool {
        let before = self.unnamed.len();
        self.unnamed.retain(|unnamed| unnamed.socket != socket);
        self.unnamed.len() < before
    }

    /// Writes in an epoch at most.
    pub fn epoch_writes_max(&self) -> usize {
        let options = self.configuration.as_ref().map(|c| c.options.max_epoch_size);
        options.unwrap_or_else(|| NetOptions::default().max_epoch_size) as usize
    }

    /// Closes the open epoch, if it holds something.
    pub fn close_epoch(&mut self, turn: &mut Turn) {
        self.epoch_has_completed = false;
        if let Some(barrier) = self.log.close() {
            self.barrier_sent_at = turn.now;
            self.send(turn, 0, Packet::Barrier { barrier }, None);
        }
    }

    /// How long a handshake packet may take: four ping timeouts, as upstream.
    pub fn handshake_patience(&self) -> Duration {
        crate::time::tenths(self.options().ping_timeout_ds) * 4
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// The part of an acknowledgement that carries a running number (`update_peer_seq` is called for each of them).
pub fn numbered_mut(packet: &mut Packet) -> Option<&mut BlockAck> {
    match packet {
        Packet::RecvAck(ack)
        | Packet::WriteAck(ack)
        | Packet::RsWriteAck(ack)
        | Packet::Superseded(ack)
        | Packet::RetryWrite(ack)
        | Packet::NegAck(ack)
        | Packet::NegDreply(ack)
        | Packet::NegRsDreply(ack)
        | Packet::RsCancel(ack)
        | Packet::RsIsInSync(ack)
        | Packet::OvResult(ack) => Some(ack),
        _ => None,
    }
}
