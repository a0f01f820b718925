//! `drbdadm dump-xml`: the configuration in drbdadm's XML, for programs.

use std::fmt;
use std::path::Path;

use super::dump::canonical;
use super::model::{Config, Global, Host, MetaDisk, Resource, Sections, Setting, Volume};

const INDENT_COLUMNS: usize = 4;

/// The whole document; of resources, `selected`.
pub fn document(config: &Config, path: &Path, selected: &[&Resource]) -> String {
    let mut out = Printer::default();
    let file = escaped(&canonical(path).to_string_lossy());
    out.element(&format!("config file=\"{file}\""), |out| {
        out.global(&config.global);
        if let Some(common) = &config.common {
            out.element("common", |out| out.sections(common));
        }
        for resource in selected {
            out.resource(config, resource);
        }
        if selected.is_empty() {
            out.line(format_args!("<!-- No resources configured -->"));
        }
    });
    out.text
}

/// With what XML gives a meaning to written as entities.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[derive(Default)]
struct Printer {
    text: String,
    depth: usize,
}

impl Printer {
    fn line(&mut self, content: fmt::Arguments<'_>) {
        let indent = self.depth * INDENT_COLUMNS;
        self.text += &format!("{:indent$}{content}\n", "");
    }

    /// `tag` is the name with its attributes.
    fn element(&mut self, tag: &str, content: impl FnOnce(&mut Self)) {
        self.line(format_args!("<{tag}>"));
        self.depth += 1;
        content(self);
        self.depth -= 1;
        let name = tag.split(' ').next().unwrap_or(tag);
        self.line(format_args!("</{name}>"));
    }

    fn global(&mut self, global: &Global) {
        let refresh = global.dialog_refresh.filter(|&seconds| seconds != 1);
        if !global.disable_ip_verification && global.minor_count.is_none() && refresh.is_none() {
            return;
        }
        self.element("global", |out| {
            if global.disable_ip_verification {
                out.line(format_args!("<disable-ip-verification/>"));
            }
            if let Some(count) = global.minor_count {
                out.line(format_args!("<minor-count count=\"{count}\"/>"));
            }
            if let Some(seconds) = refresh {
                out.line(format_args!("<dialog-refresh refresh=\"{seconds}\"/>"));
            }
        });
    }

    fn sections(&mut self, sections: &Sections) {
        self.section("options", &sections.options, "");
        self.section("net", &sections.net, "");
        self.section("disk", &sections.disk, "");
        let names: Vec<_> = sections.become_primary_on.iter().map(|name| name.text.as_str()).collect();
        self.section("startup", &sections.startup, &names.join(" "));
        self.section("handlers", &sections.handlers, "");
    }

    fn section(&mut self, name: &str, settings: &[Setting], become_primary_on: &str) {
        if settings.is_empty() && become_primary_on.is_empty() {
            return;
        }
        self.element(&format!("section name=\"{name}\""), |out| {
            for setting in settings {
                out.option(setting.option.name, &setting.value);
            }
            if !become_primary_on.is_empty() {
                out.option("become-primary-on", become_primary_on);
            }
        });
    }

    fn option(&mut self, name: &str, value: &str) {
        self.line(format_args!("<option name=\"{name}\" value=\"{}\"/>", escaped(value)));
    }

    fn resource(&mut self, config: &Config, resource: &Resource) {
        let (line, _) = config.sources.line_column(resource.span);
        let file = canonical(config.sources.path(resource.span.file));
        let place = escaped(&file.to_string_lossy());
        let name = escaped(&resource.name.text);
        self.element(&format!("resource name=\"{name}\" conf-file-line=\"{place}:{line}\""), |out| {
            for host in &resource.hosts {
                out.host(host);
            }
            out.sections(&resource.sections);
        });
    }

    fn host(&mut self, host: &Host) {
        self.element(&format!("host name=\"{}\"", host.names_text()), |out| {
            out.section("options", &host.options, "");
            for volume in &host.volumes {
                out.element(&format!("volume vnr=\"{}\"", volume.number), |out| out.volume(volume));
            }
            if let Some(address) = &host.address {
                let (family, port) = (address.family(), address.port);
                out.line(format_args!(
                    "<address family=\"{family}\" port=\"{port}\">{}</address>",
                    address.written
                ));
            }
        });
    }

    fn volume(&mut self, volume: &Volume) {
        self.section("disk", &volume.disk_options, "");
        let minor = volume.minor.map_or(0, |(minor, _)| minor);
        let device = volume.device.as_ref().map_or_else(String::new, |device| escaped(&device.text));
        self.line(format_args!("<device minor=\"{minor}\">{device}</device>"));
        let disk = volume.disk.as_ref().map_or("none", |disk| &disk.text);
        self.line(format_args!("<disk>{}</disk>", escaped(disk)));
        match &volume.meta_disk {
            Some(MetaDisk::Flexible(device)) => {
                self.line(format_args!("<meta-disk>{}</meta-disk>", escaped(&device.text)));
            }
            Some(MetaDisk::Indexed(device, index)) => {
                let device = escaped(&device.text);
                self.line(format_args!("<meta-disk index=\"{index}\">{device}</meta-disk>"));
            }
            Some(MetaDisk::Internal) | None => self.line(format_args!("<meta-disk>internal</meta-disk>")),
        }
    }
}
