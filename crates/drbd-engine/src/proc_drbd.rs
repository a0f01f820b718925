//! The text of /proc/drbd.
//!
//! Upstream: `drbd_seq_show` and `drbd_syncer_progress` of drbd_proc.c in 8.4.11. The 8.3.11 of 2013 has other version
//! lines, and no line break after a progress in megabytes.

use std::fmt::{self, Write};

use drbd_format::names::{ConnectionState, DiskState, Role};

use crate::admin::ReplicationProtocol;
use crate::status::{Counters, DeviceFlags, DeviceStatus, ResourceStatus, SyncProgress, WriteOrdering};

const VERSION_8_4: &str = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 059B1B470318F053F5077D5 \n";

const VERSION_8_3: &str = "version: 8.3.11 (api:88/proto:86-96)\nsrcversion: 71955441799F513ACA6DA60 \n";

/// Progress of more than this is shown in MiB.
const KIB_SHOWN_MAX: u64 = 4 << 20;

/// The whole text, devices in the order of their minors.
pub fn render(resources: &[ResourceStatus], era2013: bool) -> String {
    let mut text = String::from(if era2013 { VERSION_8_3 } else { VERSION_8_4 });
    let mut devices: Vec<_> = resources.iter().flat_map(|r| r.devices.iter().map(move |d| (r, d))).collect();
    devices.sort_by_key(|(_, device)| device.minor);
    let mut expected = 0;
    for (resource, device) in devices {
        // A gap in the numbers shows as an empty line.
        if device.minor != expected {
            text.push('\n');
        }
        expected = device.minor.saturating_add(1);
        render_device(&mut text, resource, device, era2013).expect("a String takes every text");
    }
    text
}

fn render_device(
    out: &mut String,
    resource: &ResourceStatus,
    device: &DeviceStatus,
    era2013: bool,
) -> fmt::Result {
    let is_unconfigured = device.connection == ConnectionState::StandAlone
        && device.disk == DiskState::Diskless
        && resource.role == Role::Secondary;
    if is_unconfigured {
        return writeln!(out, "{:2}: cs:Unconfigured", device.minor);
    }
    let protocol = match resource.protocol {
        Some(ReplicationProtocol::A) => 'A',
        Some(ReplicationProtocol::B) => 'B',
        Some(ReplicationProtocol::C) => 'C',
        None => ' ',
    };
    writeln!(
        out,
        "{:2}: cs:{} ro:{}/{} ds:{}/{} {protocol} {}",
        device.minor,
        device.connection,
        resource.role,
        resource.peer_role,
        device.disk,
        device.peer_disk,
        flags_text(device.flags),
    )?;
    render_counters(out, &device.counters)?;
    if let (Some(kind), Some(progress)) = (progress_kind(device.connection), &device.sync) {
        render_progress(out, kind, device.connection, progress, era2013)?;
    }
    Ok(())
}

fn flags_text(flags: DeviceFlags) -> String {
    let shown = |is_set: bool, letter: char| if is_set { letter } else { '-' };
    [
        if flags.io_suspended { 's' } else { 'r' },
        shown(flags.resync_after, 'a'),
        shown(flags.resync_paused_by_peer, 'p'),
        shown(flags.resync_paused_by_user, 'u'),
        // Congestion of a backing device; the kernel itself does not report it any more.
        '-',
        shown(flags.al_suspended, 's'),
    ]
    .iter()
    .collect()
}

fn render_counters(out: &mut String, counters: &Counters) -> fmt::Result {
    let write_ordering = match counters.write_ordering {
        WriteOrdering::Flush => 'f',
        WriteOrdering::Drain => 'd',
        WriteOrdering::None => 'n',
    };
    writeln!(
        out,
        "    ns:{} nr:{} dw:{} dr:{} al:{} bm:{} lo:{} pe:{} ua:{} ap:{} ep:{} wo:{write_ordering} oos:{}",
        counters.sent_kib,
        counters.received_kib,
        counters.disk_written_kib,
        counters.disk_read_kib,
        counters.al_writes,
        counters.bm_writes,
        counters.local_count,
        counters.pending,
        counters.unacked,
        counters.application_pending,
        counters.epochs,
        counters.out_of_sync_kib,
    )
}

/// The word before the percentage, in states that show a progress.
fn progress_kind(connection: ConnectionState) -> Option<&'static str> {
    match connection {
        ConnectionState::SyncSource | ConnectionState::SyncTarget => Some("sync'ed"),
        ConnectionState::VerifyS | ConnectionState::VerifyT => Some("verified"),
        _ => None,
    }
}

fn render_progress(
    out: &mut String,
    kind: &str,
    connection: ConnectionState,
    progress: &SyncProgress,
    era2013: bool,
) -> fmt::Result {
    let per_mille = per_mille_done(progress);
    let done = (per_mille / 50) as usize;
    write!(out, "\t[{}>{}] ", "=".repeat(done.saturating_sub(1)), ".".repeat(20 - done))?;
    write!(out, "{kind}:{:3}.{}% ", per_mille / 10, per_mille % 10)?;
    let (left, total) = (progress.left_kib.min(progress.total_kib), progress.total_kib);
    if total > KIB_SHOWN_MAX {
        write!(out, "({}/{})M", left >> 10, total >> 10)?;
    } else {
        write!(out, "({left}/{total})K")?;
    }
    out.push_str(if era2013 && total > KIB_SHOWN_MAX { "" } else { "\n\t" });
    let finish_s = progress.finish_s.unwrap_or(0);
    write!(out, "finish: {}:{:02}:{:02}", finish_s / 3600, finish_s % 3600 / 60, finish_s % 60)?;
    write!(out, " speed: {} ({})", grouped(progress.speed_kib_per_s), grouped(progress.average_kib_per_s))?;
    if matches!(connection, ConnectionState::SyncTarget | ConnectionState::VerifyS)
        && let Some(wanted) = progress.wanted_kib_per_s
    {
        write!(out, " want: {}", grouped(wanted))?;
    }
    let stalled = if progress.finish_s.is_none() && left > 0 { " (stalled)" } else { "" };
    writeln!(out, " K/sec{stalled}")
}

/// Thousandths that are done, with the kernel's rounding: it counts in bits of 4 KiB and shifts before it divides.
fn per_mille_done(progress: &SyncProgress) -> u64 {
    let (left, total) = (progress.left_kib / 4, progress.total_kib / 4);
    if left > total {
        return if total > 0 { 0 } else { 1000 };
    }
    let shift = if total > u64::from(u32::MAX) { 16 } else { 10 };
    1000 - (left >> shift) * 1000 / (1 + (total >> shift))
}

/// Thousands apart: `1,296`.
fn grouped(value: u64) -> String {
    if value >= 1_000_000 {
        let rest = value % 1_000_000;
        format!("{},{:03},{:03}", value / 1_000_000, rest / 1000, rest % 1000)
    } else if value >= 1000 {
        format!("{},{:03}", value / 1000, value % 1000)
    } else {
        value.to_string()
    }
}
