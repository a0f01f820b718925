//! From two addresses to an open connection, and back.
//!
//! Either side may dial; whoever dials first makes the data socket, the other dials back the meta socket.
//! Upstream: `conn_connect`, `drbd_do_features`, `drbd_do_auth`, `conn_disconnect`.

use std::time::Duration;

use drbd_format::auth::CramHmac;
use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::{
    Agreed, Command, Features, PROTOCOL_MIN, Packet, Protocol, QueueLimits, Sizes, SyncParam, UuidFlags,
    Uuids,
};

use crate::admin::{NetOptions, ReplicationProtocol};
use crate::device::{Device, Disk};
use crate::event::{Action, Level, SocketId, SocketOptions};
use crate::link::{Asked, Link, PeerEpochs, Stage, Unnamed};
use crate::protocol_version::offer;
use crate::resource::Resource;
use crate::split_brain::seen_from_here;
use crate::state::{State, code, refused};
use crate::turn::Turn;

/// Accepted sockets at most that have not said which they are.
const UNNAMED_MAX: usize = 4;

/// Longest challenge taken (`CHALLENGE_LEN * 2`).
const CHALLENGE_BYTES_MAX: usize = 128;

/// A protocol's number on the wire.
pub(crate) fn protocol_number(protocol: ReplicationProtocol) -> u32 {
    match protocol {
        ReplicationProtocol::A => 1,
        ReplicationProtocol::B => 2,
        ReplicationProtocol::C => 3,
    }
}

fn socket_options(options: &NetOptions) -> SocketOptions {
    SocketOptions {
        send_buffer_bytes: options.sndbuf_size,
        receive_buffer_bytes: options.rcvbuf_size,
        dial_s: options.connect_int_s,
    }
}

/// `P_PROTOCOL` as the options say it.
pub(crate) fn protocol_packet(options: &NetOptions, discard_my_data: bool) -> Protocol {
    Protocol {
        protocol: protocol_number(options.protocol),
        after_sb_0p: options.after_sb_0pri,
        after_sb_1p: options.after_sb_1pri,
        after_sb_2p: options.after_sb_2pri,
        conn_flags: u32::from(discard_my_data),
        two_primaries: u32::from(options.allow_two_primaries),
        integrity_alg: options.data_integrity_alg.clone(),
    }
}

impl Device {
    /// `P_SIZES` as it is now.
    pub(crate) fn sizes(&self, agreed: &Agreed, flags: u16) -> Sizes {
        let disk = self.disk.as_ref().filter(|_| self.state.disk >= D::Negotiating);
        let block = disk.map_or(512, |d| d.logical_block_bytes);
        Sizes {
            d_size: disk.map_or(0, Disk::capacity_sectors),
            u_size: disk.map_or(0, |d| d.options.size_sectors),
            c_size: self.size_sectors,
            max_bio_size: agreed.bio_bytes_max(),
            queue_order_type: 0,
            dds_flags: flags,
            limits: agreed.has(Features::WSAME).then_some(QueueLimits {
                physical_block_size: block,
                logical_block_size: block,
                alignment_offset: 0,
                io_min: block,
                io_opt: 0,
                discard_enabled: u8::from(disk.is_some_and(|d| d.discards)),
                discard_zeroes_data: 0,
                write_same_capable: 0,
            }),
        }
    }

    /// `P_UUIDS` as it is now; none without a disk.
    pub(crate) fn uuids(&self, discard_my_data: bool) -> Option<Uuids> {
        let disk = self.disk.as_ref().filter(|_| self.state.disk >= D::Negotiating)?;
        let [current, bitmap, h0, h1] = disk.generations.0;
        let mut flags = 0;
        if discard_my_data {
            flags |= UuidFlags::DISCARD_MY_DATA;
        }
        if disk.crashed_primary {
            flags |= UuidFlags::CRASHED_PRIMARY;
        }
        if self.state.disk == D::Negotiating && disk.negotiated == D::Inconsistent {
            flags |= UuidFlags::INCONSISTENT;
        }
        let flags = UuidFlags(flags);
        Some(Uuids { current, bitmap, history: [h0, h1], dirty_bits: disk.bitmap.count(), flags })
    }

