//! The exchange of the bitmaps before a resync.

use drbd_format::names::{ConnectionState as C, DiskState as D};
use drbd_format::wire::Packet;

use crate::link::Asked;
use crate::resource::Resource;
use crate::state::State;

impl Resource {
    /// Part of the peer's bitmap.
    pub(crate) fn bitmap_received(&mut self, volume: u16, packet: &Packet) {
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
        // Who was told what it missed needs no bitmap.
        if !matches!(device.state.conn, C::WFSyncUUID | C::Behind) {
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
}
