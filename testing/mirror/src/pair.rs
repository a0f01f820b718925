//! Two servers with a volume each and a resource `r0` between them.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::load::LOAD;
use testing_lab::TestLab;

/// The servers; the tutorial's names, so that they have the tutorial's addresses.
pub const SERVERS: [&str; 2] = ["drbd0", "drbd1"];

/// The tutorial's resource, as it stands.
pub const TUTORIAL_RES: &str = r#"    resource r0 {
      protocol C;
        net {
            cram-hmac-alg sha1;
            shared-secret "dupersupersecret";
            timeout 180;
            ping-int 3;
            ping-timeout 9;
        }
        on drbd0 {
            device /dev/drbd0;
            disk /dev/xvdb1;
            address 172.16.16.4:7788;
            meta-disk internal;
        }
        on drbd1 {
            device /dev/drbd0;
            disk /dev/xvdf1;
            address 172.16.16.3:7788;
            meta-disk internal;
        }
}
"#;

/// How long a state may take to come about.
const STATE_PATIENCE: Duration = Duration::from_secs(45);

/// What a test wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Part of the lab's name.
    pub test: &'static str,
    /// Image of the servers.
    pub image: &'static str,
    /// Flavor of the servers; 2 has 512 MiB of memory.
    pub flavor: &'static str,
    /// Type of the volumes.
    pub volume_type: &'static str,
    /// Size of the partitions that are mirrored.
    pub partition_mib: u32,
}

impl Wish {
    /// Small and quick.
    pub fn small(test: &'static str) -> Self {
        Self { test, image: "This system", flavor: "2", volume_type: "SATA", partition_mib: 64 }
    }
}

/// The two servers.
#[derive(Debug)]
pub struct Pair {
    /// Their lab.
    pub lab: TestLab,
}

impl Pair {
    /// Servers, volumes and partitions; nothing of DRBD yet.
    ///
    /// # Panics
    /// If something refuses.
    #[track_caller]
    pub fn booted(wish: Wish, mirror_load: &str) -> Self {
        let lab = TestLab::new(wish.test);
        lab.nova(&["network-create", "drbd0", "172.16.16.0/24"]);
        let file = format!("{LOAD}={mirror_load}");
        for (server, device) in SERVERS.into_iter().zip(["/dev/xvdb", "/dev/xvdf"]) {
            let kind = wish.volume_type;
            lab.nova(&["volume-create", "--display-name", server, "--volume-type", kind, "1"]);
            let network = [
                "--init",
                "tiny",
                "--no-public",
                "--no-service-net",
                "--nic",
                "net-id=drbd0",
                "--file",
                &file,
                server,
            ];
            lab.nova(&[&["boot", "--image", wish.image, "--flavor", wish.flavor], &network[..]].concat());
            lab.nova(&["volume-attach", server, server, device]);
            // The root is the host's, whose daemon may have a log and resources.
            lab.inside(server, "rm -rf /var/log/lockstep /etc/drbd.d/*.res");
            let typed = format!("n\\np\\n1\\n2048\\n+{}M\\nw\\n", wish.partition_mib);
            lab.inside(server, &format!("printf '{typed}' | fdisk {device}"));
            lab.within(Duration::from_secs(1), server, &format!("test -b {device}1"));
        }
        Self { lab }
    }

    /// Puts the resource into both servers.
    ///
    /// # Panics
    /// If a server refuses.
    #[track_caller]
    pub fn configure(&self, resource: &str) {
        for server in SERVERS {
            self.configure_one(server, resource);
        }
    }

    /// Puts the resource into one server.
    ///
    /// # Panics
    /// If it refuses.
    #[track_caller]
    pub fn configure_one(&self, server: &str, resource: &str) {
        let script = format!(
            "mkdir -p /etc/drbd.d && cat > /etc/drbd.d/r0.res <<'END_OF_RESOURCE'\n{resource}END_OF_RESOURCE"
        );
        self.lab.inside(server, &script);
    }

