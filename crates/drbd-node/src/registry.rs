//! The daemon's resources, and what the tools' commands do to them.

mod removal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drbd_engine::admin::{
    Command, Configuration, DiskOptions, NetOptions, Refusal, ResourceOptions, Response, SizeWish,
};
use drbd_engine::event::Order;
use drbd_engine::status::ResourceStatus;
use drbd_format::meta::MetaFlags;
use drbd_format::names::{DiskState, Role};

use crate::backing;
use crate::fronts::{Fronts, StillOpen};
use crate::kept::{Inheritance, Keeper, KeptFronts, KeptResource};
use crate::worker::{self, Handle, OpenDisk, Outcome, Worker};

/// `enum drbd_ret_code`, as far as the daemon itself refuses.
mod code {
    pub const DEVICE_IN_USE: i32 = -12;
    pub const DISK_CONFIGURED: i32 = 124;
    pub const MINOR_INVALID: i32 = 127;
    pub const INTERRUPTED: i32 = 129;
    pub const RESOURCE_NOT_KNOWN: i32 = 158;
    pub const MINOR_CONFIGURED: i32 = 160;
    pub const MINOR_OR_VOLUME_EXISTS: i32 = 161;
    pub const INVALID_REQUEST: i32 = 162;
    pub const NET_CONFIGURED: i32 = 125;
    pub const OPEN_DISK: i32 = 104;
    pub const RESOURCE_IN_USE: i32 = 159;
}

fn refused(code: i32, detail: impl std::fmt::Display) -> Refusal {
    Refusal { code, detail: detail.to_string() }
}

struct Configured {
    kept: KeptResource,
    fronts: BTreeMap<u32, Fronts>,
    /// Minors whose meta-data said, when they were attached, that this node was Primary without a peer.
    degraded: BTreeSet<u32>,
}

#[derive(Clone)]
struct Entry {
    worker: Handle,
    configured: Arc<Mutex<Configured>>,
}

/// All resources of this server.
pub struct Registry {
    run: PathBuf,
    keeper: Keeper,
    resources: Mutex<BTreeMap<String, Entry>>,
    /// Resource and volume of each minor; apart from the resources, so that none waits for another's command.
    minors: Mutex<BTreeMap<u32, (String, u16)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// No resource; fronts and sockets are made below `run`.
    pub fn new(run: PathBuf, keeper: Keeper) -> Self {
        Self { run, keeper, resources: Mutex::default(), minors: Mutex::default() }
    }

    /// Executes a command of the tools.
    pub fn command(&self, command: Command) -> Response {
        let outcome = match command {
            Command::Status { resource: None } => return Response::Status(self.status()),
            Command::Status { resource: Some(name) } => {
                let mut all = self.status();
                all.retain(|r| r.name == name);
                return match all.is_empty() {
                    true => Response::Refused(refused(code::RESOURCE_NOT_KNOWN, "unknown resource")),
                    false => Response::Status(all),
                };
            }
            Command::Show { resource } => {
                return Response::Configuration(self.configurations(resource.as_deref()));
            }
            Command::NewResource { resource, options } => self.new_resource(&resource, options),
            Command::ResourceOptions { resource, options } => self.resource_options(&resource, options),
            Command::NewMinor { resource, minor, volume, is_implicit } => {
                self.new_minor(&resource, minor, volume, is_implicit)
            }
            Command::Attach { minor, .. } => self.attach(minor, command),
            Command::Detach { minor, force } => self.detach(minor, force),
            Command::DiskOptions { minor, options } => self.disk_options(minor, options),
            Command::Connect { ref resource, .. } => self.connect(&resource.clone(), command),
            Command::NetOptions { resource, options } => self.net_options(&resource, options),
            Command::Disconnect { resource, force } => self.disconnect(&resource, force),
            Command::Primary { resource, force } => self.primary(&resource, force),
            Command::Secondary { resource } => self.secondary(&resource),
            Command::PauseSync { minor } => {
                self.order_of_minor(minor, |volume| Order::PauseSync { volume, paused: true })
            }
            Command::ResumeSync { minor } => {
                self.order_of_minor(minor, |volume| Order::PauseSync { volume, paused: false })
            }
            Command::SuspendIo { minor } => self.order_of_minor(minor, |_| Order::SuspendIo),
            Command::ResumeIo { minor } => self.order_of_minor(minor, |volume| Order::ResumeIo { volume }),
            Command::Outdate { minor } => self.order_of_minor(minor, |volume| Order::Outdate { volume }),
            Command::Invalidate { minor } => {
                self.order_of_minor(minor, |volume| Order::Invalidate { volume })
            }
            Command::InvalidateRemote { minor } => {
                self.order_of_minor(minor, |volume| Order::InvalidateRemote { volume })
            }
            Command::Verify { minor, start_sector, stop_sector } => {
                self.order_of_minor(minor, |volume| Order::Verify { volume, start_sector, stop_sector })
            }
            Command::Resize { minor, wish } => self.resize(minor, wish),
            Command::NewCurrentUuid { minor, clear_bitmap } => {
                self.order_of_minor(minor, |volume| Order::NewCurrentUuid { volume, clear_bitmap })
            }
            Command::DelMinor { minor } => self.del_minor(minor),
            Command::DelResource { resource } => self.del_resource(&resource),
            Command::Down { resource } => self.down(&resource),
            Command::Upgrade => self.upgrade(),
            Command::Shutdown => self.shutdown(),
        };
        match outcome {
            Ok(warnings) => Response::Done { warnings },
            Err(refusal) => Response::Refused(refusal),
        }
    }

