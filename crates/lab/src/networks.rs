//! `nova network-*`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use uuid::Uuid;

use crate::catalog::tutorial_host_octet;
use crate::error::{Error, Result};
use crate::fabric;
use crate::place::Lab;
use crate::state::{Network, Records};

/// Larger prefixes leave no two addresses for servers.
const PREFIX_LEN_MAX: u8 = 30;

const LABEL_CHARS_MAX: usize = 255;

/// Makes a network.
///
/// # Errors
/// A label or addresses that are taken, or a CIDR that is none.
pub fn create(lab: &Lab, label: &str, cidr: &str) -> Result<Network> {
    let refused = |mistake: String| Err(Error::refused(format!("network-create: {mistake}")));
    let Ok(cidr) = cidr.parse::<Ipv4Net>() else {
        return refused(format!("{cidr:?} is no IPv4 network; write it as 172.16.16.0/24"));
    };
    if cidr.trunc() != cidr {
        return refused(format!("{cidr} is an address in a network; the network is {}", cidr.trunc()));
    }
    if cidr.prefix_len() > PREFIX_LEN_MAX {
        return refused(format!(
            "{cidr} has no room for two servers; the longest prefix is /{PREFIX_LEN_MAX}"
        ));
    }
    if label.is_empty() || label.chars().count() > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        return refused(format!("label {label:?}: use 1 to {LABEL_CHARS_MAX} printable characters"));
    }
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    if let Some(same) = records.networks.iter().find(|network| network.label == label) {
        return refused(format!("network {label} exists already, with id {} and {}", same.id, same.cidr));
    }
    let overlaps = |other: &Ipv4Net| other.contains(&cidr) || cidr.contains(other);
    if let Some(other) = records.networks.iter().find(|network| overlaps(&network.cidr)) {
        return refused(format!("{cidr} overlaps {} of network {}", other.cidr, other.label));
    }
    let network = Network { id: Uuid::new_v4(), label: label.to_owned(), cidr };
    fabric::ensure(lab, [&network].into_iter())?;
    records.networks.push(network.clone());
    records.save(lab, &lock)?;
    Ok(network)
}

/// Removes a network that no server is on.
///
/// # Errors
/// No such network, or servers on it.
pub fn delete(lab: &Lab, wanted: &str) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let network = records.network("network-delete", wanted)?.clone();
    let on_it = |nics: &[crate::state::Nic]| nics.iter().any(|nic| nic.network == network.id);
    if let Some(server) = records.servers.iter().find(|server| on_it(&server.nics)) {
        return Err(Error::refused(format!(
            "network-delete: server {} is on network {}; delete the server first",
            server.name, network.label
        )));
    }
    records.networks.retain(|other| other.id != network.id);
    records.save(lab, &lock)?;
    fabric::remove_bridge(lab, network.id)
}

/// The address of a new interface: the one that was asked for, or the tutorial's, or the first free one from
/// the second host on (the first is a gateway's by custom).
///
/// # Errors
/// The wanted address is not of this network or is taken, or none is free.
pub fn address(
    records: &Records,
    network: &Network,
    server: &str,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr> {
    let Network { label, cidr, .. } = network;
    let owner = |address: Ipv4Addr| {
        records
            .servers
            .iter()
            .find(|s| s.nics.iter().any(|nic| nic.network == network.id && nic.address == address))
    };
    if let Some(address) = wanted {
        if !cidr.contains(&address) {
            return Err(Error::refused(format!(
                "boot: address {address} is not in {cidr} of network {label}"
            )));
        }
        if address == cidr.network() || address == cidr.broadcast() {
            return Err(Error::refused(format!(
                "boot: {address} is the network or broadcast address of {cidr}; hosts are {} to {}",
                Ipv4Addr::from(u32::from(cidr.network()) + 1),
                Ipv4Addr::from(u32::from(cidr.broadcast()) - 1)
            )));
        }
        return match owner(address) {
            Some(server) => {
                Err(Error::refused(format!("boot: address {address} is taken by server {}", server.name)))
            }
            None => Ok(address),
        };
    }
    let tutorials = tutorial_host_octet(server)
        .map(|octet| Ipv4Addr::from(u32::from(cidr.network()) + u32::from(octet)))
        .filter(|address| cidr.contains(address) && *address != cidr.broadcast());
    let others = cidr.hosts().skip(1);
    tutorials
        .into_iter()
        .chain(others)
        .find(|&address| owner(address).is_none())
        .ok_or_else(|| Error::refused(format!("boot: network {label} ({cidr}) has no free address left")))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::address;
    use crate::state::{Network, Nic, Records, Server};

    #[test]
    fn addresses_are_the_tutorials_then_the_first_free() {
        let network = Network {
            id: Uuid::new_v4(),
            label: "drbd0".into(),
            cidr: "172.16.16.0/29".parse().expect("a network"),
        };
        let mut records = Records::default();
        let mut given = Vec::new();
        for name in ["drbd0", "drbd1", "web", "x", "y"] {
            let Ok(address) = address(&records, &network, name, None) else { break };
            let nics = vec![Nic { network: network.id, address, unplugged: false }];
            let id = Uuid::new_v4();
            records.servers.push(Server {
                id,
                name: name.into(),
                image: id,
                flavor: 2,
                nics,
                inject: vec![],
            });
            given.push(address.to_string());
        }
        assert_eq!(given, ["172.16.16.4", "172.16.16.3", "172.16.16.2", "172.16.16.5", "172.16.16.6"]);
        for wrong in ["172.16.16.0", "172.16.16.7", "172.16.16.9", "172.16.16.4"] {
            let wrong = wrong.parse().expect("an address");
            assert!(address(&records, &network, "z", Some(wrong)).is_err(), "{wrong} was given");
        }
        assert!(address(&records, &network, "z", None).is_err(), "a full network gave an address");
    }
}
