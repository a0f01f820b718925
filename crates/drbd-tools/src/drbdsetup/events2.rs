//! `events2`: what there is, and then what changes, a line each.
//!
//! Upstream: `print_notifications` and `event_key` of drbdsetup 8.4; what the kernel notifies of.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use drbd_engine::status::{DeviceStatus, ResourceStatus};
use drbd_format::names::{ConnectionState, Role};

use super::Call;
use super::local_time;
use crate::session::{Session, SessionError};
use crate::status_text::{self, yes_no};

/// Pause between looks at the state.
const POLL: Duration = Duration::from_millis(100);

/// When a field of an object is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// When it is another; it makes a line.
    State,
    /// With statistics, in a line about something else, when it is another.
    Changed,
    /// With statistics, in each line about the object.
    Always,
}

/// Something that is told of.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    /// The words that name it.
    key: String,
    fields: Vec<(&'static str, String, Told)>,
}

/// Prints the state of one resource or of all, and without `--now` what changes from then on.
pub fn events2(session: &mut Session, call: &Call) -> Result<u8, SessionError> {
    let name = call.arguments[0].as_str();
    let resource = (name != "all").then_some(name);
    let has_statistics = call.has("statistics");
    let status = session.status(resource)?;
    let exists = |object: &Object| format!("exists {}{}", object.key, texts(object, None, has_statistics));
    let mut lines: Vec<String> = objects(&status, true).iter().map(exists).collect();
    lines.push("exists -".to_owned());
    let mut known = objects(&status, false);
    loop {
        let stamp = if call.has("timestamps") { local_time::stamp() } else { String::new() };
        for line in &lines {
            if writeln!(io::stdout(), "{stamp}{line}").is_err() {
                return Ok(0);
            }
        }
        if call.has("now") {
            return Ok(0);
        }
        lines.clear();
        while lines.is_empty() {
            thread::sleep(POLL);
            let objects = objects(&session.status(resource)?, false);
            lines = changes(&known, &objects, has_statistics);
            known = objects;
        }
    }
}

/// The fields that are told of an object that was `former`, if it was.
fn texts(object: &Object, former: Option<&Object>, has_statistics: bool) -> String {
    let mut text = String::new();
    for field @ (name, value, told) in &object.fields {
        let is_other = former.is_none_or(|former| !former.fields.contains(field));
        let is_told = match told {
            Told::State => is_other,
            Told::Changed => has_statistics && is_other,
            Told::Always => has_statistics,
        };
        if is_told {
            let _ = write!(text, " {name}:{value}");
        }
    }
    text
}

/// What is new, other, or gone.
fn changes(known: &[Object], objects: &[Object], has_statistics: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for object in objects {
        let former = known.iter().find(|former| former.key == object.key);
        let is_other = |former: &Object| {
            object.fields.iter().any(|field| field.2 == Told::State && !former.fields.contains(field))
        };
        let verb = match former {
            None => "create",
            Some(former) if is_other(former) => "change",
            Some(_) => continue,
        };
        lines.push(format!("{verb} {}{}", object.key, texts(object, former, has_statistics)));
    }
    let gone = known.iter().filter(|former| !objects.iter().any(|object| object.key == former.key));
    let gone: Vec<_> = gone.collect();
    // A connection is StandAlone before it is gone.
    for former in gone.iter().filter(|former| former.key.starts_with("connection ")) {
        lines.push(format!("change {} connection:StandAlone", former.key));
    }
    for kind in ["peer-device", "connection", "device", "resource"] {
        let of_kind = gone.iter().filter(|object| object.key.split(' ').next() == Some(kind));
        lines.extend(of_kind.map(|object| format!("destroy {}", object.key)));
    }
    lines
}

/// All there is. With `is_dump`, also connections without a configuration, which have no name.
fn objects(resources: &[ResourceStatus], is_dump: bool) -> Vec<Object> {
    let mut all = Vec::new();
    for resource in resources {
        let name = &resource.name;
        let is_configured = resource.connection != ConnectionState::StandAlone;
        let has_peer = is_dump || is_configured;
        let named = if is_configured { " conn-name:peer" } else { "" };
        let peer = format!("name:{name} peer-node-id:0{named}");
        all.push(Object {
            key: format!("resource name:{name}"),
            fields: vec![
                ("role", resource.role.to_string(), Told::State),
                ("suspended", status_text::suspended(resource), Told::State),
                ("write-ordering", status_text::write_ordering(resource).to_owned(), Told::Changed),
            ],
        });
        if has_peer {
            let role = if is_configured { resource.peer_role } else { Role::Unknown };
            all.push(Object {
                key: format!("connection {peer}"),
                fields: vec![
                    ("connection", status_text::connection_9(resource.connection), Told::State),
                    ("role", role.to_string(), Told::State),
                    ("congested", yes_no(false).to_owned(), Told::Changed),
                ],
            });
        }
        all.extend(resource.devices.iter().map(|of| device(name, of)));
        all.extend(resource.devices.iter().filter(|_| has_peer).map(|of| peer_device(&peer, of)));
    }
    all
}

fn device(name: &str, device: &DeviceStatus) -> Object {
    let mut fields = vec![("disk", device.disk.to_string(), Told::State)];
    let statistics = status_text::device_statistics(device, true);
    fields.extend(statistics.into_iter().map(|(name, value)| {
        let told = if name == "al-suspended" { Told::Changed } else { Told::Always };
        (name, value, told)
    }));
    fields.push(("blocked", status_text::blocked(device).to_owned(), Told::Changed));
    Object { key: format!("device name:{name} volume:{} minor:{}", device.volume, device.minor), fields }
}

fn peer_device(peer: &str, device: &DeviceStatus) -> Object {
    let suspended = status_text::resync_suspended(device).unwrap_or_else(|| "no".into());
    let mut fields = vec![
        ("replication", status_text::replication_9(device.connection), Told::State),
        ("peer-disk", device.peer_disk.to_string(), Told::State),
        ("resync-suspended", suspended, Told::State),
    ];
    let statistics = status_text::peer_device_statistics(device, true);
    fields.extend(statistics.into_iter().map(|(name, value)| (name, value, Told::Always)));
    Object { key: format!("peer-device {peer} volume:{}", device.volume), fields }
}

#[cfg(test)]
mod tests {
    use super::{Object, Told, changes};

    #[test]
    fn only_what_differs_is_told() {
        let of = |disk: &str, role: &str, read: &str| {
            vec![
                Object {
                    key: "resource name:r0".to_owned(),
                    fields: vec![("role", role.to_owned(), Told::State)],
                },
                Object {
                    key: "device name:r0 volume:0 minor:0".to_owned(),
                    fields: vec![
                        ("disk", disk.to_owned(), Told::State),
                        ("read", read.to_owned(), Told::Always),
                        ("blocked", "no".to_owned(), Told::Changed),
                    ],
                },
            ]
        };
        let fresh = of("Diskless", "Secondary", "0");
        assert_eq!(changes(&[], &fresh, false).len(), 2);
        assert!(changes(&fresh, &of("Diskless", "Secondary", "8"), true).is_empty());
        let later = of("UpToDate", "Secondary", "8");
        let line = "change device name:r0 volume:0 minor:0 disk:UpToDate";
        assert_eq!(changes(&fresh, &later, false), [line]);
        assert_eq!(changes(&fresh, &later, true), [format!("{line} read:8")]);
        assert_eq!(
            changes(&later, &[], false),
            ["destroy device name:r0 volume:0 minor:0", "destroy resource name:r0"]
        );
    }
}
