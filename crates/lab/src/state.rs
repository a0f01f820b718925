//! A lab's records: networks, volumes and servers as they were asked for, whether or not they run.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::{Uuid, uuid};

use crate::error::{Error, Result};
use crate::fault::record::Faults;
use crate::place::{Lab, LabLock, read_json, write_json};
use crate::volume_fault::{self, VolumeFault};

const MAGIC: &str = "lockstep-lab";
const VERSION: u32 = 2;

/// Id of the network `public`, the one that it had in the tutorial's cloud.
pub const PUBLIC: Uuid = Uuid::nil();

/// Id of the network `private`, the tutorial's "service net", as in that cloud.
pub const SERVICE: Uuid = uuid!("11111111-1111-1111-1111-111111111111");

/// Whose a network is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// The cloud's, to the world: every server's eth0 unless it was left out.
    Public,
    /// The cloud's own between its servers: every server's eth1 unless it was left out.
    Service,
    /// A user's.
    Tenant,
}

impl NetworkKind {
    /// What the network of this id is.
    pub fn of(id: Uuid) -> Self {
        match id {
            PUBLIC => Self::Public,
            SERVICE => Self::Service,
            _ => Self::Tenant,
        }
    }
}

/// A layer-2 segment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Network {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub label: String,
    /// Addresses that servers on it get.
    pub cidr: Ipv4Net,
    /// IPv6 addresses that they get beside those; none if the network has only IPv4.
    pub cidr_v6: Option<Ipv6Net>,
}

/// How a volume's bytes are kept, and what a power cut does to them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// Served by the lab's store; what reached the store survives a power cut.
    #[value(name = "SATA", alias = "sata")]
    Sata,
    /// The same as SATA; a name that the tutorial uses.
    #[value(name = "SSD", alias = "ssd")]
    Ssd,
    /// A plain loop device on the file, for speed.
    Raw,
    /// Served by the store; a power cut also loses a seeded choice of the writes that no flush followed.
    Volatile,
}

impl VolumeKind {
    /// The word that users type and read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sata => "SATA",
            Self::Ssd => "SSD",
            Self::Raw => "raw",
            Self::Volatile => "volatile",
        }
    }
}

/// Where a volume is plugged in.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Attachment {
    /// The server that has it.
    pub server: Uuid,
    /// Name below /dev, such as `xvdb`.
    pub device: String,
}

/// A disk that servers can have, one at a time.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Volume {
    /// Its id.
    pub id: Uuid,
    /// Display name; may be empty.
    pub name: String,
    /// Size in GiB.
    pub size_gib: u64,
    /// How its bytes are kept.
    pub kind: VolumeKind,
    /// Chooses what a `volatile` volume loses.
    pub seed: u64,
    /// The server that has it, if one has.
    pub attachment: Option<Attachment>,
    /// What is wrong with it (`lockstep lab fault volume`).
    pub faults: Vec<VolumeFault>,
    /// How often it was pulled out under power: what still holds an earlier plug must not reach it any more.
    pub plug: u32,
}

impl Volume {
    /// Whether requests to it may wait for ever.
    pub fn hangs(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind == volume_fault::Kind::Hang)
    }

    /// Display name, or the id of a volume that has none.
    pub fn called(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }
}

/// A copy of a volume's bytes as they were at one instant.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Snapshot {
    /// Its id.
    pub id: Uuid,
    /// Display name; may be empty.
    pub name: String,
    /// The volume that it was made of.
    pub volume: Uuid,
    /// Size of that in GiB.
    pub size_gib: u64,
}

impl Snapshot {
    /// Display name, or the id of one that has none.
    pub fn called(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }
}

/// A server's interface; the first of a server is its eth0.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Nic {
    /// The network it is plugged into.
    pub network: Uuid,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, if the network has a prefix.
    pub address_v6: Option<Ipv6Addr>,
    /// Whether its cable was pulled (`lockstep lab fault link-down`).
    pub unplugged: bool,
}

/// A file that `boot --file` brought; the bytes wait in the server's directory until its first life.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Injected {
    /// Absolute path in the server.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

/// What a server's process 1 is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// The system's own systemd.
    Systemd,
    /// Reaps, and ends everything in order; starts nothing.
    Tiny,
}

/// A server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Server {
    /// Its id.
    pub id: Uuid,
    /// Display name and host name.
    pub name: String,
    /// Id of an image in [`crate::catalog::IMAGES`].
    pub image: Uuid,
    /// Id of a flavor in [`crate::catalog::FLAVORS`].
    pub flavor: u32,
    /// What its process 1 is.
    pub init: Init,
    /// Interfaces, eth0 first.
    pub nics: Vec<Nic>,
    /// Whether its public interface is as fast as this machine (`boot --no-limits`), not as its flavor says.
    pub no_limits: bool,
    /// Files to write in its first life, in order; file `n` lies in `inject/n`.
    pub inject: Vec<Injected>,
}

impl Server {
    /// The address that its own name stands for inside: on a user's network if it is on one, since clusters find
    /// each other by names.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        let tenants = self.nics.iter().find(|nic| NetworkKind::of(nic.network) == NetworkKind::Tenant);
        tenants.or(self.nics.first()).map(|nic| nic.address)
    }
}

/// Everything a lab was asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Records {
    magic: String,
    version: u32,
    /// Networks, oldest first.
    pub networks: Vec<Network>,
    /// Volumes, oldest first.
    pub volumes: Vec<Volume>,
    /// Snapshots of volumes, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Servers, oldest first.
    pub servers: Vec<Server>,
    /// What was broken and lasts (`lockstep lab fault`).
    pub faults: Faults,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            magic: MAGIC.to_owned(),
            version: VERSION,
            networks: Vec::new(),
            volumes: Vec::new(),
            snapshots: Vec::new(),
            servers: Vec::new(),
            faults: Faults::default(),
        }
    }
}

