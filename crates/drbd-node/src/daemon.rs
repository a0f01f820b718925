//! `lockstep drbd …`: the daemon, its holder and its worker.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::Server;
use drbd_engine::admin::{Command, Response};
use front::holder::{Holder, supervise};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::handlers;
use crate::kept::Keeper;
use crate::readiness;
use crate::registry::Registry;

/// What `lockstep drbd --help` prints.
pub const USAGE: &str = "\
The DRBD daemon of this server

Usage: lockstep drbd daemon
       lockstep drbd upgrade
       lockstep drbd stop

  daemon   serves the resources that drbdadm configures; `drbdadm up` starts it when it does not run
  upgrade  lets what is under way end, and starts the program anew from its file, under mounted devices
  stop     ends the daemon; refused while a resource is configured

Environment:
  LOCKSTEP_LOG           what goes into the log: error, warn, info (the default), debug
  LOCKSTEP_PROTOCOL_MAX  highest version of DRBD's protocol to offer, 86 to 101 (the default); for a peer that does
                         not get along with a newer one
";

/// linux/prctl.h.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// How often /run/lockstep/proc/drbd is looked after.
const PROC_INTERVAL: Duration = Duration::from_millis(500);

/// How long devices that are in use are waited for when the daemon is asked to stop: less than the unit's
/// `TimeoutStopSec`.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// Pause between tries to take them down.
const RELEASE_POLL: Duration = Duration::from_millis(250);

