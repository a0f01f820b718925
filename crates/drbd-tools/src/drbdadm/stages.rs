//! `up` and `adjust`: which calls bring a resource to what the configuration says, in the original's order.
//!
//! Upstream: `adm_up`, and `adm_adjust` with `compare_volumes`; `enum drbd_cfg_stage`.

use std::path::Path;

use drbd_engine::admin::{Configuration, ConfiguredConnection, ConfiguredMinor};
use drbd_engine::status::ResourceStatus;
use drbd_format::names::{ConnectionState, DiskState};

use super::Selected;
use super::plan::{Plan, attach_steps};
use super::step::{Step, VolumeRef};
use crate::drbd_conf::effective;

/// The calls for all resources: the first stage of each, then the second of each, and so on.
#[derive(Debug, Default)]
pub struct Stages<'c> {
    /// Make resources and, for `up`, minors; for `adjust`, let go what is not in the configuration.
    pub prerequisites: Vec<Step<'c>>,
    /// Options of resources.
    pub resource: Vec<Step<'c>>,
    /// For `adjust`, make minors.
    pub disk_prerequisites: Vec<Step<'c>>,
    /// Attach.
    pub disk: Vec<Step<'c>>,
    /// Leave a peer that has another address now.
    pub net_prerequisites: Vec<Step<'c>>,
    /// Connect.
    pub net: Vec<Step<'c>>,
}

impl<'c> Stages<'c> {
    /// Each with its name in `adjust-with-progress`, and whether a failure of it spares the resource the rest.
    pub fn in_order(self) -> [(&'static str, bool, Vec<Step<'c>>); 6] {
        [
            ("create res", true, self.prerequisites),
            ("adjust res", false, self.resource),
            ("prepare disk", true, self.disk_prerequisites),
            ("adjust disk", false, self.disk),
            ("prepare net", false, self.net_prerequisites),
            ("adjust net", false, self.net),
        ]
    }

    /// Without what changes disks.
    pub fn skip_disk(&mut self) {
        self.disk_prerequisites.clear();
        self.disk.clear();
        self.prerequisites.retain(|step| !matches!(step, Step::Gone(..)));
    }

    /// Without what changes connections.
    pub fn skip_net(&mut self) {
        self.net_prerequisites.clear();
        self.net.clear();
    }

    /// Adds the calls of `up` for one resource, of which `present` is there already and stays.
    pub fn up(
        &mut self,
        plan: &Plan<'c>,
        selected: Selected<'c>,
        present: Option<&ResourceStatus>,
    ) -> Result<(), u8> {
        if present.is_none() {
            self.prerequisites.push(Step::NewResource(selected.resource));
        }
        for of in plan.volumes(selected) {
            let device = present.and_then(|p| p.devices.iter().find(|d| d.volume == of.volume.number));
            if device.is_none() {
                self.prerequisites.push(Step::NewMinor(of));
            }
            if device.is_none_or(|device| device.disk == DiskState::Diskless) {
                self.disk.extend(attach_steps(of));
            }
        }
        if present.is_none_or(|p| p.connection == ConnectionState::StandAlone) {
            self.net.push(Step::Connect(plan.ends(selected.resource)?, plan.discard_my_data));
        }
        Ok(())
    }

    /// Adds the calls of `adjust` for one resource that is configured as `running` says, if at all: the differences.
    pub fn adjust(
        &mut self,
        plan: &Plan<'c>,
        selected: Selected<'c>,
        running: Option<&Configuration>,
    ) -> Result<(), u8> {
        let resource = selected.resource;
        let Some(running) = running else {
            self.prerequisites.push(Step::NewResource(resource));
            for of in plan.volumes(selected) {
                self.add_volume(of);
            }
            self.net.push(Step::Connect(plan.ends(resource)?, plan.discard_my_data));
            return Ok(());
        };
        if running.options != effective::resource_options(&resource.sections.options) {
            self.resource.push(Step::ResourceOptions(resource));
        }
        let volumes = plan.volumes(selected);
        for minor in &running.minors {
            let has_place =
                volumes.iter().any(|v| v.minor() == minor.minor && v.volume.number == minor.volume);
            if !has_place {
                self.remove_minor(selected, minor);
            }
        }
        for of in volumes {
            let found = running.minors.iter().find(|m| m.minor == of.minor() && m.volume == of.volume.number);
            match found {
                None => self.add_volume(of),
                Some(minor) => self.adjust_disk(of, minor),
            }
        }
        self.adjust_connection(plan, selected, running.connection.as_ref())
    }

    fn add_volume(&mut self, of: VolumeRef<'c>) {
        self.disk_prerequisites.push(Step::NewMinor(of));
        self.disk.extend(attach_steps(of));
    }

    fn remove_minor(&mut self, selected: Selected<'c>, minor: &ConfiguredMinor) {
        if minor.disk.is_some() {
            self.prerequisites.push(Step::Gone(selected.resource, minor.minor, "detach"));
        }
        self.prerequisites.push(Step::Gone(selected.resource, minor.minor, "del-minor"));
    }

    /// What brings a minor in use into line.
    fn adjust_disk(&mut self, of: VolumeRef<'c>, running: &ConfiguredMinor) {
        let Some(present) = &running.disk else { return self.disk.extend(attach_steps(of)) };
        let is_another = of.volume.is_diskless()
            || present.disk != Path::new(of.disk())
            || present.meta_disk != Path::new(of.meta_disk())
            || present.meta_index != effective::meta_index(of.volume.meta_disk.as_ref());
        if is_another {
            self.prerequisites.push(Step::Detach(of, false));
            self.disk.extend(attach_steps(of));
        } else if present.options != effective::disk_options(&of.volume.disk_options) {
            self.disk.push(Step::DiskOptions(of));
        }
    }

    fn adjust_connection(
        &mut self,
        plan: &Plan<'c>,
        selected: Selected<'c>,
        running: Option<&ConfiguredConnection>,
    ) -> Result<(), u8> {
        let ends = plan.ends(selected.resource)?;
        let Some(running) = running else {
            self.net.push(Step::Connect(ends, plan.discard_my_data));
            return Ok(());
        };
        let addresses = [ends.us, ends.peer].map(|host| host.address.as_ref().map(|a| a.to_socket_addr()));
        if addresses != [Some(running.local), Some(running.peer)] {
            self.net_prerequisites.push(Step::Leave(selected.resource, [running.local, running.peer]));
            self.net.push(Step::Connect(ends, plan.discard_my_data));
        } else if running.options != effective::net_options(&selected.resource.sections.net, plan.node) {
            self.net.push(Step::NetOptions(ends));
        }
        Ok(())
    }
}
