//! `drbdadm split-brain minor-0` and its like: the daemon calls them when something happens, and runs by them what the
//! configuration's `handlers` say.
//!
//! Upstream: `adm_khelper` (drbdadm_main.c of 8.4), the register of configuration files (registry.c).

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::cli::Cli;
use super::plan::Plan;
use super::step::VolumeRef;
use super::{EXIT_USAGE, Selected};
use crate::drbd_conf::model::{Config, Host};
use crate::session::run_directory;

/// How long a handler may run where the configuration has no `cmd-timeout-long`.
const PATIENCE_DEFAULT_S: u32 = 600;

/// Pause between looks at one that runs.
const POLL_MAX: Duration = Duration::from_millis(100);

/// Exit status of a handler that did not end by itself (`E_EXEC_ERROR`).
const EXIT_EXECUTION: u8 = 20;

/// Runs what the configuration has for the verb, if anything; the handler's exit status.
pub fn run(cli: &Cli, config: &Config, plan: &Plan<'_>, selected: &[Selected<'_>], path: &Path) -> u8 {
    let mut worst = 0;
    for &one in selected {
        let status = run_one(cli, config, plan, one, path);
        worst = worst.max(status);
    }
    worst
}

fn run_one(cli: &Cli, config: &Config, plan: &Plan<'_>, selected: Selected<'_>, path: &Path) -> u8 {
    let resource = selected.resource;
    let name = cli.verb.word();
    let Some(setting) = resource.sections.handlers.iter().rfind(|setting| setting.option.name == name) else {
        return 0;
    };
    let volumes = plan.volumes(selected);
    let volume = match (&volumes[..], cli.verb.needs_volume()) {
        (&[volume], true) => Some(volume),
        (_, true) => {
            eprintln!("{name} requires a specific volume id, but none is specified.");
            return EXIT_USAGE;
        }
        _ => None,
    };
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&setting.value);
    command.envs(variables(plan, selected, volume));
    command.env("DRBD_CONF", config_path(path));
    if cli.dry_run || cli.verbose {
        println!("/bin/sh -c {}", super::step::shell_escaped(&setting.value));
    }
    if cli.dry_run {
        return 0;
    }
    let patience = config.global.command_timeouts_s[2].unwrap_or(PATIENCE_DEFAULT_S);
    match run_bounded(&mut command, Duration::from_secs(u64::from(patience))) {
        Ok(Some(status)) => status,
        Ok(None) => {
            eprintln!("Command '{}' did not terminate within {patience} seconds", setting.value);
            EXIT_EXECUTION
        }
        Err(error) => {
            eprintln!("drbdadm: /bin/sh: {error}");
            EXIT_EXECUTION
        }
    }
}

/// What the handler is told of its subject.
fn variables(
    plan: &Plan<'_>,
    selected: Selected<'_>,
    volume: Option<VolumeRef<'_>>,
) -> Vec<(&'static str, String)> {
    let resource = selected.resource;
    // The second one drbdadm 9 gives to the one for 8.4, and that to its handlers.
    let mut all = vec![
        ("DRBD_RESOURCE", resource.name.text.clone()),
        ("DRBD_DONT_WARN_ON_VERSION_MISMATCH", "1".to_owned()),
    ];
    if let Some(address) = peer(plan, selected).and_then(|host| host.address.as_ref().map(|a| (host, a))) {
        let (host, address) = address;
        all.push(("DRBD_PEER_AF", address.family().to_owned()));
        all.push(("DRBD_PEER_ADDRESS", address.written.clone()));
        all.push(("DRBD_PEER", host.names.first().map(|name| name.text.clone()).unwrap_or_default()));
        all.push(("DRBD_PEERS", host.names_text()));
    }
    match volume {
        Some(of) => {
            all.push(("DRBD_MINOR", of.minor().to_string()));
            all.push(("DRBD_VOLUME", of.volume.number.to_string()));
            all.push(("DRBD_LL_DISK", of.disk().to_owned()));
        }
        None => {
            let minors: Vec<_> = plan.all_volumes(resource).iter().map(|of| of.minor().to_string()).collect();
            all.push(("DRBD_MINOR", minors.join(" ")));
        }
    }
    all
}

/// The other node, or the one of several that the daemon names by its address.
fn peer<'c>(plan: &Plan<'c>, selected: Selected<'c>) -> Option<&'c Host> {
    let told = || (std::env::var("DRBD_PEER_AF").ok(), std::env::var("DRBD_PEER_ADDRESS").ok());
    plan.peer_of(selected.resource).or_else(|| {
        let (Some(family), Some(address)) = told() else { return None };
        selected
            .resource
            .hosts
            .iter()
            .find(|host| host.address.as_ref().is_some_and(|a| a.family() == family && a.written == address))
    })
}

/// The configuration's path without links in its directory.
fn config_path(path: &Path) -> PathBuf {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (directory.canonicalize(), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

/// The exit status; none if it did not end in time and was killed.
fn run_bounded(command: &mut Command, patience: Duration) -> io::Result<Option<u8>> {
    // SAFETY: one system call, and no memory is touched between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // A handler ends with who called it.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(
                status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(EXIT_EXECUTION),
            ));
        }
        if Instant::now() >= deadline {
            end(&mut child);
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(POLL_MAX);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself just now.
    let _ = child.kill();
    let _ = child.wait();
}

/// Where it is noted which configuration a minor or a resource is from.
fn registered(subject: &str) -> PathBuf {
    run_directory().join(format!("drbd/drbd-{subject}.conf"))
}

/// Notes for the handlers which configuration this is; who may not, does not: then they take the usual one.
pub fn register(plan: &Plan<'_>, selected: &[Selected<'_>], path: &Path) {
    let Ok(path) = path.canonicalize() else { return };
    for &one in selected {
        let name = &one.resource.name.text;
        let minors = plan.all_volumes(one.resource).into_iter().map(|of| format!("minor-{}", of.minor()));
        for link in minors.chain([format!("resource-{name}")]).map(|subject| registered(&subject)) {
            if std::fs::read_link(&link).is_ok_and(|present| present == path) {
                continue;
            }
            let _ = std::fs::remove_file(&link);
            let _ = std::os::unix::fs::symlink(&path, &link);
        }
    }
}

/// The configuration that was noted for `minor-N` or a resource.
pub fn registered_config(word: &str) -> Option<PathBuf> {
    let is_minor = word.strip_prefix("minor-").is_some_and(|digits| digits.parse::<u32>().is_ok());
    let subject = if is_minor { word.to_owned() } else { format!("resource-{word}") };
    if subject.contains("..") || word.contains('/') {
        return None;
    }
    std::fs::read_link(registered(&subject)).ok().filter(|path| path.exists())
}
