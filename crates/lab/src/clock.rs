//! A clock that is wrong inside one server, and only there.
//!
//! The kernel has one wall clock for all: time namespaces cover the monotonic clocks only. So libfaketime stands
//! between a server's programs and the kernel, and adds to what they read. Its file is in the server's own directory:
//! it outlives reboots, as a wrong hardware clock does, and a jump reaches at once every program that reads it.
//!
//! Programs come to read it by their environment: what `nova ssh` and systemd's units start from the first fault on.
//! Not by /etc/ld.so.preload: a program without the rest of the environment would see its monotonic clock jump. What ran
//! before goes on with the true time, as does process 1, and what empties its environment (cron's jobs). Monotonic
//! clocks and the times of files are the kernel's.
//!
//! libfaketime 0.9.10 takes every deadline of a timerfd and of clock_nanosleep for one of the wall clock, and so breaks
//! programs that wait by a monotonic one (whatever stands on sd-event; Python's sleep). Servers get a copy in which these
//! functions are not found, so that programs call the C library's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::error::{Doing, Error, Result};
use crate::life::Life;
use crate::place::Lab;
use crate::state::{Init, Server};

/// The clock's file, in the server.
const FILE: &str = "/var/lib/lockstep/clock";

/// The library that servers load, in the server.
const COPY: &str = "/var/lib/lockstep/clock.so";

/// Functions of libfaketime that programs must not find.
const SPOILT: [&[u8]; 3] = [b"\0timerfd_settime\0", b"\0timerfd_gettime\0", b"\0clock_nanosleep\0"];

/// What tells systemd of it.
const SYSTEMD: &str = "run/systemd/system.conf.d/lab-clock.conf";

/// Where libfaketime is, in the distributions' ways; the variant for programs with threads.
fn libraries() -> [PathBuf; 3] {
    let place = |directory: &str| Path::new(directory).join("faketime/libfaketimeMT.so.1");
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    [place(&multiarch), place("/usr/lib64"), place("/usr/lib")]
}

/// The library; the host's is every server's.
///
/// # Errors
/// It is not installed.
pub fn library() -> Result<PathBuf> {
    libraries().into_iter().find(|path| path.exists()).ok_or_else(|| {
        Error::refused(format!(
            "fault clock: {} is not there; install the package libfaketime on this machine",
            libraries()[0].display()
        ))
    })
}

/// Writes the library that a server loads, if it has none yet. It stays when the clock is right again: programs that were
/// started meanwhile tell those that they start to load it.
fn furnish(copy: &Path) -> Result<()> {
    let library = library()?;
    if copy.exists() {
        return Ok(());
    }
    let fresh = copy.with_extension("so.new");
    let write = || -> io::Result<()> {
        copy.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&fresh, spoil(fs::read(&library)?))?;
        fs::rename(&fresh, copy)
    };
    write().doing(|| format!("copy {} to {}", library.display(), copy.display()))
}

/// The clock's file, on the host.
fn file(lab: &Lab, server: &Server) -> PathBuf {
    lab.server_dir(server.id).join("lockstep/clock")
}

/// The library with some names spoilt: a name that is not found by its hash is looked for in the next library.
fn spoil(mut library: Vec<u8>) -> Vec<u8> {
    for name in SPOILT {
        let mut from = 0;
        while let Some(at) = library[from..].windows(name.len()).position(|bytes| bytes == name) {
            library[from + at + 1] ^= 0x20;
            from += at + name.len();
        }
    }
    library
}

/// What the environment of a server's programs has more, `NAME=value`; nothing if its clock is right.
pub fn environment(lab: &Lab, server: &Server) -> Vec<String> {
    if !file(lab, server).exists() {
        return Vec::new();
    }
    vec![
        format!("LD_PRELOAD={COPY}"),
        format!("FAKETIME_TIMESTAMP_FILE={FILE}"),
        // A jump is seen at once, not seconds later.
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        // Times of files that were written before the jump would move too.
        "NO_FAKE_STAT=1".to_owned(),
    ]
}

/// Tells a systemd that is about to run in the root `root` of a wrong clock.
///
/// # Errors
/// The system's refusal.
pub fn offer(lab: &Lab, server: &Server, root: &Path) -> Result<()> {
    let variables = environment(lab, server);
    if server.init != Init::Systemd || variables.is_empty() {
        return Ok(());
    }
    let path = root.join(SYSTEMD);
    let quoted: Vec<String> = variables.iter().map(|variable| format!("\"{variable}\"")).collect();
    let write = || -> io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, format!("[Manager]\nDefaultEnvironment={}\n", quoted.join(" ")))
    };
    write().doing(|| format!("write {}", path.display()))
}

/// Makes a server's clock so many milliseconds wrong; 0 makes it right. The caller has the lab's lock.
///
/// # Errors
/// The library is not installed, or the system's refusal.
pub fn set(lab: &Lab, server: &Server, ahead_ms: i64) -> Result<()> {
    let path = file(lab, server);
    let running = Life::running(lab, server.id)?;
    if ahead_ms == 0 {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done.doing(|| format!("remove {}", path.display()))?,
        }
    } else {
        furnish(&path.with_extension("so"))?;
        let fresh = path.with_extension("new");
        let write = || -> io::Result<()> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&fresh, format!("{:+.3}\n", ahead_ms as f64 / 1e3))?;
            // Whoever reads the time finds the whole line.
            fs::rename(&fresh, &path)
        };
        write().doing(|| format!("write {}", path.display()))?;
    }
    let Some(life) = running.filter(|_| server.init == Init::Systemd) else { return Ok(()) };
    if ahead_ms == 0 {
        // Gone already: what was wanted.
        let _ = fs::remove_file(life.path_in(SYSTEMD));
    } else {
        offer(lab, server, &life.path_in("/"))?;
    }
    // systemd reads its configuration anew, as upon `systemctl daemon-reload`.
    life.init.signal(Signal::HUP);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::spoil;

    #[test]
    fn spoilt_names_are_found_no_more_and_nothing_else_changes() {
        let names = b"\0time\0timerfd_settime\0timer_settime\0timerfd_gettime\0timerfd_settime\0x";
        let spoilt = spoil(names.to_vec());
        assert_eq!(spoilt, b"\0time\0Timerfd_settime\0timer_settime\0Timerfd_gettime\0Timerfd_settime\0x");
    }
}
