//! drbdadm as a program, against a control server that plays the daemon.

use std::path::{Path, PathBuf};

use drbd_engine::admin::{
    Command, Configuration, ConfiguredConnection, ConfiguredDisk, ConfiguredMinor, DiskOptions, MetaIndex,
    NetOptions, Refusal, ResourceOptions, Response,
};

use crate::place::{Place, connected, done};

fn names(commands: &[Command]) -> Vec<String> {
    let name =
        |command| serde_json::to_value(command).unwrap().as_object().unwrap().keys().next().unwrap().clone();
    commands.iter().map(name).collect()
}

#[test]
fn up_makes_attaches_and_connects_and_skips_what_is_there() {
    let place = Place::new();
    let (status, ..) = place.run(&["create-md", "r0"]);
    assert_eq!(status, 0);
    let nothing = |command: &Command| match command {
        Command::Status { .. } => Response::Status(Vec::new()),
        _ => done(),
    };
    let commands = place.with_daemon(nothing, || {
        let (status, _, stderr) = place.run(&["up", "r0"]);
        assert_eq!((status, stderr.as_str()), (0, "r0: `on-congestion pull-ahead` is not acted on\n"));
    });
    assert_eq!(names(&commands), ["new-resource", "new-minor", "attach", "connect"]);
    let Command::Attach { minor: 7, options, .. } = &commands[2] else { panic!("{commands:?}") };
    assert_eq!(options.resync_rate_kib_per_s, 30 << 10);
    let Command::Connect { options, peer, .. } = &commands[3] else { panic!("{commands:?}") };
    assert_eq!((options.ping_int_s, peer.port()), (3, 7789));

    // What is there already is left alone, and changed where it differs.
    let (net_asked, disk_asked) = (options.clone(), disk_options_of(&commands[2]));
    let configuration = |net: NetOptions, disk: DiskOptions, path: PathBuf| Configuration {
        name: "r0".into(),
        options: ResourceOptions::default(),
        minors: vec![ConfiguredMinor {
            minor: 7,
            volume: 0,
            disk: Some(ConfiguredDisk {
                disk: path.clone(),
                meta_disk: path,
                meta_index: MetaIndex::Internal,
                options: disk,
            }),
        }],
        connection: Some(ConfiguredConnection {
            local: "127.0.0.1:7788".parse().unwrap(),
            peer: "127.0.0.1:7789".parse().unwrap(),
            options: net,
        }),
    };
    let other_net = NetOptions { ping_int_s: 4, ..net_asked.clone() };
    let other_disk = DiskOptions { al_extents: 257, ..disk_asked.clone() };
    for (net, disk, is_elsewhere, verb, expected) in [
        (&net_asked, &disk_asked, false, "up", &[][..]),
        (&net_asked, &disk_asked, false, "adjust", &[]),
        (&other_net, &disk_asked, false, "adjust", &["net-options"]),
        (&net_asked, &other_disk, false, "adjust", &["disk-options"]),
        (&other_net, &other_disk, false, "up", &[]),
        (&net_asked, &disk_asked, true, "adjust", &["detach", "attach"]),
    ] {
        let place = Place::new();
        let path = place.path(if is_elsewhere { "other" } else { "disk" });
        let shown = configuration(net.clone(), disk.clone(), path);
        let all = |command: &Command| match command {
            Command::Status { .. } => Response::Status(vec![connected()]),
            Command::Show { .. } => Response::Configuration(vec![shown.clone()]),
            _ => done(),
        };
        let commands = place.with_daemon(all, || {
            let (status, _, stderr) = place.run(&[verb, "all"]);
            // The device that is to be attached is in use, as far as this daemon says.
            assert!(status == 0 || is_elsewhere, "{stderr}");
        });
        if !is_elsewhere {
            assert_eq!(names(&commands), expected, "{verb}");
        } else {
            assert_eq!(names(&commands)[..1], expected[..1], "{verb}");
        }
    }
}

fn disk_options_of(command: &Command) -> DiskOptions {
    let Command::Attach { options, .. } = command else { panic!("{command:?}") };
    options.clone()
}

