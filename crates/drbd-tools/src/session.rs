//! The way to the daemon.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use control::{Client, ControlError};
use drbd_engine::admin::{Command, Configuration, Refusal, Response};
use drbd_engine::status::{DeviceStatus, ResourceStatus};

use crate::service_manager;

/// Time for a daemon to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a daemon to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between looks at a daemon that is starting.
const START_POLL: Duration = Duration::from_millis(20);

/// How long the daemon may take over one command; drbdsetup's own bound.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(121);

/// Why a command did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The control path failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The daemon could not be started.
    #[error("cannot start the daemon: {0}")]
    Start(String),
    /// The daemon answers something else than was asked.
    #[error("the daemon answers out of turn: {0}")]
    Confused(&'static str),
}

/// `/run/lockstep`, or what the environment variable `LOCKSTEP_RUN` names.
pub fn run_directory() -> PathBuf {
    std::env::var_os("LOCKSTEP_RUN").map_or_else(|| PathBuf::from("/run/lockstep"), PathBuf::from)
}

/// The daemon's control socket.
pub fn socket_path() -> PathBuf {
    run_directory().join("drbd/control.sock")
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Session {
    client: Client,
}

impl Session {
    /// Connects to a running daemon; none if none runs.
    ///
    /// # Errors
    /// If one runs and does not take us.
    pub fn open() -> Result<Option<Self>, SessionError> {
        match Client::connect(&socket_path(), CONNECT_TIMEOUT) {
            Ok(mut client) => {
                client
                    .set_answer_timeout(Some(ANSWER_TIMEOUT))
                    .map_err(|error| SessionError::Start(error.to_string()))?;
                Ok(Some(Self { client }))
            }
            Err(ControlError::NotRunning { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Connects to the daemon, and starts it if none runs.
    ///
    /// # Errors
    /// If it does not start or does not take us.
    pub fn open_or_start() -> Result<Self, SessionError> {
        if let Some(session) = Self::open()? {
            return Ok(session);
        }
        if service_manager::start().map_err(SessionError::Start)? {
            return Self::open()?.ok_or_else(|| {
                SessionError::Start(format!("{} has started and does not answer", service_manager::UNIT))
            });
        }
        let error_path = run_directory().join("drbd/daemon.stderr");
        let mut daemon = spawn(&error_path).map_err(|error| SessionError::Start(error.to_string()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(session) = Self::open()? {
                return Ok(session);
            }
            // One that ended may have lost against another that was started at the same time.
            let ended = daemon.try_wait().map_err(|error| SessionError::Start(error.to_string()))?;
            if let Some(status) = ended
                && let None = Self::open()?
            {
                let words = std::fs::read_to_string(&error_path).unwrap_or_default();
                return Err(SessionError::Start(format!("it ended with {status}\n{}", words.trim_end())));
            }
            if Instant::now() > deadline {
                let socket = socket_path();
                return Err(SessionError::Start(format!("it does not answer on {}", socket.display())));
            }
            thread::sleep(START_POLL);
        }
    }

    /// Gives a command; the answer is its warnings, or why it is refused.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn command(&mut self, command: &Command) -> Result<Result<Vec<String>, Refusal>, SessionError> {
        match self.client.call(command)? {
            Response::Done { warnings } => Ok(Ok(warnings)),
            Response::Refused(refusal) => Ok(Err(refusal)),
            other => Err(SessionError::Confused(kind(&other))),
        }
    }

    /// The state of one resource, or of all.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn status(&mut self, resource: Option<&str>) -> Result<Vec<ResourceStatus>, SessionError> {
        match self.client.call(&Command::Status { resource: resource.map(str::to_owned) })? {
            Response::Status(resources) => Ok(resources),
            // Asked for one that it does not know.
            Response::Refused(_) => Ok(Vec::new()),
            other => Err(SessionError::Confused(kind(&other))),
        }
    }

    /// The device of that number, and its resource.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn minor(&mut self, minor: u32) -> Result<Option<(ResourceStatus, DeviceStatus)>, SessionError> {
        Ok(self.status(None)?.into_iter().find_map(|resource| {
            let device = resource.devices.iter().find(|device| device.minor == minor)?.clone();
            Some((resource, device))
        }))
    }

    /// What one resource is configured with, or all.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn configurations(&mut self, resource: Option<&str>) -> Result<Vec<Configuration>, SessionError> {
        match self.client.call(&Command::Show { resource: resource.map(str::to_owned) })? {
            Response::Configuration(found) => Ok(found),
            other => Err(SessionError::Confused(kind(&other))),
        }
    }
}

/// What an answer is, without what it says: there may be a secret in it.
fn kind(response: &Response) -> &'static str {
    match response {
        Response::Done { .. } => "done",
        Response::Refused(_) => "refused",
        Response::Status(_) => "a status",
        Response::Configuration(_) => "a configuration",
    }
}

/// A call about one device that has nothing to add, as the daemon takes it.
pub fn sync_command(verb: &str, minor: u32) -> Command {
    match verb {
        "pause-sync" => Command::PauseSync { minor },
        "resume-sync" => Command::ResumeSync { minor },
        "invalidate" => Command::Invalidate { minor },
        "suspend-io" => Command::SuspendIo { minor },
        "resume-io" => Command::ResumeIo { minor },
        "outdate" => Command::Outdate { minor },
        _ => Command::InvalidateRemote { minor },
    }
}

/// Starts `lockstep drbd daemon` in a session of its own, so that it outlives the terminal; where there is no service
/// manager.
fn spawn(error_path: &std::path::Path) -> io::Result<Child> {
    if let Some(directory) = error_path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .arg0("lockstep")
        .args(["drbd", "daemon"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(error_path)?);
    // SAFETY: setsid(2) is safe to call between fork and exec, and touches no memory.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
    }
    command.spawn()
}
