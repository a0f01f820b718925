//! What becomes of a disk that fails: `on-io-error`.
//!
//! Upstream: `__drbd_chk_io_error_` (drbd_int.h): data that cannot be read or written may be passed on, meta-data that
//! cannot be written always cost the disk.

use drbd_format::names::DiskState as D;
use units::SectorRange;

use crate::device::BLOCK_SECTORS;
use crate::event::Level;
use crate::handlers::Handler;
use crate::resource::Resource;
use crate::state::State;

/// `on-io-error pass_on` (`EP_PASS_ON`).
const PASS_ON: u32 = 0;

/// `on-io-error call-local-io-error` (`EP_CALL_HELPER`).
const CALL_HANDLER: u32 = 1;

impl Resource {
    /// The disk of a volume does not do what it must: it is let go, and the peer is told.
    pub(crate) fn disk_failed(&mut self, volume: u16) {
        let Some(device) = self.devices.get(&volume) else { return };
        if device.disk.is_none() || device.state.disk <= D::Failed {
            return;
        }
        let minor = device.minor;
        let calls = device.disk.as_ref().is_some_and(|disk| disk.options.on_io_error == CALL_HANDLER);
        self.turn.log(Level::Error, format_args!("drbd{minor}: local IO failed. Detaching..."));
        if calls {
            // Before the peer hears of it: who resets the machine from the handler wants that to look like a crash.
            self.call_handler(Handler::LocalIoError, volume);
        }
        self.drop_disk(volume);
    }

    /// A block could not be copied: a resync does without it, and ends without the two being equal (`drbd_rs_failed_io`).
    pub(crate) fn resync_block_failed(&mut self, volume: u16, range: SectorRange) {
        if let Some(resync) = self.devices.get_mut(&volume).and_then(|d| d.resync.as_mut()) {
            resync.failed += range.count.div_ceil(BLOCK_SECTORS);
        }
    }

    /// A piece of the data could not be read or written.
    pub(crate) fn data_failed(&mut self, volume: u16, range: SectorRange) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let passes_on = device.disk.as_ref().is_some_and(|disk| disk.options.on_io_error == PASS_ON);
        if !passes_on || device.state.disk <= D::Negotiating {
            return self.disk_failed(volume);
        }
        device.set_out_of_sync(range);
        let (minor, state) = (device.minor, device.state);
        self.turn.log(Level::Error, format_args!("drbd{minor}: Local IO failed."));
        if state.disk > D::Inconsistent {
            self.transition(volume, State { disk: D::Inconsistent, ..state });
        }
    }
}
