//! What the tools ask of the daemon, as plain data. The verbs are drbdsetup's.

use std::net::SocketAddr;
use std::path::PathBuf;

use drbd_format::meta::{AlSize, Placement};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::status::ResourceStatus;

/// One request over the control socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Make a resource; one that is there keeps its options.
    NewResource {
        /// Its name.
        resource: String,
        /// Options of the options section.
        #[serde(default)]
        options: ResourceOptions,
    },
    /// Change options of a resource.
    ResourceOptions {
        /// The resource.
        resource: String,
        /// All of them.
        options: ResourceOptions,
    },
    /// Make a volume of a resource.
    NewMinor {
        /// The resource.
        resource: String,
        /// Number of the device: /dev/drbdN.
        minor: u32,
        /// Number of the volume within the resource.
        volume: u16,
        /// The configuration has no volume sections: the resource's name is the device's.
        #[serde(default)]
        is_implicit: bool,
    },
    /// Take a backing device into use.
    Attach {
        /// The device.
        minor: u32,
        /// Lower-level device.
        disk: PathBuf,
        /// Device of the meta-data; the same as `disk` for internal.
        meta_disk: PathBuf,
        /// Where on it.
        meta_index: MetaIndex,
        /// Options of the disk section.
        options: DiskOptions,
    },
    /// Let the backing device go.
    Detach {
        /// The device.
        minor: u32,
        /// Without asking.
        force: bool,
    },
    /// Change options of an attached disk.
    DiskOptions {
        /// The device.
        minor: u32,
        /// All of them.
        options: DiskOptions,
    },
    /// Begin to look for the peer.
    Connect {
        /// The resource.
        resource: String,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        peer: SocketAddr,
        /// Options of the net section.
        options: NetOptions,
        /// Solve a split brain by giving up what was written here.
        discard_my_data: bool,
    },
    /// Change options of a connection.
    NetOptions {
        /// The resource.
        resource: String,
        /// All of them.
        options: NetOptions,
    },
    /// Leave the peer.
    Disconnect {
        /// The resource.
        resource: String,
        /// Without asking the peer.
        force: bool,
    },
    /// Become primary.
    Primary {
        /// The resource.
        resource: String,
        /// Even without current data: they become current by this.
        force: bool,
    },
    /// Become secondary.
    Secondary {
        /// The resource.
        resource: String,
    },
    /// Pause the resync.
    PauseSync {
        /// The device.
        minor: u32,
    },
    /// Let the resync go on.
    ResumeSync {
        /// The device.
        minor: u32,
    },
    /// Our data give way: a full resync from the peer.
    Invalidate {
        /// The device.
        minor: u32,
    },
    /// The peer's data give way: a full resync to it.
    InvalidateRemote {
        /// The device.
        minor: u32,
    },
    /// Compare both disks block by block.
    Verify {
        /// The device.
        minor: u32,
        /// First sector; none: where the last one ended too early, or 0.
        start_sector: Option<u64>,
        /// Sector before which it ends; none: the end of the device.
        stop_sector: Option<u64>,
    },
    /// Let the front wait.
    SuspendIo {
        /// A device of the resource.
        minor: u32,
    },
    /// Let the front go on, whatever it waits for.
    ResumeIo {
        /// The device.
        minor: u32,
    },
    /// Our data are no longer to be relied upon.
    Outdate {
        /// The device.
        minor: u32,
    },
    /// Use what a grown disk has, or another size.
    Resize {
        /// The device.
        minor: u32,
        /// How.
        wish: SizeWish,
    },
    /// Begin a generation.
    NewCurrentUuid {
        /// The device.
        minor: u32,
        /// Declare both disks equal; before the first resync this spares it.
        clear_bitmap: bool,
    },
    /// Forget a volume without a disk of a resource that is Secondary.
    DelMinor {
        /// The device.
        minor: u32,
    },
    /// Forget a resource without volumes and without a connection.
    DelResource {
        /// The resource.
        resource: String,
    },
    /// Secondary, disconnect, detach, and forget the resource.
    Down {
        /// The resource.
        resource: String,
    },
    /// State of one resource or all.
    Status {
        /// None: all.
        resource: Option<String>,
    },
    /// What one resource or all are configured with.
    Show {
        /// None: all.
        resource: Option<String>,
    },
    /// Drain, and let a new program take over the fronts.
    Upgrade,
    /// End the daemon; refused while a resource is configured.
    Shutdown,
}

