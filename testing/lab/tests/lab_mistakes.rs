//! Every mistake gets a message that names it, status 1, and changes nothing.

use testing_lab::{TestLab, can_run};

/// The id in a `Property | Value` table.
fn id(table: &str) -> String {
    let line = table.lines().find(|line| line.starts_with("| id ")).expect("a table with an id");
    line.split('|').nth(2).expect("a value").trim().to_owned()
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    if !can_run("mistakes_are_named_and_change_nothing") {
        return;
    }
    let lab = TestLab::new("mistakes");
    lab.nova(&["network-create", "drbd0", "172.16.16.0/24"]);
    let volume = id(&lab.nova(&["volume-create", "--display-name", "drbd0", "1"]));
    lab.nova(&["volume-create", "--display-name", "spare", "1"]);
    lab.boot("drbd0", &["drbd0"]);
    lab.boot("drbd1", &["drbd0"]);
    let server = id(&lab.nova(&["show", "drbd0"]));
    lab.nova(&["volume-attach", &server, &volume, "/dev/xvdb"]);
    let everything = || {
        ["list", "volume-list", "network-list"].map(|listing| lab.nova(&[listing, "--json"])).concat()
            + &lab.inside("drbd0", "ls -l /dev")
    };
    let before = everything();
    let boot = ["boot", "--image", "This system", "--flavor", "2"];
    let boot = |words: &[&'static str]| [&boot[..], words].concat();

    // The tutorial's own: the server's id where the volume's belongs.
    let mistake = format!("volume-attach: {server} is the id of server drbd0, not of a volume; volumes: ");
    lab.nova_refuses(&["volume-attach", &server, &server, "/dev/xvdb"], &mistake);
    lab.nova_refuses(
        &["volume-attach", &volume, &volume, "/dev/xvdc"],
        "is the id of volume drbd0, not of a server",
    );
    lab.nova_refuses(
        &["volume-attach", "drbd0", "drbd0", "/dev/xvdc"],
        "attached to server drbd0 as /dev/xvdb already",
    );
    lab.nova_refuses(
        &["volume-attach", "drbd1", "drbd0", "auto"],
        "attached to server drbd0 as /dev/xvdb already",
    );
    lab.nova_refuses(
        &["volume-attach", "drbd0", "spare", "/dev/xvdb"],
        "/dev/xvdb of server drbd0 is taken by volume drbd0",
    );
    lab.nova_refuses(
        &["volume-attach", "drbd0", "spare", "/dev/devicename"],
        "is no device name; use /dev/xvdb",
    );
    lab.nova_refuses(&["volume-attach", "drbd0", "spare", "/dev/xvda"], "root disk");
    lab.nova_refuses(
        &["volume-attach", "drbd0", "nothing", "auto"],
        "no volume has the id or name \"nothing\"",
    );
    lab.nova_refuses(
        &["volume-attach", "nobody", "spare", "auto"],
        "no server has the id or name \"nobody\"",
    );
    lab.nova_refuses(&["volume-detach", "drbd1", "drbd0"], "attached to server drbd0, not to server drbd1");
    lab.nova_refuses(&["volume-detach", "drbd0", "spare"], "volume spare is not attached");
    lab.nova_refuses(&["volume-delete", "drbd0"], "attached to server drbd0 as /dev/xvdb; detach it first");
    lab.nova_refuses(&["volume-create", "--display-name", "drbd0", "1"], "volume drbd0 exists already");
    lab.nova_refuses(&["volume-create", "0"], "a size of 0 GB");
    lab.nova_refuses(&["volume-create", "-5"], "size \"-5\" is no number");
    lab.nova_refuses(&["volume-create", "99999999999"], "a size of 99999999999 GB");
    lab.nova_refuses(&["network-create", "drbd0", "10.0.0.0/24"], "network drbd0 exists already");
    lab.nova_refuses(&["network-create", "n", "172.16.0.0/16"], "overlaps 172.16.16.0/24 of network drbd0");
    lab.nova_refuses(
        &["network-create", "n", "172.16.16.128/25"],
        "overlaps 172.16.16.0/24 of network drbd0",
    );
    lab.nova_refuses(&["network-create", "n", "10.0.0.1/24"], "the network is 10.0.0.0/24");
    lab.nova_refuses(&["network-create", "n", "10.0.0.0"], "is no IPv4 network");
    lab.nova_refuses(&["network-create", "n", "10.0.0.0/31"], "no room for two servers");
    lab.nova_refuses(&["network-delete", "drbd0"], "server drbd0 is on network drbd0");
    lab.nova_refuses(&boot(&["drbd0"]), "server drbd0 exists already");
    lab.nova_refuses(&boot(&["a/b"]), "cannot be a host name");
    lab.nova_refuses(&boot(&["--nic", "net-id=nowhere", "x"]), "no network has the id or name \"nowhere\"");
    lab.nova_refuses(&boot(&["--nic", "drbd0", "x"]), "write it as net-id=ID");
    lab.nova_refuses(
        &boot(&["--nic", "net-id=drbd0,v4-fixed-ip=172.16.17.4", "x"]),
        "is not in 172.16.16.0/24",
    );
    lab.nova_refuses(
        &boot(&["--nic", "net-id=drbd0,v4-fixed-ip=172.16.16.4", "x"]),
        "is taken by server drbd0",
    );
    lab.nova_refuses(&boot(&["--nic", "net-id=drbd0,v4-fixed-ip=172.16.16.255", "x"]), "broadcast address");
    lab.nova_refuses(&boot(&["--nic", "net-id=drbd0,v4-fixed-ip=172.16.16.400", "x"]), "is no IPv4 address");
    lab.nova_refuses(&boot(&["--file", "/x=/does/not/exist", "x"]), "/does/not/exist: No such file");
    lab.nova_refuses(&boot(&["--file", "x=/etc/hostname", "x"]), "no absolute path");
    lab.nova_refuses(
        &["boot", "--image", "Windows", "--flavor", "2", "x"],
        "no such image; images: 5cebb13a",
    );
    lab.nova_refuses(
        &["boot", "--image", "This system", "--flavor", "1", "x"],
        "no such flavor; flavors: 2 (512MB",
    );
    lab.nova_refuses(&["delete", "nobody"], "no server has the id or name \"nobody\"");
    lab.nova_refuses(&["reboot", &volume], "is the id of volume drbd0, not of a server");
    lab.nova_refuses(&["ssh", "nobody"], "no server has the id or name \"nobody\"");
    lab.nova_refuses(&["start", "drbd0"], "server drbd0 runs");

    let usage = lab.command("nova", &["boot"]).output().expect("nova starts");
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(before, everything());
    for word in ["reboot", "poweroff"] {
        let host = lab.command("lab", &["server-power", word]).output().expect("lab starts");
        assert_eq!(host.status.code(), Some(1), "{word} must never reach the host");
    }
}
