//! `lockstep lab show`: what it says is what there is.

use serde_json::Value;
use testing_lab::{TestLab, can_run};

/// The line that begins with this, without its networks' lines.
fn line<'a>(text: &'a str, begins: &str) -> &'a str {
    let without_rails = |line: &'a str| line.trim_start_matches(['|', ':', 'o', '-', 'x', ' ']);
    let found = text.lines().find(|line| without_rails(line).starts_with(begins));
    found.unwrap_or_else(|| panic!("no line begins with {begins:?}:\n{text}"))
}

#[test]
fn the_topology_is_shown_with_what_is_broken() {
    if !can_run("the_topology_is_shown_with_what_is_broken") {
        return;
    }
    let lab = TestLab::new("show");
    let empty = format!("lab {}: no networks, no servers, no volumes\n", lab.name());
    assert_eq!(lab.lab(&["show"]), empty);

    lab.nova(&["network-create", "drbd0", "172.16.16.0/24"]);
    let boot = ["boot", "--image", "This system", "--flavor", "3", "--init", "tiny", "--nic", "net-id=drbd0"];
    for server in ["drbd0", "drbd1"] {
        lab.nova(&[&boot[..], &[server]].concat());
        lab.nova(&["volume-create", "--display-name", server, "1"]);
    }
    lab.nova(&["volume-attach", "drbd0", "drbd0", "/dev/xvdb"]);
    let whole = lab.lab(&["show"]);
    assert!(whole.starts_with(&format!("lab {}: 3 networks, 2 servers, 2 volumes\n", lab.name())), "{whole}");
    assert!(line(&whole, "drbd0  ACTIVE").ends_with("drbd0  ACTIVE  1GB Standard Instance"), "{whole}");
    assert_eq!(line(&whole, "eth0"), "o--|--|--- eth0  203.0.113.4      2001:db8:4800::4  30 Mb/s");
    assert_eq!(line(&whole, "eth2"), "|  |  o--- eth2  172.16.16.4");
    assert!(line(&whole, "/dev/xvdb").ends_with("/dev/xvdb  drbd0  1 GB SATA"), "{whole}");
    assert!(whole.contains("volumes without a server:\n  drbd1  1 GB SATA\n"), "{whole}");
    assert!(!whole.contains("faults in force"), "{whole}");

    lab.fault(&["link-down", "drbd0:public"]);
    lab.fault(&["partition", "drbd0", "drbd1"]);
    lab.fault(&["power-cut", "drbd1"]);
    let broken = lab.lab(&["show"]);
    assert!(line(&broken, "eth0").starts_with("o--|--|--x eth0  203.0.113.4 "), "{broken}");
    assert!(line(&broken, "drbd1  SHUTOFF").contains(" ("), "the faults' numbers: {broken}");
    assert!(broken.contains("faults in force:\n  (1) "), "{broken}");

    let json: Value = serde_json::from_str(&lab.lab(&["show", "--json"])).expect("JSON");
    let public = &json["servers"][0]["interfaces"][0];
    assert_eq!((&public["network"], &public["unplugged"]), (&"public".into(), &true.into()), "{json}");
    assert_eq!((&public["address"], &public["mbit_per_s"]), (&"203.0.113.4".into(), &30.into()), "{json}");
    let cable = public["faults"][0].as_u64().expect("one is broken") as usize;
    assert_eq!(
        json["faults"][cable - 1]["words"],
        serde_json::json!(["link-down", "drbd0:public"]),
        "{json}"
    );
    assert_eq!(json["servers"][1]["status"], "SHUTOFF", "{json}");
    assert_eq!(json["servers"][0]["volumes"][0]["device"], "/dev/xvdb", "{json}");

    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("a plain path");
    assert_eq!(lab.lab(&["show", "--svg", path]), "");
    let drawing = std::fs::read_to_string(path).expect("it is there");
    assert!(drawing.starts_with("<svg ") && drawing.contains(">203.0.113.4</text>"), "{drawing}");
    assert_eq!(lab.lab(&["show", "--svg"]), drawing, "the same lab gives the same drawing");
    lab.lab_refuses(
        &["show", "--svg", "/does/not/exist/lab.svg"],
        "show: write /does/not/exist/lab.svg: No such",
    );
}
