//! One call of drbdsetup or drbdmeta, as the original would make it: its words, and what it is about.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::setup_option::{SetupOption, shown_value};
use crate::drbd_conf::effective;
use crate::drbd_conf::model::{Host, MetaDisk, Resource, Setting, Volume};
use drbd_format::meta::Placement;

/// `wait-connect` of a stacked resource without `connect-int`.
const STACKED_TIMEOUT_S: u32 = 20;

/// A volume of a resource on this host.
#[derive(Clone, Copy, Debug)]
pub struct VolumeRef<'c> {
    /// The resource.
    pub resource: &'c Resource,
    /// The volume in this host's section.
    pub volume: &'c Volume,
}

impl<'c> VolumeRef<'c> {
    /// Number of the device.
    pub fn minor(self) -> u32 {
        self.volume.minor.map_or(0, |(minor, _)| minor)
    }

    /// Path of the device.
    pub fn device(self) -> String {
        self.volume.device.as_ref().map_or_else(|| format!("/dev/drbd{}", self.minor()), |d| d.text.clone())
    }

    /// Lower-level device.
    pub fn disk(self) -> &'c str {
        self.volume.disk.as_ref().map_or("none", |disk| &disk.text)
    }

    /// Device of the meta-data.
    pub fn meta_disk(self) -> &'c str {
        match &self.volume.meta_disk {
            Some(MetaDisk::Flexible(device) | MetaDisk::Indexed(device, _)) => &device.text,
            Some(MetaDisk::Internal) | None => self.disk(),
        }
    }

    /// How long a stacked volume waits for its peer, which is far away and need not come: twice `connect-int`, unless
    /// `stacked-timeouts` says that the startup section is obeyed. None: as the startup section says.
    pub fn stacked_timeout_s(self) -> Option<u32> {
        let mut hosts = self.resource.hosts.iter();
        let host = hosts.find(|host| host.volumes.iter().any(|volume| std::ptr::eq(volume, self.volume)))?;
        if !host.is_stacked() || self.resource.sections.stacked_timeouts {
            return None;
        }
        let is_set = self.resource.sections.net.iter().any(|setting| setting.option.name == "connect-int");
        let connect_int_s = effective::net_options(&self.resource.sections.net, "").connect_int_s;
        Some(if is_set { 2 * connect_int_s } else { STACKED_TIMEOUT_S })
    }

    /// The `size` of the configuration: one setting, or none.
    pub fn configured_size(self) -> &'c [Setting] {
        let options = &self.volume.disk_options;
        let at = options.iter().rposition(|setting| setting.option.name == "size");
        at.map_or(&[], |at| &options[at..=at])
    }

    /// Where on it.
    pub fn placement(self) -> Placement {
        match &self.volume.meta_disk {
            Some(MetaDisk::Flexible(_)) => Placement::FlexExternal,
            Some(MetaDisk::Indexed(_, index)) => Placement::Indexed(*index),
            Some(MetaDisk::Internal) | None => Placement::Internal,
        }
    }

    /// Device of the data where the meta-data are on another.
    pub fn separate_data(self) -> Option<PathBuf> {
        (self.placement() != Placement::Internal && !self.volume.is_diskless())
            .then(|| PathBuf::from(self.disk()))
    }

    /// The index as drbdsetup and drbdmeta spell it.
    pub fn index_word(self, flexible: &str) -> String {
        match self.placement() {
            Placement::Internal => "internal".into(),
            Placement::FlexExternal => flexible.into(),
            Placement::Indexed(index) => index.to_string(),
        }
    }
}

/// Our end of a connection and the peer's.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'c> {
    /// The resource.
    pub resource: &'c Resource,
    /// This host's section.
    pub us: &'c Host,
    /// The peer's.
    pub peer: &'c Host,
}

impl Ends<'_> {
    fn words(&self) -> [String; 2] {
        [self.us, self.peer].map(|host| {
            host.address
                .as_ref()
                .map_or_else(String::new, |address| format!("{}:{address}", address.family()))
        })
    }
}

