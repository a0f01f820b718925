//! One volume of a resource on this node.

use std::collections::{BTreeMap, VecDeque};

use drbd_format::bitmap::{Bitmap, BitmapReceiver};
use drbd_format::meta::{DiskSizes, Layout, MetaFlags, Placement, SuperBlock};
use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::Uuids;
use units::SectorRange;

use crate::admin::{DiskOptions, SizeWish};
use crate::event::{FrontId, FrontOp, Payload, Tag, Ticket};
use crate::generations::Generations;
use crate::handlers::HandlerRun;
use crate::hot_extents::HotExtents;
use crate::ranges::RangeLocks;
use crate::remote_reads::RemoteRead;
use crate::resize::Resizing;
use crate::resync::Resync;
use crate::state::State;
use crate::status::Counters;
use crate::time::Instant;
use crate::verify::Verify;

/// Sectors that one bit of the bitmap stands for.
pub const BLOCK_SECTORS: u64 = 8;

/// The backing device and what its meta-data say.
#[derive(Debug)]
pub struct Disk {
    /// As last written or read; generations, flags and size are kept here only at the time of writing.
    pub superblock: SuperBlock,
    /// Our generation identifiers.
    pub generations: Generations,
    /// Blocks that differ, or may differ, from the peer's.
    pub bitmap: Bitmap,
    /// Extents that may differ if we crash.
    pub hot: HotExtents<Tag>,
    /// Where the meta-data are.
    pub placement: Placement,
    /// Where on the disks everything is.
    pub layout: Layout,
    /// How large the disks are, as last measured.
    pub sizes: DiskSizes,
    /// How large the data's disk was when the peer was told (`known_size`).
    pub known_bytes: u64,
    /// Options of the disk section.
    pub options: DiskOptions,
    /// Logical block size in bytes.
    pub logical_block_bytes: u32,
    /// Whether discards reach the disk.
    pub discards: bool,
    /// We were primary when we crashed, and have not been in sync since.
    pub crashed_primary: bool,
    /// The state that an attach in a connection leads to once the peer has spoken.
    pub negotiated: D,
    /// Counts changes of the superblock.
    pub version: u64,
    /// The version that the write under way carries.
    pub writing: Option<u64>,
    /// The newest stable version.
    pub stable: u64,
    /// Changes complete to the front only when this version is stable.
    pub completions_after: u64,
    /// The generation the front knew before the one that version carries: a disk that fails before leaves it at that.
    pub exposed_until_then: u64,
}

/// How one leg of a write fares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leg {
    /// Not taken.
    None,
    /// Under way.
    Pending,
    /// Done.
    Done,
    /// It failed, or its peer was lost.
    Failed,
}

/// What a write does to its range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Writes bytes from this offset of the request's payload on.
    Write {
        /// Stable before it completes.
        fua: bool,
    },
    /// Discards.
    Discard,
    /// Zeroes.
    Zeroes {
        /// Space may be given back.
        may_unmap: bool,
    },
}

/// A piece of a request of the front that changes data.
#[derive(Debug)]
pub struct Part {
    /// Its request.
    pub request: FrontId,
    /// Where.
    pub range: SectorRange,
    /// What.
    pub change: Change,
    /// Activity-log extents it touches.
    pub extents: Vec<u32>,
    /// Whether it has begun: lock and extents are held.
    pub started: bool,
    /// Our disk.
    pub local: Leg,
    /// The peer.
    pub remote: Leg,
    /// The epoch it belongs to, which releases its extents.
    pub epoch: Option<u32>,
    /// The peer did not take it because of a write of its own: it begins anew when our disk is done with it.
    pub begins_anew: bool,
    /// Its peer is lost, or nobody could do it, and the front waits: it ends or begins anew when the front goes on.
    pub frozen: bool,
    /// When it was sent.
    pub sent_at: Instant,
    /// Packets of it that the peer has not acknowledged.
    pub acks_left: u32,
    /// Those that it has, where there are several.
    pub answered: Vec<SectorRange>,
    /// The peer refused one of them.
    pub refused: bool,
}

