//! `drbdadm dump`: the configuration as the program has understood it, in drbdadm's form.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use super::model::{Address, Config, Global, Host, MetaDisk, Resource, Sections, Setting, Volume};

const INDENT_COLUMNS: usize = 4;

/// Column in which the values of options begin.
const VALUE_COLUMN: usize = 24;

/// Column in which the path of a device begins.
const DEVICE_COLUMN: usize = 25;

/// Name, value without a statement, value that is not shown. drbdadm 9.22 does not hold its own defaults for
/// defaults, so it shows two that nobody set.
const COMMAND_TIMEOUTS: [(&str, u32, u32); 3] = [("short", 5, 5), ("medium", 600, 121), ("long", 0, 600)];

/// The head of a dump: the file, `global` and `common`. With `is_verbose`, `global` also where it says nothing.
pub fn head(config: &Config, path: &Path, is_verbose: bool) -> String {
    let mut out = Printer::default();
    out.line(format_args!("# {}", canonical(path).display()));
    out.global(&config.global, is_verbose);
    if let Some(common) = &config.common {
        out.block("common", |out| out.sections(common));
        out.text.push('\n');
    }
    out.text
}

/// One resource as seen from `node`.
pub fn resource(config: &Config, resource: &Resource, node: &str) -> String {
    let mut out = Printer::default();
    let name = escaped(&resource.name.text);
    let ignored = if resource.host(node).is_some() { "not ignored" } else { "ignored" };
    out.line(format_args!("# resource {name} on {node}: {ignored}, not stacked"));
    let (line, _) = config.sources.line_column(resource.span);
    let file = canonical(config.sources.path(resource.span.file));
    out.line(format_args!("# defined at {}:{line}", file.display()));
    out.block(&format!("resource {name}"), |out| {
        for host in &resource.hosts {
            out.host(host);
        }
        out.sections(&resource.sections);
    });
    out.text.push('\n');
    out.text
}

/// The directory's real path with the file's own name, as drbdadm shows files.
pub fn canonical(path: &Path) -> PathBuf {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (directory.canonicalize(), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_path_buf(),
    }
}

/// In quotes if the configuration's grammar needs them.
pub fn escaped(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if !text.is_empty() && text.len() <= 80 && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[derive(Default)]
struct Printer {
    text: String,
    depth: usize,
}

impl Printer {
    fn line(&mut self, content: fmt::Arguments<'_>) {
        let indent = self.depth * INDENT_COLUMNS;
        writeln!(self.text, "{:indent$}{content}", "").expect("a String takes every text");
    }

    fn block(&mut self, title: &str, content: impl FnOnce(&mut Self)) {
        self.line(format_args!("{title} {{"));
        self.depth += 1;
        content(self);
        self.depth -= 1;
        self.line(format_args!("}}"));
    }

    /// A name and a value in its column.
    fn aligned(&mut self, name: &str, value: &str) {
        let width = VALUE_COLUMN.saturating_sub(self.depth * INDENT_COLUMNS);
        self.line(format_args!("{name:width$} {value:>3};"));
    }

    fn global(&mut self, global: &Global, is_verbose: bool) {
        let usage_count = global.usage_count.as_deref().filter(|&answer| answer != "ask");
        let refresh = global.dialog_refresh.filter(|&seconds| seconds != 1);
        let says_something = global.disable_ip_verification
            || global.minor_count.is_some()
            || refresh.is_some()
            || usage_count.is_some();
        if !says_something && !is_verbose {
            return;
        }
        self.block("global", |out| {
            if global.disable_ip_verification {
                out.line(format_args!("disable-ip-verification;"));
            }
            if let Some(count) = global.minor_count {
                out.line(format_args!("minor-count {count};"));
            }
            if let Some(seconds) = refresh {
                out.line(format_args!("dialog-refresh {seconds};"));
            }
            if let Some(answer) = usage_count {
                out.line(format_args!("usage-count {answer};"));
            }
            for ((name, initial, unsaid), timeout) in
                COMMAND_TIMEOUTS.into_iter().zip(global.command_timeouts_s)
            {
                let seconds = timeout.unwrap_or(initial);
                if seconds != unsaid {
                    out.line(format_args!("cmd-timeout-{name} {seconds};"));
                }
            }
        });
        self.text.push('\n');
    }

    fn sections(&mut self, sections: &Sections) {
        self.options("options", &sections.options);
        self.options("net", &sections.net);
        self.options("disk", &sections.disk);
        if !sections.startup.is_empty() || !sections.become_primary_on.is_empty() {
            self.block("startup", |out| {
                out.settings(&sections.startup);
                if !sections.become_primary_on.is_empty() {
                    let names: Vec<_> = sections.become_primary_on.iter().map(|n| n.text.as_str()).collect();
                    out.aligned("become-primary-on", &names.join(" "));
                }
            });
        }
        self.options("handlers", &sections.handlers);
    }

    fn options(&mut self, name: &str, settings: &[Setting]) {
        if !settings.is_empty() {
            self.block(name, |out| out.settings(settings));
        }
    }

    fn settings(&mut self, settings: &[Setting]) {
        for setting in settings {
            self.aligned(setting.option.name, &escaped(&setting.value));
        }
    }

    fn host(&mut self, host: &Host) {
        self.block(&format!("on {}", host.names_text()), |out| {
            out.options("options", &host.options);
            for volume in &host.volumes {
                if volume.is_implicit {
                    out.volume(volume);
                } else {
                    out.block(&format!("volume {}", volume.number), |out| out.volume(volume));
                }
            }
            if let Some(address) = &host.address {
                out.address(address);
            }
        });
    }

    fn volume(&mut self, volume: &Volume) {
        self.options("disk", &volume.disk_options);
        let width = DEVICE_COLUMN.saturating_sub(self.depth * INDENT_COLUMNS);
        let device = volume.device.as_ref().map(|device| format!("{} ", escaped(&device.text)));
        let minor = volume.minor.map_or(String::new(), |(minor, _)| format!("minor {minor}"));
        self.line(format_args!("{:width$}{}{minor};", "device", device.unwrap_or_default()));
        if let Some(disk) = &volume.disk {
            self.aligned("disk", &escaped(&disk.text));
        }
        match &volume.meta_disk {
            Some(MetaDisk::Internal) => self.aligned("meta-disk", "internal"),
            Some(MetaDisk::Flexible(device)) => {
                self.line(format_args!("{:16} {};", "meta-disk", escaped(&device.text)));
            }
            Some(MetaDisk::Indexed(device, index)) => {
                self.line(format_args!("{:16} {} [{index}];", "meta-disk", escaped(&device.text)));
            }
            None => {}
        }
    }

    fn address(&mut self, address: &Address) {
        self.line(format_args!("{:16} {} {address};", "address", address.family()));
    }
}
