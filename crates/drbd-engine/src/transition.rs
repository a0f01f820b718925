//! Every change of a device's state, and what follows from it. Upstream: `_drbd_set_state`, `after_state_ch`.

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};

use crate::device::{BitmapDue, Device, Purpose};
use crate::event::{Action, Level};
use crate::handlers::Handler;
use crate::resource::Resource;
use crate::state::State;
use crate::turn::Turn;
use crate::verify::{can_stop, is_verifying};

/// The peer's copy of the data was within reach and no longer is (`lost_contact_to_peer_data`).
fn lost_contact(before: D, after: D) -> bool {
    let had = before >= D::Inconsistent && before != D::DUnknown && before != D::Outdated;
    let gone = after < D::Inconsistent || after == D::DUnknown || after == D::Outdated;
    had && gone
}

/// The kernel's line about a change of state.
fn describe(turn: &mut Turn, minor: u32, os: State, ns: State) {
    let mut text = String::new();
    let mut field = |name: &str, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
        text.push_str(&format!("{name}( {a} -> {b} ) "));
    };
    if os.role != ns.role {
        field("role", &os.role, &ns.role);
    }
    if os.peer != ns.peer {
        field("peer", &os.peer, &ns.peer);
    }
    if os.conn != ns.conn {
        field("conn", &os.conn, &ns.conn);
    }
    if os.disk != ns.disk {
        field("disk", &os.disk, &ns.disk);
    }
    if os.pdsk != ns.pdsk {
        field("pdsk", &os.pdsk, &ns.pdsk);
    }
    for (name, a, b) in [("peer_isp", os.peer_isp, ns.peer_isp), ("user_isp", os.user_isp, ns.user_isp)] {
        if a != b {
            field(name, &u8::from(a), &u8::from(b));
        }
    }
    if !text.is_empty() {
        turn.info(format_args!("drbd{minor}: {}", text.trim_end()));
    }
}

impl Device {
    /// Who lost the peer before it said what our new disk is worth must decide alone: the disk is what its meta-data say,
    /// unless a front has seen another generation. True: it has, and the disk must be let go.
    fn without_negotiation(&self, next: State) -> (State, bool) {
        let Some(disk) =
            self.disk.as_ref().filter(|_| next.conn < C::Connected && next.disk == D::Negotiating)
        else {
            return (next, false);
        };
        if next.role == Role::Primary && !self.holds_what_was_seen(disk.generations.current()) {
            return (State { disk: D::Failed, ..next }, true);
        }
        (State { disk: disk.negotiated, ..next }, false)
    }
}

impl Device {
    /// Whether data of this generation hold all that the front has seen.
    pub(crate) fn holds_what_was_seen(&self, current: u64) -> bool {
        let unseen = self.begun_unseen.is_some_and(|(begun, followed)| {
            begun & !1 == current & !1 && followed & !1 == self.exposed & !1
        });
        self.exposed == 0 || self.exposed & !1 == current & !1 || unseen
    }

    /// Who agreed to be overwritten and lost the peer before that began has data that no longer count: the next handshake
    /// finds equal generations, and must not take the two for equal.
    fn without_full_sync(&mut self, next: State) -> State {
        self.gives_way &= !matches!(next.conn, C::Connected | C::SyncTarget | C::PausedSyncT);
        if self.gives_way && next.conn < C::Connected {
            self.gives_way = false;
            return State { disk: next.disk.min(D::Inconsistent), ..next };
        }
        self.gives_way |= next.conn == C::StartingSyncT;
        next
    }
}

