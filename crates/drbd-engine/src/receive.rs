//! Packets: which one goes where, and the handshake of sizes, generations and states.

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::{Packet, Sizes, StateWord, Uuids};

use crate::admin::NetOptions;
use crate::device::Leg;
use crate::event::{Action, Level, Payload, SocketId};
use crate::generations::{Circumstances, Generations, JUST_CREATED, Verdict, compare};
use crate::link::{Asked, Stage};
use crate::resource::Resource;
use crate::split_brain::{Sides, policy, recover};
use crate::state::{State, code, mirrored};
use crate::turn::Turn;

impl Resource {
    pub(crate) fn received(
        &mut self,
        socket: SocketId,
        volume: u16,
        packet: Packet,
        payload: Option<(Payload, u32)>,
    ) {
        let taken = matches!(packet, Packet::Data(_) | Packet::DataReply(_) | Packet::RsDataReply(_));
        if let Some((payload, _)) = payload.filter(|_| !taken || !self.link.is_open()) {
            // No other packet that is served here brings bytes.
            self.turn.out.push(Action::Release { payload });
        }
        if self.link.unnamed.contains(&socket) {
            return match packet {
                Packet::InitialData => self.named(socket, true),
                Packet::InitialMeta => self.named(socket, false),
                _ => self.malformed(socket, "the first packet is neither InitialData nor InitialMeta"),
            };
        }
        let on_data = self.link.data == Some(socket);
        if !on_data && self.link.meta != Some(socket) {
            return;
        }
        self.link.heard_at = self.turn.now;
        if self.link.stage != Stage::Open {
            return match packet {
                Packet::ConnectionFeatures(features) if on_data => self.features_received(features),
                Packet::AuthChallenge(bytes) if on_data => self.challenged(&bytes),
                Packet::AuthResponse(bytes) if on_data => self.responded(&bytes),
                Packet::Ping => self.link.send_meta(&mut self.turn, 0, Packet::PingAck),
                other => {
                    let text = format!("{} during the handshake", other.command());
                    self.misbehaved(&text);
                }
            };
        }
        if on_data {
            self.on_data_socket(volume, packet, payload)
        } else {
            self.on_meta_socket(volume, packet)
        }
    }

    fn on_data_socket(&mut self, volume: u16, packet: Packet, payload: Option<(Payload, u32)>) {
        if self.link.state == C::TearDown
            && matches!(
                packet,
                Packet::Data(_) | Packet::Trim { .. } | Packet::Zeroes { .. } | Packet::Barrier { .. }
            )
        {
            // The peer has left: what is not acknowledged it counts as lost. Nobody here would mark it.
            if let Some((payload, _)) = payload.filter(|_| matches!(packet, Packet::Data(_))) {
                self.turn.out.push(Action::Release { payload });
            }
            return;
        }
        match packet {
            Packet::Data(data) => self.peer_changes(volume, data, None, payload),
            Packet::Trim { data, size } | Packet::Zeroes { data, size } => {
                self.peer_changes(volume, data, Some(size), None);
            }
            Packet::DataReply(data) => self.data_replied(volume, data, payload),
            Packet::RsDataReply(data) => self.resync_data(volume, data, payload),
            Packet::Barrier { barrier } => self.barrier_received(barrier),
            Packet::Bitmap(_) | Packet::CompressedBitmap { .. } => self.bitmap_received(volume, &packet),
            Packet::DataRequest(ask) => self.peer_reads(volume, ask, false),
            // A source that cannot tell zeroes answers with the data.
            Packet::RsDataRequest(ask) | Packet::RsThinReq(ask) => self.peer_reads(volume, ask, true),
            Packet::SyncParam(_) | Packet::UnplugRemote | Packet::DelayProbe { .. } => {}
            Packet::Protocol(theirs) | Packet::ProtocolUpdate(theirs) => self.protocol_received(&theirs),
            Packet::Uuids(uuids) => self.uuids_received(volume, uuids),
            Packet::Sizes(sizes) => self.sizes_received(volume, sizes),
            Packet::State(word) => self.state_received(volume, word),
            Packet::SyncUuid(uuid) => self.sync_uuid_received(volume, uuid),
            Packet::StateChgReq { mask, val } => self.state_change_asked(volume, mask, val),
            Packet::ConnStChgReq { val, .. } => self.connection_change_asked(val),
            Packet::OutOfSync { sector, blksize } => self.out_of_sync_received(volume, sector, blksize),
            other => {
                let text = format!("{} on the data socket is not supported", other.command());
                self.misbehaved(&text);
            }
        }
    }

