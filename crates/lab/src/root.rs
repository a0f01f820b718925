//! A server's view of the file system: an overlay over the host's root, and what must not be the host's on it.
//!
//! What servers write to the overlay survives their reboots and power cuts, as it lies in the host's page cache;
//! power cuts are about volumes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};

use crate::catalog;
use crate::cgroup;
use crate::clock;
use crate::era;
use crate::error::{Doing, Result};
use crate::mountinfo;
use crate::place::{Lab, STATE_ROOT};
use crate::state::{Init, Server};
use crate::systemd;

/// Where servers find this program.
pub const PROGRAM: &str = "/usr/local/bin/lockstep";

/// Device nodes that every server has: name, major, minor.
const CHARACTER_DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Device nodes that a server has if the host has them; the numbers are the host's.
const HOST_DEVICES: &[&str] = &["fuse", "loop-control", "net/tun", "ublk-control"];

/// Loop devices for what servers mount themselves and for block devices served in user space.
const LOOP_DEVICES: u32 = 256;

/// Words that end a server, and the scripts of that name in it.
const POWER_WORDS: &[&str] = &["reboot", "poweroff", "halt", "shutdown"];

fn mkdir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).doing(|| format!("create {}", path.display()))
}

fn mount_new(kind: &str, target: &Path, flags: MountFlags, data: &str) -> Result<()> {
    mkdir(target)?;
    let data = std::ffi::CString::new(data).map_err(io::Error::from).doing(|| "mount options".into())?;
    mount(kind, target, kind, flags, Some(data.as_c_str()))
        .doing(|| format!("mount {kind} on {}", target.display()))
}

/// Makes the calling process's mount namespace that of `server` and its root the server's. The process must be
/// the first in new mount and pid namespaces.
///
/// # Errors
/// The step that the system refused.
pub fn enter(lab: &Lab, server: &Server) -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).doing(|| "make mounts private".into())?;
    let directory = lab.server_dir(server.id);
    let root = directory.join("root");
    let disks = host_disks()?;
    overlay(Path::new("/"), &directory, &root)?;
    for (index, point) in disks.iter().enumerate() {
        let target = root.join(point.strip_prefix("/").unwrap_or(point));
        overlay(point, &directory.join("disks").join(index.to_string()), &target)?;
    }
    let own = directory.join("lockstep");
    mkdir(&own)?;
    // Other servers' roots and volumes lie here on the host: the server sees its own directory instead.
    let shared = root.join("var/lib/lockstep");
    mkdir(&shared)?;
    mount_bind(&own, &shared).doing(|| format!("bind {}", shared.display()))?;
    bind_program(&root)?;
    kernel_file_systems(&root)?;
    offer_outside(lab, server, &root)?;
    devices(&root)?;
    first_life(&directory, &root, server)?;
    if server.init == Init::Systemd {
        systemd::furnish(&root, server)?;
        clock::offer(lab, server, &root)?;
    }
    std::env::set_current_dir(&root).doing(|| format!("enter {}", root.display()))?;
    rustix::process::pivot_root(".", ".").doing(|| "pivot_root".into())?;
    unmount(".", UnmountFlags::DETACH).doing(|| "leave the host's root".into())?;
    std::env::set_current_dir("/").doing(|| "enter /".into())?;
    links(server)
}

/// Mounts the host's file system at `lower` on `target`, where changes go to `directory`.
fn overlay(lower: &Path, directory: &Path, target: &Path) -> Result<()> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    mkdir(&upper)?;
    mkdir(&work)?;
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount_new("overlay", target, MountFlags::empty(), &layers)
}

/// Where the host has further disks mounted that belong to its system, such as /usr or /var, in mount order. An
/// overlay shows one file system only, so each needs its own.
fn host_disks() -> Result<Vec<PathBuf>> {
    let mounts = mountinfo::own().doing(|| "list the host's mounts".into())?;
    let system = ["/usr", "/var", "/opt", "/home", "/srv", "/etc", "/root"];
    let mut points: Vec<PathBuf> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.device.0 != 0) {
        let point = PathBuf::from(&mount.point);
        // A colon, comma or backslash would end or change the option; in containers files are mounted too.
        let plain = !mount.point.contains([':', ',', '\\']) && point.is_dir();
        let ours = point.starts_with(STATE_ROOT);
        if plain && !ours && !points.contains(&point) && system.iter().any(|top| point.starts_with(top)) {
            points.push(point);
        }
    }
    Ok(points)
}