#[test]
fn refusals_have_the_originals_words_and_statuses() {
    for (code, verb, text, status) in [
        (-2, "primary", "7: State change failed: (-2) Need access to UpToDate data\n", 17),
        (-1, "primary", "7: State change failed: (-1) Multiple primaries not allowed by config\n", 11),
        (-12, "secondary", "7: State change failed: (-12) Device is held open by someone\n", 11),
        (127, "detach", "7: Failure: (127) Device minor not allocated\n", 10),
    ] {
        // One server for each: a child that another test is just forking may hold a listener that was closed.
        let place = Place::new();
        place.with_daemon(
            |_| Response::Refused(Refusal { code, detail: String::new() }),
            || {
                let call = format!("Command 'drbdsetup-84 {verb} 7' terminated with exit code {status}\n");
                assert_eq!(place.run(&[verb, "r0"]), (status, String::new(), format!("{text}{call}")));
            },
        );
    }
}

#[test]
fn states_are_printed_as_drbdsetup_does() {
    let place = Place::new();
    place.with_daemon(
        |_| Response::Status(vec![connected()]),
        || {
            for (verb, text) in [
                ("role", "Primary/Secondary\n"),
                ("cstate", "SyncSource\n"),
                ("dstate", "UpToDate/Inconsistent\n"),
                (
                    "status",
                    "r0 role:Primary\n  disk:UpToDate\n  peer role:Secondary\n    replication:SyncSource \
                     peer-disk:Inconsistent done:75.00\n\n",
                ),
            ] {
                assert_eq!(place.run(&[verb, "r0"]), (0, text.to_owned(), String::new()), "{verb}");
            }
            let (status, json, _) = place.run(&["status", "--json"]);
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(status, 0);
            assert_eq!(json[0]["devices"][0]["disk-state"], "UpToDate");
            assert_eq!(json[0]["connections"][0]["peer_devices"][0]["percent-in-sync"], 75.0);
            let (status, _, stderr) = place.run(&["create-md", "--force", "r0"]);
            assert!(status == 20 && stderr.starts_with("Device '7' is configured!\n"), "{stderr}");
        },
    );
}

#[test]
fn without_a_daemon_nothing_is_configured() {
    let place = Place::new();
    let call = "Command 'drbdsetup-84 role 7' terminated with exit code 10\n";
    let text = "7: Failure: (127) Device minor not allocated\nadditional info from kernel:\nunknown minor\n";
    assert_eq!(place.run(&["role", "r0"]), (10, String::new(), format!("{text}{call}")));
    let (status, _, stderr) = place.run(&["status", "r0"]);
    assert!(status == 10 && stderr.starts_with("r0: No such resource\n"), "{stderr}");
    assert_eq!(place.run(&["create-md", "r0"]).0, 0);
    assert_eq!(place.run(&["dstate", "r0"]), (0, "Inconsistent\n".into(), String::new()));
    assert!(!Path::new(&place.path("drbd/control.sock")).exists(), "asking starts no daemon");
}

#[test]
fn what_the_configuration_does_not_have_is_said() {
    let place = Place::new();
    let (status, _, stderr) = place.run(&["primary", "r1"]);
    assert_eq!(status, 1);
    assert_eq!(stderr, "'r1' not defined in your config (for this host).\nDid you mean 'r0'?\n");
    let (status, _, stderr) = place.run(&["primary", "r0/3"]);
    assert_eq!((status, stderr.as_str()), (1, "'r0/3': resource r0 has no volume '3'; it has 0.\n"));
    let (status, _, stderr) = place.run(&["down", "r0/0"]);
    assert!(status == 1 && stderr.contains("operates on whole resources"), "{stderr}");

    let text = std::fs::read_to_string(place.path("drbd.conf")).unwrap();
    std::fs::write(place.path("drbd.conf"), text.replace("127.0.0.1:7788", "192.0.2.77:7788")).unwrap();
    let (status, _, stderr) = place.run(&["up", "r0"]);
    assert!(status == 10 && stderr.contains("IP 192.0.2.77 not found on this host"), "{stderr}");
    let section = text.lines().find(|line| line.starts_with("  on ")).unwrap();
    let node = section.split_whitespace().nth(1).unwrap();
    std::fs::write(place.path("drbd.conf"), text.replace(&format!("on {node} "), "on somebody ")).unwrap();
    let (status, _, stderr) = place.run(&["up", "r0"]);
    assert_eq!(status, 1);
    assert!(stderr.ends_with("It is defined for elsewhere, somebody.\n"), "{stderr}");
}