/// A request of the front that changes data.
#[derive(Debug)]
pub struct FrontWrite {
    /// Bytes to write.
    pub payload: Option<Payload>,
    /// Parts under way.
    pub parts_left: u32,
    /// One failed.
    pub failed: bool,
}

/// A read of the front.
#[derive(Debug)]
pub struct FrontRead {
    /// Its request.
    pub request: FrontId,
    /// What.
    pub range: SectorRange,
    /// What the peer is asked for; none: our disk.
    pub remote: Option<RemoteRead>,
}

/// A flush of the front.
#[derive(Debug)]
pub struct FrontFlush {
    /// Its request.
    pub request: Option<FrontId>,
    /// Our disk.
    pub local: Leg,
    /// The epoch that the peer must confirm, if any.
    pub epoch: Option<u32>,
}

/// A change that the peer asks for.
#[derive(Debug)]
pub struct PeerWrite {
    /// Where.
    pub range: SectorRange,
    /// What.
    pub change: Change,
    /// To be echoed.
    pub block_id: u64,
    /// The bytes.
    pub payload: Option<Payload>,
    /// A write acknowledgement is wanted (protocol C).
    pub ack: bool,
    /// Its write (not only the flush before it) was issued.
    pub written: bool,
    /// Everything before must be stable first.
    pub flush_first: bool,
    /// Its epoch.
    pub epoch: u64,
    /// The peer had no disk when it came: ours is the only one, and a crash must not forget what the peer's misses.
    pub alone: bool,
    /// Activity-log extents it holds, if it is `alone`.
    pub extents: Vec<u32>,
    /// The peer's running number.
    pub sequence: u32,
    /// Operations at the disk that have not ended.
    pub steps_left: u32,
    /// One failed.
    pub failed: bool,
}

/// What the peer reads for. For all but its front the range is locked until the answer is on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadKind {
    /// For its front.
    Front,
    /// For its resync.
    Resync,
    /// Its resync takes a word for zeroes.
    Thin,
    /// Its resync has a block with this digest.
    Checksum(Payload),
    /// A digest for its verify.
    Verify,
}

/// A read that the peer asks for.
#[derive(Debug)]
pub struct PeerRead {
    /// What.
    pub range: SectorRange,
    /// To be echoed.
    pub block_id: u64,
    /// What for.
    pub kind: ReadKind,
    /// Of a verify: changes of ours that are under way come first.
    pub waits_for_gate: bool,
    /// Number of the connection it came by; nobody waits for the answer on another.
    pub connection: u64,
}

/// What an operation at the disk was for.
#[derive(Debug)]
pub enum Purpose {
    /// The part of this tag (the operation has the same tag).
    Part,
    /// A read of the front.
    Read,
    /// A flush of the front.
    FrontFlush,
    /// A write of the peer, a piece of it, or the flush before it.
    PeerWrite {
        /// The write.
        write: Tag,
    },
    /// A read of the peer.
    PeerRead,
    /// What a read of the peer brought is looked at.
    PeerReadInspection,
    /// Our side of a block that is being verified.
    VerifyRead {
        /// Where.
        range: SectorRange,
    },
    /// It is compared with the peer's digest.
    VerifyCompare {
        /// Where.
        range: SectorRange,
        /// Our bytes.
        block: Payload,
        /// The peer's digest.
        digest: Payload,
    },
    /// A block is read for its checksum.
    ChecksumRead {
        /// Where.
        range: SectorRange,
    },
    /// Its checksum is computed.
    Checksum {
        /// Where.
        range: SectorRange,
        /// The bytes.
        block: Payload,
    },
    /// A resync block arrived and is being written.
    ResyncWrite {
        /// Its first sector.
        sector: u64,
    },
    /// The same, of a resync that was abandoned meanwhile.
    OrphanedResyncWrite {
        /// Its range, still locked.
        range: SectorRange,
        /// Its bytes.
        payload: Option<Payload>,
    },
    /// The flush that closes epochs of the peer.
    EpochFlush {
        /// On which connection they came: a late answer says nothing of the next one's.
        connection: u64,
    },
    /// An activity-log transaction.
    ActivityLog,
    /// The superblock, with this version.
    SuperBlock(u64),
    /// The activity log of a disk just attached.
    FreshActivityLog,
    /// Pages of the bitmap.
    BitmapPages,
    /// The whole bitmap, before it is sent to the peer.
    BitmapBeforeExchange,
    /// The bitmap with every bit set, before a full resync that was ordered.
    BitmapBeforeFullSync,
    /// The joined bitmap, before the first block of a resync is asked for.
    BitmapBeforeResync,
    /// Data and bitmap at the end of a resync.
    ResyncEnd,
    /// The meta-data for another size or in another place.
    Resize,
}

