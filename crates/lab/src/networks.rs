//! `nova network-*`, and the two networks that every lab has.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::fabric;
use crate::place::Lab;
use crate::state::{Network, NetworkKind, PUBLIC, Records, SERVICE};

/// Larger prefixes leave no two addresses for servers.
const PREFIX_LEN_MAX: u8 = 30;

/// The same of IPv6, where the first address is the routers' (RFC 4291, 2.6.1) and none is a broadcast.
const PREFIX_LEN_V6_MAX: u8 = 126;

const LABEL_CHARS_MAX: usize = 255;

/// The cloud's own networks, made with the first server that is on them. Their addresses are those that are kept
/// for documents (RFC 5737, RFC 3849), and of the tutorial's service net.
pub fn built_in() -> [Network; 2] {
    let v4 = |a, b, c, d, len| Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len);
    [
        Network {
            id: PUBLIC,
            label: "public".to_owned(),
            cidr: v4(203, 0, 113, 0, 24),
            cidr_v6: Some(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0x4800, 0, 0, 0, 0, 0), 64)),
        },
        Network { id: SERVICE, label: "private".to_owned(), cidr: v4(10, 181, 144, 0, 20), cidr_v6: None },
    ]
}

/// A user's IPv4 network.
fn v4_network(cidr: &str) -> std::result::Result<Ipv4Net, String> {
    let Ok(cidr) = cidr.parse::<Ipv4Net>() else {
        return Err(format!("{cidr:?} is no IPv4 network; write it as 172.16.16.0/24"));
    };
    if cidr.trunc() != cidr {
        return Err(format!("{cidr} is an address in a network; the network is {}", cidr.trunc()));
    }
    if cidr.prefix_len() > PREFIX_LEN_MAX {
        return Err(format!("{cidr} has no room for two servers; the longest prefix is /{PREFIX_LEN_MAX}"));
    }
    let unfit =
        cidr.network().is_loopback() || cidr.network().is_multicast() || cidr.network().octets()[0] == 0;
    if unfit {
        return Err(format!(
            "{cidr} is not for servers' interfaces; use 10.0.0.0/8 or 172.16.0.0/12 or parts"
        ));
    }
    Ok(cidr)
}

/// A user's IPv6 network.
fn v6_network(cidr: &str) -> std::result::Result<Ipv6Net, String> {
    let Ok(cidr) = cidr.parse::<Ipv6Net>() else {
        return Err(format!("{cidr:?} is no IPv6 network; write it as fd00:16::/64"));
    };
    if cidr.trunc() != cidr {
        return Err(format!("{cidr} is an address in a network; the network is {}", cidr.trunc()));
    }
    if cidr.prefix_len() > PREFIX_LEN_V6_MAX {
        return Err(format!(
            "{cidr} has no room for two servers; the longest prefix is /{PREFIX_LEN_V6_MAX}"
        ));
    }
    let first = cidr.network();
    if first.is_multicast() || first.is_unicast_link_local() || first.segments()[0] == 0 {
        return Err(format!("{cidr} is not for servers' interfaces; use a part of fd00::/8 or 2000::/3"));
    }
    Ok(cidr)
}

/// Makes a network, with IPv6 beside IPv4 if there is a prefix for it.
///
/// # Errors
/// A label or addresses that are taken, or a CIDR that is none.
pub fn create(lab: &Lab, label: &str, cidr: &str, cidr_v6: Option<&str>) -> Result<Network> {
    let refused = |mistake: String| Error::refused(format!("network-create: {mistake}"));
    let cidr = v4_network(cidr).map_err(refused)?;
    let cidr_v6 = cidr_v6.map(v6_network).transpose().map_err(refused)?;
    if label.is_empty() || label.chars().count() > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        return Err(refused(format!("label {label:?}: use 1 to {LABEL_CHARS_MAX} printable characters")));
    }
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let network = Network { id: Uuid::new_v4(), label: label.to_owned(), cidr, cidr_v6 };
    // The cloud's own have their labels and addresses before the first server is on them.
    let built_in = built_in();
    let others = built_in.iter().chain(records.networks.iter());
    others.into_iter().try_for_each(|other| clash(&network, other)).map_err(refused)?;
    fabric::ensure(lab, &records, [&network].into_iter())?;
    records.networks.push(network.clone());
    records.save(lab, &lock)?;
    Ok(network)
}

