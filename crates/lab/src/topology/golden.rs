//! Drawings of two labs as files: the tutorial's two servers with everything broken that can be, and more servers than
//! fit side by side. With the environment variable `UPDATE_GOLDENS` set, the files are written instead of compared.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use uuid::Uuid;

use super::{Topology, svg, text};
use crate::fault::list::{InForce, Part};
use crate::forward::Forward;
use crate::networks::built_in;
use crate::process::Process;
use crate::state::{Attachment, Init, Network, Nic, PUBLIC, Records, SERVICE, Server, Volume, VolumeKind};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(0xa5a5_0000_0000_4000_8000_0000_0000_0000 + number)
}

fn tenant(number: u8, label: &str, v6: bool) -> Network {
    Network {
        id: id(u128::from(number)),
        label: label.to_owned(),
        cidr: format!("172.16.{number}.0/24").parse().expect("a network"),
        cidr_v6: v6.then(|| format!("fd00:{number}::/64").parse().expect("a network")),
    }
}

fn server(number: u8, name: &str, networks: &[&Network]) -> Server {
    let nics = networks
        .iter()
        .map(|network| Nic {
            network: network.id,
            address: Ipv4Addr::from(u32::from(network.cidr.network()) + u32::from(number)),
            address_v6: network
                .cidr_v6
                .map(|cidr| Ipv6Addr::from(u128::from(cidr.network()) + u128::from(number))),
            unplugged: false,
        })
        .collect();
    let inject = Vec::new();
    Server {
        id: id(100 + u128::from(number)),
        name: name.into(),
        image: id(0),
        flavor: 3,
        init: Init::Tiny,
        nics,
        no_limits: false,
        inject,
    }
}

fn volume(number: u128, name: &str, server: Option<(&Server, &str)>) -> Volume {
    let attachment = server.map(|(server, device)| Attachment { server: server.id, device: device.into() });
    Volume {
        id: id(number),
        name: name.into(),
        size_gib: 100,
        kind: VolumeKind::Sata,
        seed: 1,
        plug: 1,
        faults: Vec::new(),
        attachment,
    }
}

fn compare(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/topology/golden").join(name);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, drawn).expect("the golden is written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == golden, "{} is not what is drawn:\n{drawn}", path.display());
}

#[test]
fn the_tutorials_two_servers_with_faults() {
    let [public, service] = built_in();
    let drbd0 = tenant(16, "drbd0", true);
    let mut servers = vec![
        server(4, "drbd0", &[&public, &service, &drbd0]),
        server(3, "drbd1", &[&public, &service, &drbd0]),
        server(5, "arbiter-with-a-long-name", &[&drbd0]),
    ];
    servers[1].nics[0].unplugged = true;
    servers[1].no_limits = true;
    let mut records = Records::default();
    records.volumes = vec![
        volume(200, "drbd0", Some((&servers[0], "xvdb"))),
        volume(201, "drbd1", Some((&servers[1], "xvdf"))),
        volume(202, "", Some((&servers[1], "xvdg"))),
        volume(203, "spare <backup> & more", None),
    ];
    records.faults.cuts.push(drbd0.id);
    let faults = [
        InForce::new(["cut", "drbd0"], "no frame passes network drbd0".into()).of([Part::Network(drbd0.id)]),
        InForce::new(["partition", "drbd0", "drbd1"], "drbd0 and drbd1 do not hear each other".into())
            .of([Part::Server(servers[0].id), Part::Server(servers[1].id)]),
        InForce::new(["pause", "drbd0"], "no process of server drbd0 runs".into())
            .of([Part::Server(servers[0].id)]),
        InForce::new(["link-down", "drbd1:public"], "the cable of eth0 of drbd1 is pulled".into())
            .of([Part::Interface(servers[1].id, 0)]),
        InForce::new(["volume", "drbd1", "errors"], "volume drbd1 answers with errors".into())
            .of([Part::Volume(id(201))]),
    ];
    records.networks = vec![drbd0, service, public];
    records.servers = servers;
    let process = Process { pid: 1, start_ticks: 1 };
    let forwards = vec![Forward { port: 8080, server: "drbd1".into(), server_port: 80, process }];
    let drawn = Topology::gathered("tutorial", &records, &["PAUSED", "ACTIVE", "SHUTOFF"], forwards, &faults);
    compare("faults.txt", &text::draw(&drawn));
    compare("faults.svg", &svg::draw(&drawn));
    compare("faults.json", &serde_json::to_string_pretty(&drawn).expect("it has no maps"));
}

/// The tutorial's part B and more of the like.
#[test]
fn more_servers_than_fit_side_by_side() {
    let [public, service] = built_in();
    let (management, clients) = (tenant(25, "storageManagement", false), tenant(50, "storageClients", false));
    let mut records = Records::default();
    for number in 0..7_u8 {
        let name = format!("gluster-0{number}");
        let server = server(10 + number, &name, &[&public, &service, &management, &clients]);
        records.volumes.push(volume(
            200 + u128::from(number),
            &format!("glusterbrick{number}"),
            Some((&server, "xvdg")),
        ));
        records.servers.push(server);
    }
    for number in 0..2_u8 {
        records.servers.push(server(
            20 + number,
            &format!("webHead{number}"),
            &[&public, &service, &clients],
        ));
    }
    assert_eq!((public.id, service.id), (PUBLIC, SERVICE));
    records.networks = vec![public, service, management, clients];
    let statuses = vec!["ACTIVE"; records.servers.len()];
    let drawn = Topology::gathered("gluster", &records, &statuses, Vec::new(), &[]);
    compare("rows.txt", &text::draw(&drawn));
    compare("rows.svg", &svg::draw(&drawn));
}

#[test]
fn an_empty_lab() {
    let drawn = Topology::gathered("empty", &Records::default(), &[], Vec::new(), &[]);
    assert_eq!(text::draw(&drawn), "lab empty: no networks, no servers, no volumes\n");
    assert!(svg::draw(&drawn).ends_with("</svg>\n"));
}