impl Resource {
    /// Takes a volume into a state, sanitized first, and does what that entails.
    pub(crate) fn transition(&mut self, volume: u16, next: State) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let os = device.state;
        let (next, unusable) = device.without_negotiation(next);
        let ns = State::sanitized(device.without_full_sync(next));
        if os == ns {
            return;
        }
        device.state = ns;
        self.suspend_if_due(volume, os, ns);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        describe(&mut self.turn, device.minor, os, ns);
        if os.disk == D::Inconsistent
            && os.pdsk == D::Inconsistent
            && os.peer == Role::Secondary
            && ns.peer == Role::Primary
        {
            device.consider_resync = true;
        }
        if os.serves_diskless_primary() && !ns.serves_diskless_primary() {
            // Before the superblock stops to say that the activity log counts.
            self.write_changed_bitmap(volume);
        }
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let both = |s: State| s.disk == D::UpToDate && s.pdsk == D::UpToDate;
        if both(ns)
            && !both(os)
            && let Some(disk) = &mut device.disk
        {
            disk.crashed_primary = false;
        }
        if os.disk < D::Consistent
            && ns.disk >= D::Consistent
            && let Some(disk) = &device.disk
        {
            device.exposed = disk.generations.current();
        }
        if ns.disk == D::Diskless && ns.conn >= C::Connected && ns.pdsk == D::UpToDate {
            device.begun_unseen = None;
        }
        let is_blind = |s: State| s.role == Role::Primary && s.disk < D::UpToDate && s.pdsk < D::UpToDate;
        if is_blind(ns) && !is_blind(os) {
            self.call_handler(Handler::PriOnInconDegr, volume);
        }
        let source = |conn: C| matches!(conn, C::SyncSource | C::PausedSyncS);
        if source(ns.conn) && !source(os.conn) {
            self.send_sync_uuid(volume);
        }
        self.after_connection_change(volume, os, ns);
        self.rotate_generation_if_alone(volume, os, ns);
        self.tell_peer(volume, os, ns);
        if os.role == Role::Primary && ns.role == Role::Secondary && ns.conn <= C::Connected {
            self.write_changed_bitmap(volume);
        }
        if os.conn > C::Connected && os.conn < C::Ahead && ns.conn <= C::Connected {
            self.write_changed_bitmap(volume);
        }
        self.resync_after_negotiation(volume);
        if unusable {
            self.turn.log(Level::Error, "lost the connection while negotiating the disk's state");
            self.drop_disk(volume);
        }
    }

    fn write_changed_bitmap(&mut self, volume: u16) {
        let Self { devices, turn, .. } = self;
        if let Some(device) = devices.get_mut(&volume) {
            device.write_bitmap(turn, Purpose::BitmapPages);
        }
    }

    /// A new identifier for this resync, to the peer before any state.
    fn send_sync_uuid(&mut self, volume: u16) {
        let random = self.turn.random_u64();
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let Some(disk) = &mut device.disk else { return };
        let uuid = disk.generations.begin_sync(random);
        disk.changed();
        link.send(turn, volume, drbd_format::wire::Packet::SyncUuid(uuid), None);
    }

    fn after_connection_change(&mut self, volume: u16, os: State, ns: State) {
        let Self { devices, turn, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        if os.conn != C::WFBitMapS && ns.conn == C::WFBitMapS {
            device.bitmap_receiver = drbd_format::bitmap::BitmapReceiver::new();
            device.bitmap_due = Some(BitmapDue::AfterChanges);
        }
        if os.conn != C::WFBitMapT && ns.conn == C::WFBitMapT {
            device.bitmap_receiver = drbd_format::bitmap::BitmapReceiver::new();
        }
        if os.conn != ns.conn {
            device.asked_handler = None;
        }
        if let Some(resync) = &mut device.resync {
            resync.progress.paused(turn.now, matches!(ns.conn, C::PausedSyncS | C::PausedSyncT));
        }
        let starts_sync = |conn: C| matches!(conn, C::StartingSyncS | C::StartingSyncT);
        if !starts_sync(ns.conn) {
            device.early_sync_uuid = None;
        } else if !starts_sync(os.conn) {
            self.mark_everything(volume);
        }
        if os.conn > C::Connected && ns.conn == C::Connected {
            self.abandon_resync(volume);
            self.leave_verify(volume);
        }
        if os.conn == C::Connected && is_verifying(ns.conn) {
            self.begin_verify(volume, ns.conn);
        }
    }

    /// Whoever goes on alone with current data starts a new generation: what it writes from now on is its own.
    fn rotate_generation_if_alone(&mut self, volume: u16, os: State, ns: State) {
        let Some(device) = self.devices.get(&volume) else { return };
        let Some(disk) = &device.disk else { return };
        let alone = disk.generations.needs_another() && ns.disk >= D::UpToDate;
        let lost = lost_contact(os.pdsk, ns.pdsk) && (ns.role == Role::Primary || ns.peer == Role::Primary);
        let peer_promoted_diskless =
            ns.pdsk < D::Inconsistent && os.peer != Role::Primary && ns.peer == Role::Primary;
        // A primary gets its disk back where the peer has lost its own: what the peer wrote alone is not in it.
        let got_disk_alone =
            os.disk == D::Negotiating && ns.role == Role::Primary && ns.pdsk < D::Inconsistent;
        if alone && lost && self.suspended.fencing {
            if let Some(device) = self.devices.get_mut(&volume) {
                device.new_generation_due = true;
            }
        } else if alone && (lost || peer_promoted_diskless || got_disk_alone) {
            self.new_generation(volume);
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get_mut(&volume).filter(|_| link.is_open()) {
                device.send_uuids(turn, link);
            }
        }
    }

    /// `drbd_uuid_new_current`; changes complete to the front only once it is stable.
    pub(crate) fn new_generation(&mut self, volume: u16) {
        let random = self.turn.random_u64();
        let role = self.role;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(disk) = &mut device.disk else { return };
        if disk.generations.counts_from_resync() {
            disk.generations.leave_target(random, role);
        } else {
            disk.generations.rotate(random, role);
        }
        if disk.stable >= disk.completions_after {
            // What the peer may have lost was seen by the front: then only this generation will do.
            let peer_has_all = disk.bitmap.count() == 0;
            let current = disk.generations.current();
            disk.exposed_until_then = if peer_has_all { device.exposed } else { current };
        }
        disk.changed();
        disk.completions_after = disk.version;
        device.exposed = disk.generations.current();
        let [current, bitmap, h0, h1] = disk.generations.0;
        let minor = device.minor;
        self.turn.info(format_args!(
            "drbd{minor}: new current UUID {current:016X}:{bitmap:016X}:{h0:016X}:{h1:016X}"
        ));
        self.write_superblock(volume);
    }

    fn tell_peer(&mut self, volume: u16, os: State, ns: State) {
        let Self { devices, turn, link, .. } = self;
        if !link.is_open() || ns.conn < C::Connected {
            return;
        }
        let Some(device) = devices.get_mut(&volume) else { return };
        let peer_attached = os.pdsk == D::Diskless && ns.pdsk > D::Diskless && ns.pdsk != D::DUnknown;
        let attaching = os.disk == D::Attaching && ns.disk == D::Negotiating;
        let target_done = os.disk < D::UpToDate && os.conn >= C::SyncSource && ns.conn == C::Connected;
        let disk_gone = (os.disk != D::Failed && ns.disk == D::Failed)
            || (os.disk != D::Diskless && ns.disk == D::Diskless);
        let damaged = os.disk == D::UpToDate && ns.disk == D::Inconsistent;
        let introduced = os.conn == C::WFReportParams;
        let paused = os.user_isp != ns.user_isp;
        // The target does not know where a verify stops, and that may have changed since it began.
        let verified = os.conn == C::VerifyS && ns.conn == C::Connected && can_stop(link);
        if attaching {
            device.send_sizes(turn, link);
        }
        if attaching || peer_attached {
            device.send_uuids(turn, link);
        }
        if attaching
            || peer_attached
            || target_done
            || disk_gone
            || damaged
            || introduced
            || paused
            || verified
        {
            device.send_state(turn, link);
        }
    }

    /// Lets the disk of a volume go.
    pub(crate) fn drop_disk(&mut self, volume: u16) {
        let attached = self.devices.get(&volume).filter(|d| d.disk.is_some());
        let Some(state) = attached.map(|d| d.state) else { return };
        self.transition(volume, State { disk: D::Failed, ..state });
        self.abandon_resync(volume);
        self.link.log.forget_extents(volume);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        for part in device.parts.values_mut() {
            part.extents.clear();
        }
        for write in device.peer_writes.values_mut() {
            write.extents.clear();
        }
        if let Some(disk) = device.disk.as_ref().filter(|disk| disk.stable < disk.completions_after) {
            // Nobody has seen the generation that fails with its disk: a peer with the one before may serve the front.
            device.exposed = disk.exposed_until_then;
            device.begun_unseen = Some((disk.generations.current(), device.exposed));
        }
        if device.state.role == Role::Primary
            && device.state.conn >= C::Connected
            && device.state.pdsk == D::UpToDate
            && let Some(peer) = &device.peer_uuids
        {
            // The front goes on with the peer's: that may have begun a generation when it agreed to our detaching, and
            // told us while our disk was still there.
            device.exposed = peer.current;
        }
        let waiting = device.disk.as_mut().map(|disk| disk.hot.withdraw()).unwrap_or_default();
        let admitted = device.disk.as_mut().map(|disk| disk.hot.committed()).unwrap_or_default();
        device.disk = None;
        device.state.fences = false;
        let state = device.state;
        self.transition(volume, State { disk: D::Diskless, ..state });
        self.turn.out.push(Action::DropDisk { volume });
        for tag in waiting.into_iter().chain(admitted) {
            self.extents_gained(volume, tag);
        }
        if self.link.peer_epochs.hold_writes() {
            // The peer's writes can no longer be flushed. Its barriers must not be acknowledged, nor may its flushes wait
            // for ever: a lost connection is what makes it mark such writes as out of sync.
            self.lose(C::NetworkFailure);
        }
    }
}
