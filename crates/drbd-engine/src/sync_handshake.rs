//! Who syncs from whom when two disks meet (`drbd_sync_handshake`).

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::UuidFlags;

use crate::admin::NetOptions;
use crate::event::Level;
use crate::generations::{Circumstances, Generations, Verdict, compare};
use crate::handlers::Handler;
use crate::resource::Resource;
use crate::split_brain::{Sides, policy, recover, steps_down};
use crate::turn::Turn;

impl Resource {
    /// Who syncs from whom; none: the two do not go together (`drbd_sync_handshake`).
    pub(crate) fn sync_handshake(&mut self, volume: u16, peer_role: Role, peer_disk: D) -> Option<C> {
        let mut calls = Vec::new();
        let conn = self.compare_data(volume, peer_role, peer_disk, &mut calls);
        for handler in calls {
            self.call_handler(handler, volume);
        }
        conn
    }

    /// The same; whom the administrator wants to be told by is in `calls`.
    fn compare_data(
        &mut self,
        volume: u16,
        peer_role: Role,
        peer_disk: D,
        calls: &mut Vec<Handler>,
    ) -> Option<C> {
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
        if let Verdict::NeedsNewerPeer { protocol, features } = verdict {
            let features =
                if features == 0 { String::new() } else { format!(" and feature flags 0x{features:x}") };
            turn.log(
                Level::Error,
                format_args!(
                    "To resolve this both sides have to support at least protocol {protocol}{features}"
                ),
            );
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
            let peer_discards = peer.flags.0 & UuidFlags::DISCARD_MY_DATA != 0;
            calls.push(Handler::InitialSplitBrain);
            let is_distant = verdict == Verdict::SplitBrainDistant;
            if (!is_distant || options.always_asbp) && steps_down(&options, sides) {
                calls.push(Handler::PriLostAfterSb);
            }
            let Some(solution) = solved(turn, &options, verdict, sides, (discard, peer_discards)) else {
                calls.push(Handler::SplitBrain);
                return None;
            };
            verdict = solution;
        }
        let source = matches!(verdict, Verdict::Source | Verdict::SourceFull);
        let target = matches!(verdict, Verdict::Target | Verdict::TargetFull);
        if source && own_disk <= D::Inconsistent {
            turn.log(Level::Error, "I shall become SyncSource, but I am inconsistent!");
            return None;
        }
        if target && device.state.role == Role::Primary && device.state.disk >= D::Consistent {
            if link.options().rr_conflict == policy::CALL_HELPER {
                calls.push(Handler::PriLost);
            }
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
