//! The state of a resource as plain data, for tools, metrics and tests.

use std::net::SocketAddr;

use drbd_format::names::{ConnectionState, DiskState, Role};
use serde::{Deserialize, Serialize};

use crate::admin::ReplicationProtocol;

/// One resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// Our role.
    pub role: Role,
    /// The peer's role.
    pub peer_role: Role,
    /// State of the connection as a whole (never a sync state).
    pub connection: ConnectionState,
    /// None: no network configuration.
    pub protocol: Option<ReplicationProtocol>,
    /// Our end and the peer's, if configured.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Sorted by number.
    pub devices: Vec<DeviceStatus>,
}

/// One volume of a resource on this node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// Number within the resource.
    pub volume: u16,
    /// Number of the device.
    pub minor: u32,
    /// Connection state, with sync states.
    pub connection: ConnectionState,
    /// Our disk.
    pub disk: DiskState,
    /// The peer's disk.
    pub peer_disk: DiskState,
    /// Sectors; 0 while unknown.
    pub size_sectors: u64,
    /// Path of the backing device, empty if none.
    pub backing: String,
    /// Generation identifiers: current, bitmap, two of history.
    pub uuids: [u64; 4],
    /// Meta-data flags (`MDF_*`).
    pub md_flags: u32,
    /// Flags behind the protocol letter in /proc/drbd.
    pub flags: DeviceFlags,
    /// Counters of /proc/drbd.
    pub counters: Counters,
    /// A running resync.
    pub sync: Option<SyncProgress>,
    /// Whether the meta-data said at the attach that this node was Primary without a peer when it went down; the shell
    /// fills it in.
    #[serde(default)]
    pub was_degraded: bool,
}

/// Why IO or resync does not run, as /proc/drbd shows it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct DeviceFlags {
    /// `s` instead of `r`.
    pub io_suspended: bool,
    /// Because of an order.
    #[serde(default)]
    pub suspended_user: bool,
    /// Because there are no current data.
    #[serde(default)]
    pub suspended_no_data: bool,
    /// Because the peer is not yet fenced.
    #[serde(default)]
    pub suspended_fencing: bool,
    /// `a`.
    pub resync_after: bool,
    /// `p`.
    pub resync_paused_by_peer: bool,
    /// `u`.
    pub resync_paused_by_user: bool,
    /// `s` in the last place.
    pub al_suspended: bool,
}

/// Counters of /proc/drbd.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// `ns`: KiB sent.
    pub sent_kib: u64,
    /// `nr`: KiB received.
    pub received_kib: u64,
    /// `dw`: KiB written to the disk.
    pub disk_written_kib: u64,
    /// `dr`: KiB read from the disk.
    pub disk_read_kib: u64,
    /// `al`: activity-log updates.
    pub al_writes: u64,
    /// `bm`: bitmap updates.
    pub bm_writes: u64,
    /// `lo`: requests at the local disk.
    pub local_count: u64,
    /// `pe`: requests the peer has not answered.
    pub pending: u64,
    /// `ua`: the peer's requests we have not answered.
    pub unacked: u64,
    /// `ap`: requests of the front not yet completed.
    pub application_pending: u64,
    /// `ep`: epochs.
    pub epochs: u64,
    /// `wo`: `f` flush, `d` drain, `n` none.
    pub write_ordering: WriteOrdering,
    /// `oos`: KiB out of sync.
    pub out_of_sync_kib: u64,
}

/// How the order of writes is kept on the disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum WriteOrdering {
    /// By flushes.
    #[default]
    Flush,
    /// By draining.
    Drain,
    /// Not at all.
    None,
}

/// Progress of a resync or verify.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct SyncProgress {
    /// KiB when it began.
    pub total_kib: u64,
    /// KiB still to do.
    pub left_kib: u64,
    /// KiB per second of late.
    pub speed_kib_per_s: u64,
    /// KiB per second since it began.
    pub average_kib_per_s: u64,
    /// KiB per second the target asks for; only on the target.
    pub wanted_kib_per_s: Option<u64>,
    /// Seconds until done at the present speed; none if it stands still.
    pub finish_s: Option<u64>,
}

impl crate::device::Device {
    pub(crate) fn status(
        &self,
        link: &crate::link::Link,
        now: crate::time::Instant,
        permit: crate::resource::Permit,
        suspended: crate::suspension::Suspended,
    ) -> DeviceStatus {
        let left = self.dirty_blocks();
        let mut counters = self.counters;
        counters.local_count = self.operations.len() as u64;
        let parts = self.parts.values().filter(|p| p.remote == crate::device::Leg::Pending).count();
        let of_resync = self.resync.as_ref().map_or(0, |resync| resync.asked());
        let of_verify = self.verify.as_ref().map_or(0, |verify| verify.asked() + verify.answered());
        counters.pending = (parts + of_resync + of_verify) as u64;
        counters.unacked = (self.peer_writes.len() + self.peer_reads.len()) as u64;
        counters.application_pending = (self.writes.len() + self.reads.len()) as u64;
        counters.epochs = link.log.len().max(1) as u64;
        counters.out_of_sync_kib = left * 4;
        let disk = self.disk.as_ref();
        DeviceStatus {
            volume: self.volume,
            minor: self.minor,
            connection: self.state.conn,
            disk: self.state.disk,
            peer_disk: self.state.pdsk,
            size_sectors: self.size_sectors,
            backing: String::new(),
            uuids: disk.map_or([0; 4], |d| d.generations.0),
            md_flags: self.meta_flags().0,
            flags: DeviceFlags {
                io_suspended: !permit.allows(now) || suspended.any(),
                suspended_user: suspended.user,
                suspended_no_data: suspended.no_data,
                suspended_fencing: suspended.fencing,
                resync_paused_by_peer: self.state.peer_isp,
                resync_paused_by_user: self.state.user_isp,
                // As the kernel prints it for a disk that no peer has seen.
                al_suspended: disk.is_some()
                    && self.state.conn < ConnectionState::Connected
                    && self.fully_dirty(),
                ..DeviceFlags::default()
            },
            counters,
            was_degraded: false,
            sync: self.verify_progress(now).or_else(|| {
                self.resync.as_ref().map(|resync| {
                    let (speed, average) = resync.progress.speeds_kib_per_s(now, left);
                    SyncProgress {
                        total_kib: resync.progress.total * 4,
                        left_kib: left * 4,
                        speed_kib_per_s: speed,
                        average_kib_per_s: average,
                        wanted_kib_per_s: (self.state.conn == ConnectionState::SyncTarget)
                            .then(|| resync.pace.wanted_kib_per_s()),
                        finish_s: (speed > 0).then(|| left * 4 / speed),
                    }
                })
            }),
        }
    }

    fn verify_progress(&self, now: crate::time::Instant) -> Option<SyncProgress> {
        let verify = self.verify.as_ref()?;
        let left = verify.left;
        let (speed, average) = verify.progress.speeds_kib_per_s(now, left);
        Some(SyncProgress {
            total_kib: verify.progress.total * 4,
            left_kib: left * 4,
            speed_kib_per_s: speed,
            average_kib_per_s: average,
            wanted_kib_per_s: (self.state.conn == ConnectionState::VerifyS)
                .then(|| verify.pace.wanted_kib_per_s()),
            finish_s: (speed > 0).then(|| left * 4 / speed),
        })
    }

    /// Every block is out of sync: then the activity log has nothing to add (`AL_SUSPENDED`).
    fn fully_dirty(&self) -> bool {
        self.disk.as_ref().is_some_and(|d| d.bitmap.bits() > 0 && d.bitmap.count() == d.bitmap.bits())
    }
}
