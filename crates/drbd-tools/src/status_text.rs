//! `status`, `role`, `cstate` and `dstate`: what drbdsetup 8.4 prints.
//!
//! Upstream: `status_cmd`, `role_scmd`, `cstate_scmd`, `dstate_scmd` of drbdsetup 8.4, and its colours.

use drbd_engine::status::{DeviceFlags, DeviceStatus, ResourceStatus, WriteOrdering};
use drbd_format::names::{ConnectionState, DiskState, Role};

use crate::wrapped::Wrapped;

/// Columns of a line where there is no terminal.
const COLUMNS: usize = 80;

/// What is shown of a status, and how.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// `--verbose`: also what is as it should be.
    pub is_verbose: bool,
    /// `--statistics`.
    pub has_statistics: bool,
    /// Whether states have colours.
    pub has_color: bool,
    /// Where lines are broken.
    pub columns: usize,
}

impl Style {
    /// Without options.
    pub fn plain() -> Self {
        let has_color = Color::Auto.is_wanted();
        Self { is_verbose: false, has_statistics: false, has_color, columns: columns() }
    }
}

/// `--color`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Color {
    /// At a terminal.
    Auto,
    /// Also elsewhere.
    Always,
    /// Not even there.
    Never,
}

impl Color {
    /// The word for it.
    ///
    /// # Errors
    /// It is none.
    pub fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(format!("unknown --color argument `{word}`; it is auto, always or never")),
        }
    }

    /// Whether what goes to stdout is to have colours.
    pub fn is_wanted(self) -> bool {
        self == Self::Always || self == Self::Auto && std::io::IsTerminal::is_terminal(&std::io::stdout())
    }
}

/// Columns of the terminal at stdout.
pub fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS,
    }
}

/// Whether a device has neither disk nor connection.
pub fn is_unused(device: &DeviceStatus) -> bool {
    device.connection == ConnectionState::StandAlone && device.disk == DiskState::Diskless
}

fn or_unconfigured(device: &DeviceStatus, state: String) -> String {
    if is_unused(device) { "Unconfigured".to_owned() } else { state }
}

/// `Primary/Secondary`.
pub fn role(resource: &ResourceStatus, device: &DeviceStatus) -> String {
    or_unconfigured(device, format!("{}/{}", resource.role, resource.peer_role))
}

/// `Connected`.
pub fn cstate(device: &DeviceStatus) -> String {
    or_unconfigured(device, device.connection.to_string())
}

/// `UpToDate/Inconsistent`.
pub fn dstate(device: &DeviceStatus) -> String {
    or_unconfigured(device, format!("{}/{}", device.disk, device.peer_disk))
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

/// The word for how the order of writes is kept.
pub fn write_ordering(resource: &ResourceStatus) -> &'static str {
    let ordering = resource.devices.first().map_or(WriteOrdering::Flush, |d| d.counters.write_ordering);
    match ordering {
        WriteOrdering::Flush => "flush",
        WriteOrdering::Drain => "drain",
        WriteOrdering::None => "none",
    }
}

/// Why IO is suspended, or `no`.
pub fn suspended(resource: &ResourceStatus) -> String {
    let any = |holds: fn(&DeviceFlags) -> bool| resource.devices.iter().any(|device| holds(&device.flags));
    let reasons = [
        (any(|f| f.suspended_user), "user"),
        (any(|f| f.suspended_no_data), "no-data"),
        (any(|f| f.suspended_fencing), "fencing"),
    ];
    let set: Vec<_> = reasons.iter().filter(|(is_set, _)| *is_set).map(|&(_, name)| name).collect();
    match &set[..] {
        // The cluster's permit is out: 8.4 has no word for it.
        [] if any(|f| f.io_suspended) => "user".to_owned(),
        [] => "no".to_owned(),
        set => set.join(","),
    }
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

/// How much of a device both nodes have, of a hundred.
pub fn percent_in_sync(device: &DeviceStatus) -> f64 {
    let size_kib = device.size_sectors / 2;
    if size_kib == 0 {
        return 0.0;
    }
    100.0 * (1.0 - device.counters.out_of_sync_kib as f64 / size_kib as f64)
}

pub(crate) fn yes_no(is_set: bool) -> &'static str {
    if is_set { "yes" } else { "no" }
}

