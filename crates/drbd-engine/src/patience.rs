//! How long the peer may take: for the handshake, for an answer to a ping, for a request, for room in its socket.
//!
//! Upstream: `drbd_ack_receiver`, `request_timer_fn`, `net_timeout_reached` and `we_should_drop_the_connection`.

use std::time::Duration;

use drbd_format::names::ConnectionState as C;
use drbd_format::wire::Packet;

use crate::admin::NetOptions;
use crate::device::{Device, Leg};
use crate::event::{Level, SocketId};
use crate::link::Link;
use crate::resource::Resource;
use crate::time::{Instant, tenths};

/// Answers to pings at most that a socket without room is given.
const UNREAD_PING_ACKS_MAX: u32 = 1000;

/// What one of `max-buffers` holds.
const PAGE_BYTES: u64 = 4096;

/// A socket that takes no more bytes.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    socket: SocketId,
    /// When it last took some, or when the last `timeout` of waiting ended.
    since: Instant,
    /// How often `timeout` has passed since.
    periods: u32,
}

impl Link {
    /// How long a request may take that the peer has; none: for ever.
    fn request_patience(&self) -> Option<Duration> {
        let options = &self.configuration.as_ref()?.options;
        (options.ko_count != 0).then(|| tenths(options.timeout_ds) * options.ko_count)
    }

    fn is_meta(&self, socket: SocketId) -> bool {
        self.meta == Some(socket)
    }
}

impl Device {
    /// When the oldest of our changes was sent that the peer has not acknowledged.
    fn oldest_unacknowledged(&self) -> Option<Instant> {
        // Parts are in the order of their tags, which is almost that of sending.
        self.parts.values().find(|part| part.remote == Leg::Pending).map(|part| part.sent_at)
    }
}

impl Link {
    /// Whether a socket takes no more bytes.
    fn stalls(&self, socket: Option<SocketId>) -> bool {
        self.stalls.iter().any(|stall| Some(stall.socket) == socket)
    }

    /// `max-buffers`, in bytes of what the peer has under way here.
    pub fn buffers_bytes(&self) -> u64 {
        let pages = self.configuration.as_ref().map(|c| c.options.max_buffers);
        u64::from(pages.unwrap_or_else(|| NetOptions::default().max_buffers)) * PAGE_BYTES
    }

    /// Whether the peer takes what it asks for: if it reads no answers, no more questions are read.
    pub fn peer_takes_answers(&self, buffers_bytes: u64) -> bool {
        let is_behind = self.stalls(self.data) && self.unsent_reply_bytes >= buffers_bytes;
        !is_behind && !self.stalls(self.meta)
    }

    /// An answer with data goes out.
    pub fn replies(&mut self, bytes: u64) {
        if self.stalls(self.data) {
            self.unsent_reply_bytes += bytes;
        }
    }
}

impl Resource {
    /// A ping of the peer is answered; one that pings and reads no answers is not.
    pub(crate) fn pinged(&mut self) {
        self.link.unread_ping_acks =
            if self.link.stalls(self.link.meta) { self.link.unread_ping_acks + 1 } else { 0 };
        if self.link.unread_ping_acks > UNREAD_PING_ACKS_MAX {
            return self.misbehaved("more pings than it reads answers");
        }
        self.link.send_meta(&mut self.turn, 0, Packet::PingAck);
    }

    /// Whether what is sent in several calls is to go in full segments (`tcp-cork`).
    pub fn corks(&self) -> bool {
        self.link.configuration.as_ref().is_none_or(|c| c.options.tcp_cork)
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&mut self) {
        if self.link.pinged_at.is_none() {
            self.link.pinged_at = Some(self.turn.now);
            self.link.send_meta(&mut self.turn, 0, Packet::Ping);
        }
    }

    /// A socket takes no more bytes, though it may just have taken some; or it has taken all.
    pub(crate) fn sending(&mut self, socket: SocketId, waits: bool) {
        self.link.stalls.retain(|stall| stall.socket != socket);
        let is_ours = self.link.data == Some(socket) || self.link.is_meta(socket);
        if !waits && self.link.data == Some(socket) {
            self.link.unsent_reply_bytes = 0;
        }
        if waits && is_ours {
            self.link.stalls.push(Stall { socket, since: self.turn.now, periods: 0 });
        }
    }

