//! Limits on a system that has cgroups of version 2 only: a User Mode Linux that was told so.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testing_lab::{can_run, program};

const KERNEL: &str = "/usr/bin/linux.uml";

/// A kernel boots, and a server in it.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn limits_hold_with_version_2() {
    let test = "limits_hold_with_version_2";
    if !can_run(test) {
        return;
    }
    if !Path::new(KERNEL).exists() {
        eprintln!("skip {test}: no {KERNEL} (package user-mode-linux)");
        return;
    }
    let guest = tempfile::tempdir().expect("a directory");
    let put = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = guest.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    };
    let init = put("init.sh", include_str!("version_2/init.sh"));
    put("run.sh", include_str!("version_2/run.sh"));
    std::fs::copy(program(), guest.path().join("lockstep")).expect("the program");
    let path = guest.path().display();
    let mut kernel = Command::new(KERNEL)
        .args([
            "mem=768M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            "cgroup_no_v1=all",
            "quiet",
        ])
        .args(["con=null", "ssl=null", "umid=lockstep", &format!("uml_dir={path}/")])
        .args([format!("init={}", init.display()), format!("lockstep_guest={path}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the kernel starts");
    let patience_ends = Instant::now() + PATIENCE;
    while kernel.try_wait().expect("it is ours").is_none() && Instant::now() < patience_ends {
        std::thread::sleep(Duration::from_millis(50));
    }
    if kernel.try_wait().expect("it is ours").is_none() {
        // Told so, it ends its guest's processes, which are this system's too.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&kernel),
            rustix::process::Signal::TERM,
        );
        kernel.wait().expect("it is ours");
    }
    let log = std::fs::read_to_string(guest.path().join("log")).unwrap_or_default();
    for line in [
        "| memory limit     | 512 MiB ",
        "| cpu limit        | 1 of this system's 1 processors ",
        "memory 536870912 cpu 100000 100000\n",
        "command /server\n",
        "daemon /block-daemons\n",
        "paused frozen 1\n",
        "resumed frozen 0\n",
        "beyond oom_kill 1\n",
        "left 0\n",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
}