/// The text of one resource, with an empty line after it.
pub fn status(resource: &ResourceStatus, style: Style) -> String {
    let mut out = Wrapped::new(style.columns);
    write_resource(&mut out, resource, style);
    let is_only_volume_0 = matches!(&resource.devices[..], [device] if device.volume == 0);
    for device in &resource.devices {
        write_device(&mut out, device, style, is_only_volume_0);
    }
    // Without a network configuration the original has no connection to tell of.
    if resource.connection != ConnectionState::StandAlone {
        write_connection(&mut out, resource, style, is_only_volume_0);
    }
    out.put(0, "\n");
    out.into_text()
}

fn write_resource(out: &mut Wrapped, resource: &ResourceStatus, style: Style) {
    out.put(0, &resource.name);
    out.put(4, &format!(" role:{}", style.colored(role_color(resource.role, true), resource.role)));
    let suspended = suspended(resource);
    if style.is_verbose || suspended != "no" {
        out.put(4, &format!(" suspended:{suspended}"));
    }
    if style.has_statistics && style.is_verbose {
        out.put(4, "\n");
        out.put(4, &format!(" write-ordering:{}", write_ordering(resource)));
    }
    out.put(0, "\n");
}

fn write_device(out: &mut Wrapped, device: &DeviceStatus, style: Style, is_only_volume_0: bool) {
    let mut indent = 2;
    if style.is_verbose || !is_only_volume_0 {
        out.put(indent, &format!("volume:{}", device.volume));
        indent = 6;
        if style.is_verbose {
            out.put(indent, &format!(" minor:{}", device.minor));
        }
    }
    out.put(indent, &format!(" disk:{}", style.colored(disk_color(device.disk, true), device.disk)));
    indent = 6;
    if style.has_statistics {
        out.put(indent, "\n");
        for (name, value) in device_statistics(device, style.is_verbose) {
            out.put(indent, &format!(" {name}:{value}"));
        }
    }
    if style.is_verbose || device.flags.io_suspended {
        out.put(indent, &format!(" blocked:{}", blocked(device)));
    }
    out.put(indent, "\n");
}

/// Who may not write: `upper` is the front.
pub fn blocked(device: &DeviceStatus) -> &'static str {
    if device.flags.io_suspended { "upper" } else { "no" }
}

