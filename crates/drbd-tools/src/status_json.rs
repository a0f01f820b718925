//! `status --json`: the form of DRBD 9's drbdsetup.

use drbd_engine::status::{DeviceFlags, DeviceStatus, ResourceStatus};
use drbd_format::names::DiskState;
use serde_json::{Value, json};

use crate::status_text::{connection_9, percent_in_sync, replication_9, resync_suspended, write_ordering};

/// The resources as DRBD 9's `drbdsetup status --json` shows them.
pub fn json(resources: &[ResourceStatus]) -> Value {
    Value::Array(resources.iter().map(resource_json).collect())
}

fn resource_json(resource: &ResourceStatus) -> Value {
    let any = |holds: fn(&DeviceFlags) -> bool| resource.devices.iter().any(|device| holds(&device.flags));
    let suspended = any(|f| f.io_suspended);
    let (user, no_data) = (any(|f| f.suspended_user), any(|f| f.suspended_no_data));
    let fencing = any(|f| f.suspended_fencing);
    json!({
        "name": resource.name,
        "node-id": -1,
        "role": resource.role.to_string(),
        "suspended": suspended,
        "suspended-user": suspended && !no_data && !fencing || user,
        "suspended-no-data": no_data,
        "suspended-fencing": fencing,
        "suspended-quorum": false,
        "force-io-failures": false,
        "write-ordering": write_ordering(resource),
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
