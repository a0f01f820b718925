//! Carries a call out.

use std::net::SocketAddr;

use drbd_engine::admin::{Command, ConfiguredConnection, ConfiguredDisk, MetaIndex, Refusal};
use drbd_engine::status::{DeviceStatus, ResourceStatus};
use drbd_format::meta::MetaFlags;
use drbd_format::names::DiskState;

use super::{Call, EXIT_OTHER, events, events2, show};
use crate::drbd_conf::effective;
use crate::meta_disk::{LastKnown, generations};
use crate::refusal::{self, MINOR_INVALID, RESOURCE_NOT_KNOWN};
use crate::session::{Session, SessionError, sync_command};
use crate::status_text::{self, Style};
use crate::wait::{self, Awaited, WaitOptions};
use crate::{status_json, status_shell};

/// `ERR_INVALID_REQUEST`.
const INVALID_REQUEST: i32 = 162;

/// The exit status.
pub fn run(call: &Call) -> Result<u8, SessionError> {
    let makes = matches!(call.verb.name, "new-resource");
    let opened = if makes { Some(Session::open_or_start()?) } else { Session::open()? };
    let Some(mut session) = opened else { return Ok(without_daemon(call)) };
    let session = &mut session;
    let first = call.arguments[0].as_str();
    match call.verb.name {
        "show" => show::show(session, first, call.has("show-defaults")),
        "status" => status(session, call),
        "events" => events::events(session, first),
        "events2" => events2::events2(session, call),
        "sh-status" => sh_status(session, first),
        "check-resize" => check_resize(session, first),
        "wait-connect" | "wait-sync" => {
            let awaited = if call.verb.name == "wait-sync" { Awaited::Synced } else { Awaited::Connected };
            let Some(minor) = minor_of(first) else { return Ok(no_minor(first)) };
            wait::wait(session, minor, awaited, WaitOptions::from_settings(&call.settings))
        }
        "state" | "role" | "cstate" | "dstate" | "show-gi" | "get-gi" => {
            let Some((resource, device)) = device(session, first)? else { return Ok(no_minor(first)) };
            Ok(print_state(call.verb.name, &resource, &device))
        }
        _ => {
            let command = match command(session, call)? {
                Ok(command) => command,
                Err(status) => return Ok(status),
            };
            warn_without_effect(call);
            give(session, object(call), &command)
        }
    }
}

fn minor_of(word: &str) -> Option<u32> {
    crate::minor_of(word)
}

/// Without a daemon nothing is configured.
fn without_daemon(call: &Call) -> u8 {
    let first = call.arguments[0].as_str();
    match call.verb.name {
        "down" => 0,
        "events2" => {
            println!("exists -");
            0
        }
        "show" | "status" | "sh-status" | "events" if first == "all" => 0,
        "sh-status" | "events" => 0,
        "show" if minor_of(first).is_none() => no_such_device(),
        "status" => {
            eprintln!("{first}: No such resource");
            10
        }
        "disconnect" | "net-options" => refuse(object(call), INVALID_REQUEST, "unknown connection"),
        "wait-connect" | "wait-sync" => wait::no_minor(),
        _ if minor_of(first).is_some() => no_minor(first),
        _ => refuse(object(call), RESOURCE_NOT_KNOWN, "unknown resource"),
    }
}

/// Says why nothing happens; the exit status.
pub fn refuse(object: &str, code: i32, detail: &str) -> u8 {
    let (text, status) = refusal::explain(object, &Refusal { code, detail: detail.into() });
    eprint!("{text}");
    status
}

fn no_minor(word: &str) -> u8 {
    match minor_of(word) {
        Some(minor) => refuse(&minor.to_string(), MINOR_INVALID, "unknown minor"),
        None => {
            eprintln!("Cannot determine minor device number of device '{word}'");
            EXIT_OTHER
        }
    }
}

fn give(session: &mut Session, object: &str, command: &Command) -> Result<u8, SessionError> {
    match session.command(command)? {
        Err(refusal) if matches!(command, Command::Down { .. }) && refusal.code == RESOURCE_NOT_KNOWN => {
            Ok(0)
        }
        Ok(warnings) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            Ok(0)
        }
        Err(refusal) => {
            let (text, status) = refusal::explain(object, &refusal);
            eprint!("{text}");
            Ok(status)
        }
    }
}

fn warn_without_effect(call: &Call) {
    for setting in effective::without_effect(&call.settings) {
        eprintln!("{}: `{} {}` is not acted on", call.arguments[0], setting.option.name, setting.value);
    }
}

fn device(session: &mut Session, word: &str) -> Result<Option<(ResourceStatus, DeviceStatus)>, SessionError> {
    minor_of(word).map_or(Ok(None), |minor| session.minor(minor))
}

