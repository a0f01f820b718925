//! The target of an online verify: it answers with digests, and hears how their comparison came out.
//!
//! Upstream: `receive_DataRequest`, `got_OVResult` (drbd_receiver.c).

use drbd_format::names::ConnectionState as C;
use drbd_format::wire::{BlockAck, BlockRequest};
use units::SectorRange;

use crate::device::{BLOCK_SECTORS, ReadKind};
use crate::resource::Resource;
use crate::verify::{BEGINS_ANYWHERE, ID_OUT_OF_SYNC, Verify};

impl Resource {
    /// Target: a question has come.
    pub(crate) fn digest_asked(&mut self, volume: u16, ask: BlockRequest) {
        if self.verify_alg().is_none() {
            return self.misbehaved("OVRequest, and no verify-alg is configured");
        }
        let anywhere = self.link.agreed.protocol >= BEGINS_ANYWHERE;
        let now = self.turn.now;
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let (minor, blocks, start) = (device.minor, device.blocks(), ask.sector);
        if let Some(verify) = device.verify.as_mut().filter(|v| v.is_fresh && v.answered.is_empty())
            && anywhere
            && start / BLOCK_SECTORS < blocks
            && device.state.conn == C::VerifyT
        {
            *verify = Verify::new(now, start, blocks);
            verify.is_fresh = false;
            self.turn.info(format_args!("drbd{minor}: Online Verify start sector: {start}"));
        }
        self.peer_reads(volume, ask, ReadKind::Verify);
    }

    /// Target: the digest is sent; nothing of ours may change the block until the result is here.
    pub(crate) fn digest_sent(&mut self, volume: u16, range: SectorRange) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        match device.verify.as_mut().filter(|_| device.state.conn == C::VerifyT) {
            Some(verify) => {
                verify.answered.insert(range.start, range);
            }
            None => self.leave_gate(volume, range),
        }
    }

    /// Target: how the comparison of a block came out.
    pub(crate) fn result_received(&mut self, volume: u16, ack: BlockAck) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let range = SectorRange::new(ack.sector, u64::from(ack.blksize) / 512);
        let inside = ack.sector.checked_add(range.count).is_some_and(|end| end <= device.size_sectors);
        if !inside || range.count == 0 {
            return self.misbehaved("OVResult beyond the device");
        }
        let awaited = device.verify.as_mut().and_then(|v| v.answered.remove(&ack.sector));
        device.note_compared(&mut self.turn, range, ack.block_id != ID_OUT_OF_SYNC);
        let Some(answered) = awaited else { return };
        device.count_compared(self.turn.now);
        let is_over = device.state.conn == C::VerifyT && device.verify.as_ref().is_some_and(|v| v.left == 0);
        self.leave_gate(volume, answered);
        if is_over {
            self.verify_finished(volume);
        }
    }
}
