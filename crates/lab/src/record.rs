//! `lockstep lab record`: keeps in one directory what went over the lab's cables, what its servers said, what was
//! done to them, and when.
//!
//! What happened before the recording began is not in it. Memory is bounded: frames wait in the socket's queue, and
//! those that do not fit are counted.

mod cables;
mod follow;
mod journal;
mod pcapng;
mod socket;

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Doing, Error, Result};
use crate::events;
use crate::place::{Lab, write_json};
use crate::state::{Network, Records, Server};
use cables::{Cables, Summary};
use follow::Follower;
use journal::Journal;

/// Directory of the captures, below the recording's.
const CAPTURES: &str = "captures";

/// Directory of what servers said on their consoles.
const CONSOLES: &str = "consoles";

/// Directory of the journals of servers that have systemd.
const JOURNALS: &str = "journals";

/// How often logs are looked at, and whether the command has ended.
const TURN: Duration = Duration::from_millis(50);

/// What to record, as typed.
#[derive(Args, Debug)]
pub struct Order {
    /// A directory that is empty or not there yet
    directory: PathBuf,
    /// Only cables of this network; once for each
    #[arg(long = "network")]
    networks: Vec<String>,
    /// Only cables and consoles of this server; once for each
    #[arg(long = "server")]
    servers: Vec<String>,
    /// Most MiB of each file
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    limit_mib: u64,
    /// What to run meanwhile, with its arguments; without it the recording ends by Ctrl-C
    #[arg(last = true)]
    command: Vec<String>,
}

/// Which cables are recorded: those of all networks and servers that are named, or all if none is.
#[derive(Clone, Debug)]
struct Choice {
    networks: Vec<String>,
    servers: Vec<String>,
}

impl Choice {
    fn has_server(&self, server: &Server) -> bool {
        self.servers.is_empty()
            || self.servers.iter().any(|wanted| *wanted == server.name || *wanted == server.id.to_string())
    }

    fn has(&self, server: &Server, network: &Network) -> bool {
        let named = |wanted: &String| *wanted == network.label || *wanted == network.id.to_string();
        self.has_server(server) && (self.networks.is_empty() || self.networks.iter().any(named))
    }
}

/// Set by Ctrl-C, and by whoever asks this program to end.
struct Told {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

/// Records until the command has ended, or without one until Ctrl-C. Gives the command's exit status.
///
/// # Errors
/// A mistake in the order; then nothing was written. Or the system's refusal in the middle: the files are whole up
/// to it.
pub fn run(lab: &Lab, order: Order) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::refused("record: listening to a lab needs root"));
    }
    let records = Records::load(lab)?;
    // A command may make what it is asked to record.
    if order.command.is_empty() {
        order.networks.iter().try_for_each(|wanted| records.network("record", wanted).map(drop))?;
        order.servers.iter().try_for_each(|wanted| records.server("record", wanted).map(drop))?;
    }
    let told = Told::listen()?;
    let was_there = make_empty(&order.directory)?;
    let begun = Recording::begin(lab, &records, &order);
    let child = begun.and_then(|mut recording| match start(lab, &order.command) {
        Ok(child) => Ok((recording, child)),
        Err(error) => recording.stop_cables().and(Err(error)),
    });
    match child {
        Ok((recording, child)) => recording.until_end(&told, child),
        Err(error) => {
            // The next try must find what this one found; what cannot be removed is named by that try.
            let _ = fs::remove_dir_all(&order.directory);
            if was_there {
                let _ = fs::create_dir(&order.directory);
            }
            Err(error)
        }
    }
}

/// Makes the directory; whether it was there, and empty.
fn make_empty(directory: &Path) -> Result<bool> {
    let was_there = directory.exists();
    fs::create_dir_all(directory).doing(|| format!("create {}", directory.display()))?;
    let mut entries = fs::read_dir(directory).doing(|| format!("list {}", directory.display()))?;
    if entries.next().is_some() {
        return Err(Error::refused(format!(
            "record: {} is not empty; name a directory that is, or one that is not there yet",
            directory.display()
        )));
    }
    Ok(was_there)
}

/// Starts the command; the lab is its default one.
fn start(lab: &Lab, command: &[String]) -> Result<Option<Child>> {
    let [program, arguments @ ..] = command else { return Ok(None) };
    let started = Command::new(program).args(arguments).env("LOCKSTEP_LAB", lab.name()).spawn();
    started.map(Some).doing(|| format!("run {program}"))
}

