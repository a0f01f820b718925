//! Options of the connection: which may be given, and which may be changed while it stands.
//!
//! Upstream: `check_net_options`, `alloc_crypto`, `drbd_adm_net_opts` (drbd_nl.c), `receive_SyncParam` (drbd_receiver.c).

use drbd_format::auth::{CramHmac, Digest};
use drbd_format::names::ConnectionState as C;
use drbd_format::wire::{Packet, SyncParam};

use crate::admin::{NetOptions, ReplicationProtocol};
use crate::connect::protocol_packet;
use crate::event::{Level, Ticket};
use crate::resource::Resource;
use crate::state::{code, refused};

/// The protocol that can say within a connection that its settings change.
const SETTINGS_CHANGE: u32 = 100;

/// From this protocol on `SyncParam` names the digest of verify; one later also that of checksums.
const NAMES_VERIFY_ALG: u32 = 88;

/// Why nobody could connect with these options.
pub(crate) fn fault(options: &NetOptions) -> Option<i32> {
    if options.allow_two_primaries && options.protocol != ReplicationProtocol::C {
        return Some(code::NOT_PROTO_C);
    }
    let digests = [
        (&options.csums_alg, code::CSUMS_ALG),
        (&options.verify_alg, code::VERIFY_ALG),
        (&options.data_integrity_alg, code::INTEGRITY_ALG),
    ];
    let unknown = |name: &str| !name.is_empty() && Digest::by_name(name).is_none();
    if let Some((_, number)) = digests.into_iter().find(|(name, _)| unknown(name)) {
        return Some(number);
    }
    let hmac = &options.cram_hmac_alg;
    (!hmac.is_empty() && CramHmac::by_name(hmac).is_none()).then_some(code::AUTH_ALG)
}

impl Resource {
    /// `net-options`: all of them, of a connection that is configured.
    pub(crate) fn change_net_options(&mut self, ticket: Ticket, options: NetOptions) {
        let Some(old) = self.link.configuration.as_ref().map(|c| c.options.clone()) else {
            return self.answer(ticket, Err(refused(code::NO_NET_CONFIG)));
        };
        if let Some(number) = self.change_fault(&old, &options).or_else(|| fault(&options)) {
            return self.answer(ticket, Err(refused(number)));
        }
        let Some(configuration) = &mut self.link.configuration else { return };
        configuration.options = options;
        if self.link.is_open() {
            self.tell_net_options(&old);
        }
        self.answer(ticket, Ok(Vec::new()));
    }

    /// Why these options may not take the place of the old ones now.
    fn change_fault(&self, old: &NetOptions, new: &NetOptions) -> Option<i32> {
        let agreed_upon = old.protocol != new.protocol
            || old.allow_two_primaries != new.allow_two_primaries
            || old.data_integrity_alg != new.data_integrity_alg;
        if agreed_upon && self.link.is_open() && self.link.agreed.protocol < SETTINGS_CHANGE {
            return Some(code::NEED_APV_100);
        }
        let runs = |states: &[C]| self.devices.values().any(|d| states.contains(&d.state.conn));
        let syncs = [C::SyncSource, C::SyncTarget, C::PausedSyncS, C::PausedSyncT];
        if old.csums_alg != new.csums_alg && runs(&syncs) {
            return Some(code::CSUMS_RESYNC_RUNNING);
        }
        if old.verify_alg != new.verify_alg && runs(&[C::VerifyS, C::VerifyT]) {
            return Some(code::VERIFY_RUNNING);
        }
        None
    }

    /// Says to the peer what it must know of changed options.
    fn tell_net_options(&mut self, old: &NetOptions) {
        let Some(configuration) = &self.link.configuration else { return };
        let options = configuration.options.clone();
        if self.link.agreed.protocol >= SETTINGS_CHANGE {
            let packet = protocol_packet(&options, configuration.discard_my_data);
            self.link.send(&mut self.turn, 0, Packet::ProtocolUpdate(packet), None);
            if options.data_integrity_alg != old.data_integrity_alg {
                self.change_sent_integrity();
            }
        }
        let Self { devices, turn, link, .. } = self;
        for device in devices.values() {
            device.send_sync_param(turn, link);
        }
    }

    /// The peer's digests of verify and checksums must be ours when the two meet; later we follow.
    pub(crate) fn sync_param_received(&mut self, volume: u16, theirs: &SyncParam) {
        let Some(conn) = self.devices.get(&volume).map(|d| d.state.conn) else { return };
        let protocol = self.link.agreed.protocol;
        let ours = self.link.options();
        let settings = [
            ("verify-alg", &ours.verify_alg, &theirs.verify_alg, NAMES_VERIFY_ALG),
            ("csums-alg", &ours.csums_alg, &theirs.csums_alg, NAMES_VERIFY_ALG + 1),
        ];
        for (what, ours, theirs, since) in settings {
            if protocol < since || ours == theirs {
                continue;
            }
            if conn == C::WFReportParams {
                let text = format!("Different {what} settings. me=\"{ours}\" peer=\"{theirs}\"");
                self.turn.log(Level::Error, text);
                return self.stand_alone();
            }
            if theirs.is_empty() {
                continue;
            }
            if Digest::by_name(theirs).is_none() {
                self.turn.log(Level::Error, format_args!("Can not allocate \"{theirs}\" as {what}"));
                return self.stand_alone();
            }
            let Some(configuration) = &mut self.link.configuration else { return };
            let options = &mut configuration.options;
            let own = if what == "verify-alg" { &mut options.verify_alg } else { &mut options.csums_alg };
            own.clone_from(theirs);
            self.turn.info(format_args!("using {what}: \"{theirs}\""));
        }
    }
}
