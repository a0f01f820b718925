//! A server's interfaces: which it gets, with which addresses, and how they come up inside.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::addresses::{self, Taken};
use crate::error::{Doing, Error, Result};
use crate::networks;
use crate::state::{Network, Nic, PUBLIC, Records, SERVICE, Server};

/// Interfaces of one server that an order may name.
const NICS_MAX: usize = 8;

/// What `nova boot` was told about interfaces.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `net-id=ID[,v4-fixed-ip=A][,v6-fixed-ip=A]`, in the order of the interfaces.
    pub nics: &'a [String],
    /// Leave out the interface on the network `public`.
    pub no_public: bool,
    /// Leave out the interface on the network `private`.
    pub no_service_net: bool,
}

/// One `--nic`, as typed.
#[derive(Debug, Eq, PartialEq)]
struct Typed<'a> {
    network: &'a str,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

fn typed(nic: &str) -> Result<Typed<'_>> {
    let mistake = |what: &str| Error::refused(format!("boot: --nic {nic}: {what}"));
    let (mut network, mut v4, mut v6) = (None, None, None);
    for part in nic.split(',') {
        match part.split_once('=') {
            Some(("net-id", id)) => network = Some(id),
            Some(("v4-fixed-ip", text)) => {
                v4 = Some(text.parse().map_err(|_| mistake(&format!("{text:?} is no IPv4 address")))?);
            }
            Some(("v6-fixed-ip", text)) => {
                v6 = Some(text.parse().map_err(|_| mistake(&format!("{text:?} is no IPv6 address")))?);
            }
            _ => return Err(mistake("write it as net-id=ID[,v4-fixed-ip=ADDRESS][,v6-fixed-ip=ADDRESS]")),
        }
    }
    let network = network.ok_or_else(|| mistake("net-id=ID says which network, and is missing"))?;
    Ok(Typed { network, v4, v6 })
}

/// The interfaces of a new server: the cloud's networks unless they are left out, then those that were ordered. Two
/// may be on one network. Networks of the cloud's own that are not there yet are added to the records.
///
/// # Errors
/// A mistake in the order, or no address is left.
pub fn ordered(records: &mut Records, server: &str, wish: &Wish<'_>) -> Result<Vec<Nic>> {
    if wish.nics.len() > NICS_MAX {
        return Err(Error::refused(format!("boot: {} interfaces, the most is {NICS_MAX}", wish.nics.len())));
    }
    let typed = wish.nics.iter().map(|nic| typed(nic)).collect::<Result<Vec<_>>>()?;
    for network in networks::built_in() {
        let left_out = match network.id {
            PUBLIC => wish.no_public,
            _ => wish.no_service_net,
        };
        if !left_out && records.network_by_id(network.id).is_none() {
            records.networks.push(network);
        }
    }
    let mut nics: Vec<Nic> = Vec::new();
    let mut add = |network: &Network, v4, v6| -> Result<()> {
        let taken = Taken { servers: &records.servers, nics: &nics, server };
        let address = addresses::v4(&taken, network, v4)?;
        let address_v6 = addresses::v6(&taken, network, address, v6)?;
        nics.push(Nic { network: network.id, address, address_v6, unplugged: false });
        Ok(())
    };
    for (id, left_out) in [(PUBLIC, wish.no_public), (SERVICE, wish.no_service_net)] {
        if let Some(network) = records.network_by_id(id).filter(|_| !left_out) {
            add(network, None, None)?;
        }
    }
    for Typed { network, v4, v6 } in typed {
        add(records.network("boot: --nic", network)?, v4, v6)?;
    }
    Ok(nics)
}

/// What `nova list` says of a server's networks: `drbd0=172.16.16.4; public=203.0.113.4, 2001:db8:4800::4`. Users'
/// networks come first, as in the tutorial's listing.
pub fn listing(records: &Records, server: &Server) -> String {
    let mut networks: Vec<Uuid> = Vec::new();
    for nic in &server.nics {
        if !networks.contains(&nic.network) {
            networks.push(nic.network);
        }
    }
    // Stable: users' networks stay in the order of their interfaces.
    networks.sort_by_key(|&id| match id {
        PUBLIC => 1,
        SERVICE => 2,
        _ => 0,
    });
    let texts: Vec<String> = networks
        .iter()
        .map(|&id| {
            let on_it = server.nics.iter().filter(|nic| nic.network == id);
            let addresses: Vec<String> = on_it
                .flat_map(|nic| [Some(nic.address.to_string()), nic.address_v6.map(|v6| v6.to_string())])
                .flatten()
                .collect();
            let label = records.network_by_id(id).map_or("?", |network| &network.label);
            format!("{label}={}", addresses.join(", "))
        })
        .collect();
    texts.join("; ")
}

