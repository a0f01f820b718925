//! What the peer says of itself: its generation identifiers and its state.

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{StateWord, UuidFlags, Uuids};

use crate::event::Level;
use crate::generations::JUST_CREATED;
use crate::protocol_version::SKIPS_INITIAL_SYNC;
use crate::resource::Resource;
use crate::state::State;

/// The peer waits to be synced to, and lacks what its source has.
fn is_old_target(word: StateWord) -> bool {
    let is_target =
        matches!(word.conn(), C::StartingSyncT | C::WFBitMapT | C::WFSyncUUID | C::PausedSyncT | C::Behind);
    is_target && matches!(word.disk(), D::Outdated | D::Consistent)
}

impl Resource {
    pub(crate) fn uuids_received(&mut self, volume: u16, uuids: Uuids) {
        let Some(device) = self.devices.get_mut(&volume) else {
            return self.misbehaved("a volume that is not configured here");
        };
        let diskless_primary = device.state.disk < D::Inconsistent && device.state.role == Role::Primary;
        // A peer that leaves may yet begin a generation for what we wrote to its disk.
        let introducing = (device.state.conn < C::Connected && device.state.conn != C::TearDown)
            || device.state.pdsk == D::Diskless;
        if diskless_primary && introducing && device.exposed & !1 != uuids.current & !1 && device.exposed != 0
        {
            let exposed = device.exposed;
            self.turn
                .log(Level::Error, format_args!("Can only connect to data with current UUID={exposed:016X}"));
            return self.stand_alone();
        }
        let skip = uuids.flags.0 & UuidFlags::SKIP_INITIAL_SYNC != 0
            && device.state.conn == C::Connected
            && self.link.agreed.protocol >= SKIPS_INITIAL_SYNC
            && device.disk.as_ref().is_some_and(|d| d.generations.current() == JUST_CREATED);
        device.peer_uuids = Some(uuids);
        device.peer_uuids_answer = true;
        let holds_our_data = !matches!(device.state.pdsk, D::Inconsistent | D::Outdated);
        if diskless_primary && holds_our_data {
            // The peer has begun a generation for what we write to its disk.
            device.exposed = uuids.current;
        }
        if skip {
            let state = device.state;
            // Of both disks there is no bitmap identifier from here on.
            device.peer_uuids = Some(Uuids { bitmap: 0, ..uuids });
            if let Some(disk) = &mut device.disk {
                let size = device.size_sectors;
                disk.bitmap.clear_range(units::SectorRange::new(0, size));
                disk.generations.set_current(uuids.current, state.role);
                disk.generations.0[1] = 0;
                disk.changed();
            }
            device.write_bitmap(&mut self.turn, crate::device::Purpose::BitmapPages);
            self.turn.info("Accepted new current UUID, preparing to skip initial sync");
            self.transition(volume, State { disk: D::UpToDate, pdsk: D::UpToDate, ..state });
            // What the peer hears last may be a state from before.
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get(&volume) {
                device.send_state(turn, link);
            }
        }
    }