    pub(crate) fn send_sizes(&self, turn: &mut Turn, link: &Link) {
        self.send_sizes_with(turn, link, 0);
    }

    /// The same, in answer to a peer that told its size with these flags.
    pub(crate) fn send_sizes_with(&self, turn: &mut Turn, link: &Link, flags: u16) {
        link.send(turn, self.volume, Packet::Sizes(self.sizes(&link.agreed, flags)), None);
    }

    pub(crate) fn send_uuids(&mut self, turn: &mut Turn, link: &Link) {
        let discard = link.configuration.as_ref().is_some_and(|c| c.discard_my_data);
        if let Some(uuids) = self.uuids(discard) {
            self.bits_told = uuids.dirty_bits;
            link.send(turn, self.volume, Packet::Uuids(uuids), None);
        }
    }

    pub(crate) fn send_state(&self, turn: &mut Turn, link: &Link) {
        link.send(turn, self.volume, Packet::State(self.state.word()), None);
    }

    pub(crate) fn send_sync_param(&self, turn: &mut Turn, link: &Link) {
        let net = link.options();
        let disk = self.disk.as_ref().map(|d| d.options.clone()).unwrap_or_default();
        let param = SyncParam {
            resync_rate_kib_per_s: disk.resync_rate_kib_per_s,
            verify_alg: net.verify_alg,
            csums_alg: net.csums_alg,
            c_plan_ahead_ds: disk.c_plan_ahead_ds,
            c_delay_target_ds: disk.c_delay_target_ds,
            c_fill_target_sectors: disk.c_fill_target_sectors,
            c_max_rate_kib_per_s: disk.c_max_rate_kib_per_s,
        };
        link.send(turn, self.volume, Packet::SyncParam(param), None);
    }
}

impl Resource {
    /// The state of the connection as a whole changes, and with it every device's.
    pub(crate) fn set_link_state(&mut self, conn: C) {
        self.link.state = conn;
        for volume in self.volumes() {
            if let Some(state) = self.devices.get(&volume).map(|d| d.state) {
                self.transition(volume, State { conn, ..state });
            }
        }
    }

    /// Begins to look for the peer; not at once if the last attempt ended in the middle, lest two nodes chase each other.
    pub(crate) fn start_connecting(&mut self, at_once: bool) {
        let Some(configuration) = &self.link.configuration else { return };
        let (local, peer) = (configuration.local, configuration.peer);
        let sockets = socket_options(&configuration.options);
        self.turn.out.push(Action::Listen { local, peer, sockets });
        self.set_link_state(C::Unconnected);
        self.set_link_state(C::WFConnection);
        if at_once {
            return self.dial();
        }
        let [random] = self.turn.random::<1>();
        self.link.dial_at = Some(self.turn.now + Duration::from_millis(100 + 4 * u64::from(random)));
    }

    pub(crate) fn dial(&mut self) {
        let Some(configuration) = &self.link.configuration else { return };
        if self.link.dialling || self.link.fenced || self.link.state != C::WFConnection {
            return;
        }
        let (local, peer) = (configuration.local, configuration.peer);
        let sockets = socket_options(&configuration.options);
        self.link.dialling = true;
        self.link.dial_at = None;
        self.turn.out.push(Action::Dial { local, peer, sockets });
    }

    /// `connect-int`, more or less, so that two nodes do not dial in step.
    fn dial_later(&mut self) {
        let base = u64::from(self.link.options().connect_int_s) * 1000;
        let [random] = self.turn.random::<1>();
        let jitter = base * u64::from(random) / 1024;
        let wait = Duration::from_millis(base - base / 8 + jitter);
        self.link.dial_at = Some(self.turn.now + wait);
    }

    pub(crate) fn dial_failed(&mut self) {
        self.link.dialling = false;
        if self.link.state == C::WFConnection {
            self.dial_later();
        }
    }

    pub(crate) fn close(&mut self, socket: SocketId, drain: bool) {
        self.turn.out.push(Action::Close { socket, drain });
    }

