//! `show`: what the daemon is configured with, in the form of a configuration. A secret is left out.

use std::fmt;
use std::net::SocketAddr;

use drbd_engine::admin::{Configuration, ConfiguredMinor, MetaIndex};
use serde::Serialize;

use crate::drbd_conf::options::{Kind, OPTIONS, OptionDef, Section};
use crate::drbd_conf::value::Scale;
use crate::refusal::RESOURCE_NOT_KNOWN;
use crate::session::{Session, SessionError};

const INDENT_COLUMNS: usize = 4;

/// Prints one resource, the resource of one minor, or `all`.
pub fn show(session: &mut Session, name: &str, has_defaults: bool) -> Result<u8, SessionError> {
    let minor = crate::minor_of(name);
    let mut found = session.configurations(None)?;
    found.retain(|c| name == "all" || c.name == name || c.minors.iter().any(|m| Some(m.minor) == minor));
    if found.is_empty() && name != "all" {
        return Ok(super::run::refuse(name, RESOURCE_NOT_KNOWN, "unknown resource"));
    }
    let texts: Vec<_> = found.iter().map(|configuration| text(configuration, has_defaults)).collect();
    print!("{}", texts.join("\n"));
    Ok(0)
}

/// One resource.
pub fn text(configuration: &Configuration, has_defaults: bool) -> String {
    let mut out = Printer { has_defaults, ..Printer::default() };
    out.block(&format!("resource {}", configuration.name), |out| {
        if let Some(connection) = &configuration.connection {
            out.options("net", Section::Net, &connection.options);
            out.block("_remote_host", |out| out.address(connection.peer));
        }
        out.block("_this_host", |out| {
            if let Some(connection) = &configuration.connection {
                out.address(connection.local);
            }
            for minor in &configuration.minors {
                out.block(&format!("volume {}", minor.volume), |out| out.volume(minor));
            }
        });
    });
    out.text
}

#[derive(Default)]
struct Printer {
    text: String,
    depth: usize,
    has_defaults: bool,
}

impl Printer {
    fn line(&mut self, content: fmt::Arguments<'_>) {
        let indent = self.depth * INDENT_COLUMNS;
        self.text += &format!("{:indent$}{content}\n", "");
    }

    fn block(&mut self, title: &str, content: impl FnOnce(&mut Self)) {
        self.line(format_args!("{title} {{"));
        self.depth += 1;
        content(self);
        self.depth -= 1;
        self.line(format_args!("}}"));
    }

    fn address(&mut self, address: SocketAddr) {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        self.line(format_args!("address\t\t\t{family} {address};"));
    }

    fn volume(&mut self, minor: &ConfiguredMinor) {
        self.line(format_args!("device\t\t\tminor {};", minor.minor));
        let Some(disk) = &minor.disk else { return };
        self.line(format_args!("disk\t\t\t\"{}\";", disk.disk.display()));
        let meta_disk = disk.meta_disk.display();
        match disk.meta_index {
            MetaIndex::Internal => self.line(format_args!("meta-disk\t\t\tinternal;")),
            MetaIndex::FlexExternal => self.line(format_args!("meta-disk\t\t\t\"{meta_disk}\";")),
            MetaIndex::Index(index) => self.line(format_args!("meta-disk\t\t\t\"{meta_disk}\" [ {index} ];")),
        }
        self.options("disk", Section::Disk, &disk.options);
    }

    fn options(&mut self, name: &str, section: Section, options: &impl Serialize) {
        let fields = serde_json::to_value(options).unwrap_or_default();
        self.block(name, |out| {
            for option in OPTIONS.iter().filter(|option| option.section == section && option.has_effect) {
                if let Some(value) = field(&fields, option).and_then(|value| shown(option, value)) {
                    out.option(option, &value);
                }
            }
        });
    }

    fn option(&mut self, option: &OptionDef, value: &Shown) {
        if value.is_default && !self.has_defaults {
            return;
        }
        let unit = match option.kind {
            Kind::Number { unit, .. } => unit,
            _ => "",
        };
        let notes: Vec<_> = [unit, if value.is_default { "default" } else { "" }]
            .into_iter()
            .filter(|note| !note.is_empty())
            .collect();
        let comment = if notes.is_empty() { String::new() } else { format!(" # {}", notes.join(", ")) };
        self.line(format_args!("{:<16}\t{};{comment}", option.name, value.text));
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

/// An option's value as the configuration would have it; none of a secret.
fn shown(option: &OptionDef, value: &serde_json::Value) -> Option<Shown> {
    if option.is_secret() {
        return None;
    }
    let shown = |text: String, is_default| Some(Shown { text, is_default });
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
        NetOptions,
    };

    use super::text;

    #[test]
    fn what_differs_from_the_defaults_is_shown_and_the_secret_is_not() {
        let configuration = Configuration {
            name: "r0".into(),
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
            "resource r0 {\n    net {\n        timeout         \t180; # tenths of a second\n        cram-hmac-alg   \t\"sha1\";\n        \
             after-sb-0pri   \tdiscard-zero-changes;\n    }\n    _remote_host {\n        address\t\t\tipv6 [fd00::3]:7788;\n    }\n    \
             _this_host {\n        address\t\t\tipv4 172.16.16.4:7788;\n        volume 1 {\n            device\t\t\tminor 3;\n            \
             disk\t\t\t\"/dev/xvdb1\";\n            meta-disk\t\t\t\"/dev/md\" [ 2 ];\n            disk {\n                \
             resync-rate     \t30720k; # KiB/s\n            }\n        }\n    }\n}\n"
        );
        assert!(text(&configuration, true).contains("protocol        \tC; # default\n"));
        assert!(!text(&configuration, true).contains("dupersupersecret"));
    }
}