/// A file name that no other in its directory has.
fn file_name(taken: &mut HashSet<String>, wanted: &str, extension: &str) -> String {
    let mut name = format!("{wanted}.{extension}");
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!("{wanted}-{number}.{extension}");
        number += 1;
    }
    name
}

impl Told {
    fn listen() -> Result<Self> {
        let flag = |signal| -> Result<Arc<AtomicBool>> {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, Arc::clone(&flag)).doing(|| "wait for signals".into())?;
            Ok(flag)
        };
        let interrupted = flag(signal_hook::consts::SIGINT)?;
        let terminated = flag(signal_hook::consts::SIGTERM)?;
        Ok(Self { interrupted, terminated })
    }
}

/// What is being written.
struct Recording {
    lab: Lab,
    directory: PathBuf,
    choice: Choice,
    limit_bytes: u64,
    /// run.json, as far as it is known at the start.
    about: Value,
    end_cables: Arc<AtomicBool>,
    cables: Option<JoinHandle<Result<Summary>>>,
    cables_failed: Receiver<()>,
    events: Follower,
    /// Console logs by server.
    consoles: Vec<(Uuid, String, Follower)>,
    console_files: HashSet<String>,
    /// Journals by server.
    journals: Vec<(Uuid, String, Journal)>,
}

impl Recording {
    fn begin(lab: &Lab, records: &Records, order: &Order) -> Result<Self> {
        let directory = order.directory.clone();
        for part in [CAPTURES, CONSOLES, JOURNALS] {
            fs::create_dir(directory.join(part))
                .doing(|| format!("create {part} in {}", directory.display()))?;
        }
        let limit_bytes = order.limit_mib << 20;
        let choice = Choice { networks: order.networks.clone(), servers: order.servers.clone() };
        let about = json!({
            "program": concat!("lockstep ", env!("CARGO_PKG_VERSION")),
            "lab": lab.name(),
            "networks": choice.networks,
            "servers": choice.servers,
            "limit_mib": order.limit_mib,
            "command": order.command,
            "begin_unix_ns": events::now_unix_ns(),
            "topology": records,
        });
        write_json(&directory.join("run.json"), &about)?;
        let captures = Cables::open(lab, &choice, &directory.join(CAPTURES), limit_bytes)?;
        let end_cables = Arc::new(AtomicBool::new(false));
        let (failing, cables_failed) = channel();
        let cables = record_in_thread(captures, Arc::clone(&end_cables), failing)?;
        let events = Follower::from_now_on(&events::path(lab), &directory.join("events.jsonl"), limit_bytes)?;
        let mut recording = Self {
            lab: lab.clone(),
            directory,
            choice,
            limit_bytes,
            about,
            end_cables,
            cables: Some(cables),
            cables_failed,
            events,
            consoles: Vec::new(),
            console_files: HashSet::new(),
            journals: Vec::new(),
        };
        recording.look_for_consoles(records, Follower::from_now_on)?;
        eprintln!("recording lab {} to {}", lab.name(), recording.directory.display());
        Ok(recording)
    }

    /// Follows the consoles of servers that are not followed yet.
    fn look_for_consoles(
        &mut self,
        records: &Records,
        follow: fn(&Path, &Path, u64) -> Result<Follower>,
    ) -> Result<()> {
        for server in records.servers.iter().filter(|server| self.choice.has_server(server)) {
            if self.consoles.iter().any(|(id, ..)| *id == server.id) {
                continue;
            }
            let file = file_name(&mut self.console_files, &server.name, "log");
            let source = self.lab.server_dir(server.id).join("console.log");
            let follower = follow(&source, &self.directory.join(CONSOLES).join(file), self.limit_bytes)?;
            self.consoles.push((server.id, server.name.clone(), follower));
        }
        Ok(())
    }

    /// Goes on until there is a reason to end, and closes the files.
    fn until_end(mut self, told: &Told, mut child: Option<Child>) -> Result<ExitCode> {
        let waited = self.wait(told, child.as_mut());
        if let (Err(_), Some(child)) = (&waited, &mut child) {
            // What it does goes on being of use without us.
            let _ = child.wait();
        }
        let closed = self.close(waited.as_ref().ok().copied().flatten());
        let status = waited?;
        closed?;
        Ok(status.map_or(ExitCode::SUCCESS, |status| ExitCode::from(code(status))))
    }