/// Inside the server, by its process 1: sets every interface up with its addresses, and the loopback.
///
/// # Errors
/// What `ip` says.
pub fn set_up(records: &Records, server: &Server) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .doing(|| "run ip in the server".into())?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin.write_all(script(records, server).as_bytes()).doing(|| "talk to ip".into())?;
    }
    let status = ip.wait().doing(|| "wait for ip".into())?;
    if status.success() { Ok(()) } else { Err(Error::refused("ip could not set the server's addresses")) }
}

fn script(records: &Records, server: &Server) -> String {
    let mut script = String::from("link set lo up\n");
    for (index, nic) in server.nics.iter().enumerate() {
        let network = records.network_by_id(nic.network);
        let prefix = network.map_or(32, |network| network.cidr.prefix_len());
        let _ = writeln!(script, "addr add {}/{prefix} brd + dev eth{index}", nic.address);
        if let Some(v6) = nic.address_v6 {
            let prefix = network.and_then(|network| network.cidr_v6).map_or(128, |cidr| cidr.prefix_len());
            // Nobody else has the address, and a program that binds it at once must not be told to wait.
            let _ = writeln!(script, "addr add {v6}/{prefix} dev eth{index} nodad");
        }
        let _ = writeln!(script, "link set eth{index} up");
    }
    script
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Wish, listing, ordered, script, typed};
    use crate::state::{Network, Records, Server};

    fn records() -> Records {
        let mut records = Records::default();
        records.networks.push(Network {
            id: Uuid::new_v4(),
            label: "drbd0".into(),
            cidr: "172.16.16.0/24".parse().expect("a network"),
            cidr_v6: None,
        });
        records
    }

    fn server(records: &mut Records, name: &str, wish: &Wish<'_>) -> Server {
        let nics = ordered(records, name, wish).expect("nothing is wrong with it");
        let id = Uuid::new_v4();
        Server {
            id,
            name: name.into(),
            image: id,
            flavor: 2,
            init: crate::state::Init::Tiny,
            nics,
            no_limits: false,
            inject: vec![],
        }
    }

    #[test]
    fn interfaces_are_the_tutorials() {
        let mut records = records();
        let nics = ["net-id=drbd0".to_owned()];
        let server =
            server(&mut records, "drbd0", &Wish { nics: &nics, no_public: false, no_service_net: false });
        assert_eq!(
            listing(&records, &server),
            "drbd0=172.16.16.4; public=203.0.113.4, 2001:db8:4800::4; private=10.181.144.4"
        );
        let expected = "link set lo up\n\
            addr add 203.0.113.4/24 brd + dev eth0\n\
            addr add 2001:db8:4800::4/64 dev eth0 nodad\n\
            link set eth0 up\n\
            addr add 10.181.144.4/20 brd + dev eth1\n\
            link set eth1 up\n\
            addr add 172.16.16.4/24 brd + dev eth2\n\
            link set eth2 up\n";
        assert_eq!(script(&records, &server), expected);
    }

    #[test]
    fn what_is_left_out_is_not_made() {
        let mut records = records();
        let nics = ["net-id=drbd0".to_owned(), "net-id=drbd0".to_owned()];
        let server = server(&mut records, "x", &Wish { nics: &nics, no_public: true, no_service_net: true });
        assert_eq!(listing(&records, &server), "drbd0=172.16.16.2, 172.16.16.3");
        assert_eq!(records.networks.len(), 1);
    }

    #[test]
    fn a_mistaken_nic_says_what_would_be_right() {
        for (nic, says) in [
            ("drbd0", "net-id=ID["),
            ("v4-fixed-ip=10.0.0.2", "net-id=ID says which network"),
            ("net-id=drbd0,v4-fixed-ip=10.0.0", "no IPv4 address"),
            ("net-id=drbd0,v6-fixed-ip=10.0.0.2", "no IPv6 address"),
        ] {
            let said = typed(nic).expect_err(nic).to_string();
            assert!(said.contains(says), "{nic}: {said}");
        }
    }
}
