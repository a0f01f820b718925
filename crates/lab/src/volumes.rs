//! `nova volume-*`.

use uuid::Uuid;

use crate::disk;
use crate::error::{Doing, Error, Result};
use crate::life::{Disk, Life};
use crate::loopdev::LoopDevice;
use crate::place::Lab;
use crate::state::{Attachment, Records, Volume, VolumeKind};
use crate::store;

/// What a file on ext4 with blocks of 4 KiB can hold, less a margin.
const SIZE_GIB_MAX: u64 = 16_000;

const NAME_CHARS_MAX: usize = 255;

/// Makes a volume.
///
/// # Errors
/// A size that is none, a name that is taken, or the system's refusal.
pub fn create(lab: &Lab, name: &str, kind: VolumeKind, size: &str) -> Result<Volume> {
    let refused = |mistake: String| Err(Error::refused(format!("volume-create: {mistake}")));
    let Ok(size_gib) = size.parse::<u64>() else {
        return refused(format!("size {size:?} is no number of GB"));
    };
    if !(1..=SIZE_GIB_MAX).contains(&size_gib) {
        return refused(format!("a size of {size_gib} GB; sizes are 1 to {SIZE_GIB_MAX}"));
    }
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return refused(format!("display name {name:?}: use up to {NAME_CHARS_MAX} printable characters"));
    }
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    if let Some(same) = records.volumes.iter().find(|volume| !name.is_empty() && volume.name == name) {
        return refused(format!("volume {name} exists already, with id {}", same.id));
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
    disk::create(lab, id, size_gib)?;
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
    records.volumes.retain(|other| other.id != volume.id);
    records.save(lab, &lock)?;
    store::close(lab, volume.id)?;
    disk::remove(lab, volume.id)
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
        let _ = disk::unbind(volume.id);
        return Err(error);
    }
    Ok((server.id, volume))
}

/// Takes a volume from a server.
///
/// # Errors
/// Unknown ids, not attached there, or in use.
pub fn detach(lab: &Lab, server: &str, volume: &str) -> Result<()> {
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
        if let Some(holder) = disk::holder(&life, &disk) {
            return Err(Error::refused(format!(
                "volume-detach: volume {} is in use on server {} as /dev/{}: {holder}",
                volume.called(),
                server.name,
                disk.device
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
    disk::unbind(volume.id)?;
    if let Some(record) = records.volumes.iter_mut().find(|record| record.id == volume.id) {
        record.attachment = None;
    }
    records.save(lab, &lock)
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
