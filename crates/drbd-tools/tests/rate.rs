//! What a resync's rate means depends on where it stands.

use std::io::Write;

use drbd_tools::drbd_conf::{effective, load};

/// KiB/s and tenths of a second of `resync-rate` and `c-plan-ahead`.
fn rate_and_plan(sections: &str) -> (u32, u32) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let host = |name: &str, number: u8| {
        format!(
            "on {name} {{ device /dev/drbd0; disk /dev/sda; address 10.0.0.{number}:7788; meta-disk internal; }}"
        )
    };
    write!(file, "resource r0 {{ {sections} {} {} }}", host("a", 1), host("b", 2)).unwrap();
    let mut config = load(file.path()).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
    effective::expand(&mut config);
    let volume = &config.resources[0].hosts[0].volumes[0];
    let options = effective::disk_options(&volume.disk_options);
    (options.resync_rate_kib_per_s, options.c_plan_ahead_ds)
}

#[test]
fn the_rate_of_the_syncer_section_is_the_rate() {
    assert_eq!(rate_and_plan("syncer { rate 30M; }"), (30 << 10, 0));
    assert_eq!(rate_and_plan("syncer { c-plan-ahead 15; rate 30M; }"), (30 << 10, 15));
}

#[test]
fn that_of_the_disk_section_is_where_the_controller_begins() {
    assert_eq!(rate_and_plan("disk { resync-rate 30M; }"), (30 << 10, 20));
    assert_eq!(rate_and_plan(""), (250, 20));
}