/// The configuration of a minor's disk, if it has one.
fn configured_disk(session: &mut Session, minor: u32) -> Result<Option<ConfiguredDisk>, SessionError> {
    let minors = session.configurations(None)?.into_iter().flat_map(|resource| resource.minors);
    Ok(minors.filter(|found| found.minor == minor).find_map(|found| found.disk))
}

/// Writes down how large a disk in use is, for the day when it has grown while it was not (`lk_bdev_scmd`).
fn check_resize(session: &mut Session, word: &str) -> Result<u8, SessionError> {
    let Some(minor) = minor_of(word) else { return Ok(no_minor(word)) };
    if let Some(disk) = configured_disk(session, minor)? {
        LastKnown::note_in_use(minor, &disk.disk, disk.meta_index.into());
    }
    Ok(0)
}

/// What drbdsetup says of an answer of netlink to a question about a resource that is not there; its exit status.
pub fn no_such_device() -> u8 {
    eprintln!("received netlink error reply: No such device");
    EXIT_OTHER
}

/// Prints one of the states of a device; the exit status.
fn print_state(verb: &str, resource: &ResourceStatus, device: &DeviceStatus) -> u8 {
    let flags = MetaFlags(device.md_flags);
    if verb == "state" {
        eprintln!("'drbdsetup ... state' is deprecated, use 'drbdsetup ... role' instead.");
    }
    match verb {
        "show-gi" | "get-gi" if status_text::is_unused(device) => {
            eprintln!("Device is unconfigured");
            return 1;
        }
        "show-gi" | "get-gi" if device.disk == DiskState::Diskless => {
            eprintln!("Device has no disk");
            return 1;
        }
        "get-gi" => print!("{}", generations::line(device.uuids, flags)),
        "show-gi" => print!("{}", generations::explained(device.uuids, flags)),
        "cstate" => println!("{}", status_text::cstate(device)),
        "dstate" => println!("{}", status_text::dstate(device)),
        _ => println!("{}", status_text::role(resource, device)),
    }
    0
}

fn status(session: &mut Session, call: &Call) -> Result<u8, SessionError> {
    let name = call.arguments[0].as_str();
    let found = session.status((name != "all").then_some(name))?;
    if found.is_empty() && name != "all" {
        eprintln!("{name}: No such resource");
        return Ok(10);
    }
    if call.has("json") {
        println!("{:#}", status_json::json(&found));
        return Ok(0);
    }
    let style = Style {
        is_verbose: call.has("verbose"),
        has_statistics: call.has("statistics"),
        has_color: call.color.is_wanted(),
        columns: status_text::columns(),
    };
    found.iter().for_each(|resource| print!("{}", status_text::status(resource, style)));
    Ok(0)
}

fn sh_status(session: &mut Session, name: &str) -> Result<u8, SessionError> {
    let minor = minor_of(name);
    for resource in session.status(None)? {
        let is_named = name == "all" || resource.name == name;
        for device in resource.devices.iter().filter(|d| is_named || Some(d.minor) == minor) {
            print!("{}", status_shell::shell(&resource, device));
        }
    }
    Ok(0)
}

/// What messages call the object of a call; these name none.
fn object(call: &Call) -> &str {
    match call.verb.name {
        "new-minor" | "disconnect" | "net-options" => "??",
        _ => &call.arguments[0],
    }
}

/// `[ipv4:]A.B.C.D[:PORT]` or `[ipv6:][ADDRESS][:PORT]`.
fn address(word: &str) -> Option<SocketAddr> {
    const PORT: u16 = 7788;
    let bare = word.strip_prefix("ipv4:").or_else(|| word.strip_prefix("ipv6:")).unwrap_or(word);
    bare.parse().ok().or_else(|| {
        let ip = bare.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(SocketAddr::new(ip, PORT))
    })
}

/// The resource with a connection between these ends.
fn connection(
    session: &mut Session,
    ends: [SocketAddr; 2],
) -> Result<Option<(String, ConfiguredConnection)>, SessionError> {
    let all = session.configurations(None)?;
    Ok(all.into_iter().find_map(|found| {
        let connection = found.connection?;
        (ends == [connection.local, connection.peer]).then_some((found.name, connection))
    }))
}