    /// A TCP connection stands.
    pub(crate) fn opened(&mut self, socket: SocketId, outgoing: bool) {
        if outgoing {
            self.link.dialling = false;
        }
        if self.link.state != C::WFConnection || self.link.fenced || self.link.stage != Stage::Sockets {
            // A peer that dials while we hold it for connected has lost the connection: find out.
            if !outgoing && self.link.is_open() {
                self.ping();
            }
            return self.close(socket, false);
        }
        if !outgoing {
            self.link.unnamed.push(Unnamed { socket, since: self.turn.now });
            if self.link.unnamed.len() > UNNAMED_MAX {
                let oldest = self.link.unnamed.remove(0);
                self.close(oldest.socket, false);
            }
            return;
        }
        self.link.dialled.retain(|&own| self.link.data == Some(own) || self.link.meta == Some(own));
        self.link.dialled.push(socket);
        if self.link.data.is_none() {
            self.link.data = Some(socket);
            self.turn.out.push(Action::Send { socket, volume: 0, packet: Packet::InitialData, data: None });
            // The peer dials back the meta socket; if it does not, we dial that, too.
            self.dial_later();
        } else if self.link.meta.is_none() {
            self.link.meta = Some(socket);
            self.link.resolves_conflicts = false;
            self.turn.out.push(Action::Send { socket, volume: 0, packet: Packet::InitialMeta, data: None });
        } else {
            self.close(socket, false);
        }
        self.introduce_if_complete();
    }

    /// The first packet of an accepted socket says which one it is.
    pub(crate) fn named(&mut self, socket: SocketId, is_data: bool) {
        self.link.forget_unnamed(socket);
        // Who dials in the middle of a conversation has no part in it. Only before the peer's first word may our socket be
        // one that it does not know of, and the new one the one to speak on.
        let speaks = self.link.stage != Stage::Sockets;
        if speaks && !(is_data && self.link.stage == Stage::Features) {
            return self.close(socket, false);
        }
        let place = if is_data { &mut self.link.data } else { &mut self.link.meta };
        if let Some(own) = *place {
            // Both dialled at once. One rule for both: the greater address keeps the socket it dialled. One that was
            // accepted before is what is left of an attempt that the peer has given up.
            let is_greater = self.link.configuration.as_ref().is_some_and(|c| c.local > c.peer);
            let keep = is_greater && self.link.dialled.contains(&own);
            let which = if is_data { "S" } else { "M" };
            self.turn.log(Level::Warning, format_args!("initial packet {which} crossed"));
            if keep {
                // The peer takes ours, and dials back the other one.
                return self.close(socket, false);
            }
            *(if is_data { &mut self.link.data } else { &mut self.link.meta }) = Some(socket);
            self.link.early_features = self.link.early_features.take().filter(|_| !is_data);
            self.close(own, false);
            if speaks {
                let ours = offer(self.link.protocol_max);
                self.link.send(&mut self.turn, 0, Packet::ConnectionFeatures(ours), None);
            }
        } else {
            *place = Some(socket);
        }
        if !is_data {
            self.link.resolves_conflicts = true;
        }
        self.introduce_if_complete();
        if self.link.stage == Stage::Sockets && is_data {
            self.dial();
        }
    }

    /// Both sockets are there: say what we speak.
    fn introduce_if_complete(&mut self) {
        if self.link.data.is_none() || self.link.meta.is_none() || self.link.stage != Stage::Sockets {
            return;
        }
        self.link.dial_at = None;
        self.link.agreed = Agreed::NOTHING;
        self.link.heard_at = self.turn.now;
        self.link.pinged_at = None;
        self.turn.out.push(Action::Agree { agreed: Agreed::NOTHING });
        self.turn.out.push(Action::StopListening);
        self.advance(Stage::Features);
        let ours = offer(self.link.protocol_max);
        self.link.send(&mut self.turn, 0, Packet::ConnectionFeatures(ours), None);
        if let Some(theirs) = self.link.early_features.take() {
            self.features_received(theirs);
        }
    }

    fn advance(&mut self, stage: Stage) {
        self.link.stage = stage;
        self.link.stage_deadline =
            (stage != Stage::Open).then(|| self.turn.now + self.link.handshake_patience());
    }

