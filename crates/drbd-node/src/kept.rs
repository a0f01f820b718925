//! What the holder keeps for the next worker: configurations, and descriptors of fronts.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use drbd_engine::admin::{
    Command, Configuration, ConfiguredConnection, ConfiguredDisk, ConfiguredMinor, ResourceOptions,
};
use front::holder::{Holder, Kept};
use serde::{Deserialize, Serialize};

use crate::links::Links;

/// Format of [`KeptResource`].
const VERSION: u32 = 1;

/// The way to the holder; without one nothing is kept.
#[derive(Debug)]
pub struct Keeper {
    holder: Mutex<Option<Holder>>,
}

/// A resource as the administrator has ordered it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KeptResource {
    /// Always "lockstep drbd resource".
    pub magic: String,
    /// Format.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Its options.
    #[serde(default)]
    pub options: ResourceOptions,
    /// Minors, their volumes and disks (an `Attach`, if attached).
    pub minors: BTreeMap<u32, (u16, Option<Command>)>,
    /// Minors that are named as their resource.
    #[serde(default)]
    pub implicit: BTreeSet<u32>,
    /// A `Connect`, if connected.
    pub connect: Option<Command>,
    /// Its role.
    pub primary: bool,
}

const MAGIC: &str = "lockstep drbd resource";

impl KeptResource {
    /// A resource without anything.
    pub fn new(name: &str) -> Self {
        Self {
            magic: MAGIC.to_owned(),
            version: VERSION,
            name: name.to_owned(),
            options: ResourceOptions::default(),
            minors: BTreeMap::new(),
            implicit: BTreeSet::new(),
            connect: None,
            primary: false,
        }
    }

    /// The same for the tools.
    pub fn configuration(&self) -> Configuration {
        let disk = |attach: &Command| match attach {
            Command::Attach { disk, meta_disk, meta_index, options, .. } => Some(ConfiguredDisk {
                disk: disk.clone(),
                meta_disk: meta_disk.clone(),
                meta_index: *meta_index,
                options: options.clone(),
            }),
            _ => None,
        };
        let minors = self.minors.iter().map(|(&minor, (volume, attach))| ConfiguredMinor {
            minor,
            volume: *volume,
            disk: attach.as_ref().and_then(disk),
        });
        let connection = match &self.connect {
            Some(Command::Connect { local, peer, options, .. }) => {
                Some(ConfiguredConnection { local: *local, peer: *peer, options: options.clone() })
            }
            _ => None,
        };
        Configuration {
            name: self.name.clone(),
            options: self.options.clone(),
            minors: minors.collect(),
            connection,
        }
    }

    /// The names of a minor's device below /dev/drbd.
    pub fn links(&self, minor: u32) -> Links {
        let (volume, disk) = match self.minors.get(&minor) {
            Some((volume, Some(Command::Attach { disk, .. }))) => (*volume, Some(disk.as_path())),
            Some((volume, _)) => (*volume, None),
            None => (0, None),
        };
        let volume = (!self.implicit.contains(&minor)).then_some(volume);
        Links::new(Path::new("/dev/drbd"), &self.name, volume, disk)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if kept.magic != MAGIC || kept.version != VERSION {
            return Err(format!("`{}` version {} is not known here", kept.magic, kept.version));
        }
        Ok(kept)
    }
}

/// Descriptors of one minor's fronts, each with what its owner must know of it.
#[derive(Debug)]
pub struct KeptFronts {
    /// The FUSE session.
    pub fuse: (Vec<u8>, OwnedFd),
    /// The loop device.
    pub device: (Vec<u8>, OwnedFd),
    /// The listening NBD socket.
    pub nbd: Option<(Vec<u8>, OwnedFd)>,
}

/// All that was kept.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// By name.
    pub resources: Vec<KeptResource>,
    /// By minor.
    pub fronts: BTreeMap<u32, KeptFronts>,
    /// The listening control socket.
    pub control: Option<OwnedFd>,
}

impl Keeper {
    /// To this holder.
    pub fn new(holder: Option<Holder>) -> Self {
        Self { holder: Mutex::new(holder) }
    }

    fn with(&self, act: impl FnOnce(&mut Holder) -> std::io::Result<()>) {
        let mut holder = self.holder.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(holder) = holder.as_mut()
            && let Err(error) = act(holder)
        {
            tracing::error!(%error, "the holder does not keep what it should: a restart of the daemon will miss it");
        }
    }

    /// Keeps data and descriptors under a name.
    pub fn store(&self, name: &str, data: &[u8], fds: &[BorrowedFd<'_>]) {
        self.with(|holder| holder.store(name, data, fds));
    }

    /// Keeps them no longer.
    pub fn forget(&self, name: &str) {
        self.with(|holder| holder.forget(name));
    }

    /// Keeps a resource's configuration.
    pub fn store_resource(&self, resource: &KeptResource) {
        match serde_json::to_vec(resource) {
            Ok(bytes) => self.store(&format!("resource/{}", resource.name), &bytes, &[]),
            Err(error) => tracing::error!(%error, "a configuration cannot be written"),
        }
    }

    /// What a former worker has left.
    pub fn inherit(&self) -> Inheritance {
        let mut all = Vec::new();
        self.with(|holder| {
            all = holder.restore()?;
            Ok(())
        });
        let mut inheritance = Inheritance::default();
        let mut parts: BTreeMap<u32, BTreeMap<String, (Vec<u8>, OwnedFd)>> = BTreeMap::new();
        for Kept { name, data, mut fds } in all {
            match name.split_once('/') {
                Some(("resource", _)) => match KeptResource::decode(&data) {
                    Ok(resource) => inheritance.resources.push(resource),
                    Err(why) => tracing::error!(name, why, "a kept configuration is lost"),
                },
                Some((kind, minor)) => {
                    if let (Ok(minor), Some(fd)) = (minor.parse(), fds.pop()) {
                        parts.entry(minor).or_default().insert(kind.to_owned(), (data, fd));
                    }
                }
                None if name == "control" => inheritance.control = fds.pop(),
                None => {}
            }
        }
        for (minor, mut kinds) in parts {
            if let (Some(fuse), Some(device)) = (kinds.remove("fuse"), kinds.remove("loop")) {
                inheritance.fronts.insert(minor, KeptFronts { fuse, device, nbd: kinds.remove("nbd") });
            }
        }
        inheritance
    }
}
