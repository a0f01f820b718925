//! `show`: what the daemon is configured with, in the form of a configuration. The original shows the secret; here it is
//! masked.

use std::net::SocketAddr;

use drbd_engine::admin::{Configuration, ConfiguredMinor, MetaIndex};
use serde::Serialize;

use crate::drbd_conf::options::{Kind, OPTIONS, OptionDef, Section};
use crate::drbd_conf::value::Scale;
use crate::drbdadm::setup_option::HIDDEN;
use crate::indented::Indented;
use crate::refusal::MINOR_INVALID;
use crate::session::{Session, SessionError};

/// Prints one resource, the resource of one minor, or `all`.
pub fn show(session: &mut Session, name: &str, has_defaults: bool) -> Result<u8, SessionError> {
    let minor = crate::minor_of(name);
    let mut found = session.configurations(None)?;
    found.retain(|c| name == "all" || c.name == name || c.minors.iter().any(|m| Some(m.minor) == minor));
    if found.is_empty() && name != "all" {
        return Ok(match minor {
            Some(_) => super::run::refuse(name, MINOR_INVALID, "unknown minor"),
            None => super::run::no_such_device(),
        });
    }
    let texts: Vec<_> = found.iter().map(|configuration| text(configuration, has_defaults)).collect();
    print!("{}", texts.join("\n"));
    Ok(0)
}

/// One resource.
pub fn text(configuration: &Configuration, has_defaults: bool) -> String {
    let mut out = Indented::default();
    out.block(&format!("resource {}", configuration.name), |out| {
        // As the original: a resource without volumes shows none.
        if !configuration.minors.is_empty() {
            write_options(out, Section::Options, &configuration.options, has_defaults);
        }
        if let Some(connection) = &configuration.connection {
            write_options(out, Section::Net, &connection.options, has_defaults);
            out.block("_remote_host", |out| write_address(out, connection.peer));
        }
        out.block("_this_host", |out| {
            if let Some(connection) = &configuration.connection {
                write_address(out, connection.local);
            }
            for minor in &configuration.minors {
                out.block(&format!("volume {}", minor.volume), |out| write_volume(out, minor, has_defaults));
            }
        });
    });
    out.into_text()
}

fn write_address(out: &mut Indented, address: SocketAddr) {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    out.line(format_args!("address\t\t\t{family} {address};"));
}

fn write_volume(out: &mut Indented, minor: &ConfiguredMinor, has_defaults: bool) {
    out.line(format_args!("device\t\t\tminor {};", minor.minor));
    let Some(disk) = &minor.disk else { return };
    out.line(format_args!("disk\t\t\t\"{}\";", disk.disk.display()));
    let meta_disk = disk.meta_disk.display();
    match disk.meta_index {
        MetaIndex::Internal => out.line(format_args!("meta-disk\t\t\tinternal;")),
        MetaIndex::FlexExternal => out.line(format_args!("meta-disk\t\t\t\"{meta_disk}\";")),
        MetaIndex::Index(index) => out.line(format_args!("meta-disk\t\t\t\"{meta_disk}\" [ {index} ];")),
    }
    write_options(out, Section::Disk, &disk.options, has_defaults);
}

fn write_options(out: &mut Indented, section: Section, options: &impl Serialize, has_defaults: bool) {
    let fields = serde_json::to_value(options).unwrap_or_default();
    out.block(section.name(), |out| {
        for option in OPTIONS.iter().filter(|option| option.section == section) {
            if let Some(value) = field(&fields, option).and_then(|value| shown(option, value))
                && (has_defaults || !value.is_default)
            {
                write_option(out, option, &value);
            }
        }
    });
}

fn write_option(out: &mut Indented, option: &OptionDef, value: &Shown) {
    let unit = match option.kind {
        Kind::Number { unit, .. } => shown_unit(unit),
        _ => "",
    };
    let notes: Vec<_> = [unit, if value.is_default { "default" } else { "" }]
        .into_iter()
        .filter(|note| !note.is_empty())
        .collect();
    let comment = if notes.is_empty() { String::new() } else { format!(" # {}", notes.join(", ")) };
    out.line(format_args!("{:<16}\t{};{comment}", option.name, value.text));
}

