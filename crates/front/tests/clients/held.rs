//! A worker that is killed under a mounted file system, and a successor that goes on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::machine::{can_bind, has_programs, run};

const KILLS: u32 = 5;
/// Records written and synced between two kills.
const RECORDS_BETWEEN: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// A holder with its worker, in a place of its own.
struct Held {
    place: tempfile::TempDir,
    holder: Child,
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/held");
    assert!(program.exists(), "{} is missing: build the example `held` first", program.display());
    program
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Held {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        for directory in ["on", "mnt"] {
            std::fs::create_dir(place.path().join(directory)).unwrap();
        }
        let [on, node, backing] = ["on", "drbd0", "backing"].map(|name| place.path().join(name));
        let holder =
            Command::new(program()).arg("hold").args([&on, &node, &backing]).arg("64").spawn().unwrap();
        let held = Self { place, holder };
        wait_until("the worker serves", || held.worker().is_some());
        held
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn worker(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.path("drbd0.pid")).ok()?;
        Pid::from_raw(text.parse().ok()?)
    }

    fn kill_worker(&self) {
        let worker = self.worker().unwrap();
        std::fs::remove_file(self.path("drbd0.pid")).unwrap();
        rustix::process::kill_process(worker, Signal::KILL).unwrap();
    }

    fn is_mounted(&self) -> bool {
        let on = self.path("on");
        std::fs::read_to_string("/proc/self/mounts").unwrap().contains(on.to_str().unwrap())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // After a failed test: whoever serves must be gone before what it served is unmounted.
        let _ = self.holder.kill();
        let _ = self.worker().map(|worker| rustix::process::kill_process(worker, Signal::KILL));
        if !std::thread::panicking() {
            let _ = self.holder.wait();
        }
        for mount in ["mnt", "on"] {
            let _ = rustix::mount::unmount(self.path(mount), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Ends whoever serves when the test has failed, so that a client that waits for an answer gets an error.
struct EndOnPanic<'a>(&'a Held);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = rustix::process::kill_process(Pid::from_child(&self.0.holder), Signal::KILL);
            let _ = self.0.worker().map(|worker| rustix::process::kill_process(worker, Signal::KILL));
        }
    }
}

#[test]
fn no_record_is_lost_when_the_worker_is_killed() {
    let test = "no_record_is_lost_when_the_worker_is_killed";
    if !can_bind(test) || !has_programs(test, &["mkfs.ext4", "mount", "umount", "e2fsck"]) {
        return;
    }
    let mut held = Held::start();
    let [node, mounted] = ["drbd0", "mnt"].map(|name| held.path(name).to_str().unwrap().to_owned());
    run("mkfs.ext4", &["-q", &node]).unwrap();
    run("mount", &[&node, &mounted]).unwrap();

    let synced = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    let reached = |count: u32| wait_until("records are written", || synced.load(Ordering::Acquire) >= count);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> std::io::Result<()> {
            let mut log = File::create(held.path("mnt/log"))?;
            while !stop.load(Ordering::Acquire) {
                let number = synced.load(Ordering::Acquire);
                log.write_all(&[&number.to_le_bytes()[..], &[number as u8; 4092]].concat())?;
                log.sync_all()?;
                synced.store(number + 1, Ordering::Release);
            }
            Ok(())
        });
        let _end = EndOnPanic(&held);
        for kill in 1..=KILLS {
            reached(kill * RECORDS_BETWEEN);
            held.kill_worker();
            wait_until("the successor serves", || held.worker().is_some());
        }
        reached((KILLS + 1) * RECORDS_BETWEEN);
        stop.store(true, Ordering::Release);
        writer.join().unwrap().expect("the writer sees no error");
    });

    run("umount", &[&mounted]).unwrap();
    run("e2fsck", &["-fn", &node]).unwrap();
    run("mount", &[&node, &mounted]).unwrap();
    let mut log = File::open(held.path("mnt/log")).unwrap();
    for number in 0..synced.load(Ordering::Acquire) {
        let mut record = [0; 4096];
        log.read_exact(&mut record).unwrap();
        assert!(
            record[..4] == number.to_le_bytes() && record[4..].iter().all(|&b| b == number as u8),
            "{number}"
        );
    }
    drop(log);
    run("umount", &[&mounted]).unwrap();
    rustix::process::kill_process(Pid::from_child(&held.holder), Signal::TERM).unwrap();
    assert!(held.holder.wait().unwrap().success());
    assert!(!held.path("drbd0").exists() && !held.is_mounted());
}

/// Everything is killed while the page cache above is dirty: the kernel lets go of it all, with errors, and waits for nobody
/// who is dead, whoever dies last.
#[test]
fn nothing_hangs_when_all_are_killed() {
    if !can_bind("nothing_hangs_when_all_are_killed") {
        return;
    }
    for worker_dies_last in [true, false] {
        let mut held = Held::start();
        let user = File::options().write(true).open(held.path("drbd0")).unwrap();
        user.write_all_at(&vec![7; 32 << 20], 0).unwrap();
        drop(user);
        let holder = Pid::from_child(&held.holder);
        let worker = held.worker().unwrap();
        if worker_dies_last {
            held.holder.kill().unwrap();
            wait_until("the holder ends", || held.holder.try_wait().unwrap().is_some());
            rustix::process::kill_process(worker, Signal::KILL).unwrap();
        } else {
            // Stopped, it does not start a successor.
            rustix::process::kill_process(holder, Signal::STOP).unwrap();
            rustix::process::kill_process(worker, Signal::KILL).unwrap();
            wait_until("the worker is dead", || is_dead(worker));
            held.holder.kill().unwrap();
        }
        wait_until("the holder ends", || held.holder.try_wait().unwrap().is_some());
        wait_until("the worker ends", || is_dead(worker));
        wait_until("the mount is dead", || held.path("on").metadata().is_err());
    }
}

/// Gone, or a zombie without threads: nothing of it is open any more.
fn is_dead(pid: Pid) -> bool {
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let threads = std::fs::read_dir(format!("{process}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    threads == 0 || threads == 1 && stat.contains(") Z ")
}
