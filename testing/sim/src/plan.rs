//! What a seed decides once: sizes, options, speeds.

use std::time::Duration;

use drbd_engine::admin::{DiskOptions, NetOptions, ReplicationProtocol};
use drbd_engine::handlers::Handler;
use drbd_format::wire::PROTOCOL_MAX;
use drbd_node::shell::DiskOp;

use crate::rng::Rng;
use crate::world::{MS, US};

/// The constants of a run.
#[derive(Debug)]
pub struct Plan {
    /// Both disks are equal from the beginning, and declared so.
    pub skips_first_sync: bool,
    /// Size of either disk, meta-data included.
    pub disk_bytes: usize,
    /// The disk section.
    pub disk: DiskOptions,
    /// The net section.
    pub net: NetOptions,
    /// One-way latency in nanoseconds, from and to.
    pub latency: (u64, u64),
    /// Time of a disk's operation, from and to.
    pub disk_ns: (u64, u64),
    /// Time of a flush, from and to.
    pub flush_ns: (u64, u64),
    /// Requests of the front under way at most.
    pub depth: usize,
    /// Pause between two submissions, from and to.
    pub pause_ns: (u64, u64),
    /// Sectors that most requests go to, so that they overlap.
    pub hot_sectors: u64,
    /// In so many of ten thousand packets a byte of the data or their digest changes on the way.
    pub altered_per_10000: u64,
    /// `on-no-data-accessible suspend-io`.
    pub suspends_without_data: bool,
    /// How fast each node's clock runs, in thousandths of the world's.
    pub clock_permille: [u64; 2],
    /// Node that fails operations, and how many of ten thousand.
    pub failing: Option<(usize, u64)>,
    /// The highest version of the protocol that either offers.
    pub protocol_max: [u32; 2],
}

