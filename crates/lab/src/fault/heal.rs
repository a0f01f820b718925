//! `lockstep lab fault heal`: the undoing of faults.

use crate::cgroup;
use crate::clock;
use crate::error::Result;
use crate::events::{self, Kind};
use crate::fabric;
use crate::life::{Life, Status};
use crate::place::Lab;
use crate::state::Records;
use crate::supervisor;
use crate::volume_fault;
use crate::wire;

/// Ends every partition, or those of the two servers named.
///
/// # Errors
/// No such servers.
pub fn partitions(lab: &Lab, between: Option<(&str, &str)>) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    match between {
        Some((a, b)) => {
            let (a, b) = (records.server("fault heal", a)?.id, records.server("fault heal", b)?.id);
            records.faults.silences.retain(|silence| !silence.is_between(a, b));
        }
        None => records.faults.silences.clear(),
    }
    fabric::apply_partitions(lab, &records)?;
    records.save(lab, &lock)?;
    let words = ["heal"].into_iter().chain(between.into_iter().flat_map(|(a, b)| [a, b]));
    events::append(lab, Kind::Heal, &words.collect::<Vec<_>>())
}

/// Undoes every fault, and boots the servers that a fault ended. Gives the names of those.
///
/// # Errors
/// The first thing that could not be undone; all else is.
pub fn all(lab: &Lab) -> Result<Vec<String>> {
    let (mut done, fallen) = {
        let lock = lab.lock()?;
        let mut records = Records::load(lab)?;
        records.faults.silences.clear();
        records.faults.cuts.clear();
        records.faults.wires.clear();
        records.faults.clocks.clear();
        let mut done = fabric::apply_partitions(lab, &records).and(fabric::apply_cuts(lab, &records));
        done = done.and(wire::apply(lab, &records));
        for server in &mut records.servers {
            let life = Life::running(lab, server.id)?;
            let running = life.is_some();
            if let Some(mut life) = life.filter(|life| life.paused) {
                life.paused = false;
                done = done.and(cgroup::freeze(lab, server.id, false));
                done = done.and(life.save(lab, server.id, &lock));
            }
            for (index, nic) in server.nics.iter_mut().enumerate().filter(|(_, nic)| nic.unplugged) {
                nic.unplugged = false;
                if running {
                    done = done.and(fabric::set_carrier(lab, server.id, index, true));
                }
            }
            done = done.and(clock::set(lab, server, 0));
        }
        records.save(lab, &lock)?;
        done = done.and(volume_fault::heal(lab, &lock, &mut records, None).map(drop));
        let fallen = records.faults.fallen.iter().filter_map(|&(id, _)| records.server_by_id(id));
        (done, fallen.cloned().collect::<Vec<_>>())
    };
    let mut booted = Vec::new();
    for server in fallen {
        if Life::status(Life::load(lab, server.id)?.as_ref()) == Status::Shutoff {
            let up = supervisor::start(lab, &server);
            booted.extend(up.is_ok().then_some(server.name));
            done = done.and(up);
        }
    }
    done?;
    events::append(lab, Kind::Heal, &["heal", "--all"])?;
    Ok(booted)
}
