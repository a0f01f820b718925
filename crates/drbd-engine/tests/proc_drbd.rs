//! /proc/drbd against what the kernel's 8.4.11 printed (tests/proc_drbd/devices.txt, texts of devices separated by
//! empty lines) and against the tutorial's text of 8.3.11.

use drbd_engine::admin::ReplicationProtocol;
use drbd_engine::proc_drbd::render;
use drbd_engine::status::{Counters, DeviceFlags, DeviceStatus, ResourceStatus, SyncProgress, WriteOrdering};
use drbd_format::names::{ConnectionState, DiskState, Role};

/// Reads the text of one device back.
fn parse(text: &str) -> ResourceStatus {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("{key}:")).unwrap_or(("", "0"));
        rest.split_whitespace().next().unwrap()
    };
    let number = |key: &str| value(&format!(" {key}")).parse::<u64>().unwrap();
    let pair = |key: &str| value(key).split_once('/').unwrap();
    let first = text.lines().next().unwrap();
    let (minor, _) = first.trim_start().split_once(':').unwrap();
    let unconfigured = value("cs") == "Unconfigured";
    let state = |key: &str| if unconfigured { ("Secondary", "Unknown") } else { pair(key) };
    let disks = if unconfigured { ("Diskless", "DUnknown") } else { pair("ds") };
    let flags: Vec<char> = if unconfigured { vec!['-'; 6] } else { first.chars().rev().take(6).collect() };
    let protocol = first.chars().rev().nth(7).unwrap();
    ResourceStatus {
        name: "r0".into(),
        role: Role::from_name(state("ro").0).unwrap(),
        peer_role: Role::from_name(state("ro").1).unwrap(),
        connection: ConnectionState::Connected,
        protocol: match protocol {
            'A' => Some(ReplicationProtocol::A),
            'B' => Some(ReplicationProtocol::B),
            'C' => Some(ReplicationProtocol::C),
            _ => None,
        },
        addresses: None,
        devices: vec![DeviceStatus {
            volume: 0,
            minor: minor.parse().unwrap(),
            connection: ConnectionState::from_name(value("cs")).unwrap_or(ConnectionState::StandAlone),
            disk: DiskState::from_name(disks.0).unwrap(),
            peer_disk: DiskState::from_name(disks.1).unwrap(),
            size_sectors: 0,
            backing: String::new(),
            uuids: [0; 4],
            md_flags: 0,
            flags: DeviceFlags {
                io_suspended: flags[5] == 's',
                resync_after: flags[4] == 'a',
                resync_paused_by_peer: flags[3] == 'p',
                resync_paused_by_user: flags[2] == 'u',
                al_suspended: flags[0] == 's',
                ..DeviceFlags::default()
            },
            counters: Counters {
                sent_kib: number("ns"),
                received_kib: number("nr"),
                disk_written_kib: number("dw"),
                disk_read_kib: number("dr"),
                al_writes: number("al"),
                bm_writes: number("bm"),
                local_count: number("lo"),
                pending: number("pe"),
                unacked: number("ua"),
                application_pending: number("ap"),
                epochs: number("ep"),
                write_ordering: match value("wo") {
                    "f" | "0" => WriteOrdering::Flush,
                    "d" => WriteOrdering::Drain,
                    _ => WriteOrdering::None,
                },
                out_of_sync_kib: number("oos"),
            },
            was_degraded: false,
            sync: text.contains("finish:").then(|| parse_progress(text)),
        }],
    }
}

fn parse_progress(text: &str) -> SyncProgress {
    let number = |text: &str| text.replace(',', "").parse::<u64>().unwrap();
    let between = |from: &str, to: &str| {
        let (_, rest) = text.split_once(from).unwrap();
        rest.split_once(to).unwrap().0.trim()
    };
    let (left, total) = between("% (", ")").split_once('/').unwrap();
    let unit_kib = if text.contains(")M") { 1024 } else { 1 };
    let finish = between("finish: ", " ");
    SyncProgress {
        total_kib: number(total) * unit_kib,
        left_kib: number(left) * unit_kib,
        speed_kib_per_s: number(between("speed: ", " (")),
        average_kib_per_s: number(between("speed: ", ")").split_once('(').unwrap().1),
        wanted_kib_per_s: text.contains("want:").then(|| number(between("want: ", " K/sec"))),
        finish_s: Some(finish.split(':').fold(0, |s, part| s * 60 + part.parse::<u64>().unwrap())),
    }
}

#[test]
fn every_device_the_kernel_showed() {
    let mut checked = 0;
    for device in include_str!("proc_drbd/devices.txt").trim_end().split("\n\n") {
        let text = render(&[parse(device)], false);
        let (versions, shown) = text.split_at(text.match_indices('\n').nth(1).unwrap().0 + 1);
        assert_eq!(versions, "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 059B1B470318F053F5077D5 \n");
        assert_eq!(shown.trim_end_matches('\n'), device);
        checked += 1;
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn the_tutorials_text() {
    let text = "version: 8.3.11 (api:88/proto:86-96)
srcversion: 71955441799F513ACA6DA60 
 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----
    ns:20736 nr:0 dw:0 dr:21400 al:0 bm:1 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:104832604
\t[>....................] sync'ed:  0.1% (102372/102392)Mfinish: 22:24:00 speed: 1,296 (1,296) K/sec
";
    let device: String = text.lines().skip(2).map(|line| format!("{line}\n")).collect();
    assert_eq!(render(&[parse(&device)], true), text);
}

#[test]
fn minors_are_sorted_and_gaps_shown() {
    let device = |minor: u32| {
        let mut resource = parse(" 0: cs:Unconfigured");
        resource.devices[0].minor = minor;
        resource
    };
    let text = render(&[device(12), device(1), device(2)], false);
    let shown: Vec<_> = text.lines().skip(2).collect();
    assert_eq!(shown, ["", " 1: cs:Unconfigured", " 2: cs:Unconfigured", "", "12: cs:Unconfigured"]);
}