    fn on_meta_socket(&mut self, volume: u16, packet: Packet) {
        match packet {
            Packet::Ping => self.link.send_meta(&mut self.turn, 0, Packet::PingAck),
            Packet::PingAck => self.link.pinged_at = None,
            Packet::WriteAck(ack) | Packet::RecvAck(ack) | Packet::Superseded(ack) => {
                self.part_acked(volume, ack, Leg::Done);
            }
            Packet::RsWriteAck(ack) => {
                self.block_in_sync(volume, ack);
                // Answers a write during a resync, too.
                self.part_acked(volume, ack, Leg::Done);
            }
            Packet::NegAck(ack) => self.part_acked(volume, ack, Leg::Failed),
            Packet::NegDreply(ack) => self.data_refused(volume, ack),
            Packet::NegRsDreply(ack) => self.resync_refused(volume, ack, true),
            Packet::RsCancel(ack) => self.resync_refused(volume, ack, false),
            Packet::RsIsInSync(ack) => self.block_in_sync(volume, ack),
            Packet::BarrierAck { barrier, set_size } => self.barrier_acked(barrier, set_size),
            Packet::StateChgReply(code) => self.state_change_answered(volume, code),
            Packet::ConnStChgReply(code) => self.connection_change_answered(code),
            Packet::DelayProbe { .. } => {}
            other => {
                let text = format!("{} on the meta socket is not supported", other.command());
                self.misbehaved(&text);
            }
        }
    }

    /// The peer has an epoch on stable storage.
    fn barrier_acked(&mut self, barrier: u32, set_size: u32) {
        match self.link.log.confirmed(barrier, set_size) {
            Ok(writes) => {
                for sent in writes {
                    let disk = self.devices.get_mut(&sent.volume).and_then(|d| d.disk.as_mut());
                    if let Some(disk) = disk.filter(|_| !sent.extents.is_empty()) {
                        disk.hot.release(&sent.extents, self.turn.now);
                    }
                }
                self.epochs_moved();
            }
            Err(wrong) => {
                let text = format!("BarrierAck #{barrier} ({set_size} writes) received, expected {wrong:?}");
                self.misbehaved(&text);
            }
        }
    }

    fn out_of_sync_received(&mut self, volume: u16, sector: u64, blksize: u32) {
        let range = units::SectorRange::new(sector, u64::from(blksize) / 512);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if sector.checked_add(range.count).is_none_or(|end| end > device.size_sectors) {
            return self.misbehaved("OutOfSync beyond the device");
        }
        device.set_out_of_sync(range);
    }