/// The daemon's answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Done (`NO_ERROR`, `SS_SUCCESS` or nothing to do).
    Done {
        /// What a person should know all the same; lines for stderr.
        warnings: Vec<String>,
    },
    /// Refused, nothing changed.
    Refused(Refusal),
    /// Answer to `Status`, sorted by name.
    Status(Vec<ResourceStatus>),
    /// Answer to `Show`, sorted by name.
    Configuration(Vec<Configuration>),
}

/// What a resource is configured with.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Configuration {
    /// Its name.
    pub name: String,
    /// All options.
    #[serde(default)]
    pub options: ResourceOptions,
    /// Sorted by minor.
    pub minors: Vec<ConfiguredMinor>,
    /// None: no network configuration.
    pub connection: Option<ConfiguredConnection>,
}

/// A minor of a resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConfiguredMinor {
    /// Number of the device.
    pub minor: u32,
    /// Number of the volume.
    pub volume: u16,
    /// None: not attached.
    pub disk: Option<ConfiguredDisk>,
}

/// A disk in use.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConfiguredDisk {
    /// Lower-level device.
    pub disk: PathBuf,
    /// Device of the meta-data.
    pub meta_disk: PathBuf,
    /// Where on it.
    pub meta_index: MetaIndex,
    /// All options.
    pub options: DiskOptions,
}

/// A connection that is made or looked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConfiguredConnection {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub peer: SocketAddr,
    /// All options, the secret among them: not to be shown.
    pub options: NetOptions,
}

/// Why the daemon refuses, in DRBD's numbers: `enum drbd_state_rv` (negative) or `enum drbd_ret_code` (above 100).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// -2 "Need access to UpToDate data", 158 "Unknown resource", …
    pub code: i32,
    /// More about this case, or empty.
    pub detail: String,
}

/// What `resize` asks for (`struct resize_parms`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SizeWish {
    /// Sectors to use; 0: all that both disks have.
    pub size_sectors: u64,
    /// Without a connection: the peer's disk is taken to be as large as ours, and the log's size may change.
    pub assume_peer_has_space: bool,
    /// What is new counts as equal on both disks.
    pub assume_clean: bool,
    /// Stripes of the activity log; none: as many as there are.
    pub al_stripes: Option<u32>,
    /// Size of each in KiB; none: as it is.
    pub al_stripe_size_kib: Option<u32>,
}

impl SizeWish {
    /// The size of the activity log, if it is to be another than the present one.
    pub fn another_al(&self, present: AlSize) -> Option<AlSize> {
        let stripe_size_4k = self.al_stripe_size_kib.map_or(present.stripe_size_4k, |kib| kib / 4);
        let wanted = AlSize { stripes: self.al_stripes.unwrap_or(present.stripes), stripe_size_4k };
        (wanted != present).then_some(wanted)
    }
}

/// Where the meta-data are on their device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetaIndex {
    /// At the end of the data device.
    Internal,
    /// The whole of their own device.
    FlexExternal,
    /// Slot N of 128 MiB.
    Index(u32),
}

impl From<MetaIndex> for Placement {
    fn from(index: MetaIndex) -> Self {
        match index {
            MetaIndex::Internal => Self::Internal,
            MetaIndex::FlexExternal => Self::FlexExternal,
            MetaIndex::Index(slot) => Self::Indexed(slot),
        }
    }
}

/// The options section. Defaults are drbd 8.4's.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceOptions {
    /// `enum drbd_on_no_data`: 0 an IO error, 1 suspended IO, where a request reaches no current data.
    pub on_no_data_accessible: u32,
    /// Hexadecimal: the processors of the resource's thread; empty: all.
    pub cpu_mask: String,
}