/// Who holds or waits for a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// A part of a front's request.
    Part(Tag),
    /// A write of the peer.
    PeerWrite(Tag),
    /// A resync read of the peer.
    PeerRead(Tag),
    /// A block of a resync that has arrived, by its first sector.
    Resync(u64),
    /// A block that is being verified, by its first sector.
    Verify(u64),
}

/// A request of the front that waits for a stable state.
#[derive(Debug)]
pub struct Held {
    /// Name.
    pub request: FrontId,
    /// What.
    pub op: FrontOp,
    /// Bytes.
    pub payload: Option<Payload>,
}

/// What the bitmap waits for before it is sent: whatever may still set bits that the peer must learn of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BitmapDue {
    /// Changes of the front that are under way.
    AfterChanges,
    /// Refusals of changes that have completed (protocols A and B); they come before this epoch's confirmation.
    AfterEpoch(u32),
}

/// One volume.
#[derive(Debug)]
pub struct Device {
    /// Number within the resource.
    pub volume: u16,
    /// Number of the device.
    pub minor: u32,
    /// Its state.
    pub state: State,
    /// The backing device, from `Attaching` to `Failed`.
    pub disk: Option<Disk>,
    /// Size in sectors, 0 while unknown.
    pub size_sectors: u64,
    /// The peer's identifiers as it last sent them.
    pub peer_uuids: Option<Uuids>,
    /// Blocks that differ, as the peer was told last: what both know when they decide.
    pub bits_told: u64,
    /// Size of the peer's disk in sectors.
    pub peer_disk_sectors: u64,
    /// A change of the size under way.
    pub resizing: Option<Resizing>,
    /// Orders to resize that wait for it.
    pub resize_orders: VecDeque<(Ticket, SizeWish)>,
    /// We have grown by order, and the peer's word that it has, too, is awaited: then what is new is synced
    /// (`RESIZE_PENDING`).
    pub resize_pending: bool,
    /// The device has grown while a disk was away: what is new is synced once both disks are there (`RESYNC_AFTER_NEG`).
    pub resync_after_negotiation: bool,
    /// The data generation that was exposed to the front last (`ed_uuid`).
    pub exposed: u64,
    /// A generation that failed with its disk before it was stable, and the exposed one that it followed: that disk holds all
    /// that the front has seen, as long as no other generation was exposed since and no peer took writes meanwhile.
    pub begun_unseen: Option<(u64, u64)>,
    /// The peer's identifiers came after our disk was attached: its state that follows answers ours, and is not one that
    /// was on its way before.
    pub peer_uuids_answer: bool,
    /// Both were inconsistent and the peer was forced primary: a resync must be considered at its next state.
    pub consider_resync: bool,
    /// Our bitmap must be sent, as source of a resync.
    pub bitmap_due: Option<BitmapDue>,
    /// The write of our bitmap after which it is sent; one of an earlier handshake does not count.
    pub bitmap_job: Option<Tag>,
    /// The source of a full resync began before our bits were stable: its identifier waits until then.
    pub early_sync_uuid: Option<u64>,
    /// The peer's copy is lost, and the front waits: a generation begins when it goes on alone (`NEW_CUR_UUID`).
    pub new_generation_due: bool,
    /// The handler that must permit the resync before it begins; of an earlier handshake it does not count.
    pub asked_handler: Option<HandlerRun>,
    /// A full resync to this disk was agreed upon, and has not begun.
    pub gives_way: bool,
    /// How much of the peer's bitmap has come.
    pub bitmap_receiver: BitmapReceiver,
    /// Sectors being changed on our disk.
    pub locks: RangeLocks<Owner>,
    /// Sectors that parts of the front's changes are for, or that a resync has asked the peer for: a change of ours after
    /// the question would be overwritten by its answer. The peer's changes need not wait here: they come before the answer
    /// on the same socket, and the answer knows them.
    pub gate: RangeLocks<Tag>,
    /// Operations at the disk.
    pub operations: BTreeMap<Tag, Purpose>,
    /// Pieces of changes under way.
    pub parts: BTreeMap<Tag, Part>,
    /// Changes under way.
    pub writes: BTreeMap<FrontId, FrontWrite>,
    /// Reads under way.
    pub reads: BTreeMap<Tag, FrontRead>,
    /// Flushes under way.
    pub flushes: BTreeMap<Tag, FrontFlush>,
    /// The peer's changes under way.
    pub peer_writes: BTreeMap<Tag, PeerWrite>,
    /// The peer's changes whose turn it is not yet: acknowledgements that it sent before are still on their way.
    pub early_writes: VecDeque<Tag>,
    /// Since when the first of them waits.
    pub early_since: Instant,
    /// The peer's newest running number (`peer_seq`).
    pub peer_sequence: u32,
    /// The peer's changes that wait for its answer to ours in the same place.
    pub contested_writes: Vec<Tag>,
    /// The peer's reads under way.
    pub peer_reads: BTreeMap<Tag, PeerRead>,
    /// Requests that wait for a stable state or for the permit.
    pub held: VecDeque<Held>,
    /// Changes that are done but may not complete without a permit.
    pub withheld: Vec<FrontId>,
    /// A resync.
    pub resync: Option<Resync>,
    /// An online verify.
    pub verify: Option<Verify>,
    /// Where the next one begins unless it is told (`ov_start_sector`).
    pub verify_from: u64,
    /// Where it ends (`ov_stop_sector`).
    pub verify_stop: u64,
    /// Counters of /proc/drbd.
    pub counters: Counters,
    /// Sectors that fronts, ours or the peer's, have moved on our disk.
    pub application_sectors: u64,
    /// How many they were when the resync looked last.
    pub application_seen_sectors: u64,
    /// The peer's resync reads that wait while others use the disk, in the order they came.
    pub slowed_reads: VecDeque<Tag>,
    /// When the next of them goes on.
    pub slowed_until: Instant,
}

