//! drbdsetup as a program, against a control server that plays the daemon, and what the original printed in the same
//! states (tests/status/README.md).

use std::path::Path;

use drbd_engine::admin::{Command, Refusal, Response};
use drbd_engine::status::{Counters, DeviceFlags, DeviceStatus, ResourceStatus};
use drbd_format::names::{ConnectionState as C, DiskState, Role};

use crate::place::{Place, connected, done};

const SIZE_KIB: u64 = 65_496;

struct Volume {
    connection: C,
    disks: [DiskState; 2],
    flags: DeviceFlags,
    sent_kib: u64,
    read_kib: u64,
    left_kib: u64,
}

fn volume(connection: C, disks: [DiskState; 2]) -> Volume {
    let flags = DeviceFlags::default();
    Volume { connection, disks, flags, sent_kib: 0, read_kib: 0, left_kib: SIZE_KIB }
}

fn resource(role: Role, peer_role: Role, connection: C, volumes: [Volume; 2]) -> ResourceStatus {
    let template = connected();
    let devices = volumes.into_iter().zip([(0, 3), (7, 4)]).map(|(of, (volume, minor))| DeviceStatus {
        volume,
        minor,
        connection: of.connection,
        disk: of.disks[0],
        peer_disk: of.disks[1],
        size_sectors: 2 * SIZE_KIB,
        flags: of.flags,
        counters: Counters {
            sent_kib: of.sent_kib,
            disk_read_kib: of.read_kib,
            al_writes: 8,
            out_of_sync_kib: of.left_kib,
            ..Counters::default()
        },
        ..template.devices[0].clone()
    });
    ResourceStatus { role, peer_role, connection, devices: devices.collect(), ..template.clone() }
}

fn state(name: &str) -> ResourceStatus {
    const BOTH_INCONSISTENT: [DiskState; 2] = [DiskState::Inconsistent; 2];
    let second = |connection| volume(connection, BOTH_INCONSISTENT);
    match name {
        "connecting" => {
            let fresh = || Volume {
                flags: DeviceFlags { al_suspended: true, ..DeviceFlags::default() },
                ..volume(C::WFConnection, [DiskState::Inconsistent, DiskState::DUnknown])
            };
            resource(Role::Secondary, Role::Unknown, C::WFConnection, [fresh(), fresh()])
        }
        "connected" => {
            let volumes = [second(C::Connected), second(C::Connected)];
            resource(Role::Secondary, Role::Secondary, C::WFReportParams, volumes)
        }
        "paused" => {
            let first = Volume {
                flags: DeviceFlags { resync_paused_by_user: true, ..DeviceFlags::default() },
                sent_kib: 24_124,
                read_kib: 24_124,
                left_kib: 41_372,
                ..volume(C::PausedSyncS, [DiskState::UpToDate, DiskState::Inconsistent])
            };
            resource(Role::Primary, Role::Secondary, C::WFReportParams, [first, second(C::Connected)])
        }
        "standalone" => {
            let first = Volume {
                sent_kib: SIZE_KIB,
                read_kib: SIZE_KIB,
                left_kib: 0,
                ..volume(C::StandAlone, [DiskState::UpToDate, DiskState::DUnknown])
            };
            resource(Role::Secondary, Role::Unknown, C::StandAlone, [first, second(C::StandAlone)])
        }
        other => panic!("{other}"),
    }
}

#[test]
fn states_are_printed_as_the_original_prints_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status");
    let mut checked = 0;
    for name in ["connecting", "connected", "paused", "standalone"] {
        let golden = std::fs::read_to_string(directory.join(format!("{name}.txt"))).unwrap();
        let place = Place::new();
        place.with_daemon(
            |_| Response::Status(vec![state(name)]),
            || {
                for section in golden.split("$ ").skip(1) {
                    let (call, expected) = section.split_once('\n').unwrap();
                    let words: Vec<_> = call.split(' ').collect();
                    let printed = place.setup(&words);
                    assert_eq!(printed, (0, expected.to_owned(), String::new()), "{name}: {call}");
                    checked += 1;
                }
            },
        );
    }
    assert_eq!(checked, 31);
}