impl Records {
    /// The lab's records as they are; a lab that was never used has none.
    ///
    /// # Errors
    /// Records that cannot be read, or of a version that is not ours.
    pub fn load(lab: &Lab) -> Result<Self> {
        let path = lab.state_dir().join("lab.json");
        let Some(bytes) = read_json::<Value>(&path)? else { return Ok(Self::default()) };
        // Fields of another version are not ours to judge.
        let (magic, version) = (&bytes["magic"], &bytes["version"]);
        if magic != MAGIC || version != VERSION {
            return Err(Error::refused(format!(
                "{}: {magic} version {version}, this program reads {MAGIC:?} version {VERSION}; `lockstep lab --lab {} \
                 down` removes the lab",
                path.display(),
                lab.name()
            )));
        }
        let records = serde_json::from_value(bytes).map_err(|error| {
            Error::refused(format!("{}: not a file of this lab: {error}", path.display()))
        })?;
        Ok(records)
    }

    /// Replaces the lab's records; the lock shows that nobody else does.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn save(&self, lab: &Lab, _lock: &LabLock) -> Result<()> {
        write_json(&lab.state_dir().join("lab.json"), self)
    }

    /// What kind of thing an id or name belongs to, for messages: `f91f… is the id of server drbd0`.
    fn other_kind(&self, wanted: &str, not: &str) -> Option<String> {
        let things = (self.servers.iter().map(|s| ("server", s.id, s.name.clone())))
            .chain(self.volumes.iter().map(|v| ("volume", v.id, v.called())))
            .chain(self.snapshots.iter().map(|s| ("snapshot", s.id, s.called())))
            .chain(self.networks.iter().map(|n| ("network", n.id, n.label.clone())));
        things.filter(|(kind, ..)| *kind != not).find_map(|(kind, id, name)| {
            if id.to_string() == wanted {
                Some(format!("{wanted} is the id of {kind} {name}, not of a {not}"))
            } else if name == wanted {
                Some(format!("{wanted} is the name of a {kind}, not of a {not}"))
            } else {
                None
            }
        })
    }

    fn unknown(&self, verb: &str, wanted: &str, kind: &str, known: Vec<String>) -> Error {
        let mistake = self
            .other_kind(wanted, kind)
            .unwrap_or_else(|| format!("no {kind} has the id or name {wanted:?}"));
        let known = if known.is_empty() {
            format!("there are no {kind}s")
        } else {
            format!("{kind}s: {}", known.join(", "))
        };
        Error::refused(format!("{verb}: {mistake}; {known}"))
    }

    /// The server that a user means by id or name; `verb` names the command in the message.
    ///
    /// # Errors
    /// No such server; says what the word names instead, if anything.
    pub fn server(&self, verb: &str, wanted: &str) -> Result<&Server> {
        self.servers.iter().find(|s| s.id.to_string() == wanted || s.name == wanted).ok_or_else(|| {
            let known = self.servers.iter().map(|s| format!("{} ({})", s.id, s.name)).collect();
            self.unknown(verb, wanted, "server", known)
        })
    }

    /// The volume that a user means by id or display name.
    ///
    /// # Errors
    /// No such volume; says what the word names instead, if anything.
    pub fn volume(&self, verb: &str, wanted: &str) -> Result<&Volume> {
        let named = |v: &&Volume| v.id.to_string() == wanted || (!v.name.is_empty() && v.name == wanted);
        self.volumes.iter().find(named).ok_or_else(|| {
            let known = self.volumes.iter().map(|v| format!("{} ({})", v.id, v.name)).collect();
            self.unknown(verb, wanted, "volume", known)
        })
    }

    /// The snapshot that a user means by id or display name.
    ///
    /// # Errors
    /// No such snapshot; says what the word names instead, if anything.
    pub fn snapshot(&self, verb: &str, wanted: &str) -> Result<&Snapshot> {
        let named = |s: &&Snapshot| s.id.to_string() == wanted || (!s.name.is_empty() && s.name == wanted);
        self.snapshots.iter().find(named).ok_or_else(|| {
            let known = self.snapshots.iter().map(|s| format!("{} ({})", s.id, s.name)).collect();
            self.unknown(verb, wanted, "snapshot", known)
        })
    }

    /// The network that a user means by id or label.
    ///
    /// # Errors
    /// No such network; says what the word names instead, if anything.
    pub fn network(&self, verb: &str, wanted: &str) -> Result<&Network> {
        self.networks.iter().find(|n| n.id.to_string() == wanted || n.label == wanted).ok_or_else(|| {
            let known = self.networks.iter().map(|n| format!("{} ({})", n.id, n.label)).collect();
            self.unknown(verb, wanted, "network", known)
        })
    }

    /// The volumes that a server has, with their device names.
    pub fn volumes_of(&self, server: Uuid) -> impl Iterator<Item = (&Volume, &str)> {
        self.volumes.iter().filter_map(move |volume| {
            let attachment = volume.attachment.as_ref().filter(|a| a.server == server)?;
            Some((volume, attachment.device.as_str()))
        })
    }

    /// The network of this id, which a record refers to.
    pub fn network_by_id(&self, id: Uuid) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == id)
    }

    /// The server of this id, to be changed.
    pub fn server_mut(&mut self, id: Uuid) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.id == id)
    }

    /// The server of this id, which a record refers to.
    pub fn server_by_id(&self, id: Uuid) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }
}
