//! `drbdadm dump-xml`: the configuration in drbdadm's XML, for programs.

use std::path::Path;

use super::dump::canonical;
use super::model::{Config, Global, Host, MetaDisk, Place, Resource, Sections, Setting, Volume};
use crate::indented::Indented;

/// The whole document; of resources, `selected`.
pub fn document(config: &Config, path: &Path, selected: &[&Resource]) -> String {
    let mut out = Indented::default();
    let file = escaped(&canonical(path).to_string_lossy());
    element(&mut out, &format!("config file=\"{file}\""), |out| {
        write_global(out, &config.global);
        if let Some(common) = &config.common {
            element(out, "common", |out| write_sections(out, common));
        }
        for one in selected {
            write_resource(out, config, one);
        }
        if selected.is_empty() {
            out.line(format_args!("<!-- No resources configured -->"));
        }
    });
    out.into_text()
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

/// `tag` is the name with its attributes.
fn element(out: &mut Indented, tag: &str, content: impl FnOnce(&mut Indented)) {
    let name = tag.split(' ').next().unwrap_or(tag);
    out.between(format_args!("<{tag}>"), format_args!("</{name}>"), content);
}

fn write_global(out: &mut Indented, global: &Global) {
    let refresh = global.dialog_refresh.filter(|&seconds| seconds != 1);
    if !global.disable_ip_verification && global.minor_count.is_none() && refresh.is_none() {
        return;
    }
    element(out, "global", |out| {
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

fn write_sections(out: &mut Indented, sections: &Sections) {
    write_section(out, "options", &sections.options);
    write_section(out, "net", &sections.net);
    write_section(out, "disk", &sections.disk);
    let names: Vec<_> = sections.become_primary_on.iter().map(|name| name.text.as_str()).collect();
    write_startup(out, &sections.startup, sections.stacked_timeouts, &names.join(" "));
    write_section(out, "handlers", &sections.handlers);
}

fn write_section(out: &mut Indented, name: &str, settings: &[Setting]) {
    if !settings.is_empty() {
        element(out, &format!("section name=\"{name}\""), |out| write_settings(out, settings));
    }
}

fn write_settings(out: &mut Indented, settings: &[Setting]) {
    for setting in settings {
        write_option(out, setting.option.name, &setting.value);
    }
}

fn write_startup(out: &mut Indented, settings: &[Setting], stacked_timeouts: bool, become_primary_on: &str) {
    if settings.is_empty() && !stacked_timeouts && become_primary_on.is_empty() {
        return;
    }
    element(out, "section name=\"startup\"", |out| {
        write_settings(out, settings);
        if stacked_timeouts {
            out.line(format_args!("<option name=\"stacked-timeouts\"/>"));
        }
        if !become_primary_on.is_empty() {
            write_option(out, "become-primary-on", become_primary_on);
        }
    });
}

fn write_option(out: &mut Indented, name: &str, value: &str) {
    out.line(format_args!("<option name=\"{name}\" value=\"{}\"/>", escaped(value)));
}

fn write_resource(out: &mut Indented, config: &Config, resource: &Resource) {
    let (line, _) = config.sources.line_column(resource.span);
    let file = canonical(config.sources.path(resource.span.file));
    let place = escaped(&file.to_string_lossy());
    let name = escaped(&resource.name.text);
    element(out, &format!("resource name=\"{name}\" conf-file-line=\"{place}:{line}\""), |out| {
        for host in &resource.hosts {
            write_host(out, host);
        }
        write_sections(out, &resource.sections);
    });
}

fn write_host(out: &mut Indented, host: &Host) {
    let tag = match host.place {
        Place::Floating => "host floating=\"1\"".to_owned(),
        _ => format!("host name=\"{}\"", host.names_text()),
    };
    element(out, &tag, |out| {
        write_section(out, "options", &host.options);
        for volume in &host.volumes {
            element(out, &format!("volume vnr=\"{}\"", volume.number), |out| write_volume(out, volume));
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

fn write_volume(out: &mut Indented, volume: &Volume) {
    write_section(out, "disk", &volume.disk_options);
    let minor = volume.minor.map_or(0, |(minor, _)| minor);
    let device = volume.device.as_ref().map_or_else(String::new, |device| escaped(&device.text));
    out.line(format_args!("<device minor=\"{minor}\">{device}</device>"));
    let disk = volume.disk.as_ref().map_or("none", |disk| &disk.text);
    out.line(format_args!("<disk>{}</disk>", escaped(disk)));
    match &volume.meta_disk {
        Some(MetaDisk::Flexible(device)) => {
            out.line(format_args!("<meta-disk>{}</meta-disk>", escaped(&device.text)));
        }
        Some(MetaDisk::Indexed(device, index)) => {
            let device = escaped(&device.text);
            out.line(format_args!("<meta-disk index=\"{index}\">{device}</meta-disk>"));
        }
        Some(MetaDisk::Internal) | None => out.line(format_args!("<meta-disk>internal</meta-disk>")),
    }
}
