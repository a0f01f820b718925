//! Device nodes of running servers' disks, and their partitions: read again whenever a disk's node was closed
//! after writing.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FileType;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use uuid::Uuid;

use crate::error::{Doing, Result};
use crate::life::Life;
use crate::loopdev::LoopDevice;
use crate::partition;
use crate::place::Lab;
use crate::root::make_node;
use crate::state::Records;

/// Permission bits of disks: root and group disk.
const NODE_MODE: u32 = 0o660;

/// A disk in a running server.
#[derive(Debug)]
struct Watched {
    life: Life,
    device: String,
    loop_device: LoopDevice,
    watch: i32,
    /// Numbers of the partitions that have a node.
    partitions: Vec<u32>,
}

impl Watched {
    fn node(&self, suffix: &str) -> std::path::PathBuf {
        self.life.path_in(&format!("dev/{}{suffix}", self.device))
    }

    /// Partitions and their nodes follow the disk's table.
    fn read_table(&mut self) -> Result<()> {
        let there = partition::reconcile(self.loop_device).doing(|| format!("read /dev/{}", self.device))?;
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
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn new(lab: Lab) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC).doing(|| "watch devices".into())?;
        Ok(Self { lab, inotify: Arc::new(inotify), disks: Mutex::default() })
    }

    /// Makes what is watched, and the nodes in the servers, follow the records.
    ///
    /// # Errors
    /// A node that cannot be made; the others are.
    pub fn refresh(&self) -> Result<()> {
        let records = Records::load(&self.lab)?;
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
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
        for (disk, life) in wanted {
            if disks.contains_key(&disk.volume) {
                continue;
            }
            match self.begin(life, disk.device, LoopDevice(disk.loop_index)) {
                Ok(watched) => drop(disks.insert(disk.volume, watched)),
                Err(error) => done = Err(error),
            }
        }
        done
    }

    fn begin(&self, life: Life, device: String, loop_device: LoopDevice) -> Result<Watched> {
        let mut watched = Watched { life, device, loop_device, watch: 0, partitions: Vec::new() };
        let numbers = loop_device.device().doing(|| format!("find {}", loop_device.node().display()))?;
        let node = watched.node("");
        make_node(&node, FileType::BlockDevice, numbers, NODE_MODE)?;
        watched.watch = inotify::add_watch(&*self.inotify, &node, WatchFlags::CLOSE_WRITE)
            .doing(|| format!("watch {}", node.display()))?;
        if let Err(error) = watched.read_table() {
            // A disk that cannot be read is the server's to notice.
            eprintln!("{error}");
        }
        Ok(watched)
    }

    /// Reads tables again as disks are closed, for ever.
    ///
    /// # Errors
    /// The system stopped telling.
    pub fn run(&self) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&*self.inotify, &mut space);
        loop {
            let watch = match events.next() {
                Err(rustix::io::Errno::INTR) => continue,
                event => event.doing(|| "wait for devices to be closed".into())?.wd(),
            };
            let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(watched) = disks.values_mut().find(|watched| watched.watch == watch)
                && let Err(error) = watched.read_table()
            {
                eprintln!("{error}");
            }
        }
    }
}
