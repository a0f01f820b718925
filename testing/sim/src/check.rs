//! What must hold. Each check says in its name what failed.

use drbd_engine::status::{DeviceStatus, ResourceStatus};
use drbd_format::names::{ConnectionState as C, DiskState as D, Role};

use crate::image::Sector;
use crate::model::Model;
use crate::node::Node;
use crate::stamp;

/// What is wrong.
pub type Fault = (&'static str, String);

/// A read returned what the front may see: these stamps, none where a sector is a mixture.
pub fn read_is_permitted(
    model: &Model,
    since: u64,
    first_sector: u64,
    stamps: impl Iterator<Item = Option<u64>>,
) -> Result<(), Fault> {
    for (sector, found) in (first_sector..).zip(stamps) {
        if found.is_none_or(|found| !model.permits(sector, since, found)) {
            let found = found.map_or_else(|| "a mixture".to_owned(), |s| format!("stamp {s}"));
            let permitted: Vec<u64> = model.permitted(sector, since).map(|w| w.stamp).collect();
            return Err((
                "read_is_permitted",
                format!("sector {sector} holds {found}, permitted are {permitted:?}"),
            ));
        }
    }
    Ok(())
}

/// The stamps of bytes that were read.
pub fn stamps(bytes: &[u8], first_sector: u64) -> impl Iterator<Item = Option<u64>> {
    (first_sector..).zip(bytes.as_chunks().0).map(|(sector, content)| stamp::of(content, sector))
}

fn data(node: &Node) -> &[Sector] {
    &node.disk.sectors()[..node.size_sectors as usize]
}

/// The disk of a node holds every promise.
pub fn disk_holds_promises(model: &mut Model, node: &Node, who: usize) -> Result<(), Fault> {
    let now = model.now();
    read_is_permitted(model, now, 0, data(node).iter().map(Sector::stamp))
        .map_err(|(_, why)| ("disk_holds_promises", format!("node {who}: {why}")))
}

/// Two disks that say they are equal are.
pub fn disks_are_identical(a: &Node, b: &Node) -> Result<(), Fault> {
    if a.size_sectors != b.size_sectors {
        return Err(("disks_are_identical", format!("sizes {} and {}", a.size_sectors, b.size_sectors)));
    }
    let (a, b) = (data(a), data(b));
    if a == b {
        return Ok(());
    }
    let differing = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
    let differing: Vec<String> =
        differing.take(8).map(|(s, (a, b))| format!("{s}: {:?}/{:?}", a.stamp(), b.stamp())).collect();
    Err(("disks_are_identical", format!("sectors differ: {}", differing.join(", "))))
}

/// Nothing is left over when nothing is under way.
pub fn nothing_is_kept_when_idle(node: &Node, who: usize) -> Result<(), Fault> {
    let Some(shell) = &node.shell else { return Ok(()) };
    if shell.kept() != 0 {
        return Err(("nothing_is_kept_when_idle", format!("node {who} keeps {} payloads", shell.kept())));
    }
    if let Some(what) = shell.engine.leftovers() {
        return Err(("nothing_is_kept_when_idle", format!("node {who}: {what}")));
    }
    Ok(())
}

/// Never two primaries in one connection.
pub fn one_primary(a: &Node, b: &Node) -> Result<(), Fault> {
    let in_connection = |n: &Node| n.is_primary() && n.connection() >= C::Connected;
    if in_connection(a) && in_connection(b) {
        return Err(("one_primary", "both are primary, and connected".to_owned()));
    }
    Ok(())
}

/// The states are such that DRBD allows together.
pub fn state_is_legal(status: &ResourceStatus) -> Result<(), Fault> {
    let wrong = |why: &str, d: &DeviceStatus| {
        let text = format!(
            "{why}: cs:{} ro:{}/{} ds:{}/{}",
            d.connection, status.role, status.peer_role, d.disk, d.peer_disk
        );
        Err(("state_is_legal", text))
    };
    for d in &status.devices {
        let connected = d.connection >= C::Connected;
        if !connected && status.peer_role != Role::Unknown {
            return wrong("an unconnected peer has no role", d);
        }
        if !connected && !(D::Inconsistent..=D::DUnknown).contains(&d.peer_disk) {
            return wrong("an unconnected peer's disk is unknown or known to be old", d);
        }
        if connected && d.peer_disk == D::DUnknown {
            return wrong("a connected peer's disk is known", d);
        }
        let prepares = d.connection >= C::WFBitMapT || d.connection == C::StartingSyncT;
        if connected && matches!(d.disk, D::Outdated | D::Consistent) && !prepares {
            return wrong("Outdated and Consistent end with the connection", d);
        }
        let (source, target) = ((D::UpToDate, D::Inconsistent), (D::Inconsistent, D::UpToDate));
        let expected = match d.connection {
            C::SyncSource | C::PausedSyncS => Some(source),
            C::SyncTarget => Some(target),
            _ => None,
        };
        if expected.is_some_and(|expected| expected != (d.disk, d.peer_disk)) {
            return wrong("a resync goes from UpToDate to Inconsistent", d);
        }
    }
    Ok(())
}
