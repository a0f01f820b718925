//! NBD clients of others at the daemon's unix socket. The mirror is Primary without a peer.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::ours::Ours;
use crate::program::output;
use crate::scenario::{self, Need, Scenario, Selection};
use crate::side::Side;
use crate::tutorial::{DISK_BYTES, Seat, USABLE_BYTES, Wish};
use crate::uml::Segment;

/// What every scenario needs, and the client's program.
macro_rules! needs {
    ($program:literal) => {
        &[
            Need::Root,
            Need::Path("/dev/fuse"),
            Need::Personality("drbdadm"),
            Need::Personality("drbd"),
            Need::Program("losetup"),
            Need::Program("unshare"),
            Need::Program("ip"),
            Need::Program($program),
        ]
    };
}

const SCENARIOS: &[Scenario<Served>] = &[
    Scenario { name: "nbdinfo", quick: true, needs: needs!("nbdinfo"), run: nbdinfo },
    Scenario { name: "nbdcopy-in-and-out", quick: true, needs: needs!("nbdcopy"), run: nbdcopy_in_and_out },
    Scenario { name: "qemu-img-convert", quick: true, needs: needs!("qemu-img"), run: qemu_img_convert },
    Scenario { name: "fio-verify", quick: true, needs: needs!("fio"), run: fio_verify },
    Scenario { name: "same-as-the-device", quick: true, needs: needs!("nbdcopy"), run: same_as_the_device },
];

/// The daemon with a resource that is Primary, and a folder for files.
struct Served {
    ours: Ours,
    socket: String,
    folder: TempDir,
    _segment: Segment,
}

/// The suite.
pub fn run(selection: &Selection) -> anyhow::Result<bool> {
    if selection.list || !rustix::process::geteuid().is_root() {
        return scenario::run(SCENARIOS, selection, || anyhow::bail!("not root"));
    }
    let segment = Segment::enter()?;
    scenario::run(SCENARIOS, selection, || Served::start(segment))
}

impl Served {
    fn start(segment: Segment) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.img");
        File::create(&disk)?.set_len(DISK_BYTES)?;
        let mut ours = Ours::sit(&segment, Seat::Second, folder.path(), &disk)?;
        ours.configure(&Wish::TUTORIAL)?;
        ours.run("drbdadm create-md --force r0 && drbdadm up r0 && drbdadm primary --force r0")?;
        let socket = ours.nbd_socket()?;
        Ok(Self { ours, socket, folder, _segment: segment })
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///drbd0?socket={}", self.socket)
    }

    /// A file as large as the export, of bytes that repeat nowhere.
    fn random_file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        let mut file = File::create(&path)?;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = Vec::with_capacity(4096);
        for _ in 0..USABLE_BYTES / 4096 {
            block.clear();
            while block.len() < 4096 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                block.extend_from_slice(&state.to_le_bytes());
            }
            file.write_all(&block)?;
        }
        Ok(path)
    }

    fn fetch(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.folder.path().join(name);
        let _ = fs::remove_file(&path);
        output(Command::new("nbdcopy").arg(self.uri()).arg(&path))?;
        fs::read(&path).context("what nbdcopy wrote")
    }
}

fn nbdinfo(served: &mut Served) -> anyhow::Result<()> {
    let text = output(Command::new("nbdinfo").arg(served.uri()))?;
    let wanted = [
        format!("export-size: {USABLE_BYTES}"),
        "newstyle-fixed".to_owned(),
        "using structured packets".to_owned(),
        "is_read_only: false".to_owned(),
        "can_flush: true".to_owned(),
        "can_fua: true".to_owned(),
        "can_trim: true".to_owned(),
        "can_zero: true".to_owned(),
    ];
    for word in &wanted {
        ensure!(text.contains(word), "`{word}` is not in nbdinfo's\n{text}");
    }
    Ok(())
}

fn nbdcopy_in_and_out(served: &mut Served) -> anyhow::Result<()> {
    let source = served.random_file("source")?;
    output(Command::new("nbdcopy").arg("--flush").arg(&source).arg(served.uri()))?;
    ensure!(fs::read(&source)? == served.fetch("back")?, "what came back differs from what went in");
    Ok(())
}

fn qemu_img_convert(served: &mut Served) -> anyhow::Result<()> {
    let source = served.random_file("source")?;
    let target = format!("nbd+unix:///drbd0?socket={}", served.socket);
    output(
        Command::new("qemu-img").args(["convert", "-n", "-f", "raw", "-O", "raw"]).arg(&source).arg(&target),
    )?;
    output(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).arg(&source).arg(&target))?;
    Ok(())
}

/// Random writes with flushes, each verified by a pattern that names its place.
fn fio_verify(served: &mut Served) -> anyhow::Result<()> {
    output(
        Command::new("fio")
            .args(["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-64k", "--iodepth=16"])
            .args(["--size=32m", "--verify=crc32c", "--do_verify=1", "--verify_state_save=0", "--fsync=64"])
            .arg(format!("--uri={}", served.uri())),
    )?;
    Ok(())
}

/// What goes in through the socket is on /dev/drbd0, and the other way round.
fn same_as_the_device(served: &mut Served) -> anyhow::Result<()> {
    let source = served.random_file("source")?;
    output(Command::new("nbdcopy").arg("--flush").arg(&source).arg(served.uri()))?;
    let device = served.folder.path().join("device");
    served.ours.run(&format!("dd if=/dev/drbd0 of={} bs=1M iflag=direct 2>&1", device.display()))?;
    ensure!(fs::read(&source)? == fs::read(&device)?, "/dev/drbd0 differs from what went in over NBD");
    served.ours.run("dd if=/dev/zero of=/dev/drbd0 bs=64k seek=5 count=1 oflag=direct 2>&1")?;
    let mut expected = fs::read(&source)?;
    expected[5 << 16..6 << 16].fill(0);
    ensure!(served.fetch("back")? == expected, "what NBD reads differs from what was written to /dev/drbd0");
    Ok(())
}
