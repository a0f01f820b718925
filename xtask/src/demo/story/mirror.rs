//! The tutorial's part one: from nothing to a mirrored file system whose roles are swapped.

use std::time::Instant;

use anyhow::{Context, ensure};

use crate::demo::moments::mib_per_s;
use crate::demo::story::{Story, is_in_sync};
use crate::demo::tutorial::{self, FDISK, IMAGE, RATE, RESOURCE, SERVERS};

/// What `files` writes as one file.
const BIG_MIB: u64 = 64;

impl Story<'_> {
    pub(super) fn servers_and_volumes(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("Two servers on a private network, a volume each");
        let network = id_in(&self.host("nova network-create drbd0 172.16.16.0/24")?)?;
        let (mut volumes, mut servers) = (Vec::new(), Vec::new());
        for server in SERVERS {
            let create = format!("nova volume-create --display-name {} 100", server.name);
            volumes.push(id_in(&self.host(&create)?)?);
        }
        for server in SERVERS {
            let boot = format!("nova boot --image {IMAGE} --nic net-id={network} --flavor 2 {}", server.name);
            servers.push(id_in(&self.host(&boot)?)?);
        }
        for ((server, id), volume) in SERVERS.iter().zip(servers).zip(volumes) {
            self.host(&format!("nova volume-attach {id} {volume} {}", server.disk))?;
        }
        for listing in ["nova list", "nova volume-list"] {
            let table = self.host(listing)?;
            self.screen.output(&table);
        }
        for server in SERVERS {
            // A server's root begins as the host's; what the host has of this is not meant.
            self.quiet(server.name, "rm -rf /drbd /etc/drbd.d/*.res")?;
        }
        self.moments.note("network, two servers, a volume each", "");
        Ok(())
    }

    pub(super) fn partitions(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("A 1 GB partition on each volume");
        for (index, server) in SERVERS.iter().enumerate() {
            let line = format!("fdisk {}", server.disk);
            self.screen.typed(&format!("{}#", server.name), &line);
            let answers = FDISK.join("\n") + "\n";
            let (succeeded, printed) = self.lab.run_with(self.lab.ssh(server.name, &line), &answers)?;
            if index == 0 || !succeeded {
                self.screen.output(&tutorial::dialogue(&printed, FDISK));
            } else {
                self.screen.output("(the same answers)");
            }
            ensure!(succeeded, "`{line}` in {} did not succeed", server.name);
            // The lab reads the new table as soon as fdisk has closed the disk.
            let appears = format!(
                "for i in $(seq 50); do test -b {0} && exec ls {0}; sleep 0.02; done; ls {0}",
                server.partition
            );
            self.quiet(server.name, &appears)?;
            self.typed(server.name, &format!("ls {}*", server.disk))?;
        }
        Ok(())
    }

    pub(super) fn resource(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("The resource r0 in both servers");
        self.screen.own("The tutorial has `rate 30M`; so that you need not wait:");
        for server in SERVERS {
            self.typed(server.name, RATE)?;
        }
        self.typed("drbd0", RESOURCE)?;
        self.screen.typed("drbd1#", "cat << EOT >> /etc/drbd.d/r0.res  (the same)");
        self.quiet("drbd1", RESOURCE)?;
        for server in SERVERS {
            self.typed(server.name, "drbdadm create-md r0")?;
        }
        for server in SERVERS {
            self.typed(server.name, "drbdadm up r0")?;
        }
        self.await_device("drbd0", "connected", |device| device.connection == "Connected")?;
        self.typed("drbd0", "lockstep proc drbd")?;
        self.moments.note("r0 up and connected, nothing on it yet", "");
        Ok(())
    }

    pub(super) fn first_sync(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("The first sync, from drbd0 to drbd1");
        let begun = Instant::now();
        self.typed("drbd0", "drbdadm -- --overwrite-data-of-peer primary all")?;
        let size = self.quiet("drbd0", "blockdev --getsize64 /dev/drbd0")?;
        self.usable_bytes = size.trim().parse().context("the size of /dev/drbd0")?;
        let device = self.await_device("drbd0", "in sync", is_in_sync)?;
        ensure!(device.roles == "Primary/Secondary", "the roles are {}, not Primary/Secondary", device.roles);
        let (bytes, time) = (self.usable_bytes, begun.elapsed());
        self.typed("drbd0", "lockstep proc drbd")?;
        let speed = mib_per_s(bytes, time);
        self.screen.holds(&format!("in sync: {} MiB in {:.1} s, {speed}", bytes >> 20, time.as_secs_f64()));
        self.moments.note("full sync done, both disks UpToDate", format!("{} MiB, {speed}", bytes >> 20));
        Ok(())
    }

    pub(super) fn files(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("A file system on the mirror");
        self.typed("drbd0", "mkfs.ext4 /dev/drbd0")?;
        self.typed("drbd0", "mkdir /drbd")?;
        self.typed("drbd0", "mount /dev/drbd0 /drbd")?;
        self.typed("drbd0", "touch /drbd/.woot.$RANDOM")?;
        self.quiet("drbd0", &format!("head -c {BIG_MIB}M /dev/urandom > /tmp/random"))?;
        let copied = self.typed("drbd0", "dd if=/tmp/random of=/drbd/big bs=1M conv=fsync")?;
        self.typed("drbd0", "cp -r /usr/sbin /drbd")?;
        let sum = "cd /drbd && find big sbin -type f -exec sha256sum {} + > SHA256SUMS && wc -l SHA256SUMS";
        self.typed("drbd0", sum)?;
        let speed = dd_seconds(&copied).map(|seconds| {
            format!("{BIG_MIB} MiB written and fsynced, {:.1} MiB/s", BIG_MIB as f64 / seconds)
        });
        self.moments.note("ext4 mounted in drbd0, files written", speed.unwrap_or_default());
        Ok(())
    }

    pub(super) fn swap_roles(&mut self) -> anyhow::Result<()> {
        self.screen.chapter("Roles swapped");
        self.typed("drbd0", "umount /drbd && drbdadm secondary r0")?;
        self.quiet("drbd1", "mkdir /drbd")?;
        self.typed("drbd1", "drbdadm primary r0 && mount /dev/drbd0 /drbd")?;
        self.typed("drbd1", "ls -A /drbd")?;
        self.quiet("drbd1", "ls /drbd/.woot.*")
            .context("the file that was touched in drbd0 is not in drbd1")?;
        self.typed("drbd1", "cd /drbd && sha256sum --quiet -c SHA256SUMS")?;
        self.screen.holds("in drbd1 every checksum is the one made in drbd0");
        self.typed("drbd1", "drbdadm role r0")?;
        self.moments.note("roles swapped, mounted in drbd1", "every checksum right");
        Ok(())
    }
}