/// The personality `lockstep drbd`.
pub fn daemon(args: Vec<OsString>) -> ExitCode {
    let words: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    match words.as_slice() {
        ["daemon"] => hold(),
        ["worker"] => work(),
        ["upgrade"] => ask(&Command::Upgrade),
        ["stop"] => ask(&Command::Shutdown),
        ["helper", words @ ..] => handlers::helper(words),
        ["--help" | "-h" | "help"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// `/run/lockstep`, or what `LOCKSTEP_RUN` names.
fn run_directory() -> PathBuf {
    std::env::var_os("LOCKSTEP_RUN").map_or_else(|| PathBuf::from("/run/lockstep"), PathBuf::from)
}

fn socket_path() -> PathBuf {
    run_directory().join("drbd/control.sock")
}

fn ask(command: &Command) -> ExitCode {
    let answer = control::Client::connect(&socket_path(), Duration::from_secs(5))
        .and_then(|mut client| client.call::<_, Response>(command));
    match answer {
        Ok(Response::Refused(refusal)) => {
            eprintln!("lockstep drbd: {}", refusal.detail);
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lockstep drbd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The holder: keeps descriptors, and a worker running.
fn hold() -> ExitCode {
    if control::Client::connect(&socket_path(), Duration::from_secs(5)).is_ok() {
        eprintln!("lockstep drbd: the daemon runs already ({})", socket_path().display());
        return ExitCode::FAILURE;
    }
    let Ok(program) = std::env::current_exe() else {
        eprintln!("lockstep drbd: this program's own path is not known (is /proc mounted?)");
        return ExitCode::FAILURE;
    };
    let _guard = start_log();
    leave_limits(&run_directory());
    match supervise(&program, &["drbd".into(), "worker".into()]) {
        Ok(front::holder::Ended::Exited(0) | front::holder::Ended::Stopped) => ExitCode::SUCCESS,
        Ok(front::holder::Ended::Exited(status)) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(lost) => {
            tracing::error!(error = %lost, "the daemon cannot go on");
            eprintln!("lockstep drbd: {lost}");
            ExitCode::FAILURE
        }
    }
}

/// To the journal if that is where stderr leads, otherwise to a file; never waiting for a disk.
fn start_log() -> Option<tracing_appender::non_blocking::WorkerGuard> {
    let filter = EnvFilter::try_from_env("LOCKSTEP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(io::stderr).init();
        return None;
    }
    let directory = match std::env::var_os("LOCKSTEP_RUN") {
        Some(run) => Path::new(&run).join("log"),
        None => PathBuf::from("/var/log/lockstep"),
    };
    let opened = std::fs::create_dir_all(&directory).and_then(|()| {
        std::fs::OpenOptions::new().create(true).append(true).open(directory.join("drbd.log"))
    });
    match opened {
        Ok(file) => {
            let (writer, guard) = tracing_appender::non_blocking(file);
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).init();
            Some(guard)
        }
        Err(error) => {
            eprintln!("lockstep drbd: no log in {}: {error}", directory.display());
            None
        }
    }
}

/// Leaves the limits of whatever started us, if a way out is offered: files in whose cgroups a process is not limited (a
/// lab's servers have them; with cgroup version 1 there is one for memory and one for processor time). Without it, reclaim
/// within the limit of memory would wait for pages that only we can clean.
fn leave_limits(run: &Path) {
    for path in ["cgroup.procs", "cgroup.cpu.procs"].map(|name| run.join(name)) {
        if path.exists()
            && let Err(error) = std::fs::write(&path, "0")
        {
            tracing::warn!(path = %path.display(), %error, "a limit of this server holds for the daemon, too");
        }
    }
}

/// What the system grants against waiting for ourselves: a block device's server must not be paged out, or made to write
/// back through its own device while it serves it.
fn protect_from_reclaim() {
    // SAFETY: no pointers involved.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if locked != 0 {
        tracing::warn!(error = %io::Error::last_os_error(), "memory is not locked");
    }
    // SAFETY: no pointers involved.
    let flusher = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if flusher != 0 {
        tracing::info!(error = %io::Error::last_os_error(), "PR_SET_IO_FLUSHER is not granted");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!(%error, "oom_score_adj is not granted");
    }
}

/// Gives that up again, in a process that serves no device.
pub(crate) fn leave_reclaim_protection() {
    // SAFETY: no pointers involved.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0) };
    // What was not granted needs no taking back.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
}

/// The worker: everything else.
fn work() -> ExitCode {
    let guard = start_log();
    let outcome = serve();
    if let Err(error) = &outcome {
        tracing::error!(%error, "the daemon cannot serve");
        eprintln!("lockstep drbd: {error}");
    }
    drop(guard);
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve() -> io::Result<()> {
    let run = run_directory();
    let own = run.join("drbd");
    std::fs::create_dir_all(&own)?;
    std::fs::create_dir_all(run.join("proc"))?;
    let holder = Holder::from_env()?;
    protect_from_reclaim();
    let keeper = Keeper::new(holder);
    let mut inheritance = keeper.inherit();
    let server = match inheritance.control.take() {
        Some(socket) => Server::inherit(socket),
        None => Server::bind(&socket_path()),
    }
    .map_err(io::Error::other)?;
    keeper.store("control", &[], &[server.as_fd()]);
    let registry = Arc::new(Registry::new(own, keeper));
    registry.take_over(inheritance);
    let stopper = server.stopper();
    let signals = Signals::new([SIGTERM, SIGINT])?;
    spawn_named("signals", {
        let (registry, stopper) = (Arc::clone(&registry), stopper.clone());
        move || stop_on_signal(signals, &registry, &stopper)
    })?;
    spawn_named("proc", {
        let (registry, path) = (Arc::clone(&registry), run.join("proc/drbd"));
        move || keep_proc(&registry, &path)
    })?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving");
    readiness::tell("READY=1");
    server.serve(|_peer, command: Command| {
        let upgrade = matches!(command, Command::Upgrade);
        let stop = matches!(command, Command::Shutdown);
        let response = registry.command(command);
        let done = matches!(response, Response::Done { .. });
        if stop && done {
            stopper.stop();
        }
        if upgrade && done {
            die_for_successor();
        }
        response
    })?;
    let _ = std::fs::remove_file(socket_path());
    let _ = std::fs::remove_file(run.join("proc/drbd"));
    Ok(())
}

/// Nothing is under way: the holder starts the program's file anew when this process is gone.
fn die_for_successor() {
    let _ = spawn_named("upgrade", || {
        // The answer goes out first.
        std::thread::sleep(Duration::from_millis(100));
        // SAFETY: raises a signal in this process.
        unsafe { libc::raise(libc::SIGKILL) };
    });
}

fn spawn_named(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// Ends in order. What is in use keeps the daemon running: it is waited for as long as a service manager waits for us,
/// and then until the next signal.
fn stop_on_signal(mut signals: Signals, registry: &Registry, stopper: &control::Stopper) {
    for _ in signals.forever() {
        readiness::tell("STOPPING=1");
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let mut said = String::new();
        loop {
            let Err(stay) = registry.down_all() else { return stopper.stop() };
            if stay != said {
                tracing::error!(resources = stay, "asked to stop, but in use");
                readiness::tell(&format!("STATUS=in use: {stay}"));
                said = stay;
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(RELEASE_POLL);
        }
    }
}

/// Keeps the text of /proc/drbd in a file.
fn keep_proc(registry: &Registry, path: &Path) {
    let era2013 = std::env::var("LOCKSTEP_ERA").is_ok_and(|era| era == "2013");
    let mut shown = String::new();
    loop {
        let text = drbd_engine::proc_drbd::render(&registry.status(), era2013);
        if text != shown {
            let staged = path.with_extension("new");
            if std::fs::write(&staged, &text).and_then(|()| std::fs::rename(&staged, path)).is_ok() {
                shown = text;
            }
        }
        std::thread::sleep(PROC_INTERVAL);
    }
}
