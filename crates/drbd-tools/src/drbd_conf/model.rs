//! A configuration as it was written, with the places.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use conf::{Diagnostic, Sources, Span};

use super::options::{OptionDef, Section};

/// A word of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Word {
    /// Its value.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// An option that is set.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which.
    pub option: &'static OptionDef,
    /// Its value as written; `yes` for a bare flag.
    pub value: String,
    /// Where it stands.
    pub span: Span,
    /// Whether it stands in 8.3's syncer section.
    pub in_syncer: bool,
}

/// The option sections that a resource and `common` have.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    /// `options`.
    pub options: Vec<Setting>,
    /// `net`.
    pub net: Vec<Setting>,
    /// `disk`.
    pub disk: Vec<Setting>,
    /// `startup`.
    pub startup: Vec<Setting>,
    /// `become-primary-on` of the startup section.
    pub become_primary_on: Vec<Word>,
    /// `stacked-timeouts` of the startup section.
    pub stacked_timeouts: bool,
    /// `handlers`.
    pub handlers: Vec<Setting>,
    /// Of the command `resize`; a configuration has none.
    pub resize: Vec<Setting>,
}

impl Sections {
    /// The settings of one section.
    pub fn of_mut(&mut self, section: Section) -> &mut Vec<Setting> {
        match section {
            Section::Net => &mut self.net,
            Section::Disk => &mut self.disk,
            Section::Options => &mut self.options,
            Section::Startup => &mut self.startup,
            Section::Handlers => &mut self.handlers,
            Section::Resize => &mut self.resize,
        }
    }
}

/// The `global` section.
#[derive(Clone, Debug, Default)]
pub struct Global {
    /// `disable-ip-verification`.
    pub disable_ip_verification: bool,
    /// `minor-count`.
    pub minor_count: Option<u32>,
    /// `dialog-refresh`.
    pub dialog_refresh: Option<u32>,
    /// `udev-always-use-vnr`: devices of volumes without a section have the number in their name, too.
    pub udev_always_use_vnr: bool,
    /// `usage-count`.
    pub usage_count: Option<String>,
    /// `cmd-timeout-short`, `-medium`, `-long`.
    pub command_timeouts_s: [Option<u32>; 3],
}

/// Where meta-data are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MetaDisk {
    /// At the end of the disk.
    Internal,
    /// The whole of another device.
    Flexible(Word),
    /// Slot N of another device.
    Indexed(Word, u32),
}

/// One volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its number.
    pub number: u16,
    /// Made by `device`, `disk` or `meta-disk` outside of a volume section.
    pub is_implicit: bool,
    /// Path of the device.
    pub device: Option<Word>,
    /// Minor of the device.
    pub minor: Option<(u32, Span)>,
    /// Lower-level device; `none` for a node without one.
    pub disk: Option<Word>,
    /// Where its meta-data are.
    pub meta_disk: Option<MetaDisk>,
    /// Options of its own disk section.
    pub disk_options: Vec<Setting>,
    /// The keyword.
    pub span: Span,
}

impl Volume {
    /// A volume of which nothing is said yet.
    pub fn new(number: u16, is_implicit: bool, span: Span) -> Self {
        Self {
            number,
            is_implicit,
            device: None,
            minor: None,
            disk: None,
            meta_disk: None,
            disk_options: Vec::new(),
            span,
        }
    }

    /// Whether this node keeps no data of it (`disk none`).
    pub fn is_diskless(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.text == "none")
    }
}

/// An address: IP and port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// IP.
    pub ip: IpAddr,
    /// IP and scope as written.
    pub written: String,
    /// Interface of a link-local address (`fe80::1%eth0`).
    pub scope: Option<String>,
    /// Port.
    pub port: u16,
    /// Where it stands.
    pub span: Span,
}