/// Pins the very file that runs, so that a rebuild on the host does not change a running server.
fn bind_program(root: &Path) -> Result<()> {
    let target = root.join(PROGRAM.trim_start_matches('/'));
    mkdir(target.parent().unwrap_or(root))?;
    if !target.exists() {
        File::create(&target).doing(|| format!("create {}", target.display()))?;
    }
    let running = fs::read_link("/proc/self/exe").doing(|| "find the running program".into())?;
    if mount_bind(&running, &target).is_err() {
        // Replaced on the host since it started: a copy has the same bytes.
        let copy = || -> io::Result<()> {
            fs::copy("/proc/self/exe", &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755))
        };
        copy().doing(|| format!("copy this program to {}", target.display()))?;
    }
    Ok(())
}

/// Shows the server's block daemons the ways out of its limits, where they look for them.
fn offer_outside(lab: &Lab, server: &Server, root: &Path) -> Result<()> {
    for (name, procs) in cgroup::outside(lab, server.id) {
        let target = root.join("run/lockstep").join(name);
        mkdir(target.parent().unwrap_or(root))?;
        File::create(&target).doing(|| format!("create {}", target.display()))?;
        mount_bind(&procs, &target).doing(|| format!("bind {}", target.display()))?;
    }
    Ok(())
}

fn kernel_file_systems(root: &Path) -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let no_devices = MountFlags::NOSUID | MountFlags::NODEV;
    mount_new("proc", &root.join("proc"), plain, "")?;
    // By it whoever is root switches the whole machine off.
    let trigger = root.join("proc/sysrq-trigger");
    if trigger.exists() {
        mount_bind(&trigger, &trigger)
            .and_then(|()| mount_remount(&trigger, MountFlags::BIND | MountFlags::RDONLY | plain, ""))
            .doing(|| "make /proc/sysrq-trigger read-only".into())?;
    }
    mount_new("sysfs", &root.join("sys"), plain, "")?;
    mount_new("tmpfs", &root.join("dev"), MountFlags::NOSUID, "mode=755,size=16m")?;
    mount_new(
        "devpts",
        &root.join("dev/pts"),
        MountFlags::NOEXEC,
        "newinstance,mode=620,gid=5,ptmxmode=666",
    )?;
    mount_new("tmpfs", &root.join("dev/shm"), no_devices, "mode=1777")?;
    mount_new("tmpfs", &root.join("run"), no_devices, "mode=755")?;
    mount_new("tmpfs", &root.join("tmp"), no_devices, "mode=1777")?;
    mkdir(&root.join("run/lock"))
}

/// Makes a device node; one of the same name and numbers may be there.
///
/// # Errors
/// The system's refusal.
pub fn make_node(path: &Path, kind: FileType, device: (u32, u32), mode: u32) -> Result<()> {
    if let Ok(there) = fs::symlink_metadata(path) {
        if there.rdev() == makedev(device.0, device.1) && there.file_type().is_block_device() {
            return Ok(());
        }
        fs::remove_file(path).doing(|| format!("replace {}", path.display()))?;
    }
    mknodat(CWD, path, kind, Mode::from_raw_mode(mode), makedev(device.0, device.1))
        .doing(|| format!("make {}", path.display()))?;
    // mknod's mode went through our umask.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(|| format!("chmod {}", path.display()))
}

fn devices(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    for &(name, major, minor) in CHARACTER_DEVICES {
        make_node(&dev.join(name), FileType::CharacterDevice, (major, minor), 0o666)?;
    }
    for name in HOST_DEVICES {
        let Ok(host) = fs::metadata(Path::new("/dev").join(name)) else { continue };
        let path = dev.join(name);
        mkdir(path.parent().unwrap_or(&dev))?;
        let device = (rustix::fs::major(host.rdev()), rustix::fs::minor(host.rdev()));
        make_node(&path, FileType::CharacterDevice, device, host.mode() & 0o777)?;
    }
    for index in 0..LOOP_DEVICES {
        make_node(&dev.join(format!("loop{index}")), FileType::BlockDevice, (7, index), 0o660)?;
    }
    let links = [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    links.iter().try_for_each(|(to, name)| {
        symlink(to, dev.join(name)).doing(|| format!("link {name} in the server's /dev"))
    })
}

/// Writes what a server has of its own from its first life on, once.
fn first_life(directory: &Path, root: &Path, server: &Server) -> Result<()> {
    let done = directory.join("born");
    if done.exists() {
        return Ok(());
    }
    let write = |path: &str, text: String| -> Result<()> {
        let path = root.join(path);
        mkdir(path.parent().unwrap_or(root))?;
        fs::write(&path, text).doing(|| format!("write {}", path.display()))
    };
    let own = server.own_address().unwrap_or(Ipv4Addr::new(127, 0, 1, 1));
    write("etc/hostname", format!("{}\n", server.name))?;
    write("etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n{own} {}\n", server.name))?;
    if server.init == Init::Systemd {
        systemd::first_life(root, server)?;
    }
    mkdir(&root.join("etc/drbd.d"))?;
    if !root.join("etc/drbd.conf").exists() {
        let includes = "include \"drbd.d/global_common.conf\";\ninclude \"drbd.d/*.res\";\n";
        write("etc/drbd.conf", includes.to_owned())?;
    }
    if !root.join("etc/drbd.d/global_common.conf").exists() {
        let sections = "global {\n\tusage-count no;\n}\n\ncommon {\n\tprotocol C;\n\n\tsyncer {\n\t}\n}\n";
        write("etc/drbd.d/global_common.conf", sections.to_owned())?;
    }
    for (path, text) in image(server).and_then(|image| image.distribution).map_or(&[][..], |d| d.files) {
        write(path, (*text).to_owned())?;
    }
    for (index, file) in server.inject.iter().enumerate() {
        inject(&directory.join("inject").join(index.to_string()), root, &file.path, file.mode)?;
    }
    File::create(&done).map(drop).doing(|| format!("create {}", done.display()))
}