/// Why two networks cannot be in one lab, if so.
fn clash(new: &Network, other: &Network) -> std::result::Result<(), String> {
    let Network { id, label, cidr, cidr_v6 } = other;
    if *label == new.label {
        return Err(match NetworkKind::of(*id) {
            NetworkKind::Tenant => format!("network {label} exists already, with id {id} and {cidr}"),
            _ => format!("network {label} is the cloud's own, with id {id} and {cidr}; choose another label"),
        });
    }
    if cidr.contains(&new.cidr) || new.cidr.contains(cidr) {
        return Err(format!("{} overlaps {cidr} of network {label}", new.cidr));
    }
    match (new.cidr_v6, cidr_v6) {
        (Some(new), Some(cidr)) if cidr.contains(&new) || new.contains(cidr) => {
            Err(format!("{new} overlaps {cidr} of network {label}"))
        }
        _ => Ok(()),
    }
}

/// Removes a network that no server is on.
///
/// # Errors
/// No such network, one of the cloud's own, or servers on it.
pub fn delete(lab: &Lab, wanted: &str) -> Result<()> {
    let lock = lab.lock()?;
    let mut records = Records::load(lab)?;
    let network = records.network("network-delete", wanted)?.clone();
    if NetworkKind::of(network.id) != NetworkKind::Tenant {
        return Err(Error::refused(format!(
            "network-delete: network {} is the cloud's own; `lockstep lab down` removes it with the lab",
            network.label
        )));
    }
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

#[cfg(test)]
mod tests {
    use super::{built_in, clash, v4_network, v6_network};
    use crate::state::{Network, PUBLIC};

    #[test]
    fn networks_that_cannot_be_are_refused_with_what_would_be_right() {
        for (cidr, says) in [
            ("172.16.16.0", "no IPv4 network"),
            ("172.16.16.4/24", "the network is 172.16.16.0/24"),
            ("172.16.16.0/31", "/30"),
            ("127.0.0.0/8", "not for servers"),
            ("224.0.0.0/24", "not for servers"),
            ("fd00::/64", "no IPv4 network"),
        ] {
            let said = v4_network(cidr).expect_err(cidr);
            assert!(said.contains(says), "{cidr}: {said}");
        }
        for (cidr, says) in [
            ("172.16.16.0/24", "no IPv6 network"),
            ("fd00::1/64", "the network is fd00::/64"),
            ("fd00::/127", "/126"),
            ("fe80::/64", "not for servers"),
            ("ff02::/64", "not for servers"),
            ("::/64", "not for servers"),
        ] {
            let said = v6_network(cidr).expect_err(cidr);
            assert!(said.contains(says), "{cidr}: {said}");
        }
    }

    #[test]
    fn the_clouds_own_networks_keep_what_is_theirs() {
        let [public, service] = built_in();
        assert_eq!(public.id, PUBLIC);
        assert_eq!(clash(&public, &service), Ok(()));
        let network = |label: &str, v4: &str, v6: &str| Network {
            id: uuid::Uuid::new_v4(),
            label: label.to_owned(),
            cidr: v4.parse().expect("a network"),
            cidr_v6: Some(v6.parse().expect("a network")),
        };
        assert_eq!(clash(&network("drbd0", "172.16.16.0/24", "fd00::/64"), &public), Ok(()));
        for (other, says) in [
            (network("public", "172.16.16.0/24", "fd00::/64"), "choose another label"),
            (network("drbd0", "203.0.113.128/25", "fd00::/64"), "overlaps 203.0.113.0/24 of network public"),
            (
                network("drbd0", "172.16.16.0/24", "2001:db8::/32"),
                "overlaps 2001:db8:4800::/64 of network public",
            ),
        ] {
            let said = clash(&other, &public).expect_err(says);
            assert!(said.contains(says), "{said}");
        }
    }
}