    /// The peer's features.
    pub(crate) fn features_received(&mut self, theirs: Features) {
        if self.link.stage == Stage::Sockets {
            // Its other socket is still on the way: data and meta socket keep no common order.
            self.link.early_features = Some(theirs);
            return;
        }
        if self.link.stage != Stage::Features {
            return self.misbehaved("ConnectionFeatures at the wrong time");
        }
        let own_max = self.link.protocol_max;
        let Some(agreed) = Agreed::from_features(&offer(own_max), &theirs) else {
            let (low, high) = (theirs.protocol_min, theirs.protocol_max);
            let text = format!(
                "incompatible DRBD dialects: I support {PROTOCOL_MIN}-{own_max}, peer supports {low}-{high}"
            );
            self.turn.log(Level::Error, text);
            return self.stand_alone();
        };
        self.link.agreed = agreed;
        self.turn.out.push(Action::Agree { agreed });
        let protocol = agreed.protocol;
        self.turn.info(format_args!(
            "Handshake successful: Agreed network protocol version {protocol}, feature flags {:#x}",
            agreed.features
        ));
        if !self.volumes_fit_protocol() {
            return self.stand_alone();
        }
        if self.link.options().cram_hmac_alg.is_empty() {
            return self.open_link();
        }
        self.link.challenge = self.turn.random();
        let challenge = self.link.challenge.to_vec();
        self.advance(Stage::Challenge);
        self.link.send(&mut self.turn, 0, Packet::AuthChallenge(challenge), None);
    }

    /// The peer's challenge.
    pub(crate) fn challenged(&mut self, theirs: &[u8]) {
        let options = self.link.options();
        let length_ok = (64..=CHALLENGE_BYTES_MAX).contains(&theirs.len());
        if self.link.stage != Stage::Challenge || !length_ok {
            return self.authentication_failed("an AuthChallenge of the wrong length or at the wrong time");
        }
        // A peer that throws our own challenge back wants us to compute its response.
        if theirs[..64] == self.link.challenge {
            return self.authentication_failed("Peer presented the same challenge!");
        }
        let Some(hmac) = CramHmac::by_name(&options.cram_hmac_alg) else {
            return self.authentication_failed("cram-hmac-alg is not known");
        };
        let response = hmac.response(options.shared_secret.as_bytes(), theirs);
        self.advance(Stage::Response);
        self.link.send(&mut self.turn, 0, Packet::AuthResponse(response), None);
    }

    /// The peer's response.
    pub(crate) fn responded(&mut self, theirs: &[u8]) {
        let options = self.link.options();
        let accepted = CramHmac::by_name(&options.cram_hmac_alg)
            .is_some_and(|hmac| hmac.accepts(options.shared_secret.as_bytes(), &self.link.challenge, theirs));
        if self.link.stage != Stage::Response || !accepted {
            return self.authentication_failed("the peer's response is wrong: its shared-secret differs");
        }
        let bytes = theirs.len();
        self.turn.info(format_args!("Peer authenticated using {bytes} bytes HMAC"));
        self.open_link();
    }

    /// Another packet came where the peer was to prove itself: it does not know that it has to.
    pub(crate) fn authentication_missed(&mut self, command: Command) {
        let due = if self.link.stage == Stage::Challenge { "AuthChallenge" } else { "AuthResponse" };
        let number = command.0;
        let why = format!("expected {due} packet, received: {command} ({number:#06x})");
        self.authentication_failed(&why);
    }

    fn authentication_failed(&mut self, why: &str) {
        self.turn.log(Level::Error, format_args!("Authentication of peer failed: {why}"));
        self.stand_alone();
    }

    /// Authenticated: parameters, sizes, generations, states.
    fn open_link(&mut self) {
        self.advance(Stage::Open);
        self.link.number_anew();
        self.link.peer_epochs = PeerEpochs::after(&self.link.peer_epochs);
        let Some(configuration) = &self.link.configuration else { return };
        let packet = protocol_packet(&configuration.options, configuration.discard_my_data);
        self.link.send(&mut self.turn, 0, Packet::Protocol(packet), None);
        self.begin_integrity();
        let Self { devices, link, turn, .. } = self;
        for device in devices.values_mut() {
            device.peer_uuids = None;
            device.peer_sequence = 0;
            device.send_sync_param(turn, link);
            device.send_sizes(turn, link);
            device.send_uuids(turn, link);
            device.send_state(turn, link);
        }
        self.set_link_state(C::WFReportParams);
    }