    /// What the peer says of itself (`receive_state`).
    pub(crate) fn state_received(&mut self, volume: u16, word: StateWord) {
        let Some(device) = self.devices.get_mut(&volume) else {
            return self.misbehaved("a volume that is not configured here");
        };
        let os = device.state;
        if os.conn <= C::TearDown {
            return;
        }
        let mut peer_disk = word.disk();
        if peer_disk == D::Negotiating {
            let inconsistent = device.peer_uuids.is_some_and(|u| u.flags.0 & UuidFlags::INCONSISTENT != 0);
            peer_disk = if inconsistent { D::Inconsistent } else { D::Consistent };
        }
        if matches!(os.pdsk, D::Inconsistent | D::Consistent)
            && peer_disk == D::UpToDate
            && os.conn > C::Connected
            && os.disk == D::UpToDate
        {
            if word.conn() > C::Connected && word.conn() < C::SyncSource {
                // The target still prepares: its disk will be inconsistent as soon as it begins.
                peer_disk = D::Inconsistent;
            } else if os.conn >= C::SyncSource && word.conn() == C::Connected {
                // The target says that it is done.
                if let Some(resync) = &mut device.resync {
                    resync.target_is_done = true;
                }
                return self.finish_resync_if_done(volume);
            }
        }
        if os.conn == C::VerifyT
            && os.disk == D::UpToDate
            && word.conn() == C::Connected
            && peer_disk == D::UpToDate
        {
            // Ended before the end of the device.
            return self.verify_finished(volume);
        }
        if os.pdsk == D::UpToDate
            && peer_disk == D::Inconsistent
            && os.conn == C::Connected
            && word.conn() > C::SyncSource
        {
            peer_disk = D::UpToDate;
        }
        let prepares = word.conn() > C::Connected && word.conn() < C::SyncSource;
        if matches!(os.conn, C::SyncSource | C::PausedSyncS) && prepares {
            peer_disk = D::Inconsistent;
        }
        if os.conn == C::Connected && os.disk <= D::Failed && is_old_target(word) {
            // On its way when our disk failed, with what was to be synced to it. It must not become current as what is
            // Outdated does in a connection (upstream lets it): the front would read what was overwritten long ago.
            peer_disk = D::Inconsistent;
        }
        let both = |disk: D, peer: D, state: D| disk == state && peer == state;
        if os.conn == C::Connected
            && both(os.disk, os.pdsk, D::UpToDate)
            && both(word.disk(), word.pdsk(), D::Inconsistent)
        {
            // It was on its way when the first sync was declared unnecessary. Upstream believes it, and does not replicate
            // until the next state comes.
            peer_disk = D::UpToDate;
        }
        let mut ns = os;
        if ns.conn == C::WFReportParams {
            ns.conn = C::Connected;
        }
        if word.conn() == C::Ahead {
            // Congested, it goes on alone and only names what it writes.
            ns.conn = C::Behind;
        }
        let compare_now = os.conn < C::Connected
            || (os.conn == C::Connected && (word.disk() == D::Negotiating || os.disk == D::Negotiating))
            || (device.consider_resync && os.conn <= C::Connected)
            || (os.conn == C::Connected && word.conn() >= C::StartingSyncS && word.conn() <= C::WFBitMapT);
        // Sent before the peer heard that we have another disk now: what it says of its own may be long past.
        let premature =
            os.disk == D::Negotiating && word.disk() >= D::Negotiating && !device.peer_uuids_answer;
        let comparable = !premature
            && device.peer_uuids.is_some()
            && word.disk() >= D::Negotiating
            && os.disk >= D::Negotiating;
        device.consider_resync = false;
        if comparable && compare_now {
            match self.sync_handshake(volume, word.role(), peer_disk) {
                Some(conn) => ns.conn = conn,
                None if os.disk == D::Negotiating => return self.disk_failed(volume),
                None if word.disk() == D::Negotiating => {
                    self.turn.log(Level::Error, "Disk attach process on the peer node was aborted.");
                    peer_disk = D::Diskless;
                }
                None => return self.leave(),
            }
        }
        ns.peer = word.role();
        ns.pdsk = peer_disk;
        ns.peer_isp = word.0 & (StateWord::AFTR_ISP | StateWord::USER_ISP) != 0;
        let Some(device) = self.devices.get(&volume) else { return };
        if matches!(ns.conn, C::Connected | C::WFBitMapS)
            && ns.disk == D::Negotiating
            && !premature
            && let Some(disk) = &device.disk
        {
            ns.disk = disk.negotiated;
            let same = device.holds_what_was_seen(disk.generations.current());
            if ns.conn == C::Connected && ns.role == Role::Primary && !same {
                // Nobody can bring it to what the front has seen.
                ns.disk = D::Failed;
            }
        }
        let is_due = self.devices.get(&volume).is_some_and(|d| d.new_generation_due);
        if peer_disk == D::Consistent && is_due && ns.conn == C::Connected && os.conn < C::Connected {
            // Only a peer that was cut off for a while has what it acknowledged; this one was without power.
            self.turn.log(Level::Error, "Aborting Connect, can not thaw IO with an only Consistent peer");
            self.suspended.user = false;
            self.begin_due_generations();
            let lost = std::mem::take(&mut self.frozen);
            self.writes_went(lost);
            return self.lose(C::ProtocolError);
        }
        let ns = State::sanitized(ns);
        if os.conn < C::Connected && ns.conn >= C::Connected {
            let two = self.link.two_primaries();
            if let Err(number) = os.check(ns, two, true) {
                let text = format!("State change failed: ({number})");
                self.turn.log(Level::Error, text);
                return self.stand_alone();
            }
            self.link.state = C::Connected;
            self.link.met += 1;
        }
        self.transition(volume, ns);
        if ns.disk == D::Failed {
            self.drop_disk(volume);
        }
        let told_to_sync = os.conn > C::WFReportParams
            && ns.conn > C::Connected
            && word.conn() <= C::Connected
            && word.disk() != D::Negotiating;
        if told_to_sync {
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get_mut(&volume) {
                device.send_uuids(turn, link);
                device.send_state(turn, link);
            }
        }
        if let Some(configuration) = &mut self.link.configuration {
            configuration.discard_my_data = false;
        }
    }
}