impl Device {
    /// A device without disk and peer.
    pub fn new(volume: u16, minor: u32) -> Self {
        Self {
            volume,
            minor,
            state: State::NEW,
            disk: None,
            size_sectors: 0,
            peer_uuids: None,
            bits_told: 0,
            peer_disk_sectors: 0,
            resizing: None,
            resize_orders: VecDeque::new(),
            resize_pending: false,
            resync_after_negotiation: false,
            exposed: 0,
            begun_unseen: None,
            peer_uuids_answer: false,
            consider_resync: false,
            bitmap_due: None,
            bitmap_job: None,
            early_sync_uuid: None,
            new_generation_due: false,
            asked_handler: None,
            gives_way: false,
            bitmap_receiver: BitmapReceiver::new(),
            locks: RangeLocks::new(),
            gate: RangeLocks::new(),
            operations: BTreeMap::new(),
            parts: BTreeMap::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            flushes: BTreeMap::new(),
            peer_writes: BTreeMap::new(),
            early_writes: VecDeque::new(),
            early_since: Instant(0),
            peer_sequence: 0,
            contested_writes: Vec::new(),
            peer_reads: BTreeMap::new(),
            held: VecDeque::new(),
            withheld: Vec::new(),
            resync: None,
            verify: None,
            verify_from: 0,
            verify_stop: u64::MAX,
            counters: Counters::default(),
            application_sectors: 0,
            application_seen_sectors: 0,
            slowed_reads: VecDeque::new(),
            slowed_until: Instant(0),
        }
    }