/// The row `id` of a table of properties.
fn id_in(table: &str) -> anyhow::Result<String> {
    let id = table.lines().find_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        (cells.next() == Some("id")).then(|| cells.next()).flatten()
    });
    Ok(id.with_context(|| format!("no id in\n{table}"))?.to_owned())
}

/// The seconds in dd's last line: `67108864 bytes (67 MB, 64 MiB) copied, 0.5 s, 134 MB/s`.
fn dd_seconds(printed: &str) -> Option<f64> {
    let (_, rest) = printed.split_once(" copied, ")?;
    let (seconds, _) = rest.split_once(" s")?;
    seconds.parse().ok().filter(|seconds| *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use super::{dd_seconds, id_in};

    #[test]
    fn what_others_print() {
        let table =
            "+----+---+\n| Property | Value |\n+---+---+\n| cidr | 10.0.0.0/8 |\n| id       | 5c-1 |\n";
        assert_eq!(id_in(table).expect("an id"), "5c-1");
        assert!(id_in("ERROR: refused\n").is_err());
        assert_eq!(dd_seconds("67108864 bytes (67 MB, 64 MiB) copied, 0.5 s, 134 MB/s\n"), Some(0.5));
        assert_eq!(dd_seconds("dd: writing: No space left on device"), None);
    }
}