impl Plan {
    /// What this seed says.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        // Seven extents of the activity log are the least that may be configured: more are on a large disk only.
        let disk_bytes = match rng.below(200) {
            0 => 40 << 20,
            1..8 => 9 << 20,
            _ => rng.pick(&[192 << 10, 256 << 10, (500 << 10) + 4096 + 512, 1 << 20]),
        };
        let disk = DiskOptions {
            al_extents: 7,
            c_plan_ahead_ds: rng.pick(&[0, 20]),
            resync_rate_kib_per_s: rng.pick(&[4 << 10, 60 << 10]),
            ..DiskOptions::default()
        };
        let mut own = Rng::new(seed, 8);
        let fencing = if own.chance(30) { own.pick(&[1, 2]) } else { 0 };
        let suspends_without_data = own.chance(30);
        let on_io_error = own.pick(&[2, 2, 1]);
        let disk = DiskOptions { on_io_error, ..disk };
        let protocol = match rng.below(10) {
            0 => ReplicationProtocol::A,
            1 => ReplicationProtocol::B,
            _ => ReplicationProtocol::C,
        };
        let net = NetOptions {
            protocol,
            cram_hmac_alg: if rng.chance(30) { "sha1".into() } else { String::new() },
            shared_secret: "dupersupersecret".into(),
            ping_int_s: rng.pick(&[3, 10]),
            ping_timeout_ds: rng.pick(&[5, 9]),
            connect_int_s: rng.pick(&[3, 10]),
            timeout_ds: rng.pick(&[60, 180]),
            max_epoch_size: rng.pick(&[1, 4, 2048]),
            use_rle: rng.chance(50),
            // disconnect, and all that never make a target of a primary
            after_sb_0pri: rng.pick(&[0, 0, 1, 2, 3, 4]),
            after_sb_1pri: rng.pick(&[0, 0, 7, 8]),
            always_asbp: rng.chance(30),
            ..NetOptions::default()
        };
        // Who fences and does without acknowledgements is refused.
        let fencing = if net.protocol == ReplicationProtocol::A { fencing.min(1) } else { fencing };
        let disk = DiskOptions { fencing, ..disk };
        // A stream of its own: what the seeds did before there were digests they do still.
        let mut digests = Rng::new(seed, 7);
        let integrity = digests.chance(25);
        let net = NetOptions {
            verify_alg: if digests.chance(80) {
                digests.pick(&["crc32c", "sha1"]).into()
            } else {
                String::new()
            },
            csums_alg: if digests.chance(30) { "md5".into() } else { String::new() },
            csums_after_crash_only: digests.chance(20),
            data_integrity_alg: if integrity {
                digests.pick(&["crc32c", "md5", "sha1"]).into()
            } else {
                String::new()
            },
            ..net
        };
        let disk = DiskOptions {
            rs_discard_granularity_bytes: digests.pick(&[0, 0, 4096, 16384]),
            discard_zeroes_if_aligned: digests.chance(80),
            ..disk
        };
        let lan = rng.chance(70);
        let mut plan = Self {
            skips_first_sync: rng.chance(15),
            disk_bytes,
            disk,
            net,
            latency: if lan { (50 * US, 300 * US) } else { (100 * US, 40 * MS) },
            disk_ns: rng.pick(&[(20 * US, 200 * US), (50 * US, 8 * MS)]),
            flush_ns: rng.pick(&[(50 * US, MS), (MS, 20 * MS)]),
            depth: rng.pick(&[1, 4, 32]),
            pause_ns: rng.pick(&[(10 * US, 200 * US), (100 * US, 10 * MS)]),
            hot_sectors: rng.pick(&[64, 512, 1 << 20]),
            altered_per_10000: if integrity { digests.pick(&[0, 2, 20]) } else { 0 },
            suspends_without_data,
            clock_permille: [0, 1].map(|_| if rng.chance(50) { 1000 } else { rng.within(950, 1051) }),
            failing: rng.chance(8).then(|| (rng.below(2) as usize, rng.pick(&[1, 20]))),
            protocol_max: [PROTOCOL_MAX; 2],
        };
        let mut versions = Rng::new(seed, 8);
        if versions.chance(15) {
            // Below 91 a resync whose end was not heard leaves two that refuse each other, as upstream's do.
            plan.protocol_max[versions.below(2) as usize] = versions.pick(&[91, 94, 95, 96, 99, 100]);
        }
        // One whose IO waits for ever does not step down, and its front outlives what it was promised.
        let waits = plan.disk.fencing != 0 || plan.suspends_without_data;
        plan.net.allow_two_primaries = protocol == ReplicationProtocol::C && !waits && rng.chance(35);
        plan
    }

    /// Whether the peer hears that a write is to be stable: before version 95 it does not.
    pub fn tells_fua(&self) -> bool {
        self.protocol_max.iter().all(|&max| max >= 95)
    }

    /// How long an operation takes.
    pub fn disk_delay(&self, op: &DiskOp, rng: &mut Rng) -> u64 {
        let (low, high) = if matches!(op, DiskOp::Flush) { self.flush_ns } else { self.disk_ns };
        rng.within(low, high)
    }

    /// How long one of the administrator's programs runs, and with what it ends.
    pub fn handler(&self, handler: Handler, may_refuse: bool, rng: &mut Rng) -> (u64, u8) {
        let refuses =
            may_refuse && matches!(handler, Handler::BeforeResyncTarget | Handler::BeforeResyncSource);
        let status = if refuses && rng.chance(2) { rng.pick(&[1, 3]) } else { 0 };
        (rng.within(MS, 200 * MS), status)
    }

    /// How long a segment travels.
    pub fn latency(&self, rng: &mut Rng) -> u64 {
        rng.within(self.latency.0, self.latency.1)
    }

    /// Within this time a whole pair finds together and syncs.
    pub fn patience(&self) -> Duration {
        let kib = self.disk_bytes as u64 / 1024;
        let rate = if self.disk.c_plan_ahead_ds == 0 { self.disk.resync_rate_kib_per_s } else { 4 << 10 };
        Duration::from_secs(90 + 2 * kib / u64::from(rate))
    }
}
