//! One capture for each cable: what a server's interface sends and hears, as its bridge sees it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::Choice;
use super::pcapng::{Frame, Interface, Writer};
use super::socket::{Arrival, FRAME_BYTES_MAX, Socket};
use crate::error::{Doing, Result};
use crate::events::now_unix_ns;
use crate::fabric;
use crate::place::Lab;
use crate::state::Records;

/// How long frames wait for the file at most, and how often it is looked whether the fabric is still the same.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Frames that are taken in one turn, so that a flood does not keep the end from being noticed.
const FRAMES_PER_TURN: usize = 4096;

/// What became of one cable's frames, as run.json says it.
#[derive(Debug, Serialize)]
pub struct Captured {
    /// Path of the capture below the recording's directory.
    file: String,
    server: String,
    interface: String,
    network: String,
    /// Frames in the file.
    pub frames: u64,
    /// Bytes of the file.
    bytes: u64,
    /// Frames that came when the file had reached its limit.
    pub left_out_frames: u64,
}

/// What became of all of them.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Frames of all cables that the kernel dropped because this program was too slow.
    pub dropped_frames: u64,
    /// One for each cable that was there at some time, frames or not.
    pub cables: Vec<Captured>,
}

struct Cable {
    writer: Writer<BufWriter<File>>,
    path: PathBuf,
    captured: Captured,
    begin_unix_ns: u64,
}

/// The captures of a lab's cables, all from one socket.
pub struct Cables {
    lab: Lab,
    choice: Choice,
    directory: PathBuf,
    limit_bytes: u64,
    socket: Option<Socket>,
    /// Interfaces of the fabric that were met, and whose cable each is.
    met: HashMap<u32, Option<usize>>,
    /// Cables by the name of the fabric's end, which a server's next life has again.
    by_port: HashMap<String, usize>,
    cables: Vec<Cable>,
    files: HashSet<String>,
    dropped_frames: u64,
}