/// Copies an injected file to its place. New directories below /root are root's alone, as ssh demands.
fn inject(source: &Path, root: &Path, inside: &str, mode: u32) -> Result<()> {
    let target = root.join(inside.trim_start_matches('/'));
    let mut missing: Vec<PathBuf> =
        target.ancestors().skip(1).take_while(|path| !path.exists()).map(Path::to_owned).collect();
    while let Some(directory) = missing.pop() {
        let mode = if directory.starts_with(root.join("root")) { 0o700 } else { 0o755 };
        fs::create_dir(&directory)
            .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)))
            .doing(|| format!("create {}", directory.display()))?;
    }
    let copy = || -> io::Result<()> {
        let bytes = fs::read(source)?;
        let mut file =
            fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&target)?;
        file.write_all(&bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    };
    copy().doing(|| format!("write {inside} in the server"))
}

/// Puts Lockstep's names before the host's programs: the program tells which names it has (`lockstep --names`,
/// lines of a name and the directory below an installation's prefix), and mount(8) looks in /sbin only.
fn links(server: &Server) -> Result<()> {
    if server.image == catalog::ORIGINALS {
        return power_words(server);
    }
    // First: what Lockstep itself has replaces what only says that it has not.
    if let Some(image) = image(server) {
        era::programs(image, |path, text| script(&Path::new("/").join(path), text))?;
    }
    let listing = Command::new(PROGRAM).arg("--names").output().doing(|| format!("run {PROGRAM} --names"))?;
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        let Some((name, directory)) = line.split_once(' ') else { continue };
        if name == "nova" {
            // Labs are the host's.
            continue;
        }
        let directory = Path::new("/usr/local").join(directory);
        mkdir(&directory)?;
        link(&directory.join(name))?;
        if name.starts_with("mount.") {
            link(&Path::new("/sbin").join(name))?;
        }
    }
    if server.init == Init::Systemd {
        systemd::install_units()?;
    }
    power_words(server)
}

/// The image that the server was booted from.
fn image(server: &Server) -> Option<&'static catalog::Image> {
    catalog::IMAGES.iter().find(|image| image.id == server.image)
}

/// A server that systemd runs has systemd's words.
fn power_words(server: &Server) -> Result<()> {
    if server.init == Init::Systemd {
        return Ok(());
    }
    POWER_WORDS.iter().try_for_each(|word| {
        let path = Path::new("/usr/local/sbin").join(word);
        script(&path, &format!("#!/bin/sh\nexec {PROGRAM} lab server-power {word} \"$@\"\n"))
    })
}

/// Writes a program of the server's own, found before the host's of that name.
fn script(path: &Path, text: &str) -> Result<()> {
    mkdir(path.parent().unwrap_or(Path::new("/")))?;
    // Never through a link: it may lead to this very program, which is the host's.
    if fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
        fs::remove_file(path).doing(|| format!("replace {}", path.display()))?;
    }
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .doing(|| format!("write {}", path.display()))
}

fn link(path: &Path) -> Result<()> {
    if fs::read_link(path).is_ok_and(|target| target == Path::new(PROGRAM)) {
        return Ok(());
    }
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).doing(|| format!("replace {}", path.display()))?;
    }
    symlink(PROGRAM, path).doing(|| format!("link {}", path.display()))
}
