//! `drbdadm dump`: the configuration as the program has understood it, in drbdadm's form.

use std::path::{Path, PathBuf};

use super::model::{Address, Config, Global, Host, MetaDisk, Place, Resource, Sections, Setting, Volume};
use crate::indented::Indented;

/// Column in which the values of options begin.
const VALUE_COLUMN: usize = 24;

/// Column in which the path of a device begins.
const DEVICE_COLUMN: usize = 25;

/// Name, value without a statement, value that is not shown. drbdadm 9.22 does not hold its own defaults for
/// defaults, so it shows two that nobody set.
const COMMAND_TIMEOUTS: [(&str, u32, u32); 3] = [("short", 5, 5), ("medium", 600, 121), ("long", 0, 600)];

/// The head of a dump: the file, `global` and `common`. With `is_verbose`, `global` also where it says nothing.
pub fn head(config: &Config, path: &Path, is_verbose: bool) -> String {
    let mut out = Indented::default();
    out.line(format_args!("# {}", canonical(path).display()));
    write_global(&mut out, &config.global, is_verbose);
    if let Some(common) = &config.common {
        out.block("common", |out| write_sections(out, common));
        out.gap();
    }
    out.into_text()
}

/// One resource as seen from `node`.
pub fn resource(config: &Config, resource: &Resource, node: &str) -> String {
    let mut out = Indented::default();
    let name = escaped(&resource.name.text);
    let ignored = if resource.host(node).is_some() { "not ignored" } else { "ignored" };
    let stacked = if resource.is_stacked(node) { "stacked" } else { "not stacked" };
    out.line(format_args!("# resource {name} on {node}: {ignored}, {stacked}"));
    let (line, _) = config.sources.line_column(resource.span);
    let file = canonical(config.sources.path(resource.span.file));
    out.line(format_args!("# defined at {}:{line}", file.display()));
    out.block(&format!("resource {name}"), |out| {
        for host in &resource.hosts {
            write_host(out, host);
        }
        write_sections(out, &resource.sections);
    });
    out.gap();
    out.into_text()
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

/// A name and a value in its column.
fn write_aligned(out: &mut Indented, name: &str, value: &str) {
    let width = VALUE_COLUMN.saturating_sub(out.columns());
    out.line(format_args!("{name:width$} {value:>3};"));
}

fn write_global(out: &mut Indented, global: &Global, is_verbose: bool) {
    let usage_count = global.usage_count.as_deref().filter(|&answer| answer != "ask");
    let refresh = global.dialog_refresh.filter(|&seconds| seconds != 1);
    let says_something = global.disable_ip_verification
        || global.minor_count.is_some()
        || refresh.is_some()
        || usage_count.is_some();
    if !says_something && !is_verbose {
        return;
    }
    out.block("global", |out| {
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
        for ((name, initial, unsaid), timeout) in COMMAND_TIMEOUTS.into_iter().zip(global.command_timeouts_s)
        {
            let seconds = timeout.unwrap_or(initial);
            if seconds != unsaid {
                out.line(format_args!("cmd-timeout-{name} {seconds};"));
            }
        }
    });
    out.gap();
}

fn write_sections(out: &mut Indented, sections: &Sections) {
    write_options(out, "options", &sections.options);
    write_options(out, "net", &sections.net);
    write_options(out, "disk", &sections.disk);
    let has_lists = sections.stacked_timeouts || !sections.become_primary_on.is_empty();
    if !sections.startup.is_empty() || has_lists {
        out.block("startup", |out| {
            write_settings(out, &sections.startup);
            if sections.stacked_timeouts {
                out.line(format_args!("stacked-timeouts;"));
            }
            if !sections.become_primary_on.is_empty() {
                let names: Vec<_> = sections.become_primary_on.iter().map(|n| n.text.as_str()).collect();
                write_aligned(out, "become-primary-on", &names.join(" "));
            }
        });
    }
    write_options(out, "handlers", &sections.handlers);
}

fn write_options(out: &mut Indented, name: &str, settings: &[Setting]) {
    if !settings.is_empty() {
        out.block(name, |out| write_settings(out, settings));
    }
}

fn write_settings(out: &mut Indented, settings: &[Setting]) {
    for setting in settings {
        write_aligned(out, setting.option.name, &escaped(&setting.value));
    }
}

fn write_host(out: &mut Indented, host: &Host) {
    let title = match &host.place {
        Place::Named => format!("on {}", host.names_text()),
        Place::Floating => {
            let address = host.address.as_ref();
            let shown = address.map(|address| format!("{} {address}", address.family()));
            format!("floating {}", shown.unwrap_or_default())
        }
        Place::StackedOn(lower) => format!("stacked-on-top-of {}", escaped(&lower.text)),
    };
    out.block(&title, |out| {
        if host.is_stacked() {
            out.line(format_args!("# on {} ", host.names_text()));
        }
        write_options(out, "options", &host.options);
        for volume in &host.volumes {
            if volume.is_implicit {
                write_volume(out, volume, host.is_stacked());
            } else {
                out.block(&format!("volume {}", volume.number), |out| {
                    write_volume(out, volume, host.is_stacked());
                });
            }
        }
        if let Some(address) = host.address.as_ref().filter(|_| host.place != Place::Floating) {
            write_address(out, address);
        }
    });
}

fn write_volume(out: &mut Indented, volume: &Volume, is_stacked: bool) {
    write_options(out, "disk", &volume.disk_options);
    let width = DEVICE_COLUMN.saturating_sub(out.columns());
    let device = volume.device.as_ref().map(|device| format!("{} ", escaped(&device.text)));
    let minor = volume.minor.map_or(String::new(), |(minor, _)| format!("minor {minor}"));
    out.line(format_args!("{:width$}{}{minor};", "device", device.unwrap_or_default()));
    // They come from the resource below.
    if is_stacked {
        return;
    }
    if let Some(disk) = &volume.disk {
        write_aligned(out, "disk", &escaped(&disk.text));
    }
    match &volume.meta_disk {
        Some(MetaDisk::Internal) => write_aligned(out, "meta-disk", "internal"),
        Some(MetaDisk::Flexible(device)) => {
            out.line(format_args!("{:16} {};", "meta-disk", escaped(&device.text)));
        }
        Some(MetaDisk::Indexed(device, index)) => {
            out.line(format_args!("{:16} {} [{index}];", "meta-disk", escaped(&device.text)));
        }
        None => {}
    }
}

fn write_address(out: &mut Indented, address: &Address) {
    out.line(format_args!("{:16} {} {address};", "address", address.family()));
}
