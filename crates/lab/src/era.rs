//! What the tutorial's two distributions had for its lines to call or edit, in servers of their images.
//!
//! A server's root is the host's, and nothing in a lab reaches a mirror of packages: the scripts answer what is true
//! here in the words of 2013. Each is small enough to be read.

use std::path::Path;

use crate::catalog::Image;
use crate::error::Result;

/// Directory of programs that stand before the host's.
const SBIN: &str = "usr/local/sbin";

/// Where scripts find the one table of packages.
const PACKAGES: (&str, &str) = ("usr/local/lib/lockstep/package", include_str!("era/package"));

/// Programs, by name.
const PROGRAMS: &[(&str, &str)] = &[
    ("apt-get", include_str!("era/apt-get")),
    ("yum", include_str!("era/yum")),
    ("rpm", include_str!("era/rpm")),
    ("service", include_str!("era/service")),
    ("crm", include_str!("era/not-yet")),
    ("mkfs.gfs2", include_str!("era/not-yet")),
    ("gluster", include_str!("era/not-yet")),
];

/// What a distribution had at places where Debian has nothing, or something else.
#[derive(Debug)]
pub struct Distribution {
    /// Files by path; a server has them from its first life on, and they are its own.
    pub files: &'static [(&'static str, &'static str)],
}

/// As drbd8-utils 8.3 had it, whatever the host has.
const GLOBAL_COMMON: (&str, &str) = ("etc/drbd.d/global_common.conf", include_str!("era/global_common.conf"));

const SSHD_CONFIG: (&str, &str) = ("etc/ssh/sshd_config", include_str!("era/sshd_config"));

/// An empty unit is one that cannot be enabled (systemd.unit(5)): the host's must not stand in for what Lockstep lacks.
const NOT_YET: &str = "";

/// Ubuntu 12.04.
pub const UBUNTU: Distribution = Distribution {
    files: &[
        GLOBAL_COMMON,
        SSHD_CONFIG,
        ("etc/systemd/system/corosync.service", NOT_YET),
        ("etc/systemd/system/pacemaker.service", NOT_YET),
    ],
};

/// CentOS 6.3, with EPEL's nginx.
pub const CENTOS: Distribution = Distribution {
    files: &[
        SSHD_CONFIG,
        ("etc/systemd/system/glusterd.service", NOT_YET),
        ("etc/nginx/nginx.conf", include_str!("era/nginx.conf")),
        ("etc/nginx/conf.d/default.conf", include_str!("era/nginx-default.conf")),
        ("usr/share/nginx/html/index.html", include_str!("era/nginx-index.html")),
        ("etc/sysconfig/iptables", include_str!("era/iptables")),
    ],
};

/// Gives a server of this image its programs. `script` writes one below the server's root.
///
/// # Errors
/// The writer's.
pub fn programs(image: &Image, mut script: impl FnMut(&Path, &str) -> Result<()>) -> Result<()> {
    if image.distribution.is_none() {
        return Ok(());
    }
    script(Path::new(PACKAGES.0), PACKAGES.1)?;
    PROGRAMS.iter().try_for_each(|(name, text)| script(&Path::new(SBIN).join(name), text))
}