    /// Two servers with the resource up, in sync, `drbd0` Primary.
    ///
    /// # Panics
    /// If that does not come about.
    #[track_caller]
    pub fn mirrored(wish: Wish, mirror_load: &str) -> Self {
        let pair = Self::booted(wish, mirror_load);
        pair.configure(&quick_resource());
        for server in SERVERS {
            pair.lab.inside(server, "drbdadm create-md r0 && drbdadm up r0");
        }
        pair.await_state("drbd0", "Connected", "Secondary/Secondary", "Inconsistent/Inconsistent");
        pair.lab.inside("drbd0", "drbdadm -- --overwrite-data-of-peer primary r0");
        pair.await_in_sync("drbd0", "Primary/Secondary");
        pair
    }

    /// Connection, roles and disks as a server's drbdadm prints them, a blank between.
    pub fn state(&self, server: &str) -> String {
        let answer = self.lab.ssh(server, "drbdadm cstate r0; drbdadm role r0; drbdadm dstate r0");
        answer.text().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits for a state.
    ///
    /// # Panics
    /// If it does not come about.
    #[track_caller]
    pub fn await_state(&self, server: &str, connection: &str, roles: &str, disks: &str) {
        self.await_any(server, &format!("{connection} {roles} {disks}"), |found| {
            found == format!("{connection} {roles} {disks}")
        });
    }

    /// Waits for "Connected", the roles, and "UpToDate/UpToDate".
    ///
    /// # Panics
    /// If it does not come about.
    #[track_caller]
    pub fn await_in_sync(&self, server: &str, roles: &str) {
        self.await_state(server, "Connected", roles, "UpToDate/UpToDate");
    }

    /// Waits for a state that is `wanted`.
    ///
    /// # Panics
    /// If it does not come about.
    #[track_caller]
    pub fn await_any(&self, server: &str, wanted: &str, is_wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + STATE_PATIENCE;
        loop {
            let found = self.state(server);
            if is_wanted(&found) {
                return;
            }
            assert!(Instant::now() < end, "{server} is {found}, not {wanted}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Takes the resource down on both servers and gives what the lower disks hold, without their meta-data.
    ///
    /// # Panics
    /// If a server refuses.
    #[track_caller]
    pub fn down_and_read(&self) -> [Vec<u8>; 2] {
        let size = self.lab.inside(
            "drbd0",
            "lockstep proc drbd >&2; grep -o 'size = [0-9]* KB' /var/log/lockstep/drbd.log | tail -n 1",
        );
        let kib: usize = size.split(' ').nth(2).and_then(|kib| kib.parse().ok()).expect("a size in the log");
        for server in SERVERS {
            self.lab.inside(server, "drbdadm down r0");
        }
        [("drbd0", "/dev/xvdb1"), ("drbd1", "/dev/xvdf1")].map(|(server, disk)| {
            let answer = self.lab.ssh(server, &format!("dd if={disk} bs=1M iflag=direct status=none"));
            assert_eq!(answer.status, 0, "{server}: {}", answer.stderr);
            let mut bytes = answer.stdout;
            assert!(bytes.len() > kib * 1024, "{server}: {} bytes of {disk}", bytes.len());
            bytes.truncate(kib * 1024);
            bytes
        })
    }

    /// The daemon's log of a server.
    pub fn log(&self, server: &str) -> String {
        self.lab.ssh(server, "cat /var/log/lockstep/drbd.log").text()
    }
}

/// The last of the logs of a test that failed.
impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in SERVERS {
                let said = self
                    .lab
                    .ssh(server, "timeout 3 lockstep proc drbd; tail -n 60 /var/log/lockstep/drbd.log");
                eprintln!("--- {server}\n{}{}", said.text(), said.stderr);
            }
        }
    }
}

/// A resource that notices the loss of its peer within two seconds, and syncs as fast as it can.
pub fn quick_resource() -> String {
    let mut text = String::from("resource r0 {\n  protocol C;\n");
    text += "  disk { resync-rate 1G; c-plan-ahead 0; }\n";
    text += "  net { cram-hmac-alg sha1; shared-secret \"dupersupersecret\"; ";
    text += "timeout 20; ping-int 1; ping-timeout 5; connect-int 1; }\n";
    for (server, disk, address) in
        [("drbd0", "/dev/xvdb1", "172.16.16.4"), ("drbd1", "/dev/xvdf1", "172.16.16.3")]
    {
        write!(text, "  on {server} {{ device /dev/drbd0; disk {disk}; ").expect("a String takes every text");
        writeln!(text, "address {address}:7788; meta-disk internal; }}").expect("a String takes every text");
    }
    text + "}\n"
}