/// The disk section, in its own units. Defaults are drbd 8.4's (`drbd_limits.h`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskOptions {
    /// Sectors to use; 0: all.
    pub size_sectors: u64,
    /// KiB per second.
    pub resync_rate_kib_per_s: u32,
    /// Number of hot extents.
    pub al_extents: u32,
    /// `enum drbd_fencing_p`: whether a lost peer must be kept from going on before we do.
    pub fencing: u32,
    /// `enum drbd_io_error_p`: what becomes of a disk that fails.
    pub on_io_error: u32,
    /// Flush the backing device where ordering needs it.
    pub disk_flushes: bool,
    /// The same for the meta-data.
    pub md_flushes: bool,
    /// 0 selects the fixed rate.
    pub c_plan_ahead_ds: u32,
    /// Tenths of a second.
    pub c_delay_target_ds: u32,
    /// Sectors.
    pub c_fill_target_sectors: u32,
    /// KiB per second.
    pub c_max_rate_kib_per_s: u32,
    /// KiB per second.
    pub c_min_rate_kib_per_s: u32,
    /// A resync asks for zeroes in runs of so many bytes, which the disk gives back; 0: it does not ask.
    pub rs_discard_granularity_bytes: u32,
    /// Discards are believed to leave zeroes; otherwise zeroes are written in their place.
    pub discard_zeroes_if_aligned: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            size_sectors: 0,
            resync_rate_kib_per_s: 250,
            al_extents: 1237,
            fencing: 0,
            on_io_error: 2,
            disk_flushes: true,
            md_flushes: true,
            c_plan_ahead_ds: 20,
            c_delay_target_ds: 10,
            c_fill_target_sectors: 100,
            c_max_rate_kib_per_s: 100 * 1024,
            c_min_rate_kib_per_s: 250,
            rs_discard_granularity_bytes: 0,
            discard_zeroes_if_aligned: true,
        }
    }
}

/// `protocol A|B|C`, with upstream's numbers on the wire (1, 2, 3).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ReplicationProtocol {
    /// Asynchronous.
    A,
    /// Semi-synchronous.
    B,
    /// Synchronous.
    C,
}

/// The net section, in its own units. Defaults are drbd 8.4's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetOptions {
    /// When a write is complete.
    pub protocol: ReplicationProtocol,
    /// Digest of the challenge, empty for no authentication.
    pub cram_hmac_alg: String,
    /// At most 64 bytes.
    pub shared_secret: Secret,
    /// Tenths of a second until a peer that does not answer is given up.
    pub timeout_ds: u32,
    /// Seconds between pings on an idle connection.
    pub ping_int_s: u32,
    /// Tenths of a second to wait for the answer to a ping.
    pub ping_timeout_ds: u32,
    /// Seconds between connection attempts.
    pub connect_int_s: u32,
    /// Whether both nodes may be primary.
    pub allow_two_primaries: bool,
    /// `enum drbd_after_sb_p`.
    pub after_sb_0pri: u32,
    /// `enum drbd_after_sb_p`.
    pub after_sb_1pri: u32,
    /// `enum drbd_after_sb_p`.
    pub after_sb_2pri: u32,
    /// Those policies also where both have nothing but older generations in common.
    pub always_asbp: bool,
    /// `enum drbd_after_sb_p`: what a primary does that must become the target of a resync.
    pub rr_conflict: u32,
    /// Writes per epoch at most.
    pub max_epoch_size: u32,
    /// 4 KiB buffers for the peer's writes at most.
    pub max_buffers: u32,
    /// Bytes; 0: the kernel's choice.
    pub sndbuf_size: u32,
    /// Bytes; 0: the kernel's choice.
    pub rcvbuf_size: u32,
    /// How often a stuck peer may miss `timeout` before it is dropped; 0: never.
    pub ko_count: u32,
    /// Run-length encode bitmaps.
    pub use_rle: bool,
    /// What takes several calls to send goes out in full segments.
    pub tcp_cork: bool,
    /// Digest over every payload, empty for none.
    pub data_integrity_alg: String,
    /// Digest of checksum-based resync, empty for none.
    pub csums_alg: String,
    /// Checksums only after a crash of the primary.
    pub csums_after_crash_only: bool,
    /// Digest of online verify, empty for none.
    pub verify_alg: String,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            protocol: ReplicationProtocol::C,
            cram_hmac_alg: String::new(),
            shared_secret: Secret::default(),
            timeout_ds: 60,
            ping_int_s: 10,
            ping_timeout_ds: 5,
            connect_int_s: 10,
            allow_two_primaries: false,
            after_sb_0pri: 0,
            after_sb_1pri: 0,
            after_sb_2pri: 0,
            always_asbp: false,
            rr_conflict: 0,
            max_epoch_size: 2048,
            max_buffers: 2048,
            sndbuf_size: 0,
            rcvbuf_size: 0,
            ko_count: 7,
            use_rle: true,
            tcp_cork: true,
            data_integrity_alg: String::new(),
            csums_alg: String::new(),
            csums_after_crash_only: false,
            verify_alg: String::new(),
        }
    }
}
