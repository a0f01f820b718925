//! What a server can be booted from: images and flavors, as the tutorial's cloud listed them in 2013.

use uuid::{Uuid, uuid};

use crate::era::{self, Distribution};
use crate::error::{Error, Result};
use crate::state::Server;

/// What a server's root and its texts are.
#[derive(Debug)]
pub struct Image {
    /// The id that `--image` takes.
    pub id: Uuid,
    /// The name, which `--image` takes too.
    pub name: &'static str,
    /// Value of `LOCKSTEP_ERA` in servers of this image; none leaves it unset.
    pub era: Option<&'static str>,
    /// The distribution whose commands and files servers of this image have beside the host's.
    pub distribution: Option<&'static Distribution>,
}

/// Every image. All of them are this system's own root; two speak the tutorial's texts.
pub const IMAGES: &[Image] = &[
    Image {
        id: uuid!("5cebb13a-f783-4f8c-8058-c4182c724ccd"),
        name: "Ubuntu 12.04 LTS (Precise Pangolin)",
        era: Some("2013"),
        distribution: Some(&era::UBUNTU),
    },
    Image {
        id: uuid!("c195ef3b-9195-4474-b6f7-16e5bd86acd0"),
        name: "CentOS 6.3",
        era: Some("2013"),
        distribution: Some(&era::CENTOS),
    },
    Image {
        id: uuid!("6c6f636b-7374-4570-8000-000000000001"),
        name: "This system",
        era: None,
        distribution: None,
    },
    Image { id: ORIGINALS, name: "Originals", era: None, distribution: None },
];

/// The image in whose servers this system's own drbd-utils, glusterfs and gfs2-utils stand first, for comparisons.
pub const ORIGINALS: Uuid = uuid!("6c6f636b-7374-4570-8000-000000000002");

/// A size of server.
#[derive(Debug)]
pub struct Flavor {
    /// The number that `--flavor` takes.
    pub id: u32,
    /// The name, which `--flavor` takes too.
    pub name: &'static str,
    /// Memory limit.
    pub memory_mib: u64,
    /// Listed as in 2013; a server's root is as large as the host's.
    pub disk_gb: u32,
    /// Listed as in 2013; servers share the host's processors.
    pub vcpus: u32,
    /// Megabits per second that the interface on the network `public` takes and gives, as in 2013.
    pub public_mbit_per_s: u32,
}

impl Flavor {
    /// The bandwidth as novaclient lists it: in units of 10 Mb/s.
    pub fn rxtx_factor(&self) -> f64 {
        f64::from(self.public_mbit_per_s) / 10.0
    }
}

/// Every flavor.
pub const FLAVORS: &[Flavor] = &[
    Flavor {
        id: 2,
        name: "512MB Standard Instance",
        memory_mib: 512,
        disk_gb: 20,
        vcpus: 1,
        public_mbit_per_s: 20,
    },
    Flavor {
        id: 3,
        name: "1GB Standard Instance",
        memory_mib: 1024,
        disk_gb: 40,
        vcpus: 1,
        public_mbit_per_s: 30,
    },
    Flavor {
        id: 4,
        name: "2GB Standard Instance",
        memory_mib: 2048,
        disk_gb: 80,
        vcpus: 2,
        public_mbit_per_s: 60,
    },
    Flavor {
        id: 5,
        name: "4GB Standard Instance",
        memory_mib: 4096,
        disk_gb: 160,
        vcpus: 2,
        public_mbit_per_s: 100,
    },
    Flavor {
        id: 6,
        name: "8GB Standard Instance",
        memory_mib: 8192,
        disk_gb: 320,
        vcpus: 4,
        public_mbit_per_s: 150,
    },
    Flavor {
        id: 7,
        name: "15GB Standard Instance",
        memory_mib: 15360,
        disk_gb: 620,
        vcpus: 6,
        public_mbit_per_s: 200,
    },
    Flavor {
        id: 8,
        name: "30GB Standard Instance",
        memory_mib: 30720,
        disk_gb: 1200,
        vcpus: 8,
        public_mbit_per_s: 300,
    },
];

/// The image that a user means by id or name.
///
/// # Errors
/// No such image; the message lists those there are.
pub fn image(wanted: &str) -> Result<&'static Image> {
    IMAGES
        .iter()
        .find(|image| image.name == wanted || image.id.to_string() == wanted.to_lowercase())
        .ok_or_else(|| {
            let known: Vec<String> =
                IMAGES.iter().map(|image| format!("{} ({})", image.id, image.name)).collect();
            Error::refused(format!("--image {wanted}: no such image; images: {}", known.join(", ")))
        })
}

/// The flavor that a user means by number or name.
///
/// # Errors
/// No such flavor; the message lists those there are.
pub fn flavor(wanted: &str) -> Result<&'static Flavor> {
    FLAVORS.iter().find(|flavor| flavor.name == wanted || flavor.id.to_string() == wanted).ok_or_else(|| {
        let known: Vec<String> =
            FLAVORS.iter().map(|flavor| format!("{} ({})", flavor.id, flavor.name)).collect();
        Error::refused(format!("--flavor {wanted}: no such flavor; flavors: {}", known.join(", ")))
    })
}

/// The flavor of a server; the smallest for a record of another version's.
pub fn flavor_of(server: &Server) -> &'static Flavor {
    FLAVORS.iter().find(|flavor| flavor.id == server.flavor).unwrap_or(&FLAVORS[0])
}

/// The last octet that the tutorial's servers had on its networks; none for other names.
pub fn tutorial_host_octet(server: &str) -> Option<u8> {
    match server {
        "drbd0" => Some(4),
        "drbd1" | "gluster-00" => Some(3),
        "gluster-01" => Some(2),
        "gluster-02" => Some(6),
        "gluster-03" => Some(5),
        _ => None,
    }
}
