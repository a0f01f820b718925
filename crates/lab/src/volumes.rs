//! `nova volume-*`.

use uuid::Uuid;

use crate::copying;
use crate::disk;
use crate::error::{Doing, Error, Result};
use crate::life::{Disk, Life};
use crate::loopdev::LoopDevice;
use crate::place::{Lab, LabLock};
use crate::state::{Attachment, Records, Snapshot, Volume, VolumeKind};
use crate::store;

/// What a file on ext4 with blocks of 4 KiB can hold, less a margin.
const SIZE_GIB_MAX: u64 = 16_000;

const NAME_CHARS_MAX: usize = 255;

fn size_gib(verb: &str, size: &str) -> Result<u64> {
    let refused = |mistake: String| Err(Error::refused(format!("{verb}: {mistake}")));
    let Ok(size_gib) = size.parse::<u64>() else {
        return refused(format!("size {size:?} is no number of GB"));
    };
    if !(1..=SIZE_GIB_MAX).contains(&size_gib) {
        return refused(format!("a size of {size_gib} GB; sizes are 1 to {SIZE_GIB_MAX}"));
    }
    Ok(size_gib)
}

/// Refuses what could not be shown as a name.
///
/// # Errors
/// Says what would be right.
pub fn display_name(verb: &str, name: &str) -> Result<()> {
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Error::refused(format!(
            "{verb}: display name {name:?}: use up to {NAME_CHARS_MAX} printable characters"
        )));
    }
    Ok(())
}

/// Makes a volume, empty or with a snapshot's bytes.
///
/// # Errors
/// A size that is none or less than the snapshot's, a name that is taken, no such snapshot, or the system's refusal.
pub fn create(lab: &Lab, name: &str, kind: VolumeKind, size: &str, snapshot: Option<&str>) -> Result<Volume> {
    let refused = |mistake: String| Err(Error::refused(format!("volume-create: {mistake}")));
    let size_gib = size_gib("volume-create", size)?;
    display_name("volume-create", name)?;
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    if let Some(same) = records.volumes.iter().find(|volume| !name.is_empty() && volume.name == name) {
        return refused(format!("volume {name} exists already, with id {}", same.id));
    }
    let snapshot = snapshot
        .map(|wanted| records.snapshot("volume-create: --snapshot-id", wanted).cloned())
        .transpose()?;
    if let Some(snapshot) = snapshot.as_ref().filter(|snapshot| snapshot.size_gib > size_gib) {
        return refused(format!(
            "snapshot {} has {} GB, which a volume of {size_gib} GB cannot hold",
            snapshot.called(),
            snapshot.size_gib
        ));
    }
    let id = Uuid::new_v4();
    let seed = id.as_u64_pair().0;
    let volume = Volume {
        id,
        name: name.to_owned(),
        size_gib,
        kind,
        seed,
        attachment: None,
        faults: Vec::new(),
        plug: 0,
    };
    match snapshot {
        None => disk::create(lab, id, size_gib)?,
        Some(snapshot) => {
            copying::copy(&lab.snapshot_file(snapshot.id), &lab.volume_file(id))?;
            if let Err(error) = disk::extend(lab, &volume, size_gib) {
                // The first error is what counts.
                let _ = disk::remove(lab, id);
                return Err(error);
            }
        }
    }
    records.volumes.push(volume.clone());
    records.save(lab, &lock)?;
    Ok(volume)
}

/// Removes a volume that no server has.
///
/// # Errors
/// No such volume, or it is attached.
pub fn delete(lab: &Lab, wanted: &str) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let volume = records.volume("volume-delete", wanted)?.clone();
    if let Some(attachment) = &volume.attachment {
        return Err(Error::refused(format!(
            "volume-delete: volume {} is attached to server {} as /dev/{}; detach it first",
            volume.called(),
            server_name(&records, attachment),
            attachment.device
        )));
    }
    let snapshots: Vec<String> = (records.snapshots.iter())
        .filter(|snapshot| snapshot.volume == volume.id)
        .map(Snapshot::called)
        .collect();
    if !snapshots.is_empty() {
        return Err(Error::refused(format!(
            "volume-delete: volume {} has snapshots ({}); delete them first",
            volume.called(),
            snapshots.join(", ")
        )));
    }
    records.volumes.retain(|other| other.id != volume.id);
    records.save(lab, &lock)?;
    store::close(lab, volume.id)?;
    disk::remove(lab, volume.id)
}

