//! `status`, `role`, `cstate` and `dstate`: what drbdsetup 8.4 prints, and `status --json` in the form of DRBD 9.

use std::fmt::Write;

use drbd_engine::status::{DeviceStatus, ResourceStatus, WriteOrdering};
use drbd_format::names::{ConnectionState, DiskState, Role};
use serde_json::{Value, json};

/// `Primary/Secondary`.
pub fn role(resource: &ResourceStatus) -> String {
    format!("{}/{}", resource.role, resource.peer_role)
}

/// `UpToDate/Inconsistent`.
pub fn dstate(device: &DeviceStatus) -> String {
    format!("{}/{}", device.disk, device.peer_disk)
}

/// The names that DRBD 9's tools give to states of the connection.
pub fn connection_9(state: ConnectionState) -> String {
    match state {
        ConnectionState::WFConnection => "Connecting".into(),
        state if state.has_socket() => "Connected".into(),
        other => other.to_string(),
    }
}

/// The same for states of the replication.
pub fn replication_9(state: ConnectionState) -> String {
    match state {
        ConnectionState::Connected => "Established".into(),
        state if state.is_connected() => state.to_string(),
        _ => "Off".into(),
    }
}

/// The text of one resource, with an empty line after it.
pub fn status(resource: &ResourceStatus) -> String {
    let mut text = String::new();
    write_status(&mut text, resource).expect("a String takes every text");
    text
}

fn write_status(out: &mut String, resource: &ResourceStatus) -> std::fmt::Result {
    writeln!(out, "{} role:{}", resource.name, resource.role)?;
    let only_volume_0 = matches!(&resource.devices[..], [device] if device.volume == 0);
    for device in &resource.devices {
        let volume = if only_volume_0 { String::new() } else { format!("volume:{} ", device.volume) };
        writeln!(out, "  {volume}disk:{}", device.disk)?;
    }
    if resource.addresses.is_some() || resource.connection != ConnectionState::StandAlone {
        write_peer(out, resource, only_volume_0)?;
    }
    writeln!(out)
}

fn write_peer(out: &mut String, resource: &ResourceStatus, only_volume_0: bool) -> std::fmt::Result {
    if !resource.connection.is_connected() {
        return writeln!(out, "  peer connection:{}", connection_9(resource.connection));
    }
    writeln!(out, "  peer role:{}", resource.peer_role)?;
    for device in &resource.devices {
        let volume = if only_volume_0 { String::new() } else { format!("volume:{} ", device.volume) };
        write!(out, "    {volume}")?;
        if device.connection.is_connected() {
            write!(out, "replication:{} ", replication_9(device.connection))?;
        }
        write!(out, "peer-disk:{}", device.peer_disk)?;
        if device.connection.is_syncing() {
            write!(out, " done:{:.2}", percent_in_sync(device))?;
        }
        if let Some(why) = resync_suspended(device) {
            write!(out, " resync-suspended:{why}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Why a resync does not run, with commas; none if nothing holds it.
pub fn resync_suspended(device: &DeviceStatus) -> Option<String> {
    let flags = device.flags;
    let reasons = [
        (flags.resync_paused_by_user, "user"),
        (flags.resync_paused_by_peer, "peer"),
        (flags.resync_after, "dependency"),
    ];
    let set: Vec<_> = reasons.iter().filter(|(is_set, _)| *is_set).map(|&(_, name)| name).collect();
    (!set.is_empty()).then(|| set.join(","))
}

fn percent_in_sync(device: &DeviceStatus) -> f64 {
    let size_kib = device.size_sectors / 2;
    if size_kib == 0 {
        return 0.0;
    }
    100.0 * (1.0 - device.counters.out_of_sync_kib as f64 / size_kib as f64)
}

/// The resources as DRBD 9's `drbdsetup status --json` shows them.
pub fn json(resources: &[ResourceStatus]) -> Value {
    Value::Array(resources.iter().map(resource_json).collect())
}

fn resource_json(resource: &ResourceStatus) -> Value {
    let suspended = resource.devices.iter().any(|device| device.flags.io_suspended);
    let ordering = resource.devices.first().map_or(WriteOrdering::Flush, |d| d.counters.write_ordering);
    json!({
        "name": resource.name,
        "node-id": -1,
        "role": resource.role.to_string(),
        "suspended": suspended,
        "suspended-user": suspended,
        "suspended-no-data": false,
        "suspended-fencing": false,
        "suspended-quorum": false,
        "force-io-failures": false,
        "write-ordering": match ordering {
            WriteOrdering::Flush => "flush",
            WriteOrdering::Drain => "drain",
            WriteOrdering::None => "none",
        },
        "devices": resource.devices.iter().map(device_json).collect::<Vec<_>>(),
        "connections": resource.addresses.iter().map(|addresses| json!({
            "peer-node-id": 0,
            "name": "peer",
            "connection-state": connection_9(resource.connection),
            "congested": false,
            "peer-role": resource.peer_role.to_string(),
            "paths": [{
                "this_host": { "address": addresses.0.ip().to_string(), "port": addresses.0.port(),
                    "family": family(addresses.0.is_ipv4()) },
                "remote_host": { "address": addresses.1.ip().to_string(), "port": addresses.1.port(),
                    "family": family(addresses.1.is_ipv4()) },
                "established": resource.connection.is_connected(),
            }],
            "peer_devices": resource.devices.iter().map(peer_device_json).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn family(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "ipv4" } else { "ipv6" }
}

fn device_json(device: &DeviceStatus) -> Value {
    json!({
        "volume": device.volume,
        "minor": device.minor,
        "disk-state": device.disk.to_string(),
        "client": device.disk == DiskState::Diskless && device.backing.is_empty(),
        "quorum": true,
        "size": device.size_sectors / 2,
        "read": device.counters.disk_read_kib,
        "written": device.counters.disk_written_kib,
        "al-writes": device.counters.al_writes,
        "bm-writes": device.counters.bm_writes,
        "upper-pending": device.counters.application_pending,
        "lower-pending": device.counters.local_count,
    })
}

fn peer_device_json(device: &DeviceStatus) -> Value {
    let mut value = json!({
        "volume": device.volume,
        "replication-state": replication_9(device.connection),
        "peer-disk-state": device.peer_disk.to_string(),
        "peer-client": false,
        "resync-suspended": resync_suspended(device).unwrap_or_else(|| "no".into()),
        "received": device.counters.received_kib,
        "sent": device.counters.sent_kib,
        "out-of-sync": device.counters.out_of_sync_kib,
        "pending": device.counters.pending,
        "unacked": device.counters.unacked,
        "has-sync-details": false,
        "has-online-verify-details": false,
        "percent-in-sync": hundredths(percent_in_sync(device)),
    });
    if device.connection.is_syncing()
        && let Some(sync) = device.sync.filter(|sync| sync.total_kib > 0)
    {
        let done = 100.0 * (1.0 - sync.left_kib as f64 / sync.total_kib as f64);
        value["percent-resync-done"] = hundredths(done);
    }
    value
}

fn hundredths(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

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
