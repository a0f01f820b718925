//! What networks carry, how fast, and what never reaches them.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testing_lab::{TestLab, can_run};

/// What the bandwidth test sends.
const SENT_BYTES: u64 = 2 << 20;

/// Of the flavor that `boot` chooses here.
const MBIT_PER_S: u64 = 20;

/// The tutorial's `/etc/sysconfig/iptables`.
const IPTABLES: &str = "\
# Firewall configuration written by system-config-firewall
# Manual customization of this file is not recommended.
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -i eth2 -j ACCEPT
-A INPUT -i eth3 -j ACCEPT
-A INPUT -m state --state NEW -m tcp -p tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
";

fn boot(lab: &TestLab, words: &[&str]) {
    lab.nova(&[&["boot", "--image", "This system", "--flavor", "2", "--init", "tiny"], words].concat());
}

/// What `ip` or `tc` prints as JSON on this machine.
fn json(program: &str, words: &[&str]) -> Vec<Value> {
    let output = Command::new(program).arg("-j").args(words).output().expect("it starts");
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// How a connection ends that nobody waits for: `refused` by the server itself, or why it did not get there.
fn connect(lab: &TestLab, from: &str, address: &str, port: u16) -> String {
    let answer = lab.ssh(from, &format!("timeout 5 bash -c '</dev/tcp/{address}/{port}'"));
    answer.stderr
}

#[test]
fn interfaces_are_the_tutorials() {
    if !can_run("interfaces_are_the_tutorials") {
        return;
    }
    let lab = TestLab::new("nics");
    lab.nova(&["network-create", "drbd0", "172.16.16.0/24", "--cidr-v6", "fd00:16::/64"]);
    boot(&lab, &["--nic", "net-id=drbd0", "drbd0"]);
    boot(&lab, &["--nic", "net-id=drbd0,v4-fixed-ip=172.16.16.7,v6-fixed-ip=fd00:16::a", "drbd1"]);
    boot(&lab, &["--no-public", "third"]);
    let list = lab.nova(&["list"]);
    for networks in [
        "drbd0=172.16.16.4, fd00:16::4; public=203.0.113.4, 2001:db8:4800::4; private=10.181.144.4 ",
        "drbd0=172.16.16.7, fd00:16::a; public=203.0.113.3, 2001:db8:4800::3; private=10.181.144.3 ",
        "| private=10.181.144.2 ",
    ] {
        assert!(list.contains(networks), "{networks} is not in\n{list}");
    }
    for address in ["203.0.113.3", "10.181.144.3", "10.181.144.2", "172.16.16.7"] {
        lab.inside("drbd0", &format!("ping -c 1 -W 20 {address}"));
    }
    for address in ["2001:db8:4800::3", "fd00:16::a"] {
        lab.inside("drbd0", &format!("ping -6 -c 1 -W 20 {address}"));
    }
    let interfaces = lab.inside("drbd0", "ip -brief addr show dev eth2; getent hosts drbd0");
    assert!(interfaces.contains("172.16.16.4/24 fd00:16::4/64"), "{interfaces}");
    assert!(
        interfaces.contains("172.16.16.4     drbd0"),
        "its name stands for a user's network: {interfaces}"
    );

    let boot = |nic: &'static str| ["boot", "--image", "This system", "--flavor", "2", "--nic", nic, "x"];
    for (nic, mistake) in [
        ("net-id=drbd0,v6-fixed-ip=fd00:17::1", "fd00:17::1 is not in fd00:16::/64 of network drbd0"),
        ("net-id=drbd0,v6-fixed-ip=fd00:16::a", "fd00:16::a is taken by server drbd1"),
        ("net-id=drbd0,v6-fixed-ip=fd00:16::", "is the routers' address of fd00:16::/64"),
        ("net-id=private,v6-fixed-ip=fd00:16::b", "network private has no IPv6"),
        ("net-id=drbd0,v6-fixed-ip=172.16.16.9", "no IPv6 address"),
    ] {
        lab.nova_refuses(&boot(nic), mistake);
    }
    lab.nova_refuses(&["network-create", "public", "10.9.0.0/24"], "network public is the cloud's own");
    lab.nova_refuses(
        &["network-create", "n", "10.181.150.0/24"],
        "overlaps 10.181.144.0/20 of network private",
    );
    lab.nova_refuses(
        &["network-create", "n", "10.9.0.0/24", "--cidr-v6", "fd00:16:1::/32"],
        "fd00:16:1::/32 is an address in a network; the network is fd00:16::/32",
    );
    lab.nova_refuses(
        &["network-create", "n", "10.9.0.0/24", "--cidr-v6", "fd00:16::/32"],
        "overlaps fd00:16::/64 of network drbd0",
    );
    lab.nova_refuses(&["network-delete", "public"], "network public is the cloud's own");
}

#[test]
fn nothing_is_reached_from_the_lab_or_reaches_it() {
    if !can_run("nothing_is_reached_from_the_lab_or_reaches_it") {
        return;
    }
    let names = || -> BTreeSet<String> {
        json("ip", &["link"]).iter().map(|link| link["ifname"].to_string()).collect()
    };
    let before = names();
    let lab = TestLab::new("apart");
    boot(&lab, &["inside"]);
    assert_eq!(names(), before, "no interface of this machine leads into the lab");

    let listener = TcpListener::bind("0.0.0.0:0").expect("a socket");
    let port = listener.local_addr().expect("it is bound").port();
    assert!(
        connect(&lab, "inside", "127.0.0.1", port).contains("Connection refused"),
        "the server's own loopback"
    );
    let hosts = json("ip", &["addr"]);
    let addresses = hosts.iter().flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
    for address in addresses.filter(|address| address["scope"] == "global") {
        let address = address["local"].as_str().expect("an address").to_owned();
        let reached = connect(&lab, "inside", &address, port);
        assert!(reached.contains("unreachable"), "{address}: {reached}");
        let address: IpAddr = address.parse().expect("an address");
        let ours = ["203.0.113.0/24", "2001:db8:4800::/64", "10.181.144.0/20"];
        let ours = ours.map(|cidr| cidr.parse::<ipnet::IpNet>().expect("a network"));
        assert!(!ours.iter().any(|cidr| cidr.contains(&address)), "{address} is of the lab's networks");
    }
    listener.set_nonblocking(true).expect("a socket");
    assert!(listener.accept().is_err(), "somebody came");
    let fabric = format!("lockstep-{}", lab.name());
    for link in json("ip", &["-n", &fabric, "addr"]).iter().filter(|link| link["ifname"] != "lo") {
        assert_eq!(link["addr_info"], Value::Array(vec![]), "the lab's switches have no addresses: {link}");
    }
}

/// Sends from one server to another and gives how long it took until all was there.
fn send(lab: &TestLab, from: &str, to: &str, address: &str) -> Duration {
    let receive = "socat -u TCP-LISTEN:9000,reuseaddr - | wc -c > /tmp/count";
    let mut receiver = lab.command("nova", &["ssh", to, receive]).spawn().expect("nova starts");
    lab.within(Duration::from_secs(30), to, "ss -Hltn 'sport = 9000' | grep -q .");
    let begin = Instant::now();
    lab.inside(from, &format!("head -c {SENT_BYTES} /dev/zero | socat -u - TCP:{address}:9000"));
    assert!(receiver.wait().expect("it is ours").success());
    let took = begin.elapsed();
    assert_eq!(lab.inside(to, "cat /tmp/count").trim(), SENT_BYTES.to_string());
    took
}

/// Bytes that passed each token bucket of the lab, by the interface it stands at.
fn buckets(lab: &TestLab) -> Vec<(String, u64)> {
    let fabric = format!("lockstep-{}", lab.name());
    json("tc", &["-s", "-n", &fabric, "qdisc"])
        .iter()
        .filter(|qdisc| qdisc["kind"] == "tbf")
        .map(|qdisc| {
            assert_eq!(qdisc["options"]["rate"], MBIT_PER_S * 1_000_000 / 8, "{qdisc}");
            (qdisc["dev"].as_str().unwrap_or_default().to_owned(), qdisc["bytes"].as_u64().expect("a count"))
        })
        .collect()
}

#[test]
fn the_public_interface_is_as_fast_as_the_flavor_says() {
    if !can_run("the_public_interface_is_as_fast_as_the_flavor_says") {
        return;
    }
    let lab = TestLab::new("rate");
    boot(&lab, &["slow"]);
    boot(&lab, &["--no-limits", "fast"]);
    assert!(lab.nova(&["show", "slow"]).contains("| 20 Mb/s "));
    assert!(lab.nova(&["show", "fast"]).contains("| no limit "));
    assert!(lab.nova(&["flavor-list"]).contains("| RXTX_Factor |"));
    assert_eq!(buckets(&lab).len(), 2, "one each way of the one server's one interface");

    // What is limited never takes less; how much more depends on the machine.
    let at_least = Duration::from_millis(SENT_BYTES * 8 / (MBIT_PER_S * 1000)) * 3 / 4;
    for (from, to, address) in [("slow", "fast", "203.0.113.3"), ("fast", "slow", "203.0.113.2")] {
        let before = buckets(&lab);
        let took = send(&lab, from, to, address);
        assert!(took >= at_least, "{from} to {to}: {took:?}, at {MBIT_PER_S} Mb/s it takes {at_least:?}");
        let passed: Vec<u64> =
            buckets(&lab).iter().zip(&before).map(|((_, after), (_, before))| after - before).collect();
        assert!(passed.iter().any(|&bytes| bytes >= SENT_BYTES), "{from} to {to}: {passed:?}");
        assert!(passed.iter().any(|&bytes| bytes < SENT_BYTES / 4), "acknowledgements only: {passed:?}");
    }
    let passed = || buckets(&lab).iter().map(|(_, bytes)| bytes).sum::<u64>();
    let before = passed();
    send(&lab, "slow", "fast", "10.181.144.3");
    // Neighbours still talk of each other there.
    assert!(passed() - before < SENT_BYTES / 4, "the service net has no limit");
}

#[test]
fn the_tutorials_firewall_loads_and_holds() {
    if !can_run("the_tutorials_firewall_loads_and_holds") {
        return;
    }
    let lab = TestLab::new("wall");
    lab.nova(&["network-create", "storageManagement", "192.168.25.0/24"]);
    lab.nova(&["network-create", "storageClients", "192.168.50.0/24"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), IPTABLES).expect("write");
    let file = format!("/etc/sysconfig/iptables={}", file.path().display());
    let nics = ["--nic", "net-id=storageManagement", "--nic", "net-id=storageClients"];
    for server in ["gluster-00", "gluster-01"] {
        boot(&lab, &[&nics[..], &["--file", &file, server]].concat());
    }
    assert!(connect(&lab, "gluster-01", "203.0.113.3", 24007).contains("Connection refused"), "no wall yet");
    lab.inside("gluster-00", "iptables-restore /etc/sysconfig/iptables");
    let kept = lab.inside("gluster-00", "iptables-save");
    assert!(kept.contains("-A INPUT -j REJECT --reject-with icmp-host-prohibited"), "{kept}");
    for (address, port, end) in [
        ("203.0.113.3", 24007, "No route to host"),
        ("10.181.144.3", 24007, "No route to host"),
        ("203.0.113.3", 22, "Connection refused"),
        ("192.168.25.3", 24007, "Connection refused"),
        ("192.168.50.3", 24007, "Connection refused"),
    ] {
        let ended = connect(&lab, "gluster-01", address, port);
        assert!(ended.contains(end), "{address}:{port}: {ended}");
    }
    lab.inside("gluster-01", "ping -c 1 -W 20 203.0.113.3");
    assert!(
        connect(&lab, "gluster-00", "203.0.113.2", 24007).contains("Connection refused"),
        "outwards it is open"
    );
}
