//! `events`: the states of devices, and then each change of one, as 8.4 told them before `events2`.
//!
//! Upstream: `print_broadcast_events` and `print_state` of drbdsetup 8.4. What is there is numbered with the time, what
//! changes from 1 on; the kernel's numbers count its messages.

use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drbd_engine::status::ResourceStatus;

use crate::session::{Session, SessionError};

/// Pause between looks at the state.
const POLL: Duration = Duration::from_millis(100);

/// What a line is about: a device with its state, or a resource without devices.
type Shown = (String, Option<String>);

/// Prints states of one resource, of one minor or of all, and what becomes of them.
pub fn events(session: &mut Session, name: &str) -> Result<u8, SessionError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut known = shown(&session.status(None)?, name);
    let mut lines: Vec<String> = known.iter().map(|one| format!("{now} {}", line("ST", one))).collect();
    let mut number = 0_u64;
    loop {
        for line in lines.drain(..) {
            if writeln!(io::stdout(), "{line}").is_err() {
                return Ok(0);
            }
        }
        thread::sleep(POLL);
        let present = shown(&session.status(None)?, name);
        for one in &present {
            let former = known.iter().find(|former| former.0 == one.0);
            if former == Some(one) {
                continue;
            }
            number += 1;
            if let Some(former) = former {
                lines.push(format!("{number} {}", line("ST-prev", former)));
                lines.push(format!("{number} {}", line("ST-new", one)));
            }
            lines.push(format!("{number} {}", line("ST", one)));
        }
        known = present;
    }
}

fn line(tag: &str, (object, state): &Shown) -> String {
    match state {
        Some(state) => format!("{tag} {object} {{ {state} }}"),
        None => format!("R - {object}"),
    }
}

fn shown(resources: &[ResourceStatus], name: &str) -> Vec<Shown> {
    let minor = crate::minor_of(name);
    let mut all = Vec::new();
    for resource in resources {
        let is_named = name == "all" || resource.name == name;
        if resource.devices.is_empty() && is_named {
            all.push((resource.name.clone(), None));
        }
        for device in resource.devices.iter().filter(|d| is_named || Some(d.minor) == minor) {
            let flag = |is_set: bool, letter: char| if is_set { letter } else { '-' };
            let flags = device.flags;
            let state = format!(
                "cs:{} ro:{}/{} ds:{}/{} {}{}{}{}",
                device.connection,
                resource.role,
                resource.peer_role,
                device.disk,
                device.peer_disk,
                if flags.io_suspended { 's' } else { 'r' },
                flag(flags.resync_after, 'a'),
                flag(flags.resync_paused_by_peer, 'p'),
                flag(flags.resync_paused_by_user, 'u'),
            );
            all.push((format!("{},{}[{}]", device.minor, resource.name, device.volume), Some(state)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::line;

    /// As drbdsetup printed them for the kernel's DRBD.
    #[test]
    fn lines_are_the_originals() {
        let state = "cs:Connected ro:Primary/Secondary ds:UpToDate/Inconsistent r---";
        assert_eq!(
            line("ST-new", &("3,r0[0]".into(), Some(state.into()))),
            "ST-new 3,r0[0] { cs:Connected ro:Primary/Secondary ds:UpToDate/Inconsistent r--- }"
        );
        assert_eq!(line("ST", &("r0".into(), None)), "R - r0");
    }
}