    fn uuids_received(&mut self, volume: u16, uuids: Uuids) {
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
        let skip = uuids.flags.0 & drbd_format::wire::UuidFlags::SKIP_INITIAL_SYNC != 0
            && device.state.conn == C::Connected
            && device.disk.as_ref().is_some_and(|d| d.generations.current() == JUST_CREATED);
        device.peer_uuids = Some(uuids);
        device.peer_uuids_answer = true;
        if diskless_primary {
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

    fn sizes_received(&mut self, volume: u16, sizes: Sizes) {
        let Some(device) = self.devices.get_mut(&volume) else {
            return self.misbehaved("a volume that is not configured here");
        };
        device.peer_disk_sectors = sizes.d_size;
        let known = device.size_sectors;
        let new = match &device.disk {
            Some(disk) => {
                let asked = [disk.options.size_sectors, sizes.u_size].into_iter().filter(|&s| s != 0).min();
                let both = [disk.capacity_sectors, sizes.d_size].into_iter().filter(|&s| s != 0).min();
                let limit = both.unwrap_or(disk.capacity_sectors);
                asked.map_or(limit, |asked| asked.min(limit))
            }
            None => [sizes.c_size, sizes.u_size, sizes.d_size].into_iter().find(|&s| s != 0).unwrap_or(known),
        };
        let established = device.state.conn >= C::Connected && device.state.pdsk != D::Diskless;
        if new < known && device.state.disk >= D::Outdated && !established {
            let text = format!("The peer's disk size is too small! ({new} < {known} sectors)");
            self.turn.log(Level::Error, text);
            return self.stand_alone();
        }
        if new < known && device.state.role == Role::Primary {
            self.turn.log(Level::Error, "The peer's device size is too small; demote me first!");
            return self.stand_alone();
        }
        let tell = device.state.conn > C::WFReportParams && sizes.c_size != new;
        self.set_size(volume, new);
        if tell {
            let Self { devices, turn, link, .. } = self;
            if let Some(device) = devices.get(&volume) {
                device.send_sizes(turn, link);
            }
        }
    }

    /// The device has this size from now on; new blocks are out of sync.
    pub(crate) fn set_size(&mut self, volume: u16, sectors: u64) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        if sectors == device.size_sectors {
            return;
        }
        device.size_sectors = sectors;
        if let Some(disk) = &mut device.disk {
            disk.bitmap = disk.bitmap.resized(sectors);
        }
        let (minor, kib) = (device.minor, sectors / 2);
        self.turn.info(format_args!("drbd{minor}: size = {kib} KB"));
        self.turn.out.push(Action::Resized { volume, sectors });
    }

    /// What the peer says of itself (`receive_state`).
    fn state_received(&mut self, volume: u16, word: StateWord) {
        let Some(device) = self.devices.get_mut(&volume) else {
            return self.misbehaved("a volume that is not configured here");
        };
        let os = device.state;
        if os.conn <= C::TearDown {
            return;
        }
        let mut peer_disk = word.disk();
        if peer_disk == D::Negotiating {
            let inconsistent = device
                .peer_uuids
                .is_some_and(|u| u.flags.0 & drbd_format::wire::UuidFlags::INCONSISTENT != 0);
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
                None => return self.stand_alone(),
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
            let same = device.exposed == 0 || device.exposed & !1 == disk.generations.current() & !1;
            if ns.conn == C::Connected && ns.role == Role::Primary && !same {
                // Nobody can bring it to what the front has seen.
                ns.disk = D::Failed;
            }
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

    /// Who syncs from whom; none: the two do not go together (`drbd_sync_handshake`).
    fn sync_handshake(&mut self, volume: u16, peer_role: Role, peer_disk: D) -> Option<C> {
        let Self { devices, turn, link, .. } = self;
        let device = devices.get_mut(&volume)?;
        let disk = device.disk.as_mut()?;
        let peer = device.peer_uuids.as_mut()?;
        let own_disk = if device.state.disk == D::Negotiating { disk.negotiated } else { device.state.disk };
        let discard = link.configuration.as_ref().is_some_and(|c| c.discard_my_data);
        let facts = Circumstances {
            protocol: link.agreed.protocol,
            features: link.agreed.features,
            role: device.state.role,
            peer_role,
            crashed_primary: disk.crashed_primary,
            resolves_conflicts: link.resolves_conflicts,
        };
        let before = disk.generations;
        let (mut verdict, rule) = compare(&mut disk.generations, peer, facts);
        if disk.generations != before {
            disk.changed();
        }
        let Generations([c, b, h0, h1]) = disk.generations;
        turn.info("drbd_sync_handshake:");
        turn.info(format_args!("self {c:016X}:{b:016X}:{h0:016X}:{h1:016X} bits:{}", disk.bitmap.count()));
        turn.info(format_args!(
            "peer {:016X}:{:016X}:{:016X}:{:016X} bits:{} flags:{}",
            peer.current, peer.bitmap, peer.history[0], peer.history[1], peer.dirty_bits, peer.flags.0
        ));
        turn.info(format_args!("uuid_compare()={verdict:?} by rule {rule}"));
        if matches!(verdict, Verdict::Unrelated) {
            turn.log(Level::Error, "Unrelated data, aborting!");
            return None;
        }
        if matches!(verdict, Verdict::NeedsNewerPeer) {
            turn.log(Level::Error, "To resolve this both sides have to support at least protocol 91");
            return None;
        }
        let one_inconsistent = (own_disk == D::Inconsistent && peer_disk > D::Inconsistent)
            || (peer_disk == D::Inconsistent && own_disk > D::Inconsistent);
        if one_inconsistent {
            let full =
                matches!(verdict, Verdict::SplitBrainDistant | Verdict::SourceFull | Verdict::TargetFull);
            verdict = match (own_disk > D::Inconsistent, full) {
                (true, true) => Verdict::SourceFull,
                (true, false) => Verdict::Source,
                (false, true) => Verdict::TargetFull,
                (false, false) => Verdict::Target,
            };
        }
        if matches!(verdict, Verdict::SplitBrain | Verdict::SplitBrainDistant) {
            let sides = Sides {
                role: device.state.role,
                peer_role,
                bitmap: disk.generations.bitmap(),
                peer_bitmap: peer.bitmap,
                changes: device.bits_told,
                peer_changes: peer.dirty_bits,
                resolves_conflicts: link.resolves_conflicts,
            };
            // A disk that is attached while the other serves the front must not win: what was written meanwhile is there.
            let options = link.options();
            let meet = device.state.conn < C::Connected;
            let options = if meet { options } else { without_policies(options) };
            let peer_discards = peer.flags.0 & drbd_format::wire::UuidFlags::DISCARD_MY_DATA != 0;
            verdict = solved(turn, &options, verdict, sides, (discard, peer_discards))?;
        }
        let source = matches!(verdict, Verdict::Source | Verdict::SourceFull);
        let target = matches!(verdict, Verdict::Target | Verdict::TargetFull);
        if source && own_disk <= D::Inconsistent {
            turn.log(Level::Error, "I shall become SyncSource, but I am inconsistent!");
            return None;
        }
        if target && device.state.role == Role::Primary && device.state.disk >= D::Consistent {
            if link.options().rr_conflict != policy::VIOLENTLY {
                turn.log(Level::Error, "I shall become SyncTarget, but I am primary!");
                return None;
            }
            turn.log(Level::Warning, "Becoming SyncTarget, violating the stable-data assumption");
        }
        if matches!(verdict, Verdict::SourceFull | Verdict::TargetFull) {
            turn.info("Writing the whole bitmap, full sync required after drbd_sync_handshake.");
            disk.bitmap.set_all();
        }
        if !source && !target && disk.bitmap.count() != 0 {
            let bits = disk.bitmap.count();
            turn.info(format_args!("No resync, but {bits} bits in bitmap!"));
        }
        Some(match (source, target) {
            (true, _) => C::WFBitMapS,
            (_, true) => C::WFBitMapT,
            _ => C::Connected,
        })
    }

    /// Part of the peer's bitmap.
    fn bitmap_received(&mut self, volume: u16, packet: &Packet) {
        let agreed = self.link.agreed;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let Some(disk) = &mut device.disk else { return };
        let conn = device.state.conn;
        if !matches!(conn, C::WFBitMapS | C::WFBitMapT) {
            // Sent before the peer knew that we part, or that our disk has gone: as upstream, no reason to break off.
            self.turn.info(format_args!("unexpected cstate ({conn}) in receive_bitmap"));
            return;
        }
        match device.bitmap_receiver.receive(&mut disk.bitmap, packet, &agreed) {
            Err(malformed) => {
                let text = malformed.to_string();
                self.misbehaved(&text);
            }
            Ok(false) => {}
            Ok(true) if conn == C::WFBitMapT => {
                self.send_bitmap(volume);
                let Some(state) = self.devices.get(&volume).map(|d| d.state) else { return };
                self.transition(volume, State { conn: C::WFSyncUUID, ..state });
            }
            Ok(true) => self.begin_resync(volume, C::SyncSource),
        }
    }

    /// Our whole bitmap, packet by packet.
    pub(crate) fn send_bitmap(&mut self, volume: u16) {
        let use_rle = self.link.options().use_rle;
        let Self { devices, turn, link, .. } = self;
        let Some(disk) = devices.get(&volume).and_then(|d| d.disk.as_ref()) else { return };
        let mut sender = drbd_format::bitmap::BitmapSender::new();
        while let Some(packet) = sender.next_packet(&disk.bitmap, &link.agreed, use_rle) {
            link.send(turn, volume, packet, None);
        }
    }

    pub(crate) fn sync_uuid_received(&mut self, volume: u16, uuid: u64) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        // A disk whose state is not decided was attached after the peer had begun to send to another one.
        if device.state.conn < C::WFReportParams || device.state.disk <= D::Negotiating {
            return;
        }
        let asked = matches!(&self.link.asked, Some(Asked::Resync { volume: v, side: C::StartingSyncT, .. }) if *v == volume);
        if asked || device.state.conn == C::StartingSyncT {
            // The peer's word that it agrees travels on the other socket, and our bits are not yet stable.
            device.early_sync_uuid = Some(uuid);
            return;
        }
        if device.state.conn != C::WFSyncUUID {
            return self.misbehaved("SyncUUID at the wrong time");
        }
        let role = device.state.role;
        if let Some(disk) = &mut device.disk {
            disk.generations.set_current(uuid, role);
            disk.generations.0[1] = 0;
            disk.changed();
        }
        self.begin_resync(volume, C::SyncTarget);
    }

    /// The peer wants to change its state and asks whether we agree (`receive_req_state`).
    fn state_change_asked(&mut self, volume: u16, mask: StateWord, val: StateWord) {
        let concurrent = self.link.resolves_conflicts && self.link.asked.is_some();
        let two = self.link.two_primaries();
        let introducing = self.link.is_introducing();
        let Some(device) = self.devices.get(&volume) else { return };
        let os = device.state;
        let (mask, val) = (mirrored(mask), mirrored(val));
        let mut ns = os;
        if mask.peer != Role::Unknown {
            ns.peer = val.peer;
        }
        if mask.pdsk != D::Diskless {
            ns.pdsk = val.pdsk;
        }
        if mask.disk != D::Diskless {
            ns.disk = val.disk;
        }
        if mask.conn != C::StandAlone {
            ns.conn = val.conn;
        }
        // A peer may declare what we have outdated, or order a full resync; nothing else of ours.
        let orders = matches!(val.conn, C::StartingSyncS | C::StartingSyncT);
        let not_served =
            (mask.conn != C::StandAlone && !orders) || (mask.disk != D::Diskless && val.disk != D::Outdated);
        let ns = State::sanitized(ns);
        let reply = if not_served {
            code::NOT_SUPPORTED
        } else if concurrent || (ns.role == Role::Primary && self.demoting.is_some()) {
            code::CONCURRENT_STATE_CHANGE
        } else if ns == os {
            code::NOTHING_TO_DO
        } else {
            os.check(ns, two, introducing).err().unwrap_or(code::SUCCESS)
        };
        if reply == code::SUCCESS {
            self.transition(volume, ns);
        }
        self.link.send_meta(&mut self.turn, volume, Packet::StateChgReply(reply));
    }

    /// The peer leaves in order.
    fn connection_change_asked(&mut self, val: StateWord) {
        let leaving = val.conn() == C::Disconnecting;
        let reply = if leaving { code::SUCCESS } else { code::IN_TRANSIENT_STATE };
        self.link.send_meta(&mut self.turn, 0, Packet::ConnStChgReply(reply));
        if leaving {
            self.set_link_state(C::TearDown);
        }
    }

    fn state_change_answered(&mut self, volume: u16, reply: i32) {
        let (ticket, force, mut volumes) = match self.link.asked.take() {
            Some(Asked::Primary { ticket, force, volumes }) => (ticket, force, volumes),
            Some(Asked::Resync { ticket, volume: asked, side }) if asked == volume => {
                return self.resync_answered(ticket, volume, side, reply);
            }
            other => {
                self.link.asked = other;
                return;
            }
        };
        if reply < code::SUCCESS {
            return self.promotion_refused(ticket, reply);
        }
        volumes.remove(&volume);
        if volumes.is_empty() {
            self.promote_now(ticket, force);
        } else {
            self.link.asked = Some(Asked::Primary { ticket, force, volumes });
        }
    }

    fn connection_change_answered(&mut self, reply: i32) {
        if let Some(Asked::Disconnect { ticket }) = self.link.asked {
            self.link.asked = None;
            if reply < code::SUCCESS {
                return self.answer(ticket, Err(crate::state::refused(reply)));
            }
            self.stand_alone();
            self.answer(ticket, Ok(Vec::new()));
        }
    }
}

/// The same, but nothing is solved automatically.
fn without_policies(options: NetOptions) -> NetOptions {
    NetOptions { after_sb_0pri: 0, after_sb_1pri: 0, after_sb_2pri: 0, ..options }
}

/// A split brain that the policies solve, or the administrator by giving up one side (`discards`: ours, the peer's); none
/// if it stays one. Where the bitmaps count from different generations they do not name all that differs: then everything
/// is synced.
fn solved(
    turn: &mut Turn,
    options: &NetOptions,
    verdict: Verdict,
    sides: Sides,
    discards: (bool, bool),
) -> Option<Verdict> {
    let is_distant = verdict == Verdict::SplitBrainDistant;
    let policies_apply = !is_distant || options.always_asbp;
    let automatic = if policies_apply { recover(options, sides) } else { Verdict::SplitBrain };
    let (by, solved) = match (automatic, discards) {
        (Verdict::Source | Verdict::Target, _) => ("automatically", automatic),
        (_, (true, false)) => ("manually", Verdict::Target),
        (_, (false, true)) => ("manually", Verdict::Source),
        _ => {
            turn.log(Level::Error, "Split-Brain detected but unresolved, dropping connection!");
            return None;
        }
    };
    let which = if solved == Verdict::Target { "peer" } else { "this" };
    let primaries = [sides.role, sides.peer_role].iter().filter(|&&role| role == Role::Primary).count();
    let how = if by == "automatically" { format!("{primaries} primaries, {by}") } else { by.to_owned() };
    turn.log(Level::Warning, format_args!("Split-Brain detected, {how} solved. Sync from {which} node"));
    Some(match solved {
        Verdict::Target if is_distant => Verdict::TargetFull,
        Verdict::Source if is_distant => Verdict::SourceFull,
        other => other,
    })
}