#[test]
fn a_handler_gets_what_the_original_gives_it_and_its_exit_code_is_kept() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path("drbd.conf")).unwrap();
    let handlers =
        "handlers { split-brain \"env | grep ^DRBD_ | sort; exit 7\"; fence-peer \"env | grep ^DRBD_M\"; }";
    let text = text.replace("syncer {", &format!("{handlers}\n  syncer {{"));
    std::fs::write(place.path("drbd.conf"), text).unwrap();
    let (status, stdout, _) = place.run(&["split-brain", "minor-7"]);
    let directory = place.path("").canonicalize().unwrap();
    let expected = format!(
        "DRBD_CONF={0}/drbd.conf\nDRBD_DONT_WARN_ON_VERSION_MISMATCH=1\nDRBD_LL_DISK={1}\nDRBD_MINOR=7\nDRBD_PEER=elsewhere\nDRBD_PEERS=elsewhere\n\
         DRBD_PEER_ADDRESS=127.0.0.1\nDRBD_PEER_AF=ipv4\nDRBD_RESOURCE=r0\nDRBD_VOLUME=0\n",
        directory.display(),
        place.path("disk").display()
    );
    assert_eq!((status, stdout), (7, expected));
    let (status, stdout, _) = place.run(&["fence-peer", "r0"]);
    assert_eq!((status, stdout.as_str()), (0, "DRBD_MINOR=7\n"));
    // What the configuration does not have is done at once.
    assert_eq!(place.run(&["pri-lost", "r0/0"]).0, 0);
    let (status, _, stderr) = place.run(&["pri-lost", "minor-8"]);
    assert_eq!(status, 1, "{stderr}");
}

#[test]
fn adjust_lets_go_what_is_not_in_the_configuration_and_moves_what_is_elsewhere() {
    let place = Place::new();
    assert_eq!(place.run(&["create-md", "r0"]).0, 0);
    let running = || {
        let gone = ConfiguredMinor {
            minor: 8,
            volume: 1,
            disk: Some(ConfiguredDisk {
                disk: "/dev/sdb".into(),
                meta_disk: "/dev/sdb".into(),
                meta_index: MetaIndex::Internal,
                options: DiskOptions::default(),
            }),
        };
        Configuration {
            name: "r0".into(),
            options: ResourceOptions { on_no_data_accessible: 1, ..ResourceOptions::default() },
            minors: vec![ConfiguredMinor { minor: 7, volume: 0, disk: None }, gone],
            connection: Some(ConfiguredConnection {
                local: "127.0.0.1:7788".parse().unwrap(),
                peer: "127.0.0.1:9999".parse().unwrap(),
                options: NetOptions::default(),
            }),
        }
    };
    let daemon = |command: &Command| match command {
        Command::Status { .. } => Response::Status(Vec::new()),
        Command::Show { .. } => Response::Configuration(vec![running()]),
        _ => done(),
    };
    let expected =
        ["detach", "del-minor", "resource-options", "attach", "disconnect", "connect"].map(str::to_owned);
    let commands = place.with_daemon(daemon, || {
        let (status, stdout, _) = place.run(&["-d", "adjust", "r0"]);
        let disk = place.path("disk").display().to_string();
        let calls = format!(
            "drbdsetup-84 detach 8\ndrbdsetup-84 del-minor 8\ndrbdsetup-84 resource-options r0 --set-defaults\n\
             drbdmeta 7 v08 {disk} internal apply-al\ndrbdsetup-84 attach 7 {disk} {disk} internal --resync-rate=30M\n\
             drbdsetup-84 disconnect ipv4:127.0.0.1:7788 ipv4:127.0.0.1:9999\n\
             drbdsetup-84 connect r0 ipv4:127.0.0.1:7788 ipv4:127.0.0.1:7789 --on-congestion=pull-ahead --ping-int=3\n"
        );
        let sorted = |text: &str| text.split_whitespace().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!((status, sorted(&stdout)), (0, sorted(&calls)), "{stdout}");
        assert_eq!(place.run(&["adjust", "r0"]).0, 0);
    });
    assert_eq!(names(&commands), expected);
    // Disks and connections can be left as they are.
    let commands = place.with_daemon(daemon, || {
        let (status, stdout, _) = place.run(&["--skip-disk", "adjust-with-progress", "r0"]);
        let shown = "[\n     adjust res: r0\n    prepare net: r0\n     adjust net: r0\n]\n";
        assert_eq!((status, stdout.as_str()), (0, shown));
    });
    assert_eq!(names(&commands), ["resource-options", "disconnect", "connect"]);
    let commands = place.with_daemon(daemon, || assert_eq!(place.run(&["--skip-net", "adjust", "r0"]).0, 0));
    assert_eq!(names(&commands), expected[..4]);
}
