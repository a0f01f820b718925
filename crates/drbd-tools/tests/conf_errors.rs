//! What a person is told about mistakes: for each `tests/conf/errors/NAME.conf` the text in `NAME.txt`. With the
//! environment variable `UPDATE_GOLDENS` set, the texts are written instead of compared.

use std::path::Path;

use drbd_tools::drbd_conf::load;

#[test]
fn every_mistake_has_its_text() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf/errors");
    let mut checked = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let invalid = load(&path).expect_err(path.to_str().unwrap());
        let text = invalid.render(false).replace(directory.to_str().unwrap(), "DIR");
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&golden).unwrap_or_default(), "{}", path.display());
        checked += 1;
    }
    assert!(checked >= 21, "{checked}");
}

#[test]
fn a_configuration_that_is_not_there() {
    let invalid = load(Path::new("/nonexistent/drbd.conf")).unwrap_err();
    assert!(invalid.render(false).contains("cannot read /nonexistent/drbd.conf"));
}