    /// The disk, if data may be read from and written to it.
    pub fn usable_disk(&mut self) -> Option<&mut Disk> {
        let usable = self.state.disk >= D::Inconsistent;
        self.disk.as_mut().filter(|_| usable)
    }

    /// Whether our disk takes writes.
    pub fn has_usable_disk(&self) -> bool {
        self.disk.is_some() && self.state.disk >= D::Inconsistent
    }

    /// New requests of the front are taken only in states that will last (`drbd_state_is_stable`).
    pub fn is_stable(&self) -> bool {
        let conn = matches!(
            self.state.conn,
            C::StandAlone
                | C::WFConnection
                | C::Connected
                | C::SyncSource
                | C::SyncTarget
                | C::VerifyS
                | C::VerifyT
                | C::PausedSyncS
                | C::PausedSyncT
        );
        let disk = !matches!(self.state.disk, D::Attaching | D::Failed | D::Negotiating);
        conn && disk && !self.resizing.as_ref().is_some_and(Resizing::holds_requests)
    }

    /// Whether something of the front is under way.
    pub fn is_busy(&self) -> bool {
        !self.writes.is_empty()
            || !self.reads.is_empty()
            || self.flushes.values().any(|f| f.request.is_some())
    }

    /// What is held or under way; none if nothing is.
    pub fn leftovers(&self) -> Option<&'static str> {
        let kinds = [
            (!self.locks.is_idle() || !self.gate.is_idle(), "a locked range"),
            (!self.operations.is_empty(), "an operation at the disk"),
            (!self.parts.is_empty() || !self.writes.is_empty(), "a change of the front"),
            (!self.reads.is_empty(), "a read of the front"),
            (!self.flushes.is_empty(), "a flush"),
            (!self.peer_writes.is_empty(), "a write of the peer"),
            (!self.peer_reads.is_empty(), "a read of the peer"),
            (!self.held.is_empty() || !self.withheld.is_empty(), "a request that is held back"),
            (self.resync.is_some(), "a resync"),
            (self.resizing.is_some(), "a change of the size"),
            (self.verify.is_some(), "a verify"),
        ];
        kinds.into_iter().find_map(|(is_left, what)| is_left.then_some(what))
    }

    /// Whether a discard may stand for zeroes.
    pub fn discards_zero(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.options.discard_zeroes_if_aligned)
    }

    /// Marks blocks as differing; only where there is a bitmap.
    pub fn set_out_of_sync(&mut self, range: SectorRange) {
        if let Some(disk) = &mut self.disk {
            disk.bitmap.set_range(range);
        }
    }

    /// Everything differs, or is to be treated so.
    pub fn set_all_out_of_sync(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.bitmap.set_all();
        }
    }

    /// Number of blocks that differ.
    pub fn dirty_blocks(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.bitmap.count())
    }

    /// Meta-data flags as the state demands them (`_drbd_set_state`).
    pub fn meta_flags(&self) -> MetaFlags {
        let Some(disk) = &self.disk else { return MetaFlags(0) };
        let s = self.state;
        // A disk that is being attached keeps what it says of itself until its state is decided.
        if s.disk <= D::Negotiating {
            return disk.superblock.flags;
        }
        let mut flags = disk.superblock.flags;
        let mut set = |flag: MetaFlags, on: bool| {
            flags = if on { flags.with(flag) } else { flags.without(flag) };
        };
        let primary = s.role == Role::Primary || s.serves_diskless_primary();
        set(MetaFlags::AL_CLEAN, false);
        set(MetaFlags::CRASHED_PRIMARY, disk.crashed_primary);
        set(MetaFlags::PRIMARY_IND, primary);
        set(MetaFlags::CONNECTED_IND, s.conn > C::WFReportParams);
        set(MetaFlags::CONSISTENT, s.disk > D::Inconsistent);
        set(MetaFlags::WAS_UP_TO_DATE, s.disk > D::Outdated);
        set(MetaFlags::PEER_OUT_DATED, s.pdsk <= D::Outdated && s.pdsk >= D::Inconsistent);
        flags
    }
}