    /// The peer's settings must be ours.
    pub(crate) fn protocol_received(&mut self, theirs: &Protocol) {
        let Some(configuration) = &self.link.configuration else { return };
        let ours = protocol_packet(&configuration.options, configuration.discard_my_data);
        let differs = [
            ("protocol", ours.protocol != theirs.protocol),
            ("after-sb-0pri", ours.after_sb_0p != seen_from_here(theirs.after_sb_0p)),
            ("after-sb-1pri", ours.after_sb_1p != seen_from_here(theirs.after_sb_1p)),
            ("after-sb-2pri", ours.after_sb_2p != seen_from_here(theirs.after_sb_2p)),
            ("discard-my-data", ours.conn_flags & theirs.conn_flags & 1 != 0),
            ("allow-two-primaries", ours.two_primaries != theirs.two_primaries),
            ("data-integrity-alg", ours.integrity_alg != theirs.integrity_alg),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            self.turn.log(Level::Error, format_args!("incompatible {what} settings"));
            return self.leave();
        }
        self.peer_integrity(theirs);
    }

    /// The peer's settings have changed, and ours with them, but for the digest of what we send: that is ours to change.
    pub(crate) fn settings_changed(&mut self, theirs: &Protocol) {
        if let Some(configuration) = &mut self.link.configuration {
            let options = &mut configuration.options;
            options.protocol = match theirs.protocol {
                1 => ReplicationProtocol::A,
                2 => ReplicationProtocol::B,
                _ => ReplicationProtocol::C,
            };
            options.after_sb_0pri = seen_from_here(theirs.after_sb_0p);
            options.after_sb_1pri = seen_from_here(theirs.after_sb_1p);
            options.after_sb_2pri = seen_from_here(theirs.after_sb_2p);
            options.allow_two_primaries = theirs.two_primaries != 0;
        }
        self.peer_integrity(theirs);
    }

    /// A socket has ended.
    pub(crate) fn closed(&mut self, socket: SocketId) {
        if self.link.forget_unnamed(socket) {
            return;
        }
        if self.link.data != Some(socket) && self.link.meta != Some(socket) {
            return;
        }
        match self.link.stage {
            Stage::Sockets => {
                if self.link.data == Some(socket) {
                    self.link.data = None;
                    self.link.early_features = None;
                } else {
                    self.link.meta = None;
                }
                self.dial_later();
            }
            _ if self.link.leaving_at.is_some() => self.stand_alone(),
            // The peer said it would go.
            _ if self.link.state == C::TearDown => self.lose(C::TearDown),
            _ => self.lose(C::BrokenPipe),
        }
    }

    /// The peer broke the protocol: nothing more is believed on this connection.
    pub(crate) fn misbehaved(&mut self, why: &str) {
        self.turn.log(Level::Error, format_args!("peer misbehaved: {why}"));
        self.lose(C::ProtocolError);
    }

    pub(crate) fn malformed(&mut self, socket: SocketId, why: &str) {
        self.turn.log(Level::Error, format_args!("malformed packet: {why}"));
        if self.link.forget_unnamed(socket) {
            return self.close(socket, false);
        }
        if self.link.data == Some(socket) || self.link.meta == Some(socket) {
            self.lose(C::ProtocolError);
        }
    }

    /// Closes the sockets and settles what was under way on them; then looks for the peer again.
    pub(crate) fn lose(&mut self, why: C) {
        self.lose_after(why, false);
    }

    /// The peer wants a proof of us that we are not configured to give. It hears what we have said so far, and can tell.
    pub(crate) fn unexpected_challenge(&mut self) {
        self.turn.log(Level::Error, "Unexpected data packet P_AUTH_CHALLENGE (0x0010)");
        self.lose_after(C::ProtocolError, true);
    }

    fn lose_after(&mut self, why: C, drain: bool) {
        if self.link.leaving_at.is_some() {
            return self.stand_alone();
        }
        let was_open = self.link.stage == Stage::Open;
        if !self.drop_link(why, drain) {
            return;
        }
        self.turn.info("Connection closed");
        self.start_connecting(was_open);
    }

