//! Which addresses a new interface gets: those that were asked for, or the tutorial's, or the first free ones.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::catalog::tutorial_host_octet;
use crate::error::{Error, Result};
use crate::state::{Network, Nic, Server};

/// The first host of a network is a gateway's by custom.
const FIRST_HOST: u128 = 2;

/// Who has addresses already.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// The lab's servers.
    pub servers: &'a [Server],
    /// Interfaces of the new server that have theirs already.
    pub nics: &'a [Nic],
    /// The new server's name.
    pub server: &'a str,
}

impl<'a> Taken<'a> {
    /// The server that has an interface on `network` of which `has` is true.
    fn owner(&self, network: &Network, has: impl Fn(&Nic) -> bool) -> Option<&'a str> {
        let on_it = |nics: &[Nic]| nics.iter().any(|nic| nic.network == network.id && has(nic));
        let own = on_it(self.nics).then_some(self.server);
        own.or_else(|| {
            self.servers.iter().find(|server| on_it(&server.nics)).map(|server| server.name.as_str())
        })
    }
}

fn refused<T>(mistake: String) -> Result<T> {
    Err(Error::refused(format!("boot: {mistake}")))
}

/// The IPv4 address of a new interface: `wanted`, or the one with the tutorial's host number, or the first free one
/// from the second host on.
///
/// # Errors
/// The wanted address is not of this network or is taken, or none is free.
pub fn v4(taken: &Taken<'_>, network: &Network, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    let Network { label, cidr, .. } = network;
    let owner = |address: Ipv4Addr| taken.owner(network, |nic| nic.address == address);
    if let Some(address) = wanted {
        if !cidr.contains(&address) {
            return refused(format!("address {address} is not in {cidr} of network {label}"));
        }
        if address == cidr.network() || address == cidr.broadcast() {
            return refused(format!(
                "{address} is the network or broadcast address of {cidr}; hosts are {} to {}",
                Ipv4Addr::from(u32::from(cidr.network()) + 1),
                Ipv4Addr::from(u32::from(cidr.broadcast()) - 1)
            ));
        }
        return match owner(address) {
            Some(server) => refused(format!("address {address} is taken by server {server}")),
            None => Ok(address),
        };
    }
    let tutorials = tutorial_host_octet(taken.server)
        .map(|octet| Ipv4Addr::from(u32::from(cidr.network()) + u32::from(octet)))
        .filter(|address| cidr.contains(address) && *address != cidr.broadcast());
    let others = cidr.hosts().skip(FIRST_HOST as usize - 1);
    match tutorials.into_iter().chain(others).find(|&address| owner(address).is_none()) {
        Some(address) => Ok(address),
        None => refused(format!("network {label} ({cidr}) has no free address left")),
    }
}

