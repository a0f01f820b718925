//! Faults that a lab can inject: `lockstep lab fault …`.

use crate::error::{Error, Result};
use crate::events::{self, Kind};
use crate::fabric;
use crate::life::Life;
use crate::place::Lab;
use crate::state::Records;

/// Pulls (`up` false) or plugs in the cable of a server's interfaces, all or those on one network. Lasts over
/// reboots.
///
/// # Errors
/// No such server or network, or the server has no interface there.
pub fn set_link(lab: &Lab, wanted: &str, network: Option<&str>, up: bool) -> Result<()> {
    let verb = if up { "fault link-up" } else { "fault link-down" };
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let server = records.server(verb, wanted)?.clone();
    let network = network.map(|network| records.network(verb, network).cloned()).transpose()?;
    let on_it = |id| network.as_ref().is_none_or(|network| network.id == id);
    let chosen: Vec<usize> = server
        .nics
        .iter()
        .enumerate()
        .filter(|(_, nic)| on_it(nic.network))
        .map(|(index, _)| index)
        .collect();
    if chosen.is_empty() {
        let place = network.map_or("any network".to_owned(), |network| format!("network {}", network.label));
        return Err(Error::refused(format!("{verb}: server {} has no interface on {place}", server.name)));
    }
    let running = Life::running(lab, server.id)?.is_some();
    for index in chosen {
        if running {
            fabric::set_carrier(lab, server.id, index, up)?;
        }
        if let Some(record) = records.servers.iter_mut().find(|record| record.id == server.id) {
            record.nics[index].unplugged = !up;
        }
    }
    records.save(lab, &lock)?;
    let (kind, word) = if up { (Kind::Heal, "link-up") } else { (Kind::Fault, "link-down") };
    let words =
        [word, &server.name].into_iter().chain(network.as_ref().map(|network| network.label.as_str()));
    events::append(lab, kind, &words.collect::<Vec<_>>())
}

/// Lets two servers no longer hear each other, on any network; nothing tells them so. Lasts over reboots.
///
/// # Errors
/// No such servers, or one server twice.
pub fn partition(lab: &Lab, a: &str, b: &str) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let (a, b) =
        (records.server("fault partition", a)?.clone(), records.server("fault partition", b)?.clone());
    if a.id == b.id {
        return Err(Error::refused(format!("fault partition: {} is one server, name two", a.name)));
    }
    if !records.partitions.iter().any(|&pair| pair == (a.id, b.id) || pair == (b.id, a.id)) {
        records.partitions.push((a.id, b.id));
    }
    fabric::apply_partitions(lab, &records)?;
    records.save(lab, &lock)?;
    events::append(lab, Kind::Fault, &["partition", &a.name, &b.name])
}

/// Ends every partition, or those of the two servers named.
///
/// # Errors
/// No such servers.
pub fn heal(lab: &Lab, between: Option<(&str, &str)>) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    match between {
        Some((a, b)) => {
            let (a, b) = (records.server("fault heal", a)?.id, records.server("fault heal", b)?.id);
            records.partitions.retain(|&pair| pair != (a, b) && pair != (b, a));
        }
        None => records.partitions.clear(),
    }
    fabric::apply_partitions(lab, &records)?;
    records.save(lab, &lock)?;
    let words = ["heal"].into_iter().chain(between.into_iter().flat_map(|(a, b)| [a, b]));
    events::append(lab, Kind::Heal, &words.collect::<Vec<_>>())
}