/// Gives a volume more room, attached or not; a server that runs sees it at once. Partitions stay as they are.
///
/// # Errors
/// No such volume, no larger size, or the system's refusal.
pub fn extend(lab: &Lab, wanted: &str, size: &str) -> Result<()> {
    let size_gib = size_gib("volume-extend", size)?;
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let volume = records.volume("volume-extend", wanted)?.clone();
    if size_gib <= volume.size_gib {
        return Err(Error::refused(format!(
            "volume-extend: volume {} has {} GB; the new size must be more, {size_gib} GB is not",
            volume.called(),
            volume.size_gib
        )));
    }
    disk::extend(lab, &volume, size_gib)?;
    if let Some(record) = records.volumes.iter_mut().find(|record| record.id == volume.id) {
        record.size_gib = size_gib;
    }
    records.save(lab, &lock)
}

fn server_name(records: &Records, attachment: &Attachment) -> String {
    records.server_by_id(attachment.server).map_or_else(|| attachment.server.to_string(), |s| s.name.clone())
}

/// The name below /dev that a user wrote; `xvda` would be the server's own root disk.
fn device_name(wanted: &str) -> Result<String> {
    let name = wanted.strip_prefix("/dev/").unwrap_or_default();
    let letter = ["xvd", "sd", "vd"].iter().find_map(|prefix| name.strip_prefix(prefix));
    match letter.map(str::as_bytes) {
        Some([b'b'..=b'z']) => Ok(name.to_owned()),
        Some([b'a']) => Err(Error::refused(format!(
            "volume-attach: {wanted} is the server's own root disk; use /dev/xvdb to /dev/xvdz, or auto"
        ))),
        _ => Err(Error::refused(format!(
            "volume-attach: {wanted:?} is no device name; use /dev/xvdb to /dev/xvdz, or auto"
        ))),
    }
}

/// Attaches a volume to a server, running or not, and gives the device name.
///
/// # Errors
/// Unknown ids, a device that is taken, a volume that is attached already, or the system's refusal.
pub fn attach(lab: &Lab, server: &str, volume: &str, device: &str) -> Result<(Uuid, Volume)> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let server = records.server("volume-attach", server)?.clone();
    let mut volume = records.volume("volume-attach", volume)?.clone();
    if let Some(attachment) = &volume.attachment {
        return Err(Error::refused(format!(
            "volume-attach: volume {} is attached to server {} as /dev/{} already",
            volume.called(),
            server_name(&records, attachment),
            attachment.device
        )));
    }
    let taken = |name: &str| records.volumes_of(server.id).find(|(_, d)| *d == name).map(|(v, _)| v.called());
    let device = if device == "auto" {
        let free = (b'b'..=b'z').map(|letter| format!("xvd{}", letter as char)).find(|n| taken(n).is_none());
        free.ok_or_else(|| Error::refused("volume-attach: no free device from /dev/xvdb to /dev/xvdz"))?
    } else {
        device_name(device)?
    };
    if let Some(other) = taken(&device) {
        return Err(Error::refused(format!(
            "volume-attach: /dev/{device} of server {} is taken by volume {other}",
            server.name
        )));
    }
    let attachment = Attachment { server: server.id, device: device.clone() };
    volume.attachment = Some(attachment.clone());
    if let Some(record) = records.volumes.iter_mut().find(|record| record.id == volume.id) {
        record.attachment = Some(attachment);
    }
    let Some(life) = Life::running(lab, server.id)? else {
        records.save(lab, &lock)?;
        return Ok((server.id, volume));
    };
    store::ensure(lab, &lock)?;
    let loop_device = disk::bind(lab, &volume)?;
    let mut with = life.clone();
    with.disks.push(Disk { volume: volume.id, device, loop_index: loop_device.0 });
    let plugged = with.save(lab, server.id, &lock).and_then(|()| store::refresh(lab));
    if let Err(error) = plugged.and_then(|()| records.save(lab, &lock)) {
        // As it was before; what cannot be undone now is undone when the server goes off.
        life.save(lab, server.id, &lock)?;
        let _ = store::refresh(lab);
        let _ = disk::unbind(&volume);
        return Err(error);
    }
    Ok((server.id, volume))
}

