//! Device nodes of running servers' disks, and their partitions: read again whenever a disk's node was closed
//! after writing.
//!
//! Invariant: nobody waits for a disk but a thread that reads that disk's table: a disk that hangs keeps nothing else
//! from going on, not even the boot of the server that has it.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::FileType;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use uuid::Uuid;

use crate::error::{Doing, Result};
use crate::life::Life;
use crate::loopdev::LoopDevice;
use crate::partition::{self, Slice};
use crate::place::Lab;
use crate::root::make_node;
use crate::state::Records;

/// Permission bits of disks: root and group disk.
const NODE_MODE: u32 = 0o660;

/// How long a refresh waits for the tables of new disks.
const TABLE_PATIENCE: Duration = Duration::from_secs(5);

/// A disk in a running server.
#[derive(Debug)]
struct Watched {
    life: Life,
    device: String,
    loop_device: LoopDevice,
    watch: i32,
    /// Numbers of the partitions that have a node.
    partitions: Vec<u32>,
    reading: Reading,
}

/// What a disk's thread does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    /// There is none.
    No,
    /// It reads the table.
    Yes,
    /// The same, and the disk was closed again since.
    Again,
}

impl Watched {
    fn node(&self, suffix: &str) -> std::path::PathBuf {
        self.life.path_in(&format!("dev/{}{suffix}", self.device))
    }

    /// Partitions and their nodes follow the disk's table.
    fn follow(&mut self, table: &[Slice]) -> Result<()> {
        let there = partition::reconcile(self.loop_device, table);
        for gone in self.partitions.iter().filter(|number| there.iter().all(|p| p.number != **number)) {
            // The server may have removed it itself.
            let _ = fs::remove_file(self.node(&gone.to_string()));
        }
        self.partitions = there.iter().map(|partition| partition.number).collect();
        for partition in &there {
            let node = self.node(&partition.number.to_string());
            make_node(&node, FileType::BlockDevice, partition.device, NODE_MODE)?;
        }
        Ok(())
    }

    fn remove_nodes(&self) {
        if !self.life.init.is_alive() {
            return;
        }
        let suffixes = self.partitions.iter().map(u32::to_string).chain([String::new()]);
        for suffix in suffixes {
            // The server may have removed it itself.
            let _ = fs::remove_file(self.node(&suffix));
        }
    }
}

/// Every disk of every running server of a lab.
#[derive(Debug)]
pub struct Watch {
    lab: Lab,
    inotify: Arc<OwnedFd>,
    disks: Mutex<BTreeMap<Uuid, Watched>>,
    read: Condvar,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn new(lab: Lab) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC).doing(|| "watch devices".into())?;
        Ok(Self { lab, inotify: Arc::new(inotify), disks: Mutex::default(), read: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Watched>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what is watched, and the nodes in the servers, follow the records. The partitions of a new disk are there
    /// too, unless it takes long to answer.
    ///
    /// # Errors
    /// A node that cannot be made; the others are.
    pub fn refresh(self: &Arc<Self>) -> Result<()> {
        let records = Records::load(&self.lab)?;
        let mut disks = self.lock();
        let mut wanted = Vec::new();
        for server in &records.servers {
            if let Some(life) = Life::load(&self.lab, server.id)?.filter(|life| life.init.is_alive()) {
                wanted.extend(life.disks.clone().into_iter().map(|disk| (disk, life.clone())));
            }
        }
        disks.retain(|volume, watched| {
            let stays = wanted.iter().any(|(disk, life)| {
                disk.volume == *volume
                    && life.init == watched.life.init
                    && disk.loop_index == watched.loop_device.0
                    && disk.device == watched.device
            });
            if !stays {
                watched.remove_nodes();
                // The node may be gone with its server, and the watch with it.
                let _ = inotify::remove_watch(&*self.inotify, watched.watch);
            }
            stays
        });
        let mut done = Ok(());
        let mut fresh = Vec::new();
        for (disk, life) in wanted {
            if disks.contains_key(&disk.volume) {
                continue;
            }
            match self.begin(life, disk.device, LoopDevice(disk.loop_index)) {
                Ok(watched) => {
                    self.start_reading(disk.volume, disks.entry(disk.volume).or_insert(watched));
                    fresh.push(disk.volume);
                }
                Err(error) => done = Err(error),
            }
        }
        let is_reading = |disks: &mut BTreeMap<Uuid, Watched>| {
            fresh.iter().any(|volume| disks.get(volume).is_some_and(|disk| disk.reading != Reading::No))
        };
        drop(self.read.wait_timeout_while(disks, TABLE_PATIENCE, is_reading));
        done
    }

    fn begin(&self, life: Life, device: String, loop_device: LoopDevice) -> Result<Watched> {
        let (watch, partitions, reading) = (0, Vec::new(), Reading::No);
        let mut watched = Watched { life, device, loop_device, watch, partitions, reading };
        let numbers = loop_device.device().doing(|| format!("find {}", loop_device.node().display()))?;
        let node = watched.node("");
        make_node(&node, FileType::BlockDevice, numbers, NODE_MODE)?;
        watched.watch = inotify::add_watch(&*self.inotify, &node, WatchFlags::CLOSE_WRITE)
            .doing(|| format!("watch {}", node.display()))?;
        Ok(watched)
    }

    /// Has a disk's table read by a thread of its own; one that reads already will once more.
    fn start_reading(self: &Arc<Self>, volume: Uuid, watched: &mut Watched) {
        if watched.reading != Reading::No {
            watched.reading = Reading::Again;
            return;
        }
        watched.reading = Reading::Yes;
        let (watch, loop_device, device) = (self.clone(), watched.loop_device, watched.device.clone());
        let read = move || {
            loop {
                // Not before the disk has answered once: binding must not wait for one that hangs.
                let table = partition::table_of(loop_device)
                    .and_then(|table| loop_device.let_kernel_read_tables(volume).map(|()| table))
                    .doing(|| format!("read /dev/{device}"));
                if watch.has_read(volume, loop_device, table) {
                    break;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("table".into()).spawn(read) {
            eprintln!("start a thread: {error}");
            watched.reading = Reading::No;
        }
    }

    /// Takes what a thread has read; false if it shall read again.
    fn has_read(&self, volume: Uuid, loop_device: LoopDevice, table: Result<Vec<Slice>>) -> bool {
        let mut disks = self.lock();
        // It may be gone, and even be there anew, with a thread of its own.
        let Some(watched) = disks.get_mut(&volume).filter(|disk| disk.loop_device == loop_device) else {
            return true;
        };
        if watched.reading == Reading::Again {
            watched.reading = Reading::Yes;
            return false;
        }
        watched.reading = Reading::No;
        if let Err(error) = table.and_then(|table| watched.follow(&table)) {
            // A disk that cannot be read is the server's to notice.
            eprintln!("{error}");
        }
        self.read.notify_all();
        true
    }

    /// Reads tables again as disks are closed, for ever.
    ///
    /// # Errors
    /// The system stopped telling.
    pub fn run(self: &Arc<Self>) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&*self.inotify, &mut space);
        loop {
            let watch = match events.next() {
                Err(rustix::io::Errno::INTR) => continue,
                event => event.doing(|| "wait for devices to be closed".into())?.wd(),
            };
            let mut disks = self.lock();
            if let Some((&volume, watched)) = disks.iter_mut().find(|(_, disk)| disk.watch == watch) {
                self.start_reading(volume, watched);
            }
        }
    }
}
