//! Two seats on one segment: `drbd0` is the kernel's, `drbd1` is a second kernel's or ours.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::ours::Ours;
use crate::tutorial::{ADDRESS_0, DISK_BYTES, USABLE_BYTES, resource};
use crate::uml::{Node, Segment};

/// What the scenarios share.
pub struct Pair {
    /// The kernel's node; booted at first use.
    kernel: Option<Node>,
    /// Ends after the nodes on it.
    segment: Segment,
    folder: TempDir,
}

impl Pair {
    /// Nobody is there yet.
    pub fn new(segment: Segment) -> anyhow::Result<Self> {
        Ok(Self { kernel: None, segment, folder: tempfile::tempdir()? })
    }

    /// Where the nodes stand.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    fn disk(&self, seat: &str) -> PathBuf {
        self.folder.path().join(format!("{seat}.img"))
    }

    /// The kernel's node with nothing configured and an empty disk.
    pub fn fresh_kernel(&mut self) -> anyhow::Result<&mut Node> {
        let node = match self.kernel.take() {
            Some(mut node) => {
                node.run(
                    "umount /run/m 2>/dev/null; drbdsetup down r0 2>/dev/null; blkdiscard -z /dev/ubda",
                )?;
                node
            }
            None => self.boot("drbd0", ADDRESS_0)?,
        };
        let node = self.kernel.insert(node);
        configure(node)?;
        Ok(node)
    }

    /// The kernel's node as it is.
    pub fn kernel(&mut self) -> anyhow::Result<&mut Node> {
        self.kernel.as_mut().context("no kernel's node was booted")
    }

    /// Another kernel's node on an empty disk.
    pub fn boot(&self, name: &'static str, address: &str) -> anyhow::Result<Node> {
        self.empty_disk(name)?;
        self.boot_on_disk(name, address)
    }

    /// Cuts the power of the kernel's node.
    pub fn cut_kernels_power(&mut self) -> anyhow::Result<()> {
        self.kernel.take().context("no kernel's node was booted")?.cut_power(&self.segment)
    }

    /// Boots it again on the disk as the power cut left it.
    pub fn reboot_kernel(&mut self) -> anyhow::Result<&mut Node> {
        let node = self.boot_on_disk("drbd0", ADDRESS_0)?;
        Ok(self.kernel.insert(node))
    }

    /// Our side on an empty disk.
    pub fn sit(&self) -> anyhow::Result<Ours> {
        Ours::sit(&self.segment, &self.empty_disk("drbd1")?)
    }

    /// Makes a seat's disk empty, and says where it is.
    fn empty_disk(&self, seat: &str) -> anyhow::Result<PathBuf> {
        let disk = self.disk(seat);
        File::create(&disk)?.set_len(DISK_BYTES)?;
        Ok(disk)
    }

    fn boot_on_disk(&self, name: &'static str, address: &str) -> anyhow::Result<Node> {
        let folder = self.folder.path().join(name);
        let mut node = Node::boot(&self.segment, name, address, &folder, &self.disk(name))?;
        configure(&mut node)?;
        Ok(node)
    }

    /// That both disks hold the same before their meta-data.
    pub fn compare_disks(&self) -> anyhow::Result<()> {
        let mut sides = Vec::new();
        for seat in ["drbd0", "drbd1"] {
            let mut content = Vec::new();
            File::open(self.disk(seat))?.take(USABLE_BYTES).read_to_end(&mut content)?;
            ensure!(content.len() as u64 == USABLE_BYTES, "{seat}'s disk has {} bytes", content.len());
            sides.push(content);
        }
        match (0..sides[0].len()).find(|&at| sides[0][at] != sides[1][at]) {
            Some(at) => bail!("the disks differ from byte {at} (sector {}) on", at / 512),
            None => Ok(()),
        }
    }
}

fn configure(node: &mut Node) -> anyhow::Result<()> {
    node.run(&format!(
        "printf 'global {{ usage-count no; }}\\n' >/etc/drbd.d/global_common.conf\n\
         cat >/etc/drbd.d/r0.res <<'END'\n{}END\n",
        resource("/dev/xvdf1")
    ))?;
    Ok(())
}
