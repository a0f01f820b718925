//! `nova volume-snapshot-*`: copies of volumes.
//!
//! A snapshot holds what was written up to one instant, flushed or not, as a storage system's does: what a server's
//! kernel had not written yet is not in it. While an attached volume is copied its writes wait; where the host's file
//! system shares blocks that takes no time.

use std::fs;
use std::io;

use uuid::Uuid;

use crate::copying;
use crate::error::{Doing, Error, Result};
use crate::place::Lab;
use crate::state::{Records, Snapshot, VolumeKind};
use crate::store;
use crate::volumes;

/// Makes a snapshot. The lab's lock is held meanwhile.
///
/// # Errors
/// An attached volume without `force`, or of type raw; a name that is taken; the system's refusal.
pub fn create(lab: &Lab, wanted: &str, name: &str, force: bool) -> Result<Snapshot> {
    let refused = |mistake: String| Err(Error::refused(format!("volume-snapshot-create: {mistake}")));
    volumes::display_name("volume-snapshot-create", name)?;
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let volume = records.volume("volume-snapshot-create", wanted)?.clone();
    if let Some(same) = records.snapshots.iter().find(|other| !name.is_empty() && other.name == name) {
        return refused(format!("snapshot {name} exists already, with id {}", same.id));
    }
    if volume.attachment.is_some() && !force {
        return refused(format!(
            "volume {} is attached; --force True makes a snapshot as a power cut of a disk that keeps everything would \
             leave it",
            volume.called()
        ));
    }
    if volume.attachment.is_some() && volume.kind == VolumeKind::Raw {
        return refused(format!(
            "volume {} is of type raw and attached: nobody can let its writes wait; detach it first",
            volume.called()
        ));
    }
    let (id, size_gib) = (Uuid::new_v4(), volume.size_gib);
    let snapshot = Snapshot { id, name: name.to_owned(), volume: volume.id, size_gib };
    store::freeze(lab, volume.id)?;
    let copied = copying::copy(&lab.volume_file(volume.id), &lab.snapshot_file(id));
    store::thaw(lab, volume.id)?;
    copied?;
    records.snapshots.push(snapshot.clone());
    records.save(lab, &lock)?;
    Ok(snapshot)
}

/// Removes a snapshot. Volumes made of it are their own.
///
/// # Errors
/// No such snapshot, or the system's refusal.
pub fn delete(lab: &Lab, wanted: &str) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let id = records.snapshot("volume-snapshot-delete", wanted)?.id;
    records.snapshots.retain(|other| other.id != id);
    records.save(lab, &lock)?;
    let path = lab.snapshot_file(id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.doing(|| format!("remove {}", path.display())),
    }
}