/// Takes a volume from a server; `force` as if its cable were pulled under power.
///
/// # Errors
/// Unknown ids, not attached there, or in use: with `force` only of type raw.
pub fn detach(lab: &Lab, server: &str, volume: &str, force: bool) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let server = records.server("volume-detach", server)?.clone();
    let volume = records.volume("volume-detach", volume)?.clone();
    match &volume.attachment {
        Some(attachment) if attachment.server == server.id => {}
        other => {
            let place = other.as_ref().map_or("not attached".to_owned(), |attachment| {
                format!("attached to server {}", server_name(&records, attachment))
            });
            return Err(Error::refused(format!(
                "volume-detach: volume {} is {place}, not to server {}",
                volume.called(),
                server.name
            )));
        }
    }
    if let Some(mut life) = Life::running(lab, server.id)?
        && let Some(index) = life.disks.iter().position(|disk| disk.volume == volume.id)
    {
        let disk = life.disks[index].clone();
        let holder = disk::holder(&life, &disk);
        if force && volume.kind != VolumeKind::Raw {
            return pull(lab, &lock, &mut records, life, &volume);
        }
        if let Some(holder) = holder {
            let what_helps = match volume.kind {
                VolumeKind::Raw if force => "; of type raw, it cannot be pulled out",
                _ => "",
            };
            return Err(Error::refused(format!(
                "volume-detach: volume {} is in use on server {} as /dev/{}: {holder}{what_helps}",
                volume.called(),
                server.name,
                disk.device
            )));
        }
        if volume.hangs() {
            return Err(Error::refused(format!(
                "volume-detach: volume {} hangs, so that what was written last could not be kept; heal it, or use \
                 --force",
                volume.called()
            )));
        }
        // What was written through the node and not yet flushed is the volume's.
        LoopDevice(disk.loop_index)
            .open(true)
            .and_then(|node| node.sync_all())
            .doing(|| format!("flush /dev/{}", disk.device))?;
        life.disks.remove(index);
        life.save(lab, server.id, &lock)?;
        store::refresh(lab)?;
    }
    disk::unbind(&volume)?;
    if let Some(record) = records.volumes.iter_mut().find(|record| record.id == volume.id) {
        record.attachment = None;
    }
    records.save(lab, &lock)
}

/// Pulls a volume out of a running server. Whoever holds it there gets errors; what he had not flushed may be lost, as
/// in a power cut. From the next plug on nothing of this one reaches the volume.
fn pull(lab: &Lab, lock: &LabLock, records: &mut Records, mut life: Life, volume: &Volume) -> Result<()> {
    let Some(attachment) = volume.attachment.clone() else { return Ok(()) };
    store::cut(lab, volume.id)?;
    life.disks.retain(|disk| disk.volume != volume.id);
    life.save(lab, attachment.server, lock)?;
    if let Some(record) = records.volumes.iter_mut().find(|record| record.id == volume.id) {
        record.attachment = None;
        record.plug += 1;
    }
    records.save(lab, lock)?;
    store::refresh(lab)?;
    disk::abandon(volume)
}

#[cfg(test)]
mod tests {
    use super::device_name;

    #[test]
    fn device_names() {
        assert_eq!(device_name("/dev/xvdf").expect("the tutorial's"), "xvdf");
        for wrong in ["xvdb", "/dev/xvda", "/dev/xvdb1", "/dev/../xvdb", "/dev/devicename", "/dev/", ""] {
            assert!(device_name(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
