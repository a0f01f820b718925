//! The engine's two closed enums: what happens to it, and what it wants done.

use std::net::SocketAddr;

use drbd_format::activity_log::Transaction;
use drbd_format::auth::Digest;
use drbd_format::bitmap::Bitmap;
use drbd_format::meta::{DiskSizes, Layout, Placement, SuperBlock};
use drbd_format::wire::{Agreed, Packet};
use units::SectorRange;

use crate::admin::{DiskOptions, NetOptions, Refusal, ResourceOptions, SizeWish};
use crate::handlers::{HandlerCall, HandlerRun};
use crate::time::Instant;

/// Names an operation at a disk until its completion is reported.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tag(pub u64);

/// Names a request of the front.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrontId(pub u64);

/// Names bytes that the shell keeps. The bytes of an [`Action::Read`] or [`Action::Gather`] get the handle `Payload(tag)`; handles the shell
/// makes (front writes, received data) have [`Payload::FROM_SHELL`] set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Payload(pub u64);

impl Payload {
    /// Keeps the shell's handles apart from those named after tags.
    pub const FROM_SHELL: u64 = 1 << 63;
}

/// One of the sockets of the connection, numbered by the shell, never reused within a resource.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(pub u64);

/// Names an administrator's command until it is answered.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// Why an operation at a disk failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IoFault;

/// Why a request of the front failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrontFault {
    /// No disk here or there could do it.
    Io,
    /// This node is not primary, or may not write now.
    NotPrimary,
}

/// What the front asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrontOp {
    /// Read.
    Read(SectorRange),
    /// Write the payload.
    Write {
        /// Where.
        range: SectorRange,
        /// Complete when on stable storage.
        fua: bool,
    },
    /// Everything completed so far must become stable, on both nodes.
    Flush,
    /// Forget the content.
    Discard(SectorRange),
    /// Zero the content.
    WriteZeroes {
        /// Where.
        range: SectorRange,
        /// Space may be given back.
        may_unmap: bool,
    },
}

/// What the shell found on a disk it opened.
#[derive(Clone, Debug)]
pub struct FoundDisk {
    /// The superblock, checked.
    pub superblock: SuperBlock,
    /// Where the meta-data are.
    pub placement: Placement,
    /// How large the disks are.
    pub sizes: DiskSizes,
    /// Where on them everything is, by the superblock's word.
    pub layout: Layout,
    /// The bitmap as it is on the disk, for `superblock.la_size_sectors`.
    pub bitmap: Bitmap,
    /// Extents that were hot, by the activity log.
    pub hot_extents: Vec<u32>,
    /// Number of the next activity-log transaction.
    pub next_transaction: u32,
    /// Logical block size in bytes.
    pub logical_block_bytes: u32,
    /// Whether discards reach the disk.
    pub discards: bool,
}

/// An administrator's command, as far as the engine decides it.
#[derive(Clone, Debug)]
pub enum Order {
    /// The shell has opened the disk and read its meta-data.
    Attach {
        /// Of which volume.
        volume: u16,
        /// What is there.
        disk: Box<FoundDisk>,
        /// Options of the disk section.
        options: DiskOptions,
    },
    /// Let the disk go; the shell closes it when this is answered.
    Detach {
        /// Of which volume.
        volume: u16,
    },
    /// Use what a grown disk has, or another size.
    Resize {
        /// Of which volume.
        volume: u16,
        /// How.
        wish: SizeWish,
    },
    /// Let the disk go at once, without asking the peer, whatever that takes away.
    ForceDetach {
        /// Of which volume.
        volume: u16,
    },
    /// Change options.
    DiskOptions {
        /// Of which volume.
        volume: u16,
        /// All of them.
        options: DiskOptions,
    },
    /// Change options.
    ResourceOptions(ResourceOptions),
    /// Look for the peer.
    Connect {
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        peer: SocketAddr,
        /// Options of the net section.
        options: NetOptions,
        /// Give up what was written here if that ends a split brain.
        discard_my_data: bool,
    },
    /// Change options.
    NetOptions(NetOptions),
    /// Leave the peer.
    Disconnect {
        /// Without asking it.
        force: bool,
    },
    /// Become primary.
    Primary {
        /// Declare our data current.
        force: bool,
    },
    /// Pause the resync, or let it go on.
    PauseSync {
        /// Of which volume.
        volume: u16,
        /// Pause it.
        paused: bool,
    },
    /// Our data give way: a full resync from the peer.
    Invalidate {
        /// Of which volume.
        volume: u16,
    },
    /// The peer's data give way: a full resync to it.
    InvalidateRemote {
        /// Of which volume.
        volume: u16,
    },
    /// Compare both disks block by block.
    Verify {
        /// Of which volume.
        volume: u16,
        /// First sector; none: where the last one ended too early, or 0.
        start_sector: Option<u64>,
        /// Sector before which it ends; none: the end of the device.
        stop_sector: Option<u64>,
    },
    /// Begin a generation.
    NewCurrentUuid {
        /// Of which volume.
        volume: u16,
        /// Declare both disks equal.
        clear_bitmap: bool,
    },
    /// Let the front wait.
    SuspendIo,
    /// Let the front go on, whatever it waits for.
    ResumeIo {
        /// Whose superblock must be stable before the answer.
        volume: u16,
    },
    /// Our data are no longer to be relied upon.
    Outdate {
        /// Of which volume.
        volume: u16,
    },
    /// Become secondary; the shell has seen to it that nothing holds the device.
    Secondary,
}

