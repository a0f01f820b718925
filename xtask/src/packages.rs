//! Which Debian packages which work needs: the one table.

/// Packages for one kind of work.
pub struct Need {
    /// As typed after `cargo xtask setup`.
    pub what: &'static str,
    /// Debian's and Ubuntu's names.
    pub packages: &'static [&'static str],
    /// Other rows that this one includes.
    pub includes: &'static [&'static str],
    /// Whether cargo-nextest is needed too, with rustfmt and clippy.
    pub nextest: bool,
}

/// Every kind of work.
pub const NEEDS: &[Need] = &[
    Need { what: "build", packages: &["gcc", "libc6-dev"], includes: &[], nextest: false },
    Need {
        what: "lab",
        packages: &[
            "iproute2",
            "iptables",
            "mount",
            "util-linux",
            "fdisk",
            "e2fsprogs",
            "procps",
            "iputils-ping",
            "socat",
            "systemd-sysv",
            "dbus",
            "init-system-helpers",
            "libfaketime",
        ],
        includes: &["build"],
        nextest: false,
    },
    Need {
        what: "originals",
        packages: &["drbd-utils", "glusterfs-server", "glusterfs-client", "gfs2-utils"],
        includes: &["lab"],
        nextest: false,
    },
    Need { what: "demo", packages: &[], includes: &["lab"], nextest: false },
    Need {
        what: "interop-drbd",
        packages: &["user-mode-linux", "kmod", "iproute2", "util-linux", "e2fsprogs"],
        includes: &["interop-drbdmeta"],
        nextest: false,
    },
    Need { what: "interop-drbdmeta", packages: &["drbd-utils"], includes: &["build"], nextest: false },
    Need {
        what: "interop-nbd",
        packages: &["libnbd-bin", "fio", "qemu-utils"],
        includes: &["build"],
        nextest: false,
    },
    Need {
        what: "bench",
        packages: &["fio", "qemu-utils", "nbdkit"],
        includes: &["lab", "interop-drbd"],
        nextest: false,
    },
    Need {
        what: "test",
        packages: &["nginx", "curl", "python3", "udev"],
        includes: &["lab", "originals", "interop-drbd", "interop-nbd"],
        nextest: true,
    },
];

/// The row of that name.
pub fn need(what: &str) -> Option<&'static Need> {
    NEEDS.iter().find(|need| need.what == what)
}

/// What the named rows need together: packages in the table's order without repetition, and whether nextest.
pub fn wanted(what: &[&'static Need]) -> (Vec<&'static str>, bool) {
    let mut packages = Vec::new();
    let mut nextest = false;
    for row in what {
        for package in row.packages {
            if !packages.contains(package) {
                packages.push(*package);
            }
        }
        nextest |= row.nextest;
        let included: Vec<_> = row.includes.iter().filter_map(|name| need(name)).collect();
        let (more, more_nextest) = wanted(&included);
        packages.extend(more.into_iter().filter(|package| !packages.contains(package)).collect::<Vec<_>>());
        nextest |= more_nextest;
    }
    (packages, nextest)
}

#[cfg(test)]
mod tests {
    use super::{NEEDS, need, wanted};

    #[test]
    fn every_inclusion_names_a_row() {
        for row in NEEDS {
            for name in row.includes {
                assert!(need(name).is_some(), "`{}` includes `{name}`, which is no row", row.what);
            }
        }
    }

    #[test]
    fn inclusions_add_up_without_repetition() {
        let (packages, nextest) = wanted(&[need("test").expect("a row")]);
        assert!(nextest);
        assert!(packages.contains(&"gcc") && packages.contains(&"drbd-utils") && packages.contains(&"fio"));
        let mut unique = packages.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), packages.len());
    }
}