/// The IPv6 address of a new interface, if its network has a prefix: `wanted`, or the one with the host number of
/// its IPv4 address `beside`, or the first free one from the second host on.
///
/// # Errors
/// The wanted address is not of this network or is taken, or none is free.
pub fn v6(
    taken: &Taken<'_>,
    network: &Network,
    beside: Ipv4Addr,
    wanted: Option<Ipv6Addr>,
) -> Result<Option<Ipv6Addr>> {
    let Network { label, cidr, cidr_v6, .. } = network;
    let Some(prefix) = cidr_v6 else {
        return match wanted {
            Some(address) => refused(format!(
                "address {address}: network {label} has no IPv6; `nova network-create --cidr-v6 PREFIX` makes one \
                 that has"
            )),
            None => Ok(None),
        };
    };
    let owner = |address: Ipv6Addr| taken.owner(network, |nic| nic.address_v6 == Some(address));
    let first = u128::from(prefix.network());
    if let Some(address) = wanted {
        if !prefix.contains(&address) {
            return refused(format!("address {address} is not in {prefix} of network {label}"));
        }
        if address == prefix.network() {
            return refused(format!(
                "{address} is the routers' address of {prefix}; hosts are {} to {}",
                Ipv6Addr::from(first + 1),
                prefix.broadcast()
            ));
        }
        return match owner(address) {
            Some(server) => refused(format!("address {address} is taken by server {server}")),
            None => Ok(Some(address)),
        };
    }
    let host = u128::from(u32::from(beside) - u32::from(cidr.network()));
    let last = u128::from(prefix.broadcast());
    let free = std::iter::once(host)
        .chain(FIRST_HOST..=last - first)
        .filter(|&host| host != 0 && host <= last - first)
        .map(|host| Ipv6Addr::from(first + host))
        .find(|&address| owner(address).is_none());
    match free {
        Some(address) => Ok(Some(address)),
        None => refused(format!("network {label} ({prefix}) has no free address left")),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Taken, v4, v6};
    use crate::state::{Network, Nic, Server};

    fn network(v4: &str, v6: Option<&str>) -> Network {
        Network {
            id: Uuid::new_v4(),
            label: "drbd0".into(),
            cidr: v4.parse().expect("a network"),
            cidr_v6: v6.map(|v6| v6.parse().expect("a network")),
        }
    }

    /// The addresses that servers of these names get, one after the other, until there are none left.
    fn given(network: &Network, names: &[&str]) -> (Vec<Server>, Vec<String>) {
        let (mut servers, mut given) = (Vec::new(), Vec::new());
        for name in names {
            let taken = Taken { servers: &servers, nics: &[], server: name };
            let Ok(address) = v4(&taken, network, None) else { break };
            let Ok(address_v6) = v6(&taken, network, address, None) else { break };
            given.push(format!("{address} {}", address_v6.map_or("-".to_owned(), |v6| v6.to_string())));
            let nics = vec![Nic { network: network.id, address, address_v6, unplugged: false }];
            let (id, name, inject) = (Uuid::new_v4(), (*name).to_owned(), vec![]);
            servers.push(Server {
                id,
                name,
                image: id,
                flavor: 2,
                init: crate::state::Init::Tiny,
                nics,
                no_limits: false,
                inject,
            });
        }
        (servers, given)
    }

    #[test]
    fn addresses_are_the_tutorials_then_the_first_free() {
        let network = network("172.16.16.0/29", None);
        let (servers, given) = given(&network, &["drbd0", "drbd1", "web", "x", "y"]);
        let expected = ["172.16.16.4 -", "172.16.16.3 -", "172.16.16.2 -", "172.16.16.5 -", "172.16.16.6 -"];
        assert_eq!(given, expected);
        let taken = Taken { servers: &servers, nics: &[], server: "z" };
        for wrong in ["172.16.16.0", "172.16.16.7", "172.16.16.9", "172.16.16.4"] {
            let wrong = wrong.parse().expect("an address");
            assert!(v4(&taken, &network, Some(wrong)).is_err(), "{wrong} was given");
        }
        assert!(v4(&taken, &network, None).is_err(), "a full network gave an address");
        let address = "172.16.16.1".parse().expect("an address");
        let beside = v6(&taken, &network, address, Some("fd00::1".parse().expect("an address")));
        assert!(beside.is_err(), "a network without a prefix gave an IPv6 address");
    }

    #[test]
    fn ipv6_has_the_same_host_number_where_it_can() {
        let wide = network("10.0.0.0/16", Some("fd00:16::/64"));
        let (servers, given_wide) = given(&wide, &["drbd0", "web"]);
        assert_eq!(given_wide, ["10.0.0.4 fd00:16::4", "10.0.0.2 fd00:16::2"]);
        let taken = Taken { servers: &servers, nics: &[], server: "z" };
        let beside = "10.0.1.3".parse().expect("an address");
        let address = v6(&taken, &wide, beside, None).expect("there is room").expect("it has a prefix");
        assert_eq!(address.to_string(), "fd00:16::103");
        for wrong in ["fd00:16::", "fd00:17::2", "fd00:16::4"] {
            let wrong = wrong.parse().expect("an address");
            assert!(v6(&taken, &wide, beside, Some(wrong)).is_err(), "{wrong} was given");
        }
        let narrow = network("10.0.0.0/24", Some("fd00:16::/126"));
        let (_, given_narrow) = given(&narrow, &["drbd0", "gluster-00", "x"]);
        assert_eq!(
            given_narrow,
            ["10.0.0.4 fd00:16::2", "10.0.0.3 fd00:16::3"],
            "hosts that do not fit, then none"
        );
    }
}
