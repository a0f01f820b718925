//! The command line of `nova`, as far as the tutorial needs it.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde_json::json;

use crate::catalog::{FLAVORS, IMAGES};
use crate::cgroup::Limits;
use crate::error::Result;
use crate::interfaces::Wish;
use crate::life::Life;
use crate::place::Lab;
use crate::servers::{self, Order};
use crate::state::{Init, Network, Records, Server, Snapshot, Volume, VolumeKind};
use crate::table::{properties, render};
use crate::{bandwidth, enter, interfaces, networks, snapshots, systemd, volumes};

/// Servers, networks and volumes of a lab on this machine
#[derive(Debug, Parser)]
#[command(name = "nova", disable_help_subcommand = true)]
pub struct Nova {
    /// The lab
    #[arg(long, env = "LOCKSTEP_LAB", default_value = "default")]
    lab: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Listing {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a private network
    NetworkCreate {
        name: String,
        cidr: String,
        /// Addresses beside those, such as fd00:16::/64
        #[arg(long, value_name = "PREFIX")]
        cidr_v6: Option<String>,
    },
    /// List networks
    NetworkList(Listing),
    /// Remove a network that no server is on
    NetworkDelete { network: String },
    /// Make a volume of so many GB
    VolumeCreate {
        #[arg(long, default_value = "")]
        display_name: String,
        #[arg(long, default_value = "SATA", ignore_case = true)]
        volume_type: VolumeKind,
        /// Begin with the bytes of this snapshot
        #[arg(long)]
        snapshot_id: Option<String>,
        #[arg(allow_negative_numbers = true)]
        size: String,
    },
    /// List volumes
    VolumeList(Listing),
    /// Give a volume to a server as a block device
    VolumeAttach {
        server: String,
        volume: String,
        /// /dev/xvdb to /dev/xvdz, or auto
        device: String,
    },
    /// Take a volume from a server
    VolumeDetach {
        /// As if its cable were pulled: whoever uses it gets errors
        #[arg(long)]
        force: bool,
        server: String,
        volume: String,
    },
    /// Give a volume so many GB, more than it has; a server that has it sees them at once
    VolumeExtend { volume: String, size: String },
    /// Copy a volume as it is now
    VolumeSnapshotCreate {
        /// Even of an attached volume: its writes wait meanwhile
        #[arg(long, value_name = "True|False", default_value = "False", ignore_case = true)]
        force: PythonBool,
        #[arg(long, default_value = "")]
        display_name: String,
        volume: String,
    },
    /// List snapshots
    VolumeSnapshotList(Listing),
    /// Remove a snapshot
    VolumeSnapshotDelete { snapshot: String },
    /// Remove a volume that no server has
    VolumeDelete { volume: String },
    /// Make a server and boot it
    Boot {
        #[arg(long)]
        image: String,
        #[arg(long)]
        flavor: String,
        /// Process 1: the system's systemd, or one that starts nothing and is faster
        #[arg(long)]
        init: Option<Init>,
        /// net-id=ID[,v4-fixed-ip=ADDRESS][,v6-fixed-ip=ADDRESS]; once for each interface, from eth2 on
        #[arg(long = "nic")]
        nics: Vec<String>,
        /// Without eth0 on the network public
        #[arg(long)]
        no_public: bool,
        /// Without eth1 on the network private, the service net
        #[arg(long)]
        no_service_net: bool,
        /// Do not slow the public interface down to the flavor's bandwidth
        #[arg(long)]
        no_limits: bool,
        /// PATH-IN-THE-SERVER=PATH-HERE; once for each file
        #[arg(long = "file")]
        files: Vec<String>,
        name: String,
    },
    /// List servers
    List(Listing),
    /// Show one server
    Show {
        server: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Remove servers
    Delete {
        #[arg(required = true)]
        servers: Vec<String>,
    },
    /// Boot a server that is off
    Start { server: String },
    /// Reboot a server
    Reboot {
        /// Cut its power instead of asking it
        #[arg(long)]
        hard: bool,
        server: String,
    },
    /// Run words in a server by /bin/sh, or a login shell
    Ssh {
        server: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// List images
    ImageList(Listing),
    /// List flavors
    FlavorList(Listing),
}

/// As python-novaclient spells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum PythonBool {
    #[value(name = "True")]
    True,
    #[value(name = "False")]
    False,
}

/// Runs one command of `nova`.
///
/// # Errors
/// What was refused.
pub fn run(nova: Nova) -> Result<ExitCode> {
    let lab = Lab::named(&nova.lab)?;
    match nova.verb {
        Verb::NetworkCreate { name, cidr, cidr_v6 } => {
            let network = networks::create(&lab, &name, &cidr, cidr_v6.as_deref())?;
            let mut pairs = vec![
                ("id", network.id.to_string()),
                ("label", network.label),
                ("cidr", network.cidr.to_string()),
            ];
            pairs.extend(network.cidr_v6.map(|cidr| ("cidr_v6", cidr.to_string())));
            print(&properties(&pairs));
        }
        Verb::NetworkList(listing) => network_list(&lab, &listing)?,
        Verb::NetworkDelete { network } => networks::delete(&lab, &network)?,
        Verb::VolumeCreate { display_name, volume_type, snapshot_id, size } => {
            print(&volume_properties(&volumes::create(
                &lab,
                &display_name,
                volume_type,
                &size,
                snapshot_id.as_deref(),
            )?));
        }
        Verb::VolumeList(listing) => volume_list(&lab, &listing)?,
        Verb::VolumeAttach { server, volume, device } => {
            let (server, volume) = volumes::attach(&lab, &server, &volume, &device)?;
            let device = volume.attachment.map(|attachment| format!("/dev/{}", attachment.device));
            print(&properties(&[
                ("device", device.unwrap_or_default()),
                ("id", volume.id.to_string()),
                ("serverId", server.to_string()),
                ("volumeId", volume.id.to_string()),
            ]));
        }
        Verb::VolumeDetach { force, server, volume } => volumes::detach(&lab, &server, &volume, force)?,
        Verb::VolumeExtend { volume, size } => volumes::extend(&lab, &volume, &size)?,
        Verb::VolumeSnapshotCreate { force, display_name, volume } => {
            let snapshot = snapshots::create(&lab, &volume, &display_name, force == PythonBool::True)?;
            print(&properties(&[
                ("display_name", snapshot.name),
                ("id", snapshot.id.to_string()),
                ("size", snapshot.size_gib.to_string()),
                ("status", "available".to_owned()),
                ("volume_id", snapshot.volume.to_string()),
            ]));
        }
        Verb::VolumeSnapshotList(listing) => snapshot_list(&lab, &listing)?,
        Verb::VolumeSnapshotDelete { snapshot } => snapshots::delete(&lab, &snapshot)?,
        Verb::VolumeDelete { volume } => volumes::delete(&lab, &volume)?,
        Verb::Boot { image, flavor, init, nics, no_public, no_service_net, no_limits, files, name } => {
            let nics = Wish { nics: &nics, no_public, no_service_net };
            let init = init.unwrap_or_else(systemd_if_there);
            let order =
                Order { image: &image, flavor: &flavor, init, nics, no_limits, files: &files, name: &name };
            let server = servers::boot(&lab, &order)?;
            show(&lab, &server, &Listing { json: false })?;
        }
        Verb::List(listing) => server_list(&lab, &listing)?,
        Verb::Show { server, listing } => {
            let records = Records::load(&lab)?;
            show(&lab, records.server("show", &server)?, &listing)?;
        }
        Verb::Delete { servers } => servers.iter().try_for_each(|server| servers::delete(&lab, server))?,
        Verb::Start { server } => servers::start(&lab, "start", &server)?,
        Verb::Reboot { hard, server } => servers::reboot(&lab, &server, hard)?,
        Verb::Ssh { server, words } => {
            let records = Records::load(&lab)?;
            let status = enter::run(&lab, records.server("ssh", &server)?, &words)?;
            return Ok(ExitCode::from(status));
        }
        Verb::ImageList(listing) => image_list(&listing),
        Verb::FlavorList(listing) => flavor_list(&listing),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a server boots if nobody said.
fn systemd_if_there() -> Init {
    match systemd::available() {
        Ok(()) => Init::Systemd,
        Err(why) => {
            eprintln!("nova boot: {why}; this server boots with --init tiny");
            Init::Tiny
        }
    }
}

/// Writes to stdout; a reader that has gone away is no fault of ours.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints rows as a table, or the same things as JSON.
fn print_listing<T: Serialize>(listing: &Listing, things: &T, header: &[&str], rows: &[Vec<String>]) {
    if listing.json {
        let text = serde_json::to_string_pretty(things).unwrap_or_default();
        print(&format!("{text}\n"));
    } else {
        print(&render(header, rows));
    }
}

fn network_list(lab: &Lab, listing: &Listing) -> Result<()> {
    let networks = Records::load(lab)?.networks;
    let cidrs = |n: &Network| {
        let v6 = n.cidr_v6.map(|cidr| format!(", {cidr}"));
        format!("{}{}", n.cidr, v6.unwrap_or_default())
    };
    let rows: Vec<_> = networks.iter().map(|n| vec![n.id.to_string(), n.label.clone(), cidrs(n)]).collect();
    print_listing(listing, &networks, &["ID", "Label", "CIDR"], &rows);
    Ok(())
}

fn volume_status(volume: &Volume) -> &'static str {
    if volume.attachment.is_some() { "in-use" } else { "available" }
}

fn volume_properties(volume: &Volume) -> String {
    properties(&[
        ("attachments", "[]".to_owned()),
        ("display_name", volume.name.clone()),
        ("id", volume.id.to_string()),
        ("size", volume.size_gib.to_string()),
        ("status", volume_status(volume).to_owned()),
        ("volume_type", volume.kind.word().to_owned()),
    ])
}

fn volume_list(lab: &Lab, listing: &Listing) -> Result<()> {
    let volumes = Records::load(lab)?.volumes;
    let rows: Vec<_> = volumes
        .iter()
        .map(|volume| {
            let attached = volume.attachment.as_ref().map(|attachment| attachment.server.to_string());
            vec![
                volume.id.to_string(),
                volume_status(volume).to_owned(),
                volume.name.clone(),
                volume.size_gib.to_string(),
                volume.kind.word().to_owned(),
                attached.unwrap_or_default(),
            ]
        })
        .collect();
    let things: Vec<_> = volumes
        .iter()
        .map(|volume| {
            let attachment = volume.attachment.as_ref();
            json!({
                "id": volume.id,
                "status": volume_status(volume),
                "display_name": volume.name,
                "size": volume.size_gib,
                "volume_type": volume.kind.word(),
                "server_id": attachment.map(|attachment| attachment.server),
                "device": attachment.map(|attachment| format!("/dev/{}", attachment.device)),
            })
        })
        .collect();
    let header = ["ID", "Status", "Display Name", "Size", "Volume Type", "Attached to"];
    print_listing(listing, &things, &header, &rows);
    Ok(())
}

fn snapshot_list(lab: &Lab, listing: &Listing) -> Result<()> {
    let snapshots = Records::load(lab)?.snapshots;
    let row = |snapshot: &Snapshot| {
        let (id, volume, name) =
            (snapshot.id.to_string(), snapshot.volume.to_string(), snapshot.name.clone());
        vec![id, volume, "available".to_owned(), name, snapshot.size_gib.to_string()]
    };
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    print_listing(listing, &snapshots, &["ID", "Volume ID", "Status", "Display Name", "Size"], &rows);
    Ok(())
}

/// A server with what runs of it, for JSON.
fn server_json(lab: &Lab, records: &Records, server: &Server) -> Result<serde_json::Value> {
    let life = Life::load(lab, server.id)?;
    let status = Life::status(life.as_ref());
    let label = |id| records.network_by_id(id).map(|network| &network.label);
    let nics: Vec<_> = server
        .nics
        .iter()
        .map(|nic| {
            json!({
                "network": label(nic.network),
                "address": nic.address,
                "address_v6": nic.address_v6,
                "mbit_per_s": bandwidth::limit(server, nic),
                "unplugged": nic.unplugged,
            })
        })
        .collect();
    let volumes: Vec<_> = records
        .volumes_of(server.id)
        .map(|(volume, device)| json!({ "id": volume.id, "device": format!("/dev/{device}") }))
        .collect();
    let limits = life.as_ref().and_then(|life| life.limits.clone());
    let pid = life.filter(|life| life.init.is_alive()).map(|life| life.init.pid);
    Ok(json!({
        "id": server.id,
        "name": server.name,
        "status": status.word(),
        "image": server.image,
        "flavor": server.flavor,
        "init": server.init,
        "nics": nics,
        "volumes": volumes,
        "memory_limit": limits.as_ref().map(|limits| limits.memory.text()),
        "cpu_limit": limits.as_ref().map(|limits| limits.cpu.text()),
        "pid": pid,
    }))
}

fn server_list(lab: &Lab, listing: &Listing) -> Result<()> {
    let records = Records::load(lab)?;
    let mut rows = Vec::new();
    let mut things = Vec::new();
    for server in &records.servers {
        let status = Life::status(Life::load(lab, server.id)?.as_ref());
        let addresses = interfaces::listing(&records, server);
        rows.push(vec![server.id.to_string(), server.name.clone(), status.word().to_owned(), addresses]);
        things.push(server_json(lab, &records, server)?);
    }
    print_listing(listing, &things, &["ID", "Name", "Status", "Networks"], &rows);
    Ok(())
}

fn show(lab: &Lab, server: &Server, listing: &Listing) -> Result<()> {
    let records = Records::load(lab)?;
    if listing.json {
        print_listing(listing, &server_json(lab, &records, server)?, &[], &[]);
        return Ok(());
    }
    let life = Life::load(lab, server.id)?;
    let image = IMAGES.iter().find(|image| image.id == server.image).map_or("", |image| image.name);
    let flavor = FLAVORS.iter().find(|flavor| flavor.id == server.flavor).map_or("", |flavor| flavor.name);
    let limit = |text: fn(&Limits) -> String| {
        life.as_ref().and_then(|life| life.limits.as_ref()).map_or_else(|| "off".to_owned(), text)
    };
    let volumes: Vec<String> = records
        .volumes_of(server.id)
        .map(|(volume, device)| format!("/dev/{device}={}", volume.id))
        .collect();
    print(&properties(&[
        ("id", server.id.to_string()),
        ("name", server.name.clone()),
        ("status", Life::status(life.as_ref()).word().to_owned()),
        ("image", image.to_owned()),
        ("flavor", flavor.to_owned()),
        ("public bandwidth", bandwidth::text(server)),
        ("networks", interfaces::listing(&records, server)),
        ("memory limit", limit(|limits| limits.memory.text())),
        ("cpu limit", limit(|limits| limits.cpu.text())),
        ("volumes", volumes.join("; ")),
    ]));
    Ok(())
}

fn image_list(listing: &Listing) {
    let rows: Vec<_> = IMAGES
        .iter()
        .map(|image| vec![image.id.to_string(), image.name.to_owned(), "ACTIVE".to_owned(), String::new()])
        .collect();
    let things: Vec<_> = IMAGES
        .iter()
        .map(|image| json!({ "id": image.id, "name": image.name, "status": "ACTIVE", "era": image.era }))
        .collect();
    print_listing(listing, &things, &["ID", "Name", "Status", "Server"], &rows);
}

fn flavor_list(listing: &Listing) {
    let rows: Vec<_> = FLAVORS
        .iter()
        .map(|flavor| {
            let numbers =
                [flavor.memory_mib, flavor.disk_gb.into(), flavor.vcpus.into()].map(|n| n.to_string());
            let [memory, disk, vcpus] = numbers;
            let factor = format!("{:.1}", flavor.rxtx_factor());
            vec![flavor.id.to_string(), flavor.name.to_owned(), memory, disk, vcpus, factor]
        })
        .collect();
    let things: Vec<_> = FLAVORS
        .iter()
        .map(|flavor| {
            json!({
                "id": flavor.id,
                "name": flavor.name,
                "memory_mib": flavor.memory_mib,
                "disk_gb": flavor.disk_gb,
                "vcpus": flavor.vcpus,
                "rxtx_factor": flavor.rxtx_factor(),
                "public_mbit_per_s": flavor.public_mbit_per_s,
            })
        })
        .collect();
    print_listing(listing, &things, &["ID", "Name", "Memory_MB", "Disk", "VCPUs", "RXTX_Factor"], &rows);
}
