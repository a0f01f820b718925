//! `events2`: what there is, and then what changes, a line each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drbd_engine::status::ResourceStatus;
use drbd_format::names::ConnectionState;

use crate::session::{Session, SessionError};
use crate::status_text;

/// Pause between looks at the state.
const POLL: Duration = Duration::from_millis(100);

/// Objects by name, in the order in which they are told; of each its fields.
type Objects = Vec<(String, Vec<(&'static str, String)>)>;

/// Prints the state of one resource or `all`, and with `is_now` false what changes from then on.
pub fn events2(
    session: &mut Session,
    name: &str,
    has_timestamps: bool,
    is_now: bool,
) -> Result<u8, SessionError> {
    let resource = (name != "all").then_some(name);
    let mut known = BTreeMap::new();
    let mut objects = objects(&session.status(resource)?);
    let mut lines: Vec<String> =
        objects.iter().map(|(key, fields)| format!("exists {key}{}", texts(fields))).collect();
    lines.push("exists -".to_owned());
    loop {
        for line in &lines {
            let stamp = if has_timestamps { timestamp() } else { String::new() };
            if writeln!(io::stdout(), "{stamp}{line}").is_err() {
                return Ok(0);
            }
        }
        if is_now {
            return Ok(0);
        }
        known.extend(objects.drain(..));
        lines.clear();
        while lines.is_empty() {
            thread::sleep(POLL);
            objects = self::objects(&session.status(resource)?);
            lines = changes(&mut known, &objects);
        }
    }
}

fn texts<'f>(fields: impl IntoIterator<Item = &'f (&'static str, String)>) -> String {
    fields.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, " {name}:{value}");
        text
    })
}

/// What is new, other, or gone; what is gone is forgotten.
fn changes(known: &mut BTreeMap<String, Vec<(&'static str, String)>>, objects: &Objects) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, fields) in objects {
        match known.get(key) {
            None => lines.push(format!("create {key}{}", texts(fields))),
            Some(former) => {
                let other: Vec<_> = fields.iter().filter(|field| !former.contains(field)).collect();
                if !other.is_empty() {
                    lines.push(format!("change {key}{}", texts(other)));
                }
            }
        }
    }
    known.retain(|key, _| {
        let is_there = objects.iter().any(|(there, _)| there == key);
        if !is_there {
            lines.push(format!("destroy {key}"));
        }
        is_there
    });
    lines
}

fn objects(resources: &[ResourceStatus]) -> Objects {
    let mut all = Objects::new();
    for resource in resources {
        let name = &resource.name;
        let is_suspended = resource.devices.iter().any(|device| device.flags.io_suspended);
        let suspended = if is_suspended { "user" } else { "no" };
        all.push((
            format!("resource name:{name}"),
            vec![("role", resource.role.to_string()), ("suspended", suspended.to_owned())],
        ));
        let has_peer = resource.addresses.is_some() || resource.connection != ConnectionState::StandAlone;
        let peer = format!("name:{name} peer-node-id:0 conn-name:peer");
        if has_peer {
            all.push((
                format!("connection {peer}"),
                vec![
                    ("connection", status_text::connection_9(resource.connection)),
                    ("role", resource.peer_role.to_string()),
                ],
            ));
        }
        for device in &resource.devices {
            let key = format!("device name:{name} volume:{} minor:{}", device.volume, device.minor);
            all.push((key, vec![("disk", device.disk.to_string())]));
        }
        for device in resource.devices.iter().filter(|_| has_peer) {
            all.push((
                format!("peer-device {peer} volume:{}", device.volume),
                vec![
                    ("replication", status_text::replication_9(device.connection)),
                    ("peer-disk", device.peer_disk.to_string()),
                    (
                        "resync-suspended",
                        status_text::resync_suspended(device).unwrap_or_else(|| "no".into()),
                    ),
                ],
            ));
        }
    }
    all
}

/// Seconds of the clock, with a blank after it.
fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06} ", now.as_secs(), now.subsec_micros())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::changes;

    #[test]
    fn only_what_differs_is_told() {
        let of = |disk: &str, role: &str| {
            vec![
                (
                    "resource name:r0".to_owned(),
                    vec![("role", role.to_owned()), ("suspended", "no".to_owned())],
                ),
                ("device name:r0 volume:0 minor:0".to_owned(), vec![("disk", disk.to_owned())]),
            ]
        };
        let mut known = BTreeMap::new();
        assert_eq!(changes(&mut known, &of("Diskless", "Secondary")).len(), 2);
        known.extend(of("Diskless", "Secondary"));
        assert!(changes(&mut known, &of("Diskless", "Secondary")).is_empty());
        assert_eq!(
            changes(&mut known, &of("UpToDate", "Secondary")),
            ["change device name:r0 volume:0 minor:0 disk:UpToDate"]
        );
        assert_eq!(
            changes(&mut known, &of("Diskless", "Primary")[..1].to_vec()),
            ["change resource name:r0 role:Primary", "destroy device name:r0 volume:0 minor:0"]
        );
    }
}