/// The call as the daemon takes it; else what was printed has this exit status.
fn command(session: &mut Session, call: &Call) -> Result<Result<Command, u8>, SessionError> {
    let words: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
    let settings = &call.settings;
    let force = call.has("force");
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(match (call.verb.name, &words[..]) {
        ("new-resource", &[name]) => {
            Ok(Command::NewResource { resource: name.into(), options: effective::resource_options(settings) })
        }
        ("resource-options", &[name]) => {
            let Some(found) = session.configurations(Some(name))?.pop() else {
                return Ok(Err(refuse(name, RESOURCE_NOT_KNOWN, "unknown resource")));
            };
            let base = if call.has("set-defaults") { Default::default() } else { found.options };
            let options = effective::resource_options_over(base, settings);
            Ok(Command::ResourceOptions { resource: name.into(), options })
        }
        ("del-resource", &[name]) => Ok(Command::DelResource { resource: name.into() }),
        ("new-minor", &[name, minor, volume]) => match (minor_of(minor), volume.parse()) {
            (Some(minor), Ok(volume)) => {
                Ok(Command::NewMinor { resource: name.into(), minor, volume, is_implicit: false })
            }
            (None, _) => Err(no_minor(minor)),
            (_, Err(_)) => Err(refuse(name, INVALID_REQUEST, "requested volume id out of range")),
        },
        ("down", &[name]) => Ok(Command::Down { resource: name.into() }),
        ("connect" | "net-options" | "disconnect", _) => {
            let [local, peer] = [words.len() - 2, words.len() - 1].map(|at| address(words[at]));
            let (Some(local), Some(peer)) = (local, peer) else {
                eprintln!(
                    "'{}': not an address; write ipv4:192.0.2.1:7788",
                    words[words.len() - 2..].join("' or '")
                );
                return Ok(Err(EXIT_OTHER));
            };
            if call.verb.name == "connect" {
                return Ok(Ok(Command::Connect {
                    resource: words[0].into(),
                    local,
                    peer,
                    options: effective::net_options(settings, &node),
                    discard_my_data: call.has("discard-my-data"),
                }));
            }
            let Some((resource, present)) = connection(session, [local, peer])? else {
                return Ok(Err(refuse(object(call), INVALID_REQUEST, "unknown connection")));
            };
            if call.verb.name == "disconnect" {
                return Ok(Ok(Command::Disconnect { resource, force }));
            }
            let base = if call.has("set-defaults") { Default::default() } else { present.options };
            Ok(Command::NetOptions { resource, options: effective::net_options_over(base, settings, &node) })
        }
        ("attach", &[word, disk, meta_disk, index]) => {
            let meta_index = match index {
                "internal" | "flex-internal" => MetaIndex::Internal,
                "flexible" | "flex-external" => MetaIndex::FlexExternal,
                number => match number.parse() {
                    Ok(number) => MetaIndex::Index(number),
                    Err(_) => {
                        eprintln!("'{number}' is not a valid index number.");
                        return Ok(Err(EXIT_OTHER));
                    }
                },
            };
            match minor_of(word) {
                Some(minor) => Ok(Command::Attach {
                    minor,
                    disk: disk.into(),
                    meta_disk: meta_disk.into(),
                    meta_index,
                    options: effective::disk_options(settings),
                }),
                None => Err(no_minor(word)),
            }
        }
        (verb, &[word]) => {
            let Some((resource, device)) = device(session, word)? else { return Ok(Err(no_minor(word))) };
            let (minor, resource) = (device.minor, resource.name);
            Ok(match verb {
                "primary" => Command::Primary { resource, force },
                "secondary" => Command::Secondary { resource },
                "del-minor" => Command::DelMinor { minor },
                "detach" => Command::Detach { minor, force },
                "resize" => Command::Resize { minor, wish: effective::size_wish(settings) },
                "new-current-uuid" => {
                    Command::NewCurrentUuid { minor, clear_bitmap: call.has("clear-bitmap") }
                }
                "verify" => Command::Verify {
                    minor,
                    start_sector: call.sector("start"),
                    stop_sector: call.sector("stop"),
                },
                "pause-sync" | "resume-sync" | "invalidate" | "invalidate-remote" | "suspend-io"
                | "resume-io" | "outdate" => sync_command(verb, minor),
                "disk-options" => {
                    let disk = configured_disk(session, minor)?;
                    let present = disk.filter(|_| !call.has("set-defaults")).map(|disk| disk.options);
                    let options = effective::disk_options_over(present.unwrap_or_default(), settings);
                    Command::DiskOptions { minor, options }
                }
                _ => return Ok(Err(EXIT_OTHER)),
            })
        }
        _ => Err(EXIT_OTHER),
    })
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_as_drbdsetup_takes_them() {
        for (word, expected) in [
            ("ipv4:172.16.16.4:7789", "172.16.16.4:7789"),
            ("172.16.16.4", "172.16.16.4:7788"),
            ("ipv6:[fd00::4]:7791", "[fd00::4]:7791"),
            ("ipv6:[fd00::4]", "[fd00::4]:7788"),
        ] {
            assert_eq!(address(word), Some(expected.parse().unwrap()), "{word}");
        }
        assert_eq!(address("ipv4:nowhere:1"), None);
    }
}