impl Order {
    /// Roles and disks stand still from the first word about them until the peer's was heard: such an order waits
    /// (`STATE_SENT`, `SS_IN_TRANSIENT_STATE`).
    pub(crate) fn waits_for_introduction(&self) -> bool {
        !matches!(
            self,
            Self::DiskOptions { .. } | Self::Connect { .. } | Self::NetOptions(_) | Self::Disconnect { .. }
        )
    }
}

/// What can happen to a resource.
#[derive(Debug)]
pub enum Event {
    /// The front asks.
    Submit {
        /// Of which volume.
        volume: u16,
        /// Name.
        request: FrontId,
        /// What.
        op: FrontOp,
        /// Bytes of a write.
        payload: Option<Payload>,
    },
    /// An operation at a disk has ended.
    IoDone {
        /// Which.
        tag: Tag,
        /// How.
        outcome: Result<(), IoFault>,
    },
    /// An `Inspect` has ended.
    Inspected {
        /// Which.
        tag: Tag,
        /// What was found.
        finding: Finding,
    },
    /// A TCP connection stands.
    Opened {
        /// Name.
        socket: SocketId,
        /// We dialled.
        outgoing: bool,
    },
    /// Dialling failed.
    DialFailed,
    /// A packet has arrived whole.
    Received {
        /// Where.
        socket: SocketId,
        /// Volume of its header.
        volume: u16,
        /// What.
        packet: Packet,
        /// Bytes after the body, with their number.
        payload: Option<(Payload, u32)>,
    },
    /// A packet has arrived whole whose bytes do not go with its digest ([`Integrity::received`]).
    Altered {
        /// Where.
        socket: SocketId,
        /// Volume of its header.
        volume: u16,
        /// What it was.
        packet: Packet,
        /// Number of bytes after the body and its digest.
        bytes: u32,
    },
    /// Something arrived that is no packet.
    Malformed {
        /// Where.
        socket: SocketId,
        /// What was wrong.
        why: String,
    },
    /// A socket has ended.
    Closed {
        /// Which.
        socket: SocketId,
    },
    /// The shell has looked how large the disks of a volume are; it does so before it reports a packet that tells the
    /// peer's size or begins a handshake, and before it gives the order to resize.
    DiskMeasured {
        /// Of which volume.
        volume: u16,
        /// How large they are.
        sizes: DiskSizes,
    },
    /// The administrator orders.
    Admin {
        /// To be named in the answer.
        ticket: Ticket,
        /// What.
        order: Order,
    },
    /// The cluster permits writes up to an instant; none: for ever.
    Permit {
        /// No write completes to the front after it.
        until: Option<Instant>,
    },
    /// The cluster has fenced the peer: it is refused until the next `Connect`.
    PeerFenced,
    /// What is to be sent on a socket waits for room; said again whenever some was taken, and when all was.
    Sending {
        /// Which.
        socket: SocketId,
        /// Something is left.
        waits: bool,
    },
    /// A handler has ended.
    HandlerEnded {
        /// Which.
        run: HandlerRun,
        /// Its exit code.
        status: u8,
    },
    /// The deadline has come.
    Timeout,
}

/// Digests in front of the bytes of packets (`data-integrity-alg`); see [`Packet::is_protected`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Integrity {
    /// Of those we send.
    pub sent: Option<Digest>,
    /// Of those the peer sends.
    pub received: Option<Digest>,
}

/// What the engine wants to know of bytes that it does not see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// Their digest, as a new payload. Of bytes that could not be read it is all zeroes, as upstream's.
    Digest(Digest),
    /// Whether that is their digest.
    HasDigest(Digest, Payload),
    /// Whether all of them are zero.
    IsZero,
}

/// The answer to a [`Question`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// To `Digest`: where it is, and its length.
    Digest(Payload, u32),
    /// To the others.
    Is(bool),
}

/// What the operating system is told of sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketOptions {
    /// `sndbuf-size`: bytes, 0 for the system's choice.
    pub send_buffer_bytes: u32,
    /// `rcvbuf-size`: bytes, 0 for the system's choice.
    pub receive_buffer_bytes: u32,
    /// `connect-int`: seconds that a dial may take.
    pub dial_s: u32,
}

/// Part of a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slice {
    /// Of which bytes.
    pub payload: Payload,
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

