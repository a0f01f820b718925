//! Where the programs run: a directory, and a control server that plays the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command as Process, Output};
use std::sync::Mutex;
use std::thread;

use control::Server;
use drbd_engine::admin::{Command, ReplicationProtocol, Response};
use drbd_engine::status::{Counters, DeviceFlags, DeviceStatus, ResourceStatus};
use drbd_format::names::{ConnectionState, DiskState, Role};

fn program(name: &str) -> Process {
    let test = std::env::current_exe().unwrap();
    Process::new(test.parent().unwrap().parent().unwrap().join("examples").join(name))
}

/// Exit status, stdout and stderr.
pub type Printed = (i32, String, String);

/// A run directory with a configuration.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// A run directory, and a configuration of r0 between this machine and another, both on loopback.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("drbd")).unwrap();
        let disk = directory.path().join("disk");
        std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        let uname = Process::new("uname").arg("-n").output().unwrap();
        let node = String::from_utf8(uname.stdout).unwrap().trim().to_owned();
        let text = format!(
            "resource r0 {{\n  net {{ ping-int 3; on-congestion pull-ahead; }}\n  syncer {{ rate 30M; }}\n  on {node} {{ device \
             /dev/drbd7; disk {}; address 127.0.0.1:7788; meta-disk internal; }}\n  on elsewhere {{ device \
             /dev/drbd7; disk /dev/null; address 127.0.0.1:7789; meta-disk internal; }}\n}}\n",
            disk.display()
        );
        std::fs::write(directory.path().join("drbd.conf"), text).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// drbdadm with this configuration.
    pub fn run(&self, words: &[&str]) -> Printed {
        self.printed(program("drbdadm").arg("-c").arg(self.path("drbd.conf")).args(words))
    }

    /// drbdsetup.
    pub fn setup(&self, words: &[&str]) -> Printed {
        self.printed(program("drbdsetup").args(words))
    }

    fn printed(&self, process: &mut Process) -> Printed {
        let Output { status, stdout, stderr } =
            process.env("LOCKSTEP_RUN", self.directory.path()).env_remove("LOCKSTEP_ERA").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Runs `test` while a daemon answers as `answer` says; returns the commands it got, but for questions of state.
    pub fn with_daemon(
        &self,
        answer: impl Fn(&Command) -> Response + Send + Sync,
        test: impl FnOnce(),
    ) -> Vec<Command> {
        let server = Server::bind(&self.path("drbd/control.sock")).unwrap();
        let stopper = server.stopper();
        let commands = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let commands = &commands;
            scope.spawn(move || {
                server.serve(move |_, command: Command| {
                    let response = answer(&command);
                    if !matches!(command, Command::Status { .. } | Command::Show { .. }) {
                        commands.lock().unwrap().push(command);
                    }
                    response
                })
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            stopper.stop();
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        commands.into_inner().unwrap()
    }
}

/// Nothing to say.
pub fn done() -> Response {
    Response::Done { warnings: Vec::new() }
}

/// r0 with one volume in a resync.
pub fn connected() -> ResourceStatus {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    ResourceStatus {
        name: "r0".into(),
        role: Role::Primary,
        peer_role: Role::Secondary,
        connection: ConnectionState::Connected,
        protocol: Some(ReplicationProtocol::C),
        addresses: Some((address("127.0.0.1:7788"), address("127.0.0.1:7789"))),
        devices: vec![DeviceStatus {
            volume: 0,
            minor: 7,
            connection: ConnectionState::SyncSource,
            disk: DiskState::UpToDate,
            peer_disk: DiskState::Inconsistent,
            size_sectors: 130_992,
            backing: "/dev/sda".into(),
            uuids: [0; 4],
            md_flags: 0,
            flags: DeviceFlags::default(),
            counters: Counters { out_of_sync_kib: 16_374, ..Counters::default() },
            sync: None,
            was_degraded: false,
        }],
    }
}
