//! How resources and their minors go: `down` at once, `del-minor` and `del-resource` in parts.

use drbd_engine::event::Order;
use drbd_format::names::ConnectionState;

use super::{Registry, code, lock, order, refused};
use crate::worker::{self, Outcome};

impl Registry {
    pub(super) fn down(&self, resource: &str) -> Outcome {
        let entry = self.of(resource)?;
        {
            let mut configured = lock(&entry.configured);
            self.demote(&entry.worker, &mut configured)?;
            order(&entry.worker, Order::Disconnect { force: false }, None)
                .or_else(|_| order(&entry.worker, Order::Disconnect { force: true }, None))?;
            let volumes: Vec<u16> = configured.kept.minors.values().map(|(volume, _)| *volume).collect();
            for volume in volumes {
                order(&entry.worker, Order::Detach { volume }, None)?;
            }
        }
        self.forget(resource);
        // Only when its thread has ended are the disks closed.
        entry.worker.stop();
        Ok(Vec::new())
    }

    /// `adm_del_minor`: a minor of a connected resource may go, one with a disk or a Primary's may not.
    pub(super) fn del_minor(&self, minor: u32) -> Outcome {
        let (entry, volume) = self.of_minor(minor)?;
        let mut configured = lock(&entry.configured);
        if entry.worker.ask(|reply| worker::Command::RemoveVolume { volume, reply }) != Some(true) {
            return Err(refused(code::MINOR_CONFIGURED, ""));
        }
        lock(&self.minors).remove(&minor);
        configured.kept.minors.remove(&minor);
        configured.kept.implicit.remove(&minor);
        configured.degraded.remove(&minor);
        self.keeper.store_resource(&configured.kept);
        Ok(Vec::new())
    }

    /// `adm_del_resource`.
    pub(super) fn del_resource(&self, resource: &str) -> Outcome {
        let entry = self.of(resource)?;
        let status = entry.worker.ask(worker::Command::Status);
        if status.is_some_and(|status| status.connection > ConnectionState::StandAlone) {
            return Err(refused(code::NET_CONFIGURED, ""));
        }
        if !lock(&entry.configured).kept.minors.is_empty() {
            return Err(refused(code::RESOURCE_IN_USE, ""));
        }
        self.forget(resource);
        entry.worker.stop();
        Ok(Vec::new())
    }

    fn forget(&self, resource: &str) {
        self.keeper.forget(&format!("resource/{resource}"));
        lock(&self.minors).retain(|_, (owner, _)| owner != resource);
        lock(&self.resources).remove(resource);
    }
}
