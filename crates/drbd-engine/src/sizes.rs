//! The size of a device, as both disks allow it.

use drbd_format::names::{ConnectionState as C, DiskState as D, Role};
use drbd_format::wire::Sizes;

use crate::event::{Action, Level};
use crate::resource::Resource;

impl Resource {
    pub(crate) fn sizes_received(&mut self, volume: u16, sizes: Sizes) {
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
}
