//! The size of a device, as both disks and the administrators allow it.
//!
//! Upstream: `drbd_new_dev_size` (drbd_nl.c), `receive_sizes`, `resync_after_online_grow` (drbd_receiver.c).

use drbd_format::meta::{DiskSizes, Layout};
use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::Sizes;

use crate::device::{Device, Disk};
use crate::event::{Action, Level};
use crate::resize::{Cause, Told, flags};
use crate::resource::Resource;
use crate::state::State;
use crate::turn::Turn;

/// The smaller of two of which 0 says nothing.
fn min_not_zero(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

/// The size that two disks allow (0: unknown), that was agreed before and that is asked for (0: nothing).
pub(crate) fn new_size(own: u64, peer: u64, agreed: u64, asked: u64) -> u64 {
    let possible = match (own, peer, agreed) {
        (own, peer, _) if own != 0 && peer != 0 => own.min(peer),
        (own, peer, agreed) if agreed != 0 => min_not_zero(agreed, min_not_zero(own, peer)),
        (own, peer, _) => own.max(peer),
    };
    // More than there is cannot be had; upstream says so and goes on without.
    if asked == 0 || asked > possible { possible } else { asked }
}

impl Disk {
    /// Largest usable size in sectors, as the peer is told (`drbd_get_max_capacity`).
    pub fn capacity_sectors(&self) -> u64 {
        self.layout.usable_sectors
    }

    /// Where everything would be now that the disks have the size they have; as it is where they are too small for that.
    pub(crate) fn present_layout(&self) -> Layout {
        Layout::of(self.placement, self.sizes, self.layout.al_size()).unwrap_or(self.layout)
    }
}

/// Sizes that ask for a look at the configuration (`warn_if_differ_considerably`).
fn warn_if_far_apart(turn: &mut Turn, what: &str, theirs: u64, ours: u64) {
    let apart = theirs.abs_diff(ours);
    if theirs != 0 && ours != 0 && (apart > theirs >> 3 || apart > ours >> 3) {
        turn.log(Level::Warning, format_args!("Considerable difference in {what}: {theirs}s vs. {ours}s"));
    }
}

impl Resource {
    /// How large the disks are. External meta-data stay where they are: their disk's capacity counts at once.
    pub(crate) fn disk_measured(&mut self, volume: u16, sizes: DiskSizes) {
        let Some(disk) = self.devices.get_mut(&volume).and_then(|d| d.disk.as_mut()) else { return };
        disk.sizes = sizes;
        if disk.placement != drbd_format::meta::Placement::Internal {
            disk.layout.usable_sectors = disk.present_layout().usable_sectors;
        }
    }

    /// `P_SIZES`.
    pub(crate) fn sizes_received(&mut self, volume: u16, sizes: Sizes) {
        let Some(device) = self.devices.get_mut(&volume) else {
            return self.misbehaved("a volume that is not configured here");
        };
        device.peer_disk_sectors = sizes.d_size;
        if device.disk.is_some() {
            self.sizes_received_with_disk(volume, sizes);
        } else {
            self.sizes_received_diskless(volume, sizes);
        }
    }

    fn sizes_received_with_disk(&mut self, volume: u16, sizes: Sizes) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let (state, known) = (device.state, device.size_sectors);
        let Some(disk) = &mut device.disk else { return };
        let (own, asked) = (disk.capacity_sectors(), disk.options.size_sectors);
        warn_if_far_apart(turn, "lower level device sizes", sizes.d_size, own);
        warn_if_far_apart(turn, "user requested size", sizes.u_size, asked);
        let introducing = state.conn == C::WFReportParams;
        // Later than at the first meeting the peer's word is an administrator's.
        let u_size = if introducing { min_not_zero(asked, sizes.u_size) } else { sizes.u_size };
        let new = new_size(own, sizes.d_size, known, u_size);
        let meets_data = state.conn < C::Connected || state.pdsk == D::Diskless;
        if new < known && state.disk >= D::Outdated && meets_data {
            turn.log(
                Level::Error,
                format_args!("The peer's disk size is too small! ({new} < {known} sectors)"),
            );
            return self.stand_alone();
        }
        if u_size != asked {
            disk.options.size_sectors = u_size;
            turn.info(format_args!("Peer sets u_size to {u_size} sectors (old: {asked})"));
        }
        // What the peer's DRBD can take, not only its disk (`drbd_reconsider_queue_parameters`).
        let peer_bio = sizes.max_bio_size.max(link.agreed.bio_bytes_max());
        if std::mem::replace(&mut disk.superblock.peer_max_bio_bytes, peer_bio) != peer_bio {
            disk.changed();
        }
        let told = Told { c_size: sizes.c_size, flags: sizes.dds_flags, connection: self.link.connection };
        match self.determine_size(volume, told.flags, None) {
            Ok(Some(plan)) => self.begin_resizing(volume, plan, Cause::Told(told)),
            Ok(None) => self.size_taken(volume, told, false),
            Err(_) => self.misbehaved("a size that leaves no room for the meta-data"),
        }
    }

    /// Without a disk the peer's present size counts, not its disk's: ours may have been the smaller one all along.
    fn sizes_received_diskless(&mut self, volume: u16, sizes: Sizes) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let (role, known) = (device.state.role, device.size_sectors);
        let new = [sizes.c_size, sizes.u_size, sizes.d_size].into_iter().find(|&s| s != 0).unwrap_or(0);
        if new != 0 && new != known {
            if known != 0 && sizes.d_size == 0 {
                self.turn.log(
                    Level::Warning,
                    format_args!("Ignored diskless peer device size (peer:{new} != me:{known} sectors)!"),
                );
            } else if new < known && role == Role::Primary {
                self.turn.log(
                    Level::Error,
                    format_args!(
                        "The peer's device size is too small! ({new} < {known} sectors); demote me first!"
                    ),
                );
                return self.stand_alone();
            } else {
                self.set_size(volume, new);
            }
        }
        let told = Told { c_size: sizes.c_size, flags: sizes.dds_flags, connection: self.link.connection };
        self.size_taken(volume, told, false);
    }

    /// Our size is what the peer's word makes it: tell it if it does not know, and sync what both have gained.
    pub(crate) fn size_taken(&mut self, volume: u16, told: Told, grew: bool) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let disk_changed = device.disk.as_mut().is_some_and(|disk| {
            std::mem::replace(&mut disk.known_bytes, disk.sizes.data_bytes) != disk.sizes.data_bytes
        });
        if device.state.conn <= C::WFReportParams || told.connection != link.connection {
            return;
        }
        if told.c_size != device.size_sectors || disk_changed {
            device.send_sizes_with(turn, link, told.flags);
        }
        let was_pending = std::mem::take(&mut device.resize_pending);
        let is_due = was_pending || grew && device.state.conn == C::Connected;
        if !is_due {
            return;
        }
        if device.state.pdsk < D::Inconsistent || device.state.disk < D::Inconsistent {
            device.resync_after_negotiation = true;
        } else if told.flags & flags::NO_RESYNC != 0 {
            turn.info("Resync of new storage suppressed with --assume-clean");
        } else {
            self.resync_after_growth(volume);
        }
    }

    /// Both have grown and marked what is new: the primary's is the copy that counts.
    pub(crate) fn resync_after_growth(&mut self, volume: u16) {
        let Some(state) = self.devices.get(&volume).map(|d| d.state) else { return };
        self.turn.info("Resync of new storage after online grow");
        let is_source =
            if state.role == state.peer { self.link.resolves_conflicts } else { state.role == Role::Primary };
        if is_source {
            self.begin_resync(volume, C::SyncSource);
        } else {
            self.transition(volume, State { conn: C::WFSyncUUID, ..state });
        }
    }

    /// Goes on where a disk was away while the device grew, once both disks are there.
    pub(crate) fn resync_after_negotiation(&mut self, volume: u16) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let both = |d: D| d > D::Negotiating && d != D::DUnknown;
        let is_due = device.resync_after_negotiation && both(device.state.disk) && both(device.state.pdsk);
        if is_due {
            device.resync_after_negotiation = false;
            if device.state.conn == C::Connected {
                self.resync_after_growth(volume);
            }
        }
    }

    /// The device has this size from now on; who has it open must know.
    pub(crate) fn set_size(&mut self, volume: u16, sectors: u64) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        device.size_sectors = sectors;
        self.size_is_known(volume);
    }

    pub(crate) fn size_is_known(&mut self, volume: u16) {
        let Some(device) = self.devices.get(&volume) else { return };
        let (minor, sectors) = (device.minor, device.size_sectors);
        self.turn.info(format_args!("drbd{minor}: size = {} KB", sectors / 2));
        self.turn.out.push(Action::Resized { volume, sectors });
    }
}

impl Device {
    /// Whether what the meta-data say must move or change for this size and layout.
    pub(crate) fn differs(&self, size: u64, layout: &Layout) -> bool {
        self.size_sectors != size || self.disk.as_ref().is_some_and(|disk| disk.layout != *layout)
    }
}

#[cfg(test)]
mod tests {
    use super::new_size;

    #[test]
    fn sizes_are_upstreams() {
        for (own, peer, agreed, asked, expected) in [
            (100, 80, 0, 0, 80),
            (80, 100, 50, 0, 80),
            // Without the peer's word what was agreed stays, unless the disk has shrunk.
            (100, 0, 80, 0, 80),
            (70, 0, 80, 0, 70),
            (0, 90, 80, 0, 80),
            (100, 0, 0, 0, 100),
            (100, 0, 0, 60, 60),
            (100, 80, 80, 90, 80),
            (100, 80, 80, 40, 40),
            (0, 0, 0, 0, 0),
        ] {
            assert_eq!(new_size(own, peer, agreed, asked), expected, "{own} {peer} {agreed} {asked}");
        }
    }
}
