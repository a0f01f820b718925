//! The process that carries frames between the two ends of each wire of a lab.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use control::{Peer, Server};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::lane::Lane;
use super::socket::{End, HEADER_BYTES, index_of};
use super::{Cable, Reply};
use crate::error::{Doing, Error, Result};
use crate::place::{Lab, NETNS_ROOT};

/// Frames taken from one end before the others get their turn.
const TURN_FRAMES: usize = 64;

/// Marks the descriptor that wakes us for an order.
const ORDERS: u64 = u64::MAX;

/// An order, and where its answer goes.
type Order = (Vec<Cable>, Sender<Reply>);

/// Runs as the process, until it is killed. Says `up`, or why not, as one line on stdout, which it then closes.
///
/// # Errors
/// It cannot start, or its socket fails.
pub fn run(lab: &Lab) -> Result<()> {
    // Whoever started this must be able to leave with its terminal.
    let _ = rustix::process::setsid();
    let started = start(lab);
    let line = started.as_ref().map_or_else(|error| error.to_string().replace('\n', "; "), |_| "up".into());
    // A starter that was interrupted does not read it.
    let _ = writeln!(std::io::stdout(), "{line}");
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
    let (server, waker, orders) = started?;
    let handler = |_: Peer, cables: Vec<Cable>| -> Reply {
        let (answer, answered) = mpsc::channel();
        let gone = |_| "the relay has ended".to_owned();
        orders.send((cables, answer)).map_err(|_| "the relay has ended".to_owned())?;
        rustix::io::write(&waker, &1_u64.to_ne_bytes()).map_err(|error| error.to_string())?;
        answered.recv().map_err(gone)?
    };
    server.serve(handler).doing(|| "serve the wires' socket".into())
}

fn start(lab: &Lab) -> Result<(Server, OwnedFd, Sender<Order>)> {
    let server =
        Server::bind(&lab.run_dir().join(super::SOCKET)).map_err(|e| Error::refused(e.to_string()))?;
    let waker =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).doing(|| "make an eventfd".into())?;
    let woken = waker.try_clone().doing(|| "keep an eventfd".into())?;
    let (sender, receiver) = mpsc::channel();
    let fabric = Path::new(NETNS_ROOT).join(lab.fabric());
    let namespace = std::fs::File::open(&fabric).doing(|| format!("open {}", fabric.display()))?;
    std::thread::Builder::new()
        .name("relay".into())
        .spawn(move || {
            let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
            let ended = entered.map_err(Into::into).and_then(|()| Relay::new(woken, receiver)?.carry());
            // The thread that serves the socket must not outlive the one that does the work.
            eprintln!("lockstep lab wires: {ended:?}");
            std::process::exit(1);
        })
        .doing(|| "start a thread".into())?;
    Ok((server, waker, sender))
}

/// A wire: what comes in at one end leaves by the other.
struct Strand {
    cable: Cable,
    /// The server's side, and the network's.
    ends: [End; 2],
    /// From the server, and to it.
    lanes: [Lane; 2],
}

impl Strand {
    fn open(cable: Cable) -> std::io::Result<Option<Self>> {
        let (Some(port), Some(bridge)) = (index_of(&cable.port), index_of(&cable.end)) else {
            return Ok(None);
        };
        let ends = [End::open(port)?, End::open(bridge)?];
        // Its two ways must not lose the same frames.
        let lanes = [Lane::new(cable.outbound, cable.seed), Lane::new(cable.inbound, !cable.seed)];
        Ok(Some(Self { cable, ends, lanes }))
    }

    /// Whether its interfaces are still those of the cable; a server that booted again has new ones.
    fn is_of(&self, cable: &Cable) -> bool {
        self.cable.port == cable.port
            && index_of(&cable.port) == Some(self.ends[0].index())
            && index_of(&cable.end) == Some(self.ends[1].index())
    }
}

struct Relay {
    began: Instant,
    woken: OwnedFd,
    orders: Receiver<Order>,
    epoll: OwnedFd,
    strands: Vec<Strand>,
    scratch: Vec<u8>,
}

impl Relay {
    fn new(woken: OwnedFd, orders: Receiver<Order>) -> std::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &woken, EventData::new_u64(ORDERS), EventFlags::IN)?;
        let scratch = Vec::new();
        Ok(Self { began: Instant::now(), woken, orders, epoll, strands: Vec::new(), scratch })
    }

    fn carry(mut self) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.time_left();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                ready => drop(ready?),
            }
            for event in &events {
                match event.data.u64() {
                    ORDERS => self.obey()?,
                    which => self.take(which as usize / 2, which as usize % 2),
                }
            }
            self.deliver();
        }
    }

    /// Time until the next frame is due; none if none is on its way.
    fn time_left(&self) -> Option<Timespec> {
        let dues = self.strands.iter().flat_map(|strand| &strand.lanes).filter_map(Lane::next_due);
        let left = dues.min()?.saturating_sub(self.began.elapsed());
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
    }

    /// Takes what came in at one end.
    fn take(&mut self, strand: usize, end: usize) {
        // An order may have taken the strand away since the event came.
        let Some(strand) = self.strands.get_mut(strand) else { return };
        let now: Duration = self.began.elapsed();
        for _ in 0..TURN_FRAMES {
            let Some(frame) = strand.ends[end].receive(&mut self.scratch) else { break };
            let wire_bytes = frame.len() - HEADER_BYTES;
            strand.lanes[end].push(now, frame, wire_bytes);
        }
    }

    /// Sends what is due.
    fn deliver(&mut self) {
        let now = self.began.elapsed();
        for strand in &mut self.strands {
            for (lane, to) in strand.lanes.iter_mut().zip(strand.ends.iter().rev()) {
                while let Some(frame) = lane.pop(now) {
                    to.send(&frame);
                }
            }
        }
    }

    /// Takes new orders. What is on its way on a wire that stays arrives.
    fn obey(&mut self) -> std::io::Result<()> {
        let _ = rustix::io::read(&self.woken, &mut [0; 8]);
        while let Ok((cables, answer)) = self.orders.try_recv() {
            let done = self.rewire(cables);
            // A tool that was interrupted waits no more.
            let _ = answer.send(done.map_err(|error| error.to_string()));
        }
        Ok(())
    }

    fn rewire(&mut self, cables: Vec<Cable>) -> std::io::Result<()> {
        let mut before = std::mem::take(&mut self.strands);
        for cable in cables {
            let strand = match before.iter().position(|strand| strand.is_of(&cable)) {
                Some(index) => {
                    let mut strand = before.swap_remove(index);
                    strand.lanes[0].set_quality(cable.outbound);
                    strand.lanes[1].set_quality(cable.inbound);
                    Some(strand)
                }
                None => Strand::open(cable)?,
            };
            self.strands.extend(strand);
        }
        // The numbers in the old one no longer mean the same.
        self.epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&self.epoll, &self.woken, EventData::new_u64(ORDERS), EventFlags::IN)?;
        for (number, strand) in self.strands.iter().enumerate() {
            for (end, socket) in strand.ends.iter().enumerate() {
                let which = EventData::new_u64((number * 2 + end) as u64);
                epoll::add(&self.epoll, socket.as_fd(), which, EventFlags::IN)?;
            }
        }
        Ok(())
    }
}