/// The unit in drbdsetup's word; values have their suffix for it.
fn shown_unit(unit: &'static str) -> &'static str {
    match unit {
        "tenths of a second" => "1/10 seconds",
        "KiB/s" => "bytes/second",
        "sectors" => "bytes",
        other => other,
    }
}

struct Shown {
    text: String,
    is_default: bool,
}

/// The field that bears an option's name; units stand behind it.
fn field<'f>(fields: &'f serde_json::Value, option: &OptionDef) -> Option<&'f serde_json::Value> {
    let stem = option.name.replace('-', "_");
    let named = fields.as_object()?.iter().filter(|(name, _)| name.starts_with(&stem));
    named.min_by_key(|(name, _)| name.len()).map(|(_, value)| value)
}

/// An option's value as the configuration would have it; a secret is masked.
fn shown(option: &OptionDef, value: &serde_json::Value) -> Option<Shown> {
    let shown = |text: String, is_default| Some(Shown { text, is_default });
    if option.is_secret() && value.as_str() != Some("") {
        return shown(format!("\"{HIDDEN}\""), false);
    }
    match option.kind {
        Kind::Number { default, scale, .. } => {
            let number = value.as_u64()?;
            let unit = match scale {
                Scale::One => "",
                Scale::Kib => "k",
                Scale::Sectors => "s",
            };
            shown(format!("{number}{unit}"), number == default)
        }
        Kind::Flag { default, .. } => {
            let is_set = value.as_bool()?;
            shown(if is_set { "yes" } else { "no" }.to_owned(), is_set == default)
        }
        Kind::Choice(choices) => {
            let (word, _) = choices.iter().find(|(_, number)| Some(u64::from(*number)) == value.as_u64())?;
            shown((*word).to_owned(), *word == choices[0].0)
        }
        Kind::Protocol => shown(value.as_str()?.to_owned(), value.as_str() == Some("C")),
        Kind::Text { .. } | Kind::Forgotten => {
            let text = value.as_str()?;
            shown(format!("\"{text}\""), text.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use drbd_engine::admin::{
        Configuration, ConfiguredConnection, ConfiguredDisk, ConfiguredMinor, DiskOptions, MetaIndex,
        NetOptions, ResourceOptions,
    };

    use super::text;

    #[test]
    fn what_differs_from_the_defaults_is_shown_and_the_secret_is_masked() {
        let configuration = Configuration {
            name: "r0".into(),
            options: ResourceOptions { on_no_data_accessible: 1, cpu_mask: "1".into() },
            minors: vec![ConfiguredMinor {
                minor: 3,
                volume: 1,
                disk: Some(ConfiguredDisk {
                    disk: "/dev/xvdb1".into(),
                    meta_disk: "/dev/md".into(),
                    meta_index: MetaIndex::Index(2),
                    options: DiskOptions { resync_rate_kib_per_s: 30720, ..DiskOptions::default() },
                }),
            }],
            connection: Some(ConfiguredConnection {
                local: "172.16.16.4:7788".parse().unwrap(),
                peer: "[fd00::3]:7788".parse().unwrap(),
                options: NetOptions {
                    shared_secret: "dupersupersecret".into(),
                    cram_hmac_alg: "sha1".into(),
                    timeout_ds: 180,
                    after_sb_0pri: 3,
                    ..NetOptions::default()
                },
            }),
        };
        let shown = text(&configuration, false);
        assert_eq!(
            shown,
            "resource r0 {\n    options {\n        cpu-mask        \t\"1\";\n        \
             on-no-data-accessible\tsuspend-io;\n    }\n    net {\n        timeout         \t180; # 1/10 seconds\n        cram-hmac-alg   \t\"sha1\";\n        \
             shared-secret   \t\"_hidden_\";\n        after-sb-0pri   \tdiscard-zero-changes;\n    }\n    _remote_host {\n        address\t\t\tipv6 [fd00::3]:7788;\n    }\n    \
             _this_host {\n        address\t\t\tipv4 172.16.16.4:7788;\n        volume 1 {\n            device\t\t\tminor 3;\n            \
             disk\t\t\t\"/dev/xvdb1\";\n            meta-disk\t\t\t\"/dev/md\" [ 2 ];\n            disk {\n                \
             resync-rate     \t30720k; # bytes/second\n            }\n        }\n    }\n}\n"
        );
        assert!(text(&configuration, true).contains("protocol        \tC; # default\n"));
        assert!(!text(&configuration, true).contains("dupersupersecret"));
    }
}