/// Where a verify begins and ends, as far as that is said.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// First sector.
    pub start_sector: Option<u64>,
    /// Sector before which it ends.
    pub stop_sector: Option<u64>,
}

/// One call.
#[derive(Clone, Debug)]
pub enum Step<'c> {
    /// `new-resource`.
    NewResource(&'c Resource),
    /// `new-minor`.
    NewMinor(VolumeRef<'c>),
    /// `attach`.
    Attach(VolumeRef<'c>),
    /// `disk-options`.
    DiskOptions(VolumeRef<'c>),
    /// `disk-options` of a command line.
    ChangeDisk(VolumeRef<'c>, &'c [SetupOption]),
    /// `net-options` of a command line.
    ChangeNet(Ends<'c>, &'c [SetupOption]),
    /// `resource-options` of a command line.
    ChangeResource(&'c Resource, &'c [SetupOption]),
    /// `connect`; with the second true, our data give way.
    Connect(Ends<'c>, bool),
    /// `resource-options`.
    ResourceOptions(&'c Resource),
    /// `detach` or `del-minor` of a minor of the resource that the configuration does not have.
    Gone(&'c Resource, u32, &'static str),
    /// `disconnect` from a peer that the configuration has elsewhere: our address and the peer's.
    Leave(&'c Resource, [SocketAddr; 2]),
    /// `net-options`.
    NetOptions(Ends<'c>),
    /// `disconnect`; with the second true, without asking the peer.
    Disconnect(Ends<'c>, bool),
    /// `detach`; with the second true, without asking.
    Detach(VolumeRef<'c>, bool),
    /// `primary`; with the second true, even without current data.
    Primary(VolumeRef<'c>, bool),
    /// `secondary`.
    Secondary(VolumeRef<'c>),
    /// `down`.
    Down(&'c Resource),
    /// `status`.
    Status(&'c Resource),
    /// `role`, `cstate`, `dstate`, `show-gi`, `get-gi` or `sh-status`.
    State(VolumeRef<'c>, &'static str),
    /// `pause-sync`, `resume-sync`, `invalidate` or `invalidate-remote`.
    Sync(VolumeRef<'c>, &'static str),
    /// `verify`.
    Verify(VolumeRef<'c>, Bounds),
    /// `resize`, with options of the command line.
    Resize(VolumeRef<'c>, &'c [SetupOption]),
    /// `check-resize`: `resize` of what is in use, else what drbdmeta does for it.
    CheckResize(VolumeRef<'c>, &'c [SetupOption]),
    /// `new-current-uuid`; with the second true, with `--clear-bitmap`.
    NewCurrentUuid(VolumeRef<'c>, bool),
    /// `wait-connect`.
    WaitConnect(VolumeRef<'c>),
    /// A call of drbdmeta; with the third true, `--force`.
    Meta(VolumeRef<'c>, &'static str, bool),
    /// `set-gi`, on the device itself.
    SetGi(VolumeRef<'c>, &'c str, bool),
}

impl<'c> Step<'c> {
    /// The resource that it is about or of which a volume is.
    pub fn resource(&self) -> &'c Resource {
        match self {
            Self::NewResource(resource)
            | Self::Down(resource)
            | Self::Status(resource)
            | Self::ResourceOptions(resource)
            | Self::Gone(resource, ..)
            | Self::Leave(resource, _)
            | Self::ChangeResource(resource, _) => resource,
            Self::Connect(ends, _)
            | Self::NetOptions(ends)
            | Self::ChangeNet(ends, _)
            | Self::Disconnect(ends, _) => ends.resource,
            Self::NewMinor(volume)
            | Self::Attach(volume)
            | Self::DiskOptions(volume)
            | Self::ChangeDisk(volume, _)
            | Self::Detach(volume, _)
            | Self::Primary(volume, _)
            | Self::Secondary(volume)
            | Self::State(volume, _)
            | Self::WaitConnect(volume)
            | Self::Sync(volume, _)
            | Self::NewCurrentUuid(volume, _)
            | Self::SetGi(volume, ..)
            | Self::Verify(volume, _)
            | Self::Resize(volume, _)
            | Self::CheckResize(volume, _)
            | Self::Meta(volume, ..) => volume.resource,
        }
    }

    /// What error messages call the object: a minor or the resource's name.
    pub fn object(&self) -> String {
        match self {
            Self::NewResource(resource)
            | Self::Down(resource)
            | Self::Status(resource)
            | Self::ResourceOptions(resource)
            | Self::Leave(resource, _)
            | Self::ChangeResource(resource, _) => resource.name.text.clone(),
            Self::Gone(_, minor, _) => minor.to_string(),
            Self::Connect(ends, _)
            | Self::NetOptions(ends)
            | Self::ChangeNet(ends, _)
            | Self::Disconnect(ends, _) => ends.resource.name.text.clone(),
            Self::NewMinor(volume)
            | Self::Attach(volume)
            | Self::DiskOptions(volume)
            | Self::ChangeDisk(volume, _)
            | Self::Detach(volume, _)
            | Self::Primary(volume, _)
            | Self::Secondary(volume)
            | Self::State(volume, _)
            | Self::WaitConnect(volume)
            | Self::Sync(volume, _)
            | Self::Verify(volume, _)
            | Self::NewCurrentUuid(volume, _)
            | Self::Resize(volume, _)
            | Self::CheckResize(volume, _)
            | Self::SetGi(volume, ..)
            | Self::Meta(volume, ..) => volume.minor().to_string(),
        }
    }

    /// What the call is, in a word.
    pub fn verb(&self) -> String {
        let line = self.line("", &|_| None);
        let at = if matches!(self, Self::Meta(..) | Self::SetGi(..)) { 5 } else { 1 };
        line.split(' ').nth(at).unwrap_or_default().to_owned()
    }

    /// The call's words. `minor_of` resolves the resource or volume that `resync-after` names.
    pub fn line(&self, node: &str, minor_of: &dyn Fn(&str) -> Option<u32>) -> String {
        let mut words = match self {
            Self::Meta(..) | Self::SetGi(..) => vec!["drbdmeta".to_owned()],
            _ => vec!["drbdsetup-84".to_owned()],
        };
        let mut say = |parts: &[&str]| words.extend(parts.iter().map(|&part| part.to_owned()));
        let option_words = |settings: &[Setting]| -> Vec<String> {
            settings.iter().map(|setting| option_word(setting, node, minor_of)).collect()
        };
        match self {
            Self::NewResource(resource) => {
                say(&["new-resource", &resource.name.text]);
                words.extend(option_words(&resource.sections.options));
            }
            Self::NewMinor(of) => {
                let (minor, volume) = (of.minor().to_string(), of.volume.number.to_string());
                say(&["new-minor", &of.resource.name.text, &minor, &volume]);
            }
            Self::Attach(of) => {
                let minor = of.minor().to_string();
                say(&["attach", &minor, of.disk(), of.meta_disk(), &of.index_word("flexible")]);
                words.extend(option_words(&of.volume.disk_options));
            }
            Self::DiskOptions(of) => {
                say(&["disk-options", &of.minor().to_string(), "--set-defaults"]);
                words.extend(option_words(&of.volume.disk_options));
            }
            Self::ChangeDisk(of, setup) => {
                say(&["disk-options", &of.minor().to_string()]);
                words.extend(setup.iter().map(SetupOption::word));
            }
            Self::ChangeNet(ends, setup) => {
                say(&["net-options"]);
                words.extend(ends.words());
                words.extend(setup.iter().map(SetupOption::word));
            }
            Self::ChangeResource(resource, setup) => {
                say(&["resource-options", &resource.name.text]);
                words.extend(setup.iter().map(SetupOption::word));
            }
            Self::ResourceOptions(resource) => {
                say(&["resource-options", &resource.name.text, "--set-defaults"]);
                words.extend(option_words(&resource.sections.options));
            }
            Self::Gone(_, minor, verb) => say(&[verb, &minor.to_string()]),
            Self::Leave(_, addresses) => {
                say(&["disconnect"]);
                let family = |address: &SocketAddr| if address.is_ipv4() { "ipv4" } else { "ipv6" };
                words.extend(addresses.iter().map(|address| format!("{}:{address}", family(address))));
            }
            Self::Connect(ends, discard_my_data) => {
                say(&["connect", &ends.resource.name.text]);
                words.extend(ends.words());
                words.extend(option_words(&ends.resource.sections.net));
                words.extend(discard_my_data.then(|| "--discard-my-data".to_owned()));
            }
            Self::NetOptions(ends) => {
                say(&["net-options"]);
                words.extend(ends.words());
                words.push("--set-defaults".into());
                words.extend(option_words(&ends.resource.sections.net));
            }
            Self::Disconnect(ends, force) => {
                say(&["disconnect"]);
                words.extend(ends.words());
                words.extend(force.then(|| "--force".to_owned()));
            }
            Self::Detach(of, force) => {
                say(&["detach", &of.minor().to_string()]);
                words.extend(force.then(|| "--force".to_owned()));
            }
            Self::Primary(of, force) => {
                say(&["primary", &of.minor().to_string()]);
                words.extend(force.then(|| "--force".to_owned()));
            }
            Self::Secondary(of) => say(&["secondary", &of.minor().to_string()]),
            Self::Down(resource) => say(&["down", &resource.name.text]),
            Self::Status(resource) => say(&["status", &resource.name.text]),
            Self::Verify(of, bounds) => {
                say(&["verify", &of.minor().to_string()]);
                let bounds = [("start", bounds.start_sector), ("stop", bounds.stop_sector)];
                words.extend(bounds.iter().filter_map(|(name, at)| Some(format!("--{name}={}", (*at)?))));
            }
            Self::Resize(of, setup) | Self::CheckResize(of, setup) => {
                say(&["resize", &of.minor().to_string()]);
                words.extend(option_words(of.configured_size()));
                words.extend(setup.iter().map(SetupOption::word));
            }
            Self::NewCurrentUuid(of, clear_bitmap) => {
                say(&["new-current-uuid", &of.minor().to_string()]);
                words.extend(clear_bitmap.then(|| "--clear-bitmap".to_owned()));
            }
            Self::State(of, verb) | Self::Sync(of, verb) => say(&[verb, &of.minor().to_string()]),
            Self::WaitConnect(of) => {
                say(&["wait-connect", &of.minor().to_string()]);
                if let Some(seconds) = of.stacked_timeout_s() {
                    say(&["--wfc-timeout", &seconds.to_string()]);
                    return shell_line(&words);
                }
                words.extend(option_words(&of.resource.sections.startup));
            }
            Self::SetGi(of, text, force) => {
                let (minor, index) = (of.minor().to_string(), of.index_word("flex-external"));
                say(&[&minor, "v08", of.meta_disk(), &index, "set-gi", text]);
                words.extend(force.then(|| "--force".to_owned()));
            }
            Self::Meta(of, verb, force) => {
                let (minor, index) = (of.minor().to_string(), of.index_word("flex-external"));
                say(&[&minor, "v08", of.meta_disk(), &index, verb]);
                words.extend(force.then(|| "--force".to_owned()));
            }
        }
        shell_line(&words)
    }
}

fn shell_line(words: &[String]) -> String {
    words.iter().map(|word| shell_escaped(word)).collect::<Vec<_>>().join(" ")
}

fn option_word(setting: &Setting, node: &str, minor_of: &dyn Fn(&str) -> Option<u32>) -> String {
    let name = setting.option.name;
    match (name, minor_of(&setting.value)) {
        ("resync-after", Some(minor)) => format!("--{name}={minor}"),
        _ => format!("--{name}={}", effective::discard_node(shown_value(setting), node)),
    }
}

/// With a backslash before what a shell would not take as it is, as drbdadm prints its calls.
pub fn shell_escaped(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for c in word.chars() {
        let is_plain =
            c.is_ascii_alphanumeric() || matches!(c, '%' | '+' | '-' | '.' | '/' | ':' | '=' | '@' | '_');
        if !is_plain {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