impl Cables {
    /// Begins to listen if the lab has a fabric; else it will when there is one. A capture is made for every cable
    /// of the choice that is in the lab's records.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(lab: &Lab, choice: &Choice, directory: &Path, limit_bytes: u64) -> Result<Self> {
        let mut cables = Self {
            lab: lab.clone(),
            choice: choice.clone(),
            directory: directory.to_owned(),
            limit_bytes,
            socket: Socket::open(lab)?,
            met: HashMap::new(),
            by_port: HashMap::new(),
            cables: Vec::new(),
            files: HashSet::new(),
            dropped_frames: 0,
        };
        cables.look_for_cables()?;
        Ok(cables)
    }

    /// Records until `end` is set, and then what still waits. Says on `failed` if it cannot go on.
    ///
    /// # Errors
    /// The system's refusal; the files are whole up to it.
    pub fn run(mut self, end: &AtomicBool, failed: &Sender<()>) -> Result<Summary> {
        let mut buffer = vec![0; FRAME_BYTES_MAX as usize];
        let recorded = loop {
            let ending = end.load(Ordering::Relaxed);
            match self.turn(&mut buffer) {
                Ok(true) => {}
                Ok(false) if ending => break Ok(()),
                Ok(false) => {}
                Err(error) => break Err(error),
            }
            if ending {
                continue;
            }
            self.wait();
        };
        if recorded.is_err() {
            // Nobody listens any more: then the recording ends anyhow.
            let _ = failed.send(());
        }
        self.leave_fabric();
        let finished = self.cables.iter_mut().map(Cable::finish).fold(Ok(()), Result::and);
        let cables = self.cables.into_iter().map(|cable| cable.captured).collect();
        recorded.and(finished).map(|()| Summary { dropped_frames: self.dropped_frames, cables })
    }

    /// Takes what waits, up to a turn's frames; whether there was any.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut taken = 0;
        while taken < FRAMES_PER_TURN {
            let Some(socket) = &self.socket else { break };
            let arrival = socket.receive(buffer).doing(|| "receive from the fabric".into())?;
            let Some(arrival) = arrival else { break };
            taken += 1;
            if let Some(index) = self.cable_of(arrival.interface)? {
                self.cables[index].keep(&arrival, buffer, self.limit_bytes)?;
            }
        }
        if taken == 0 {
            self.cables.iter_mut().try_for_each(|cable| {
                cable.writer.flush().doing(|| format!("write {}", cable.path.display()))
            })?;
            self.follow_fabric()?;
        }
        Ok(taken > 0)
    }

    fn wait(&self) {
        match &self.socket {
            // Interrupted or not: the turn after it looks at everything.
            Some(socket) => drop(poll(&mut [PollFd::new(socket.as_fd(), PollFlags::IN)], Some(&TURN))),
            None => std::thread::sleep(std::time::Duration::from_nanos(TURN.tv_nsec as u64)),
        }
    }

    /// Goes on in the lab's new fabric if it has one.
    fn follow_fabric(&mut self) -> Result<()> {
        if self.socket.as_ref().is_some_and(|socket| socket.is_current(&self.lab)) {
            return Ok(());
        }
        self.leave_fabric();
        self.socket = Socket::open(&self.lab)?;
        Ok(())
    }

    fn leave_fabric(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.dropped_frames += socket.take_dropped();
        }
        self.met.clear();
    }

    /// The cable that an interface of the fabric is the end of; none if it is not one that was chosen.
    fn cable_of(&mut self, interface: u32) -> Result<Option<usize>> {
        if let Some(&known) = self.met.get(&interface) {
            return Ok(known);
        }
        // A frame can be read when its interface is gone already: then nobody can tell whose it was.
        let Some(name) = self.socket.as_ref().and_then(|socket| socket.name_of(interface)) else {
            return Ok(None);
        };
        if !self.by_port.contains_key(&name) {
            self.look_for_cables()?;
        }
        let cable = self.by_port.get(&name).copied();
        self.met.insert(interface, cable);
        Ok(cable)
    }

    /// Begins a capture for every cable of the choice that has none.
    fn look_for_cables(&mut self) -> Result<()> {
        let records = Records::load(&self.lab)?;
        for server in &records.servers {
            for (index, nic) in server.nics.iter().enumerate() {
                let port = fabric::port(server.id, index);
                let network = records.networks.iter().find(|network| network.id == nic.network);
                let Some(network) = network.filter(|network| self.choice.has(server, network)) else {
                    continue;
                };
                if self.by_port.contains_key(&port) {
                    continue;
                }
                let interface = format!("eth{index}");
                let wanted = format!("{}-{interface}", server.name);
                let file = super::file_name(&mut self.files, &wanted, "pcapng");
                let captured = Captured {
                    file: format!("{}/{file}", super::CAPTURES),
                    server: server.name.clone(),
                    interface,
                    network: network.label.clone(),
                    frames: 0,
                    bytes: 0,
                    left_out_frames: 0,
                };
                self.by_port.insert(port, self.cables.len());
                self.cables.push(Cable::begin(&self.directory.join(file), captured)?);
            }
        }
        Ok(())
    }
}

impl Cable {
    fn begin(path: &Path, captured: Captured) -> Result<Self> {
        let interface = Interface {
            name: &format!("{}:{}", captured.server, captured.interface),
            description: &format!("network {}", captured.network),
            frame_bytes_max: FRAME_BYTES_MAX,
        };
        let program = concat!("lockstep ", env!("CARGO_PKG_VERSION"));
        let doing = || format!("create {}", path.display());
        let file = BufWriter::new(File::create(path).doing(doing)?);
        let mut writer = Writer::new(file, program, &interface).doing(doing)?;
        writer.flush().doing(doing)?;
        Ok(Self { writer, path: path.to_owned(), captured, begin_unix_ns: now_unix_ns() })
    }

    fn keep(&mut self, arrival: &Arrival, buffer: &[u8], limit_bytes: u64) -> Result<()> {
        if self.writer.written_bytes() >= limit_bytes {
            self.captured.left_out_frames += 1;
            return Ok(());
        }
        let &Arrival { at_unix_ns, direction, wire_bytes, kept_bytes, .. } = arrival;
        let frame = Frame { at_unix_ns, direction, wire_bytes, bytes: &buffer[..kept_bytes] };
        self.captured.frames += 1;
        self.writer.frame(&frame).doing(|| format!("write {}", self.path.display()))
    }

    fn finish(&mut self) -> Result<()> {
        self.writer
            .finish(self.begin_unix_ns, now_unix_ns(), self.captured.frames)
            .doing(|| format!("write {}", self.path.display()))?;
        self.captured.bytes = self.writer.written_bytes();
        Ok(())
    }
}