/// A block of meta-data as the engine means it.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaBlock {
    /// The superblock.
    SuperBlock(SuperBlock),
    /// One activity-log transaction.
    ActivityLog(Transaction),
    /// One page of the bitmap.
    BitmapPage {
        /// Its number.
        page: u32,
        /// Its bytes.
        bytes: Box<[u8; 4096]>,
    },
}

/// A step of a meta-data job. Steps happen strictly one after another: the order of durability is this list.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaStep {
    /// Everything that completed before on the data and the meta-data device becomes stable.
    Flush,
    /// These blocks are written, in any order.
    Write(Vec<MetaBlock>),
    /// From here on everything is written to these places.
    Move(Layout),
}

/// How loud a message is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// For the curious.
    Info,
    /// Something is not as it should be.
    Warning,
    /// Something failed.
    Error,
}

/// What the engine wants done. Actions of one turn are executed in order.
#[derive(Debug)]
pub enum Action {
    /// Read into a new payload `Payload(tag)`.
    Read {
        /// Names the operation and the payload.
        tag: Tag,
        /// Of which volume.
        volume: u16,
        /// What.
        range: SectorRange,
    },
    /// Write.
    Write {
        /// Name.
        tag: Tag,
        /// Of which volume.
        volume: u16,
        /// Where.
        range: SectorRange,
        /// The bytes, as many as the range has.
        data: Slice,
        /// Complete when stable.
        fua: bool,
    },
    /// Everything completed before on the data device becomes stable.
    Flush {
        /// Name.
        tag: Tag,
        /// Of which volume.
        volume: u16,
    },
    /// Zero.
    WriteZeroes {
        /// Name.
        tag: Tag,
        /// Of which volume.
        volume: u16,
        /// Where.
        range: SectorRange,
        /// Space may be given back.
        may_unmap: bool,
    },
    /// Look at bytes; ends with [`Event::Inspected`].
    Inspect {
        /// Name.
        tag: Tag,
        /// Which bytes; none could be read.
        data: Option<Slice>,
        /// What is to be found out.
        question: Question,
    },
    /// A meta-data job.
    Meta {
        /// Name.
        tag: Tag,
        /// Of which volume.
        volume: u16,
        /// In this order.
        steps: Vec<MetaStep>,
    },
    /// Accept connections at our end from now on (until `StopListening`).
    Listen {
        /// Where.
        local: SocketAddr,
        /// Only from this host.
        peer: SocketAddr,
        /// What accepted sockets are like.
        sockets: SocketOptions,
    },
    /// No longer.
    StopListening,
    /// Try to reach the peer once.
    Dial {
        /// From this address (any port).
        local: SocketAddr,
        /// To this one.
        peer: SocketAddr,
        /// What the socket is like.
        sockets: SocketOptions,
    },
    /// Send a packet after all earlier ones of this socket.
    Send {
        /// Where.
        socket: SocketId,
        /// Volume of the header.
        volume: u16,
        /// What.
        packet: Packet,
        /// Bytes after the body.
        data: Option<Slice>,
    },
    /// Both sockets speak like this from the next packet on.
    Agree {
        /// Protocol and features.
        agreed: Agreed,
    },
    /// Packets sent, and packets received, carry digests like this from the next one on.
    Integrity(Integrity),
    /// Close a socket, after what is still to be sent if `drain`.
    Close {
        /// Which.
        socket: SocketId,
        /// Send what is queued before.
        drain: bool,
    },
    /// Answer the front. The payload is a read's bytes.
    Complete {
        /// Of which volume.
        volume: u16,
        /// Which.
        request: FrontId,
        /// How.
        outcome: Result<Option<Slice>, FrontFault>,
    },
    /// Makes a new payload of so many bytes: the slices one after another, zeroes behind them.
    Gather {
        /// Its name, made of a tag as that of a read.
        payload: Payload,
        /// Bytes.
        len: u32,
        /// At most `len` bytes together.
        slices: Vec<Slice>,
    },
    /// The engine will not name these bytes again.
    Release {
        /// Which.
        payload: Payload,
    },
    /// Answer the administrator.
    Answer {
        /// Whom.
        ticket: Ticket,
        /// What: lines to warn with, or a refusal.
        outcome: Result<Vec<String>, Refusal>,
    },
    /// The disk of a volume has failed or was detached; the shell closes it once its operations have ended.
    DropDisk {
        /// Of which volume.
        volume: u16,
    },
    /// The size of the device is known now or has changed.
    Resized {
        /// Of which volume.
        volume: u16,
        /// Sectors.
        sectors: u64,
    },
    /// Run one of the administrator's programs; it ends with [`Event::HandlerEnded`].
    RunHandler(HandlerCall),
    /// For the log.
    Log {
        /// How loud.
        level: Level,
        /// What.
        text: String,
    },
}

/// Where a turn's actions go.
pub type Actions = Vec<Action>;