impl Address {
    /// `ipv4` or `ipv6`.
    pub fn family(&self) -> &'static str {
        if self.ip.is_ipv4() { "ipv4" } else { "ipv6" }
    }

    /// Whether this machine has it.
    pub fn is_local(&self) -> bool {
        let mut probe = self.to_socket_addr();
        probe.set_port(0);
        std::net::UdpSocket::bind(probe).is_ok()
    }

    /// As a socket takes it; the scope becomes the number of this machine's interface.
    pub fn to_socket_addr(&self) -> SocketAddr {
        let mut address = SocketAddr::new(self.ip, self.port);
        if let (SocketAddr::V6(v6), Some(scope)) = (&mut address, &self.scope) {
            let number = std::fs::read_to_string(format!("/sys/class/net/{scope}/ifindex"))
                .ok()
                .and_then(|text| text.trim().parse().ok());
            // Without such an interface the number stays 0, and the system refuses the address where it is used.
            v6.set_scope_id(number.unwrap_or(0));
        }
        address
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(_) => write!(f, "{}:{}", self.written, self.port),
            IpAddr::V6(_) => write!(f, "[{}]:{}", self.written, self.port),
        }
    }
}

/// What a host section says of whom it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// `on HOST…`.
    Named,
    /// `floating ADDRESS`: whoever has the address.
    Floating,
    /// `stacked-on-top-of RESOURCE`: whoever has that resource, above its devices.
    StackedOn(Word),
}

/// One host section.
#[derive(Clone, Debug)]
pub struct Host {
    /// In which of its forms.
    pub place: Place,
    /// Whom it concerns.
    pub names: Vec<Word>,
    /// Where it listens.
    pub address: Option<Address>,
    /// Sorted by number.
    pub volumes: Vec<Volume>,
    /// Its own `options` section.
    pub options: Vec<Setting>,
    /// The keyword.
    pub span: Span,
}

impl Host {
    /// Whether the section is about `node`.
    pub fn is_about(&self, node: &str) -> bool {
        match (&self.place, &self.address) {
            (Place::Floating, Some(address)) => address.written == node || address.is_local(),
            _ => self.names.iter().any(|name| name.text == node),
        }
    }

    /// Whether it is above another resource.
    pub fn is_stacked(&self) -> bool {
        matches!(self.place, Place::StackedOn(_))
    }

    /// Whether `--peer WORD` means it: by name, or by address where it floats.
    fn is_called(&self, word: &str) -> bool {
        match (&self.place, &self.address) {
            (Place::Floating, Some(address)) => address.written == word,
            _ => self.names.iter().any(|name| name.text == word),
        }
    }

    /// Its names with blanks between.
    pub fn names_text(&self) -> String {
        self.names.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// One resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its name.
    pub name: Word,
    /// Sections for all hosts.
    pub sections: Sections,
    /// Volumes said for all hosts; already part of each host's.
    pub volumes: Vec<Volume>,
    /// Its `on` sections.
    pub hosts: Vec<Host>,
    /// The brace that opens it: where it is "defined at".
    pub span: Span,
}

impl Resource {
    /// The section of `node`.
    pub fn host(&self, node: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.is_about(node))
    }

    /// Whether it is above another resource on `node`.
    pub fn is_stacked(&self, node: &str) -> bool {
        self.host(node).is_some_and(Host::is_stacked)
    }

    /// The other node's section, if there are two; of more, the one that is about `wanted`.
    pub fn peer_of(&self, node: &str, wanted: Option<&str>) -> Option<&Host> {
        match &self.hosts[..] {
            [a, b] if a.is_about(node) => Some(b),
            [a, b] if b.is_about(node) => Some(a),
            hosts => {
                let others = hosts.iter().filter(|host| !host.is_about(node));
                let mut named = others.filter(|host| wanted.is_some_and(|wanted| host.is_called(wanted)));
                let found = named.next()?;
                named.next().is_none().then_some(found)
            }
        }
    }
}

/// A whole configuration.
#[derive(Debug)]
pub struct Config {
    /// Its files.
    pub sources: Sources,
    /// `global`.
    pub global: Global,
    /// `common`.
    pub common: Option<Sections>,
    /// In the order of the files.
    pub resources: Vec<Resource>,
    /// What works but is perhaps not meant.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// A resource by name.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name.text == name)
    }
}