    /// The state of everything, sorted by name.
    pub fn status(&self) -> Vec<ResourceStatus> {
        let entries: Vec<Entry> = lock(&self.resources).values().cloned().collect();
        entries
            .into_iter()
            .filter_map(|entry| {
                let mut status = entry.worker.ask(worker::Command::Status)?;
                // A command under way holds the configuration: then the paths are left out.
                if let Ok(configured) = entry.configured.try_lock() {
                    for device in &mut status.devices {
                        device.was_degraded = configured.degraded.contains(&device.minor);
                        if let Some((_, Some(Command::Attach { disk, .. }))) =
                            configured.kept.minors.get(&device.minor)
                        {
                            device.backing = disk.display().to_string();
                        }
                    }
                }
                Some(status)
            })
            .collect()
    }

    /// What is configured, sorted by name.
    fn configurations(&self, resource: Option<&str>) -> Vec<Configuration> {
        let entries = lock(&self.resources).clone();
        let named = entries.into_iter().filter(|(name, _)| resource.is_none_or(|wanted| wanted == name));
        named.map(|(_, entry)| lock(&entry.configured).kept.configuration()).collect()
    }

    fn disk_options(&self, minor: u32, options: DiskOptions) -> Outcome {
        let (entry, volume) = self.of_minor(minor)?;
        let mut configured = lock(&entry.configured);
        let change = Order::DiskOptions { volume, options: options.clone() };
        let outcome = order(&entry.worker, change, None)?;
        if let Some((_, Some(Command::Attach { options: kept, .. }))) = configured.kept.minors.get_mut(&minor)
        {
            *kept = options;
        }
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn resize(&self, minor: u32, wish: SizeWish) -> Outcome {
        let (entry, volume) = self.of_minor(minor)?;
        let mut configured = lock(&entry.configured);
        let outcome = order(&entry.worker, Order::Resize { volume, wish }, None)?;
        if let Some((_, Some(Command::Attach { options, .. }))) = configured.kept.minors.get_mut(&minor) {
            options.size_sectors = wish.size_sectors;
        }
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn net_options(&self, resource: &str, options: NetOptions) -> Outcome {
        let entry = self.of(resource)?;
        let mut configured = lock(&entry.configured);
        let outcome = order(&entry.worker, Order::NetOptions(options.clone()), None)?;
        if let Some(Command::Connect { options: kept, .. }) = &mut configured.kept.connect {
            *kept = options;
        }
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    /// Whether a resource is configured.
    pub fn is_empty(&self) -> bool {
        lock(&self.resources).is_empty()
    }

    fn of(&self, resource: &str) -> Result<Entry, Refusal> {
        lock(&self.resources)
            .get(resource)
            .cloned()
            .ok_or_else(|| refused(code::RESOURCE_NOT_KNOWN, "unknown resource"))
    }

    fn of_minor(&self, minor: u32) -> Result<(Entry, u16), Refusal> {
        let (resource, volume) = lock(&self.minors)
            .get(&minor)
            .cloned()
            .ok_or_else(|| refused(code::MINOR_INVALID, "unknown minor"))?;
        Ok((self.of(&resource)?, volume))
    }

    fn order_of_minor(&self, minor: u32, what: impl FnOnce(u16) -> Order) -> Outcome {
        let (entry, volume) = self.of_minor(minor)?;
        order(&entry.worker, what(volume), None)
    }

    fn resource_options(&self, resource: &str, options: ResourceOptions) -> Outcome {
        let entry = self.of(resource)?;
        let mut configured = lock(&entry.configured);
        let outcome = order(&entry.worker, Order::ResourceOptions(options.clone()), None)?;
        configured.kept.options = options;
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn new_resource(&self, name: &str, options: ResourceOptions) -> Outcome {
        // `drbd_check_resource_name`; and it becomes part of a path.
        if name.is_empty() || name.contains('/') || [".", ".."].contains(&name) {
            return Err(refused(code::INVALID_REQUEST, "invalid resource name"));
        }
        let mut resources = lock(&self.resources);
        if resources.contains_key(name) {
            return Ok(Vec::new());
        }
        let worker = Worker::spawn(name).map_err(|error| refused(code::INTERRUPTED, error))?;
        order(&worker, Order::ResourceOptions(options.clone()), None)?;
        let kept = KeptResource { options, ..KeptResource::new(name) };
        self.keeper.store_resource(&kept);
        let configured =
            Arc::new(Mutex::new(Configured { kept, fronts: BTreeMap::new(), degraded: BTreeSet::new() }));
        resources.insert(name.to_owned(), Entry { worker, configured });
        Ok(Vec::new())
    }

    fn new_minor(&self, resource: &str, minor: u32, volume: u16, is_implicit: bool) -> Outcome {
        let entry = self.of(resource)?;
        let taken = lock(&self.minors).get(&minor).cloned();
        match taken {
            Some((owner, owned)) if owner == resource && owned == volume => return Ok(Vec::new()),
            Some((owner, _)) => {
                let is_ours = owner == resource;
                let other = if is_ours { "as different volume" } else { "in different resource" };
                return Err(refused(code::INVALID_REQUEST, format_args!("minor exists {other}")));
            }
            None => {}
        }
        let mut configured = lock(&entry.configured);
        let added = entry.worker.ask(|reply| worker::Command::AddVolume { volume, minor, reply });
        if added != Some(true) {
            return Err(refused(code::MINOR_OR_VOLUME_EXISTS, ""));
        }
        lock(&self.minors).insert(minor, (resource.to_owned(), volume));
        configured.kept.minors.insert(minor, (volume, None));
        if is_implicit {
            configured.kept.implicit.insert(minor);
        }
        self.keeper.store_resource(&configured.kept);
        Ok(Vec::new())
    }

    fn attach(&self, minor: u32, command: Command) -> Outcome {
        let (entry, volume) = self.of_minor(minor)?;
        let mut configured = lock(&entry.configured);
        let Command::Attach { disk, meta_disk, meta_index, options, .. } = &command else {
            return Ok(Vec::new());
        };
        if configured.kept.minors.get(&minor).is_some_and(|(_, attached)| attached.is_some())
            && has_disk(&entry.worker, volume)
        {
            return Err(refused(code::DISK_CONFIGURED, ""));
        }
        let (open, found) = backing::open_disk(disk, meta_disk, *meta_index)?;
        let flags = found.superblock.flags;
        let attach = Order::Attach { volume, disk: Box::new(found), options: options.clone() };
        let outcome = order(&entry.worker, attach, Some((volume, open)))?;
        if flags.has(MetaFlags::PRIMARY_IND) && !flags.has(MetaFlags::CONNECTED_IND) {
            configured.degraded.insert(minor);
        } else {
            configured.degraded.remove(&minor);
        }
        configured.kept.minors.insert(minor, (volume, Some(command)));
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn detach(&self, minor: u32, force: bool) -> Outcome {
        let (entry, volume) = self.of_minor(minor)?;
        let mut configured = lock(&entry.configured);
        let detach = if force { Order::ForceDetach { volume } } else { Order::Detach { volume } };
        let outcome = order(&entry.worker, detach, None)?;
        configured.kept.minors.insert(minor, (volume, None));
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn connect(&self, resource: &str, command: Command) -> Outcome {
        let entry = self.of(resource)?;
        let mut configured = lock(&entry.configured);
        let Command::Connect { local, peer, ref options, discard_my_data, .. } = command else {
            return Ok(Vec::new());
        };
        let connect = Order::Connect { local, peer, options: options.clone(), discard_my_data };
        let outcome = order(&entry.worker, connect, None)?;
        let again = Command::Connect {
            resource: resource.to_owned(),
            local,
            peer,
            options: options.clone(),
            discard_my_data: false,
        };
        configured.kept.connect = Some(again);
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn disconnect(&self, resource: &str, force: bool) -> Outcome {
        let entry = self.of(resource)?;
        let mut configured = lock(&entry.configured);
        let outcome = order(&entry.worker, Order::Disconnect { force }, None)?;
        configured.kept.connect = None;
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn primary(&self, resource: &str, force: bool) -> Outcome {
        let entry = self.of(resource)?;
        let mut configured = lock(&entry.configured);
        let outcome = order(&entry.worker, Order::Primary { force }, None)?;
        if let Err(error) = self.open_fronts(&entry.worker, &mut configured) {
            self.close_fronts(&entry.worker, &mut configured).map_err(drop).ok();
            let _ = order(&entry.worker, Order::Secondary, None);
            return Err(refused(code::OPEN_DISK, error));
        }
        configured.kept.primary = true;
        self.keeper.store_resource(&configured.kept);
        Ok(outcome)
    }

    fn open_fronts(&self, worker: &Handle, configured: &mut Configured) -> Result<(), String> {
        let Some(status) = worker.ask(worker::Command::Status) else {
            return Err("the resource's thread has ended".to_owned());
        };
        for device in status.devices {
            if configured.fronts.contains_key(&device.minor) || device.size_sectors == 0 {
                continue;
            }
            let bytes = device.size_sectors * units::SECTOR_BYTES;
            let fronts = Fronts::open(
                &self.run,
                device.minor,
                device.volume,
                bytes,
                configured.kept.links(device.minor),
                worker,
                &self.keeper,
            )
            .map_err(|error| format!("/dev/drbd{}: {error}", device.minor))?;
            configured.fronts.insert(device.minor, fronts);
        }
        Ok(())
    }

    fn close_fronts(&self, worker: &Handle, configured: &mut Configured) -> Result<(), Refusal> {
        for (minor, fronts) in std::mem::take(&mut configured.fronts) {
            let kept = match fronts.close(worker, &self.keeper) {
                Ok(()) => continue,
                Err(StillOpen::InUse(fronts)) => {
                    (fronts, refused(code::DEVICE_IN_USE, format_args!("/dev/drbd{minor}")))
                }
                Err(StillOpen::Failed(fronts, why)) => {
                    (fronts, refused(code::DEVICE_IN_USE, format_args!("/dev/drbd{minor}: {why}")))
                }
            };
            configured.fronts.insert(minor, *kept.0);
            // Those that were closed before come back: nothing has changed.
            if let Err(error) = self.open_fronts(worker, configured) {
                tracing::error!(error, "a device that was closed for a demotion does not come back");
            }
            return Err(kept.1);
        }
        Ok(())
    }

    fn secondary(&self, resource: &str) -> Outcome {
        let entry = self.of(resource)?;
        let mut configured = lock(&entry.configured);
        self.demote(&entry.worker, &mut configured)
    }

    fn demote(&self, worker: &Handle, configured: &mut Configured) -> Outcome {
        self.close_fronts(worker, configured)?;
        match order(worker, Order::Secondary, None) {
            Ok(warnings) => {
                configured.kept.primary = false;
                self.keeper.store_resource(&configured.kept);
                Ok(warnings)
            }
            Err(refusal) => {
                if let Err(error) = self.open_fronts(worker, configured) {
                    tracing::error!(error, "a device that was closed for a demotion does not come back");
                }
                Err(refusal)
            }
        }
    }

    fn shutdown(&self) -> Outcome {
        if self.is_empty() {
            Ok(Vec::new())
        } else {
            Err(refused(code::RESOURCE_IN_USE, "resources are configured: `drbdadm down all` first"))
        }
    }

    /// Brings every resource down; what is in use stays, and is named.
    pub fn down_all(&self) -> Result<(), String> {
        let names: Vec<String> = lock(&self.resources).keys().cloned().collect();
        let stay: Vec<String> = names
            .into_iter()
            .filter_map(|name| self.down(&name).err().map(|r| format!("{name} ({})", r.detail)))
            .collect();
        if stay.is_empty() { Ok(()) } else { Err(stay.join(", ")) }
    }

    /// Lets everything under way end, and gives way to a new worker under the fronts.
    fn upgrade(&self) -> Outcome {
        let entries: Vec<Entry> = lock(&self.resources).values().cloned().collect();
        for entry in &entries {
            entry.worker.drain();
        }
        Ok(Vec::new())
    }

    /// Sets up what a worker that is gone has left with the holder.
    pub fn take_over(&self, inheritance: Inheritance) {
        let Inheritance { resources, mut fronts, .. } = inheritance;
        for kept in resources {
            tracing::info!(resource = kept.name, "taking over");
            if let Err(refusal) = self.take_over_one(&kept, &mut fronts) {
                tracing::error!(resource = kept.name, ?refusal, "not everything could be taken over");
            }
        }
    }

    fn take_over_one(
        &self,
        kept: &KeptResource,
        fronts: &mut BTreeMap<u32, KeptFronts>,
    ) -> Result<(), Refusal> {
        self.new_resource(&kept.name, kept.options.clone())?;
        for (&minor, (volume, attach)) in &kept.minors {
            self.new_minor(&kept.name, minor, *volume, kept.implicit.contains(&minor))?;
            if let Some(attach) = attach {
                self.attach_when_free(minor, attach)?;
            }
        }
        let entry = self.of(&kept.name)?;
        if kept.primary {
            // With current data here the role is ours at once; otherwise the peer's data are needed first.
            // Who fences would fence a peer that was not even asked yet.
            let fences = kept.minors.values().any(
                |(_, attach)| matches!(attach, Some(Command::Attach { options, .. }) if options.fencing != 0),
            );
            let promoted = match fences && kept.connect.is_some() {
                true => Err(refused(code::INTERRUPTED, "")),
                false => order(&entry.worker, Order::Primary { force: false }, None),
            };
            if let Some(connect) = &kept.connect {
                self.connect(&kept.name, connect.clone())?;
            }
            if promoted.is_err() {
                self.promote_in_time(&entry.worker)?;
            }
            let mut configured = lock(&entry.configured);
            configured.kept.primary = true;
            self.keeper.store_resource(&configured.kept);
            for (&minor, (volume, _)) in &kept.minors {
                let Some(kept_fronts) = fronts.remove(&minor) else { continue };
                let links = configured.kept.links(minor);
                match Fronts::resume(&self.run, minor, *volume, kept_fronts, links, &entry.worker) {
                    Ok(resumed) => {
                        configured.fronts.insert(minor, resumed);
                    }
                    Err(error) => tracing::error!(minor, %error, "a front is lost"),
                }
            }
            self.open_fronts(&entry.worker, &mut configured).map_err(|error| refused(code::OPEN_DISK, error))
        } else if let Some(connect) = &kept.connect {
            self.connect(&kept.name, connect.clone()).map(drop)
        } else {
            Ok(())
        }
    }

    /// Operations of the worker that is gone may still hold the device for a moment.
    fn attach_when_free(&self, minor: u32, attach: &Command) -> Result<(), Refusal> {
        let mut tries = 0;
        loop {
            match self.attach(minor, attach.clone()) {
                Err(refusal) if matches!(refusal.code, 114 | 115) && tries < 100 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(50));
                }
                other => return other.map(drop),
            }
        }
    }

    fn promote_in_time(&self, worker: &Handle) -> Result<(), Refusal> {
        let mut last = Ok(Vec::new());
        for _ in 0..600 {
            last = order(worker, Order::Primary { force: false }, None);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        last.map(drop)
    }
}

fn has_disk(worker: &Handle, volume: u16) -> bool {
    worker.ask(worker::Command::Status).is_some_and(|status| {
        status.role != Role::Unknown
            && status.devices.iter().any(|d| d.volume == volume && d.disk != DiskState::Diskless)
    })
}

fn order(worker: &Handle, order: Order, disk: Option<(u16, OpenDisk)>) -> Outcome {
    worker
        .ask(|reply| worker::Command::Order { order, disk, reply })
        .unwrap_or_else(|| Err(refused(code::INTERRUPTED, "the resource's thread has ended")))
}
