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

const ORIGINAL: &str = "/lib/drbd/drbdadm-84";

/// The same files before the original, where it is installed: what it prints now is what the goldens say.
#[test]
fn the_original_prints_the_same() {
    if !Path::new(ORIGINAL).exists() {
        eprintln!("skip the_original_prints_the_same: {ORIGINAL} is not installed (package drbd-utils)");
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
    let original = |name: &str, words: &[&str]| {
        let file = directory.join(format!("{name}.conf"));
        // It takes the name of the machine from there.
        let mut program = std::process::Command::new(ORIGINAL);
        program.env("__DRBD_NODE__", "drbd0").arg("-c").arg(file).args(words);
        let output = program.stdin(std::process::Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (text.replace(directory.to_str().unwrap(), "DIR"), output.status.code())
    };
    for name in ["stacked", "floating", "man-page", "example"] {
        assert_eq!((dumped(name, false), Some(0)), original(name, &["dump"]), "{name}");
        assert_eq!((dumped(name, true), Some(0)), original(name, &["-v", "dump"]), "{name} -v");
        // That of 9.22 ends by a signal at a stacked resource whose lower one is not of this host.
        if name != "example" {
            assert_eq!((as_xml(name), Some(0)), original(name, &["dump-xml"]), "{name} as XML");
        }
    }
    // What is a mistake here is one there, but for a file that includes itself and one that is stacked on nothing.
    for entry in std::fs::read_dir(directory.join("errors")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_conf = path.extension().is_some_and(|extension| extension == "conf");
        if is_conf && !["include-circle", "stacked-on-nothing"].contains(&name) {
            let (_, status) = original(&format!("errors/{name}"), &["sh-nop"]);
            assert!(status.is_none_or(|status| status >= 10), "{name}: {status:?}");
        }
    }
}

/// The goldens are without blanks at ends of lines, of which the original has one.
fn check(name: &str) {
    let golden = |suffix: &str| {
        let path = format!("{}/tests/conf/{name}.{suffix}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let trimmed = |text: &str| text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    assert_eq!(trimmed(&dumped(name, false)), golden("dump"), "{name}");
    assert_eq!(as_xml(name), golden("dump-xml"), "{name} as XML");
    assert_eq!(trimmed(&dumped(name, true)), golden("dump-v"), "{name} -v");
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

#[test]
fn resources_on_top_of_others() {
    check("stacked");
}

#[test]
fn whoever_has_the_address() {
    check("floating");
}

#[test]
fn the_examples_of_the_manual() {
    check("man-page");
}
