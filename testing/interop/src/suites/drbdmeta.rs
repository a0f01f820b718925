//! Meta-data that we write and drbdmeta reads, and the other way round.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::lockstep;
use crate::program::output;
use crate::scenario::{self, Need, Scenario, Selection};

/// The smallest ones, whole MiB and GiB, sizes that fill no bitmap word, and one byte around the edges of 4 KiB.
const DISK_BYTES: &[u64] = &[
    1 << 20,
    16 << 20,
    64 << 20,
    1 << 30,
    100_000 * 512,
    (64 << 20) + 512,
    (64 << 20) + 4096,
    (1 << 30) - 512,
    33 << 30,
];

const NEEDS: &[Need] = &[Need::Root, Need::Program("drbdmeta"), Need::Personality("drbdadm")];

const SCENARIOS: &[Scenario<TempDir>] = &[
    Scenario { name: "same-bytes", quick: true, needs: NEEDS, run: same_bytes },
    Scenario { name: "drbdmeta-reads-ours", quick: true, needs: NEEDS, run: drbdmeta_reads_ours },
    Scenario { name: "we-read-drbdmetas", quick: true, needs: NEEDS, run: we_read_drbdmetas },
];

/// The suite.
pub fn run(selection: &Selection) -> anyhow::Result<bool> {
    scenario::run(SCENARIOS, selection, || Ok(tempfile::tempdir()?))
}

/// A sparse file as a block device; drbdmeta wants to read one.
struct Disk {
    device: String,
    file: PathBuf,
}

impl Disk {
    fn new(folder: &Path, name: &str, bytes: u64) -> anyhow::Result<Self> {
        let file = folder.join(name);
        File::create(&file)?.set_len(bytes)?;
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(&file))?.trim().to_owned();
        Ok(Self { device, file })
    }

    fn drbdmeta(&self, words: &[&str]) -> anyhow::Result<String> {
        output(Command::new("drbdmeta").args(["--force", "0", "v08", &self.device, "internal"]).args(words))
    }

    /// Our drbdadm with a configuration that names this disk.
    fn drbdadm(&self, verb: &str) -> anyhow::Result<String> {
        let host = rustix::system::uname().nodename().to_str()?.to_owned();
        let conf = self.file.with_extension("conf");
        let on = |host: &str, address: &str| {
            format!(
                "  on {host} {{ device /dev/drbd0; disk {}; address {address}:7788; meta-disk internal; }}\n",
                self.device
            )
        };
        let text = format!(
            "resource r0 {{\n  protocol C;\n{}{}}}\n",
            on(&host, "127.0.0.1"),
            on("peer", "127.0.0.2")
        );
        fs::write(&conf, text)?;
        output(lockstep::personality("drbdadm").arg("-c").arg(conf).args(["--force", verb, "r0"]))
    }

    /// The bytes from `offset` on.
    fn tail(&self, offset: u64) -> anyhow::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let file = File::open(&self.file)?;
        let length = file.metadata()?.len().checked_sub(offset).context("an offset on the disk")?;
        let mut bytes = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = output(Command::new("losetup").args(["--detach", &self.device]));
    }
}

/// The number after `# NAME` in a dump.
fn comment(dump: &str, name: &str) -> anyhow::Result<u64> {
    let value = dump.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("no `# {name}` in the dump"))?.trim().parse().context("a number")
}

/// A dump without what differs from run to run: its date, the program's name and path, the device's name.
fn comparable(dump: &str) -> String {
    dump.lines()
        .filter(|line| !line.starts_with('#') || line.contains('_'))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Everything from the bitmap to the end is the same, except the device's random UUID.
fn same_bytes(folder: &mut TempDir) -> anyhow::Result<()> {
    for &bytes in DISK_BYTES {
        let theirs = Disk::new(folder.path(), "theirs", bytes)?;
        let ours = Disk::new(folder.path(), "ours", bytes)?;
        theirs.drbdmeta(&["create-md"])?;
        ours.drbdadm("create-md")?;
        let dump = theirs.drbdmeta(&["dump-md"])?;
        let from = comment(&dump, "bm_offset")?;
        let super_block = usize::try_from(comment(&dump, "md_offset")? - from)?;
        let (mut theirs, mut ours) = (theirs.tail(from)?, ours.tail(from)?);
        for side in [&mut theirs, &mut ours] {
            side[super_block + 40..super_block + 48].fill(0);
        }
        if let Some(at) = (0..theirs.len()).find(|&at| theirs[at] != ours[at]) {
            bail!(
                "disk of {bytes} bytes: byte {at} of {} from the bitmap on (superblock at {super_block}): drbdmeta \
                 {:#04x}, ours {:#04x}",
                theirs.len(),
                theirs[at],
                ours[at]
            );
        }
    }
    Ok(())
}

fn drbdmeta_reads_ours(folder: &mut TempDir) -> anyhow::Result<()> {
    for &bytes in DISK_BYTES {
        let disk = Disk::new(folder.path(), "ours", bytes)?;
        disk.drbdadm("create-md")?;
        let theirs = disk.drbdmeta(&["dump-md"]).with_context(|| format!("disk of {bytes} bytes"))?;
        let ours = disk.drbdadm("dump-md")?;
        ensure!(
            comparable(&theirs) == comparable(&ours),
            "disk of {bytes} bytes: drbdmeta's dump\n{theirs}\nand ours\n{ours}"
        );
    }
    Ok(())
}

fn we_read_drbdmetas(folder: &mut TempDir) -> anyhow::Result<()> {
    for &bytes in DISK_BYTES {
        let disk = Disk::new(folder.path(), "theirs", bytes)?;
        disk.drbdmeta(&["create-md"])?;
        let theirs = disk.drbdmeta(&["dump-md"])?;
        let ours = disk.drbdadm("dump-md").with_context(|| format!("disk of {bytes} bytes"))?;
        ensure!(
            comparable(&theirs) == comparable(&ours),
            "disk of {bytes} bytes: drbdmeta's dump\n{theirs}\nand ours\n{ours}"
        );
    }
    Ok(())
}
