//! `sh-status`: the state as variables of a shell.

use drbd_engine::status::{DeviceStatus, ResourceStatus};
use drbd_format::names::{ConnectionState, DiskState, Role};

/// The state of one device as variables of a shell, with the word that they are complete.
pub fn shell(resource: &ResourceStatus, device: &DeviceStatus) -> String {
    let is_unused = device.connection == ConnectionState::StandAlone
        && device.disk == DiskState::Diskless
        && resource.role != Role::Primary;
    let head = format!("_minor={}\n_res_name={}\n_volume={}\n", device.minor, resource.name, device.volume);
    if is_unused {
        return head + "_known=Unconfigured\n\n" + SHELL_UNCONFIGURED;
    }
    let flag = |is_set: bool| if is_set { "1" } else { "" };
    let flags = device.flags;
    let percent = device.sync.filter(|sync| sync.total_kib > 0).map_or_else(String::new, |sync| {
        let tenths = 1000 - (sync.left_kib.saturating_mul(1000) / (sync.total_kib + 1)).min(1000);
        format!("{}.{}", tenths / 10, tenths % 10)
    });
    format!(
        "{head}_known=Configured\n\n_cstate={}\n_role={}\n_peer={}\n_disk={}\n_pdsk={}\n\n_flags_susp={}\n\
         _flags_aftr_isp={}\n_flags_peer_isp={}\n_flags_user_isp={}\n\n_resynced_percent={percent}\n\n\
         _sh_status_process\n\n\n",
        device.connection,
        resource.role,
        resource.peer_role,
        device.disk,
        device.peer_disk,
        flag(flags.io_suspended),
        flag(flags.resync_after),
        flag(flags.resync_paused_by_peer),
        flag(flags.resync_paused_by_user),
    )
}

const SHELL_UNCONFIGURED: &str = "_cstate=Unconfigured\n_role=\n_peer=\n_disk=\n_pdsk=\n_flags_susp=\n\
                                  _flags_aftr_isp=\n_flags_peer_isp=\n_flags_user_isp=\n_resynced_percent=\n\n\
                                  _sh_status_process\n\n\n";

/// The same for a minor that is not there.
pub fn shell_unconfigured(minor: u32) -> String {
    format!(
        "_minor={minor}\n_volume=-1\n_known=NA # not available or not yet created\n\n{SHELL_UNCONFIGURED}"
    )
}