/// What drbdsetup-84 said where nothing is configured.
#[test]
fn what_is_not_there_is_said_as_the_original_says_it() {
    let addresses = ["ipv4:172.16.16.104:7788", "ipv4:172.16.16.105:7788"];
    let unknown = |object: &str, code: i32| {
        let (text, detail) = match code {
            127 => ("Device minor not allocated", "unknown minor"),
            158 => ("Unknown resource", "unknown resource"),
            _ => ("Invalid configuration request", "unknown connection"),
        };
        format!("{object}: Failure: ({code}) {text}\nadditional info from kernel:\n{detail}\n")
    };
    let calls: &[(&[&str], i32, String)] = &[
        (&["show", "all"], 0, String::new()),
        (&["show"], 0, String::new()),
        (&["show", "3"], 10, unknown("3", 127)),
        (&["show", "r0"], 20, "received netlink error reply: No such device\n".into()),
        (&["status"], 0, String::new()),
        (&["status", "r0"], 10, "r0: No such resource\n".into()),
        (&["sh-status"], 0, String::new()),
        (&["role", "3"], 10, unknown("3", 127)),
        (&["3", "role"], 10, unknown("3", 127)),
        (&["down", "r0"], 0, String::new()),
        (&["del-minor", "3"], 10, unknown("3", 127)),
        (&["del-resource", "r0"], 10, unknown("r0", 158)),
        (&["primary", "3"], 10, unknown("3", 127)),
        (&["new-minor", "r0", "3", "0"], 10, unknown("??", 158)),
        (&["connect", "r0", addresses[0], addresses[1]], 10, unknown("r0", 158)),
        (&["disconnect", addresses[0], addresses[1]], 10, unknown("??", 162)),
        (&["net-options", addresses[0], addresses[1]], 10, unknown("??", 162)),
        (&["resource-options", "r0"], 10, unknown("r0", 158)),
        (&["wait-connect", "3"], 20, "error determining which timeout to use: minor not available\n".into()),
        (&["state", "3"], 10, unknown("3", 127)),
    ];
    let check = |place: &Place| {
        for (words, status, expected) in calls {
            assert_eq!(place.setup(words), (*status, String::new(), expected.clone()), "{words:?}");
        }
        assert_eq!(place.setup(&["events2", "--now"]), (0, "exists -\n".into(), String::new()));
    };
    // The same with a daemon that has nothing, and without one.
    let place = Place::new();
    check(&place);
    let refused = |code: i32, detail: &str| Response::Refused(Refusal { code, detail: detail.into() });
    let empty = |command: &Command| match command {
        Command::Status { resource: None } => Response::Status(Vec::new()),
        Command::Show { .. } => Response::Configuration(Vec::new()),
        _ => refused(158, "unknown resource"),
    };
    place.with_daemon(empty, || check(&place));
}

#[test]
fn devices_without_disk_and_connection_are_unconfigured() {
    let place = Place::new();
    let unused = || {
        let mut found = state("standalone");
        found.devices[0].disk = DiskState::Diskless;
        found
    };
    place.with_daemon(
        |_| Response::Status(vec![unused()]),
        || {
            for verb in ["role", "cstate", "dstate"] {
                assert_eq!(place.setup(&[verb, "3"]), (0, "Unconfigured\n".into(), String::new()), "{verb}");
            }
            let deprecated = "'drbdsetup ... state' is deprecated, use 'drbdsetup ... role' instead.\n";
            assert_eq!(place.setup(&["state", "3"]), (0, "Unconfigured\n".into(), deprecated.into()));
            for verb in ["show-gi", "get-gi"] {
                let said = "Device is unconfigured\n".to_owned();
                assert_eq!(place.setup(&[verb, "3"]), (1, String::new(), said), "{verb}");
            }
        },
    );
}

#[test]
fn parts_are_deleted() {
    let place = Place::new();
    let answer = |command: &Command| match command {
        Command::Status { .. } => Response::Status(vec![state("standalone")]),
        Command::DelMinor { minor: 3 } => Response::Refused(Refusal { code: 160, detail: String::new() }),
        _ => done(),
    };
    let commands = place.with_daemon(answer, || {
        let configured = "3: Failure: (160) Minor still configured (down it first)\n".to_owned();
        assert_eq!(place.setup(&["del-minor", "3"]), (10, String::new(), configured));
        assert_eq!(place.setup(&["del-minor", "minor-4"]).0, 0);
        assert_eq!(place.setup(&["del-resource", "r0"]).0, 0);
    });
    assert_eq!(
        commands[1..],
        [Command::DelMinor { minor: 4 }, Command::DelResource { resource: "r0".into() }]
    );
}
