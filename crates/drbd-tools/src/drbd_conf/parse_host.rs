//! The parser: host sections, volumes, addresses; and what must fit together across them.

use std::net::IpAddr;

use conf::{Diagnostic, Span, Token, TokenKind};

use super::model::{Address, Host, MetaDisk, Place, Resource, Volume, Word};
use super::options::Section;
use super::parse::{Parser, only_in_9, proxy};

const MINOR_MAX: u32 = (1 << 20) - 1;
const VOLUME_MAX: u32 = 65535;

impl Parser<'_> {
    /// `on HOST… { … }`, from the names on.
    pub(super) fn host(&mut self, resource: &mut Resource, span: Span) -> Result<(), Diagnostic> {
        let names = self.host_names('{')?;
        self.host_section(resource, Place::Named, names, None, span)
    }

    /// `floating ADDRESS { … }` or `floating ADDRESS;`, from the address on.
    pub(super) fn floating(&mut self, resource: &mut Resource, span: Span) -> Result<(), Diagnostic> {
        let address = self.address()?;
        let name = if address.ip.is_ipv6() { format!("ipv6 {address}") } else { address.to_string() };
        let names = vec![Word { text: name, span: address.span }];
        self.host_section(resource, Place::Floating, names, Some(address), span)
    }

    /// `stacked-on-top-of RESOURCE { … }`, from the name on. Who that is about is known when all is read.
    pub(super) fn stacked(&mut self, resource: &mut Resource, span: Span) -> Result<(), Diagnostic> {
        let lower = self.value("the name of a resource")?;
        let once = self.unique.note("stacked-on-top-of", &lower.text, lower.span);
        self.report(once);
        self.host_section(resource, Place::StackedOn(lower), Vec::new(), None, span)
    }

    fn host_section(
        &mut self,
        resource: &mut Resource,
        place: Place,
        names: Vec<Word>,
        address: Option<Address>,
        span: Span,
    ) -> Result<(), Diagnostic> {
        const KNOWN: &[&str] =
            &["device", "disk", "address", "meta-disk", "flexible-meta-disk", "volume", "options"];
        for name in &names {
            let key = format!("{}: on {}", resource.name.text, name.text);
            let once = self.unique.note("host section", &key, name.span);
            self.report(once);
        }
        let span = span.to(names.last().map_or(span, |name| name.span));
        let is_stacked = matches!(place, Place::StackedOn(_));
        let mut host = Host { place, names, address, volumes: Vec::new(), options: Vec::new(), span };
        if host.place == Place::Floating && self.peek().is(';') {
            self.next();
            resource.hosts.push(host);
            return Ok(());
        }
        self.expect('{')?;
        loop {
            let token = self.next();
            match self.sources.slice(token.span) {
                "}" => break,
                "volume" => self.volume_section(&mut host.volumes)?,
                "address" if host.place == Place::Floating => {
                    return Err(Diagnostic::error(
                        "`address` in a floating section",
                        token.span,
                        "the section has its address in its head",
                    ));
                }
                "disk" | "meta-disk" | "flexible-meta-disk" if is_stacked && !self.peek().is('{') => {
                    return Err(Diagnostic::error(
                        format!("`{}` in a section that is stacked", self.sources.slice(token.span)),
                        token.span,
                        "its disk is the device of the resource below, with internal meta-data",
                    ));
                }
                "address" => {
                    let address = self.address()?;
                    if let Some(first) = &host.address {
                        self.findings.push(
                            Diagnostic::error("a second address for the same host", address.span, "")
                                .also(first.span, "first given here"),
                        );
                    }
                    host.address = Some(address);
                    self.expect(';')?;
                }
                "options" => {
                    self.expect('{')?;
                    host.options = self.options_until_brace(Section::Options)?;
                }
                "disk" | "device" | "meta-disk" | "flexible-meta-disk" => {
                    let volume = self.implicit_volume(&mut host.volumes, token.span);
                    self.volume_statement(volume, token)?;
                }
                "proxy" => return Err(proxy(token.span)),
                "node-id" => return Err(only_in_9("node-id", token.span)),
                "alternate-link-address" => {
                    return Err(Diagnostic::error(
                        "`alternate-link-address` is not supported",
                        token.span,
                        "",
                    )
                    .help("remove it: a host section has device, disk, address and meta-disk"));
                }
                _ => return Err(self.unknown(token, "keyword", KNOWN)),
            }
        }
        resource.hosts.push(host);
        Ok(())
    }

    /// `volume N { … }`, from the number on.
    pub(super) fn volume_section(&mut self, volumes: &mut Vec<Volume>) -> Result<(), Diagnostic> {
        const KNOWN: &[&str] = &["device", "disk", "meta-disk", "flexible-meta-disk"];
        let (number, span) = self.integer("volume number", 0, VOLUME_MAX)?;
        let mut volume = Volume::new(number as u16, false, span);
        self.expect('{')?;
        loop {
            let token = self.next();
            match self.sources.slice(token.span) {
                "}" => break,
                "disk" | "device" | "meta-disk" | "flexible-meta-disk" => {
                    self.volume_statement(&mut volume, token)?;
                }
                _ => return Err(self.unknown(token, "keyword", KNOWN)),
            }
        }
        if let Some(first) = volumes.iter().find(|other| other.number == volume.number) {
            let message = if first.is_implicit {
                "volume sections and statements without one cannot be mixed".to_owned()
            } else {
                format!("volume {} is there twice", volume.number)
            };
            self.findings.push(Diagnostic::error(message, span, "").also(first.span, "first used here"));
            return Ok(());
        }
        volumes.push(volume);
        volumes.sort_by_key(|volume| volume.number);
        Ok(())
    }

    /// Volume 0 for a statement outside of a volume section.
    pub(super) fn implicit_volume<'v>(&mut self, volumes: &'v mut Vec<Volume>, span: Span) -> &'v mut Volume {
        if let Some(explicit) = volumes.iter().find(|volume| !volume.is_implicit) {
            self.findings.push(
                Diagnostic::error("volume sections and statements without one cannot be mixed", span, "")
                    .also(explicit.span, "a volume section")
                    .help("move the statement into its volume section"),
            );
        }
        if volumes.is_empty() {
            volumes.push(Volume::new(0, true, span));
        }
        &mut volumes[0]
    }

    /// `device`, `disk`, `meta-disk` or `flexible-meta-disk`, whose keyword is `token`.
    pub(super) fn volume_statement(&mut self, volume: &mut Volume, token: Token) -> Result<(), Diagnostic> {
        let keyword = self.sources.slice(token.span).to_owned();
        let twice = match keyword.as_str() {
            "disk" if self.peek().is('{') => {
                self.next();
                volume.disk_options = self.options_until_brace(Section::Disk)?;
                return Ok(());
            }
            "disk" => volume.disk.replace(self.value("the path of a device, or `{`")?).is_some(),
            "device" => {
                let was_there = volume.device.is_some() || volume.minor.is_some();
                self.device(volume)?;
                was_there
            }
            _ => {
                let meta_disk = self.meta_disk(keyword == "flexible-meta-disk")?;
                volume.meta_disk.replace(meta_disk).is_some()
            }
        };
        if twice {
            self.findings.push(
                Diagnostic::error(format!("a second `{keyword}` for the same volume"), token.span, "")
                    .help("remove one of the two"),
            );
        }
        self.expect(';')?;
        Ok(())
    }

    fn device(&mut self, volume: &mut Volume) -> Result<(), Diagnostic> {
        if self.peek_is("minor") {
            self.next();
            volume.minor = Some(self.integer("minor", 0, MINOR_MAX)?);
            return Ok(());
        }
        let mut device = self.value("the path of a device, or `minor`")?;
        if device.text.starts_with("drbd") {
            device.text.insert_str(0, "/dev/");
        }
        let Some(rest) = device.text.strip_prefix("/dev/drbd").map(str::to_owned) else {
            return Err(Diagnostic::error(
                format!("`{}` is not the name of a DRBD device", device.text),
                device.span,
                "",
            )
            .help(
                "the name begins with /dev/drbd: `device /dev/drbd0;` or `device /dev/drbd_NAME minor N;`",
            ));
        };
        let named = rest.parse::<u32>().ok().filter(|&minor| minor <= MINOR_MAX);
        let span = device.span;
        if self.peek_is("minor") {
            self.next();
            let (minor, minor_span) = self.integer("minor", 0, MINOR_MAX)?;
            if named.is_some_and(|named| named != minor) || (named.is_none() && !rest.starts_with('_')) {
                self.findings.push(
                    Diagnostic::error(
                        format!("device `{}` and minor {minor} contradict each other", device.text),
                        span.to(minor_span),
                        "",
                    )
                    .help(format!(
                        "write `device /dev/drbd{minor};`; a name of your own begins with /dev/drbd_"
                    )),
                );
            }
            volume.minor = Some((minor, minor_span));
        } else if let Some(minor) = named {
            volume.minor = Some((minor, span));
        } else {
            self.findings.push(
                Diagnostic::error(format!("`{}` does not say which minor it is", device.text), span, "")
                    .help(format!("add it: `device {} minor N;`", device.text)),
            );
        }
        volume.device = Some(device);
        Ok(())
    }

    fn peek_is(&self, word: &str) -> bool {
        let token = self.peek();
        token.kind == TokenKind::Word && self.sources.slice(token.span) == word
    }

    fn meta_disk(&mut self, is_flexible: bool) -> Result<MetaDisk, Diagnostic> {
        let device = self.value("`internal` or the path of a device")?;
        if device.text == "internal" {
            return Ok(MetaDisk::Internal);
        }
        if is_flexible || !self.peek().is('[') {
            return Ok(MetaDisk::Flexible(device));
        }
        self.next();
        let (index, _) = self.integer("meta-disk index", 0, 65535)?;
        self.expect(']')?;
        Ok(MetaDisk::Indexed(device, index))
    }

    /// `[ipv4] A.B.C.D:PORT` or `ipv6 [ADDRESS]:PORT`, up to the semicolon.
    fn address(&mut self) -> Result<Address, Diagnostic> {
        const FORM: &str = "write `address 192.0.2.1:7788;` or `address ipv6 [2001:db8::1]:7788;`";
        if self.peek_is("ipv4") || self.peek_is("ipv6") {
            self.next();
        }
        let token = self.peek();
        let (text, start) = if token.is('[') {
            let open = self.next().span;
            let inner = self.raw_until(']');
            self.expect(']')?;
            (self.sources.slice(inner).trim().to_owned(), open)
        } else {
            let word = self.value("an IP address")?;
            if ["sdp", "ssocks", "sci"].contains(&word.text.as_str()) {
                return Err(Diagnostic::error(
                    format!("address family `{}` is not supported", word.text),
                    word.span,
                    "",
                )
                .help(FORM));
            }
            (word.text, word.span)
        };
        let bad = |span: Span, message: String| Diagnostic::error(message, span, "").help(FORM);
        let (plain, scope) = match text.split_once('%') {
            // The scope becomes part of a path below /sys.
            Some((plain, scope)) if !scope.contains('/') => (plain, Some(scope.to_owned())),
            _ => (text.as_str(), None),
        };
        let span = start.to(self.previous());
        let ip: IpAddr = plain.parse().map_err(|_| bad(span, format!("`{text}` is not an IP address")))?;
        if ip.is_ipv6() != token.is('[') || (scope.is_some() && ip.is_ipv4()) {
            return Err(bad(span, format!("`{text}` is not written as an address should be")));
        }
        if !self.peek().is(':') {
            return Err(bad(span, format!("address `{text}` has no port")));
        }
        self.next();
        let (port, port_span) = self.integer("port", 1, 65535)?;
        Ok(Address { ip, written: text, scope, port: port as u16, span: start.to(port_span) })
    }

    /// After the last file: what hosts inherit, what is missing, what is there twice.
    pub(super) fn finish(&mut self) {
        let mut resources = std::mem::take(&mut self.resources);
        for resource in &mut resources {
            for host in &mut resource.hosts {
                inherit(&resource.volumes, host);
            }
        }
        self.put_on_top(&mut resources);
        for resource in &resources {
            for host in &resource.hosts {
                self.check_complete(resource, host);
                self.check_unique(host);
            }
            self.check_same_volumes(resource);
        }
        self.resources = resources;
    }

    /// What stacked sections get from the resources below them: their hosts, and their devices as disks.
    fn put_on_top(&mut self, resources: &mut [Resource]) {
        let below = resources.to_vec();
        let hosts = resources.iter_mut().flat_map(|resource| &mut resource.hosts);
        for host in hosts {
            let Place::StackedOn(lower) = &host.place else { continue };
            let Some(lower) = below.iter().find(|resource| resource.name.text == lower.text) else {
                let message = format!("resource `{}` is not defined", lower.text);
                self.findings.push(
                    Diagnostic::error(message, lower.span, "")
                        .help("`stacked-on-top-of` takes the name of another resource"),
                );
                continue;
            };
            let lower_hosts: Vec<_> = lower.hosts.iter().filter(|host| !host.is_stacked()).collect();
            host.names = lower_hosts.iter().flat_map(|host| host.names.clone()).collect();
            for volume in &mut host.volumes {
                let found = lower_hosts
                    .first()
                    .and_then(|host| host.volumes.iter().find(|candidate| candidate.number == volume.number));
                let Some(found) = found else {
                    let message =
                        format!("volume {} is not defined in resource {}", volume.number, lower.name.text);
                    self.findings.push(
                        Diagnostic::error(message, volume.span, "defined here")
                            .help("a stacked volume is above the volume of the same number"),
                    );
                    continue;
                };
                let named = found.device.clone();
                let numbered =
                    found.minor.map(|(minor, span)| Word { text: format!("/dev/drbd{minor}"), span });
                volume.disk = named.or(numbered);
                volume.meta_disk = Some(MetaDisk::Internal);
            }
        }
    }

    fn check_complete(&mut self, resource: &Resource, host: &Host) {
        let mut missing = |what: &str, example: &str| {
            let message =
                format!("in resource {}, on {}: `{what}` is missing", resource.name.text, host.names_text());
            self.findings
                .push(Diagnostic::error(message, host.span, "").help(format!("add for example `{example}`")));
        };
        if host.address.is_none() {
            missing("address", "address 192.0.2.1:7788;");
        }
        if host.volumes.is_empty() {
            missing("device", "device /dev/drbd0;");
        }
        for volume in &host.volumes {
            if volume.minor.is_none() && volume.device.is_none() {
                missing("device", "device /dev/drbd0;");
            }
            if volume.disk.is_none() {
                missing("disk", "disk /dev/sdb1;");
            }
            if volume.meta_disk.is_none() && !volume.is_diskless() {
                missing("meta-disk", "meta-disk internal;");
            }
        }
    }

    fn check_unique(&mut self, host: &Host) {
        let mut outcomes = Vec::new();
        if let Some(address) = &host.address {
            if address.ip.is_loopback() {
                for name in &host.names {
                    let key = format!("{}:{address}", name.text);
                    outcomes.push(self.unique.note("IP", &key, address.span));
                }
            } else {
                outcomes.push(self.unique.note("IP", &address.to_string(), address.span));
            }
        }
        for name in &host.names {
            for volume in &host.volumes {
                let mut note = |what: &str, value: &str, span: Span| {
                    outcomes.push(self.unique.note(what, &format!("{}:{value}", name.text), span));
                };
                if let Some((minor, span)) = volume.minor {
                    note("device-minor", &minor.to_string(), span);
                }
                if let Some(disk) = volume.disk.as_ref().filter(|_| !volume.is_diskless()) {
                    note("disk", &disk.text, disk.span);
                }
                match &volume.meta_disk {
                    Some(MetaDisk::Flexible(device)) => {
                        note("meta-disk", &format!("{}[flexible]", device.text), device.span);
                    }
                    Some(MetaDisk::Indexed(device, index)) => {
                        note("meta-disk", &format!("{}[{index}]", device.text), device.span);
                    }
                    Some(MetaDisk::Internal) | None => {}
                }
            }
        }
        self.findings.extend(outcomes.into_iter().filter_map(Result::err));
    }

    fn check_same_volumes(&mut self, resource: &Resource) {
        let Some((first, others)) = resource.hosts.split_first() else { return };
        for other in others {
            for (here, there) in [(first, other), (other, first)] {
                for volume in &here.volumes {
                    let is_there = there.volumes.iter().any(|v| v.number == volume.number);
                    if !is_there {
                        let message = format!(
                            "in resource {}: volume {} is not defined on {}",
                            resource.name.text,
                            volume.number,
                            there.names_text()
                        );
                        self.findings.push(
                            Diagnostic::error(message, there.span, "missing here")
                                .also(volume.span, "defined here"),
                        );
                    }
                }
            }
        }
    }
}

/// Adds to a host what the resource says about volumes for all hosts.
fn inherit(shared: &[Volume], host: &mut Host) {
    for from in shared {
        let index = match host.volumes.iter().position(|volume| volume.number == from.number) {
            Some(index) => index,
            None => {
                host.volumes.push(Volume::new(from.number, from.is_implicit, from.span));
                host.volumes.len() - 1
            }
        };
        let to = &mut host.volumes[index];
        let device_is_own = to.device.is_some() || to.minor.is_some();
        if !device_is_own {
            to.device.clone_from(&from.device);
            to.minor = from.minor;
        }
        to.disk = to.disk.take().or_else(|| from.disk.clone());
        to.meta_disk = to.meta_disk.take().or_else(|| from.meta_disk.clone());
    }
    host.volumes.sort_by_key(|volume| volume.number);
}