/// `print_device_statistics`, without what is blocked.
pub fn device_statistics(device: &DeviceStatus, is_verbose: bool) -> Vec<(&'static str, String)> {
    let counters = &device.counters;
    let size = ("size", device.size_sectors / 2);
    let io = [("read", counters.disk_read_kib), ("written", counters.disk_written_kib)];
    let more = [
        ("al-writes", counters.al_writes),
        ("bm-writes", counters.bm_writes),
        ("upper-pending", counters.application_pending),
        ("lower-pending", counters.local_count),
    ];
    let text = |(name, value): (&'static str, u64)| (name, value.to_string());
    let mut all: Vec<_> = is_verbose.then_some(size).into_iter().chain(io).map(text).collect();
    if is_verbose {
        all.extend(more.map(text));
        all.push(("al-suspended", yes_no(device.flags.al_suspended).to_owned()));
    }
    all
}

/// `print_peer_device_statistics`.
pub fn peer_device_statistics(device: &DeviceStatus, is_verbose: bool) -> Vec<(&'static str, String)> {
    let counters = &device.counters;
    let mut all = vec![("received", counters.received_kib), ("sent", counters.sent_kib)];
    if is_verbose || counters.out_of_sync_kib > 0 {
        all.push(("out-of-sync", counters.out_of_sync_kib));
    }
    if is_verbose {
        all.extend([("pending", counters.pending), ("unacked", counters.unacked)]);
    }
    all.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

fn write_connection(out: &mut Wrapped, resource: &ResourceStatus, style: Style, is_only_volume_0: bool) {
    let is_connected = resource.connection.has_socket();
    out.put(2, "peer");
    if style.is_verbose || !is_connected {
        let color = connection_color(resource.connection);
        let state = style.colored(color, connection_9(resource.connection));
        out.put(6, &format!(" connection:{state}"));
    }
    if style.is_verbose || is_connected {
        let color = role_color(resource.peer_role, false);
        out.put(6, &format!(" role:{}", style.colored(color, resource.peer_role)));
    }
    if style.is_verbose {
        out.put(6, " congested:no");
    }
    out.put(0, "\n");
    if style.is_verbose || style.has_statistics || is_connected {
        for device in &resource.devices {
            write_peer_device(out, device, style, is_only_volume_0);
        }
    }
}

fn write_peer_device(out: &mut Wrapped, device: &DeviceStatus, style: Style, is_only_volume_0: bool) {
    let mut indent = 4;
    if style.is_verbose || !is_only_volume_0 {
        out.put(indent, &format!("volume:{}", device.volume));
        indent = 8;
    }
    let is_replicating = device.connection.is_connected();
    if style.is_verbose || is_replicating {
        let color = replication_color(device.connection);
        let state = style.colored(color, replication_9(device.connection));
        out.put(indent, &format!(" replication:{state}"));
        indent = 8;
    }
    if style.is_verbose || style.has_statistics || is_replicating || device.peer_disk != DiskState::DUnknown {
        let color = disk_color(device.peer_disk, false);
        out.put(indent, &format!(" peer-disk:{}", style.colored(color, device.peer_disk)));
        indent = 8;
        // A verify is one, too, in the original.
        if (ConnectionState::SyncSource..=ConnectionState::PausedSyncT).contains(&device.connection) {
            out.put(indent, &format!(" done:{:.2}", percent_in_sync(device)));
        }
        let why = resync_suspended(device);
        if style.is_verbose || why.is_some() {
            out.put(indent, &format!(" resync-suspended:{}", why.as_deref().unwrap_or("no")));
        }
        if style.has_statistics {
            out.put(indent, "\n");
            for (name, value) in peer_device_statistics(device, style.is_verbose) {
                out.put(indent, &format!(" {name}:{value}"));
            }
        }
    }
    out.put(0, "\n");
}

/// The colours of drbdsetup; what is ours is bold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shade {
    /// It will not stay so.
    Transitional,
    Normal,
    Primary,
    Good,
    Bad,
}

impl Style {
    fn colored(self, (shade, is_ours): (Shade, bool), state: impl std::fmt::Display) -> String {
        let code = match (shade, is_ours) {
            (Shade::Transitional, true) => "1",
            (Shade::Primary, true) => "1;36",
            (Shade::Good, true) => "1;32",
            (Shade::Bad, true) => "1;31",
            (Shade::Primary, false) => "36",
            (Shade::Good, false) => "32",
            (Shade::Bad, false) => "31",
            (Shade::Transitional, false) | (Shade::Normal, _) => "",
        };
        if self.has_color && !code.is_empty() {
            format!("\x1b[{code}m{state}\x1b[0m")
        } else {
            state.to_string()
        }
    }
}

fn role_color(role: Role, is_ours: bool) -> (Shade, bool) {
    let shade = match role {
        Role::Primary => Shade::Primary,
        Role::Secondary => Shade::Normal,
        _ => Shade::Transitional,
    };
    (shade, is_ours)
}

fn disk_color(disk: DiskState, is_ours: bool) -> (Shade, bool) {
    let shade = match disk {
        DiskState::Diskless | DiskState::Inconsistent | DiskState::Outdated => Shade::Bad,
        DiskState::UpToDate => Shade::Good,
        _ => Shade::Transitional,
    };
    (shade, is_ours)
}

fn connection_color(state: ConnectionState) -> (Shade, bool) {
    let shade = match state {
        ConnectionState::StandAlone | ConnectionState::WFConnection => Shade::Bad,
        state if state.has_socket() => Shade::Normal,
        _ => Shade::Transitional,
    };
    (shade, true)
}

fn replication_color(state: ConnectionState) -> (Shade, bool) {
    use ConnectionState as C;
    let shade = match state {
        C::SyncSource | C::SyncTarget | C::PausedSyncT => Shade::Bad,
        C::Connected | C::VerifyS | C::VerifyT | C::PausedSyncS | C::Ahead => Shade::Normal,
        _ => Shade::Transitional,
    };
    (shade, matches!(state, C::SyncTarget | C::PausedSyncT | C::Behind))
}