    /// Whether the peer still answers, and whether to dial.
    pub(crate) fn keep_time(&mut self) {
        let now = self.turn.now;
        if self.link.dial_at.is_some_and(|at| at <= now) {
            self.link.dial_at = None;
            self.dial();
        }
        if self.link.leaving_at.is_some_and(|at| at <= now) {
            return self.stand_alone();
        }
        self.close_silent_sockets();
        if self.link.stage_deadline.is_some_and(|at| at <= now) {
            self.turn.log(Level::Error, "the peer did not answer in the handshake");
            return self.lose(C::NetworkFailure);
        }
        if !self.link.is_open() {
            return;
        }
        let options = self.link.options();
        let ping_timeout = tenths(options.ping_timeout_ds);
        if let Some(pinged) = self.link.pinged_at {
            // Anything heard since the ping is a sign of life, too.
            if now.since(pinged.max(self.link.heard_at)) >= ping_timeout {
                self.turn.log(Level::Error, "PingAck did not arrive in time.");
                return self.lose(C::NetworkFailure);
            }
        } else if now.since(self.link.heard_at) >= Duration::from_secs(u64::from(options.ping_int_s)) {
            self.ping();
        }
        let missed = |d: &Device| !d.early_writes.is_empty() && now.since(d.early_since) >= ping_timeout;
        if self.devices.values().any(missed) {
            self.turn.log(Level::Error, "Timed out waiting for missing ack packets; disconnecting");
            return self.lose(C::ProtocolError);
        }
        if self.is_request_overdue() || self.is_socket_stuck() {
            self.lose(C::Timeout);
        }
    }

    /// The oldest of our requests, or of our barriers where no request waits.
    fn is_request_overdue(&mut self) -> bool {
        let Some(patience) = self.link.request_patience() else { return false };
        let now = self.turn.now;
        let options = self.link.options();
        let limit = format!("ko-count ({}) * timeout ({} * 0.1s)", options.ko_count, options.timeout_ds);
        if let Some(sent) = self.devices.values().filter_map(Device::oldest_unacknowledged).min() {
            let waited = now.since(sent);
            if waited < patience {
                return false;
            }
            let ms = waited.as_millis();
            let text = format!("Remote failed to finish a request within {ms}ms > {limit}");
            self.turn.log(Level::Warning, text);
            return true;
        }
        let waited = now.since(self.link.barrier_sent_at);
        if !self.link.log.awaits_confirmation() || waited < patience {
            return false;
        }
        let ms = waited.as_millis();
        let text = format!("Remote failed to answer a P_BARRIER within {ms}ms > {limit}");
        self.turn.log(Level::Warning, text);
        true
    }

    /// A data socket may be full for `ko-count` times `timeout`, if the peer answers pings meanwhile; the other for one.
    fn is_socket_stuck(&mut self) -> bool {
        let options = self.link.options();
        let (now, timeout) = (self.turn.now, tenths(options.timeout_ds));
        let mut expired = None;
        for stall in &mut self.link.stalls {
            if now.since(stall.since) >= timeout {
                stall.since = now;
                stall.periods += 1;
                expired = Some(*stall);
            }
        }
        let Some(stall) = expired else { return false };
        if self.link.is_meta(stall.socket) {
            self.turn.log(Level::Error, "msock_sendmsg time expired");
            return true;
        }
        // Upstream counts down, and a count that starts at 0 never gets there.
        let left = options.ko_count.wrapping_sub(stall.periods);
        if left == 0 {
            return true;
        }
        self.turn.log(Level::Error, format_args!("sock_sendmsg time expired, ko = {left}"));
        self.ping();
        false
    }

    /// Whoever connects must say which socket it is as soon as upstream's receiver wants to know.
    fn close_silent_sockets(&mut self) {
        let (now, patience) = (self.turn.now, self.link.handshake_patience());
        while let Some(first) = self.link.unnamed.first().filter(|s| now.since(s.since) >= patience) {
            let socket = first.socket;
            self.link.unnamed.remove(0);
            self.close(socket, false);
        }
    }

    /// When time alone brings something to do for the connection.
    pub(crate) fn link_deadline(&self) -> Option<Instant> {
        let link = &self.link;
        let patience = link.handshake_patience();
        let silent = link.unnamed.first().map(|s| s.since + patience);
        let mut first =
            [link.dial_at, link.stage_deadline, link.leaving_at, silent].into_iter().flatten().min();
        let mut by = |at: Instant| first = Some(first.map_or(at, |first: Instant| first.min(at)));
        let Some(options) = link.configuration.as_ref().map(|c| &c.options).filter(|_| link.is_open()) else {
            return first;
        };
        let ping_timeout = tenths(options.ping_timeout_ds);
        by(match link.pinged_at {
            Some(at) => at.max(link.heard_at) + ping_timeout,
            None => link.heard_at + Duration::from_secs(u64::from(options.ping_int_s)),
        });
        for device in self.devices.values().filter(|d| !d.early_writes.is_empty()) {
            by(device.early_since + ping_timeout);
        }
        if let Some(patience) = link.request_patience() {
            match self.devices.values().filter_map(Device::oldest_unacknowledged).min() {
                Some(sent) => by(sent + patience),
                None if link.log.awaits_confirmation() => by(link.barrier_sent_at + patience),
                None => {}
            }
        }
        for stall in &link.stalls {
            by(stall.since + tenths(options.timeout_ds));
        }
        first
    }
}
