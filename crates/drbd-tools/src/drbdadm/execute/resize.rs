//! `resize` and `check-resize`.

use drbd_engine::admin::Command;

use super::Executor;
use crate::drbd_conf::effective;
use crate::drbd_conf::model::Setting;
use crate::drbdadm::setup_option::SetupOption;
use crate::drbdadm::step::{Step, VolumeRef};
use crate::meta_disk::last_known::LastKnown;
use crate::session::SessionError;

impl Executor<'_> {
    /// The configuration's size, or the command line's over it, for a volume in use.
    pub(super) fn resize(
        &mut self,
        step: &Step<'_>,
        of: VolumeRef<'_>,
        setup: &[SetupOption],
    ) -> Result<u8, SessionError> {
        let mut settings: Vec<Setting> = of.configured_size().to_vec();
        settings.extend(setup.iter().map(|option| option.setting.clone()));
        let wish = effective::size_wish(&settings);
        let status = self.command(step, &Command::Resize { minor: of.minor(), wish })?;
        if status == 0 {
            // For the day when the disk has grown again while it was not in use.
            LastKnown::note_in_use(of.minor(), of.disk().as_ref(), of.placement());
        }
        Ok(status)
    }

    /// What is in use is resized; for what is not the meta-data move to the end of a disk that has grown.
    pub(super) fn check_resize(
        &mut self,
        step: &Step<'_>,
        of: VolumeRef<'_>,
        setup: &[SetupOption],
    ) -> Result<u8, SessionError> {
        if self.is_attached(of)? {
            return self.resize(step, of, setup);
        }
        self.meta(of, "check-resize", false)
    }
}
