//! What of a lab can be found on the machine by its name.

use std::fs;

/// Directories in which a lab's name ends an entry's.
const DIRECTORIES: &[&str] = &[
    "/run/netns",
    "/run/lockstep/lab",
    "/var/lib/lockstep/lab",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/memory",
    "/sys/fs/cgroup/cpu",
    "/sys/fs/cgroup/freezer",
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
];

/// One line for each trace.
///
/// # Panics
/// If the kernel's listings cannot be read.
pub fn of(lab: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for directory in DIRECTORIES {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(lab) {
                traces.push(entry.path().display().to_string());
            }
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    traces.extend(mounts.lines().filter(|line| line.contains(lab)).map(str::to_owned));
    for entry in fs::read_dir("/sys/block").expect("sysfs").flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(lab) {
            traces.push(format!("{}: {file}", entry.path().display()));
        }
    }
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(lab) {
            traces.push(format!("{}: {words}", entry.path().display()));
        }
    }
    traces
}