    fn wait(&mut self, told: &Told, mut child: Option<&mut Child>) -> Result<Option<ExitStatus>> {
        let mut passed_on = false;
        loop {
            self.follow_logs()?;
            let stop = told.terminated.load(Ordering::Relaxed);
            match &mut child {
                Some(child) => {
                    if let Some(status) = child.try_wait().doing(|| "wait for the command".into())? {
                        return Ok(Some(status));
                    }
                    // A terminal's interrupt reaches the command too; this does not.
                    if stop && !passed_on {
                        passed_on = true;
                        let _ = rustix::process::Pid::from_raw(child.id() as i32)
                            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
                    }
                }
                None if stop || told.interrupted.load(Ordering::Relaxed) => return Ok(None),
                None => {}
            }
            if child.is_none() && self.cables_failed.try_recv().is_ok() {
                return Ok(None);
            }
            std::thread::sleep(TURN);
        }
    }

    fn follow_logs(&mut self) -> Result<()> {
        self.events.catch_up()?;
        let records = Records::load(&self.lab)?;
        self.look_for_consoles(&records, Follower::from_the_start)?;
        self.look_for_journals()?;
        self.journals.iter_mut().for_each(|(.., journal)| journal.mind_limit());
        self.consoles.iter_mut().try_for_each(|(.., console)| console.catch_up())
    }

    /// Follows the journals that have appeared: systemd makes them, some time after the boot began.
    fn look_for_journals(&mut self) -> Result<()> {
        for (server, name, console) in &self.consoles {
            if self.journals.iter().any(|(id, ..)| id == server) {
                continue;
            }
            let Some(source) = journal::directory(&self.lab.server_dir(*server), *server) else { continue };
            // Named as the console's log, which no other server's has.
            let file = console.target().file_name().unwrap_or(name.as_ref());
            let target = self.directory.join(JOURNALS).join(file);
            let begin_unix_ns = self.about["begin_unix_ns"].as_u64().unwrap_or_default();
            let journal = Journal::follow(&source, &target, begin_unix_ns, self.limit_bytes)?;
            self.journals.push((*server, file.to_string_lossy().into_owned(), journal));
        }
        Ok(())
    }

    fn stop_cables(&mut self) -> Result<Summary> {
        self.end_cables.store(true, Ordering::Relaxed);
        match self.cables.take().map(JoinHandle::join) {
            Some(Ok(summary)) => summary,
            _ => Err(Error::refused("record: the capture ended by a bug of its own")),
        }
    }

    /// Ends the captures, takes the rest of the logs, and says in run.json what there is.
    fn close(mut self, status: Option<ExitStatus>) -> Result<()> {
        let end_unix_ns = events::now_unix_ns();
        let captured = self.stop_cables();
        let followed = self.follow_logs();
        let summary = captured?;
        let consoles: Vec<Value> = self
            .consoles
            .iter()
            .map(|(_, server, console)| {
                let file = console.target().strip_prefix(&self.directory).unwrap_or(console.target());
                json!({
                    "server": server,
                    "file": file,
                    "bytes": console.kept_bytes,
                    "left_out_bytes": console.left_out_bytes,
                })
            })
            .collect();
        self.about["end_unix_ns"] = json!(end_unix_ns);
        self.about["exit_status"] = json!(status.map(code));
        self.about["captures"] = json!(summary);
        self.about["consoles"] = json!(consoles);
        let mut journals = Vec::new();
        for (server, file, journal) in &mut self.journals {
            let file = format!("{JOURNALS}/{file}");
            journals.push(json!({ "server": server, "file": file, "text": journal.close()? }));
        }
        self.about["journals"] = json!(journals);
        write_json(&self.directory.join("run.json"), &self.about)?;
        let frames: u64 = summary.cables.iter().map(|cable| cable.frames).sum();
        let left_out: u64 = summary.cables.iter().map(|cable| cable.left_out_frames).sum();
        eprintln!(
            "recorded {frames} frames of {} cables; {} dropped, {left_out} over the limit",
            summary.cables.len(),
            summary.dropped_frames
        );
        let named = [self.choice.networks.as_slice(), &self.choice.servers].concat().join(", ");
        if summary.cables.is_empty() && !named.is_empty() {
            eprintln!("no cable was that of {named}; `lockstep lab show` tells what there is");
        }
        followed
    }
}

fn record_in_thread(
    captures: Cables,
    end: Arc<AtomicBool>,
    failing: Sender<()>,
) -> Result<JoinHandle<Result<Summary>>> {
    std::thread::Builder::new()
        .name("captures".into())
        .spawn(move || captures.run(&end, &failing))
        .doing(|| "start a thread".into())
}

/// As a shell says it: the status, or 128 and the signal.
fn code(status: ExitStatus) -> u8 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8
}