    /// The handshake has shown that the two do not go together: leaves for good, but not before the peer must have read
    /// what it needs to come to the same result. (Upstream waits for its handlers meanwhile.) A peer that finds the sockets
    /// closed first takes that for a failure of the network, and goes on trying.
    pub(crate) fn leave(&mut self) {
        let patience = crate::time::tenths(self.link.options().ping_timeout_ds);
        self.link.leaving_at.get_or_insert(self.turn.now + patience);
    }

    /// Leaves the peer for good, until `Connect`.
    pub(crate) fn stand_alone(&mut self) {
        self.drop_link(C::Disconnecting, true);
        self.link.configuration = None;
        self.turn.out.push(Action::StopListening);
        self.set_link_state(C::StandAlone);
    }

    /// True: there was a connection, or the beginning of one.
    fn drop_link(&mut self, why: C, drain: bool) -> bool {
        let unnamed = std::mem::take(&mut self.link.unnamed);
        let mut sockets: Vec<SocketId> = unnamed.into_iter().map(|unnamed| unnamed.socket).collect();
        self.link.stalls.clear();
        self.link.unsent_reply_bytes = 0;
        self.link.unread_ping_acks = 0;
        sockets.extend(self.link.data.take());
        sockets.extend(self.link.meta.take());
        let had = !sockets.is_empty();
        for socket in sockets {
            self.close(socket, drain);
        }
        self.link.stage = Stage::Sockets;
        self.link.early_features = None;
        self.link.stage_deadline = None;
        self.link.leaving_at = None;
        self.link.dial_at = None;
        self.link.pinged_at = None;
        let was_open = self.link.state >= C::WFReportParams || self.link.state == C::TearDown;
        // Whatever the peer may not have on stable storage differs from now on.
        if was_open {
            self.suspend_before_loss(why);
        }
        let lost = self.link.log.lost();
        self.writes_lost(lost);
        self.link.connection += 1;
        self.forget_deferred();
        self.link.epoch_has_completed = false;
        self.link.peer_epochs = PeerEpochs::after(&self.link.peer_epochs);
        if was_open {
            self.set_link_state(why);
        }
        for volume in self.volumes() {
            self.abandon_resync(volume);
            self.leave_verify(volume);
            self.drop_slowed_reads(volume);
            self.drop_unwritten_peer_writes(volume);
            self.parts_lost_peer(volume);
            self.retry_remote_reads(volume);
        }
        self.epochs_moved();
        if was_open {
            self.fence_lost_peer();
        }
        match self.link.asked.take() {
            Some(Asked::Primary { ticket, force, .. }) => self.promote_alone(ticket, force),
            Some(Asked::Detach { ticket, volume }) => self.detach_answered(ticket, volume, code::SUCCESS),
            Some(Asked::Resync { ticket, .. }) => self.answer(ticket, Err(refused(code::NEED_CONNECTION))),
            Some(Asked::Disconnect { ticket, .. }) if why != C::Disconnecting => {
                // The peer is gone anyway.
                self.link.configuration = None;
                self.turn.out.push(Action::StopListening);
                self.set_link_state(C::StandAlone);
                self.answer(ticket, Ok(Vec::new()));
                return false;
            }
            Some(Asked::Disconnect { ticket, .. }) => self.answer(ticket, Ok(Vec::new())),
            None => {}
        }
        had || was_open
    }

    /// The cluster has fenced the peer.
    pub(crate) fn peer_fenced(&mut self) {
        self.link.fenced = true;
        if self.link.configuration.is_some() {
            self.turn.log(Level::Warning, "the peer was fenced: no connection until the next connect");
            self.lose(C::NetworkFailure);
        }
    }

    /// `Disconnect`: asks the peer, so that it does not take our leaving for a failure.
    pub(crate) fn disconnect(&mut self, ticket: crate::event::Ticket, force: bool) {
        if self.link.configuration.is_none() {
            return self.answer(ticket, Ok(Vec::new()));
        }
        if !force && self.link.asked.is_some() {
            return self.answer(ticket, Err(refused(code::CONCURRENT_STATE_CHANGE)));
        }
        if force || !self.link.is_open() || self.link.state < C::Connected {
            self.stand_alone();
            return self.answer(ticket, Ok(Vec::new()));
        }
        self.leave_fencing(ticket);
    }
}
