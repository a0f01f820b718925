//! `dump` against what drbdadm 9.22 for 8.4 printed for the same files on a host called drbd0 (tests/conf/README.md).

use std::path::Path;

use drbd_tools::drbd_conf::{dump, dump_xml, effective, load};

fn dumped(name: &str, is_expanded: bool) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
    let path = directory.join(format!("{name}.conf"));
    let mut config = load(&path).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
    if is_expanded {
        effective::expand(&mut config);
    }
    let mut text = dump::head(&config, &path, is_expanded);
    for resource in &config.resources {
        text.push_str(&dump::resource(&config, resource, "drbd0"));
    }
    text.replace(directory.to_str().unwrap(), "DIR")
}

fn as_xml(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
    let path = directory.join(format!("{name}.conf"));
    let config = load(&path).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
    let resources: Vec<_> = config.resources.iter().collect();
    let text = dump_xml::document(&config, &path, &resources);
    text.replace(path.parent().unwrap().to_str().unwrap(), "DIR")
}

fn check(name: &str) {
    let golden = |suffix: &str| {
        let path = format!("{}/tests/conf/{name}.{suffix}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(dumped(name, false), golden("dump"), "{name}");
    assert_eq!(as_xml(name), golden("dump-xml"), "{name} as XML");
    assert_eq!(dumped(name, true), golden("dump-v"), "{name} -v");
}

#[test]
fn the_tutorials_resource() {
    check("tutorial");
}

#[test]
fn the_tutorials_resource_with_two_primaries() {
    check("tutorial-dual");
}

#[test]
fn debians_drbd_conf_with_its_includes() {
    check("debian/drbd");
}

#[test]
fn the_spelling_of_83() {
    check("spelling-83");
}

#[test]
fn the_spelling_of_84() {
    check("spelling-84");
}
