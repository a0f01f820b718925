//! /dev/drbdN and its NBD socket: there while the resource is primary.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use front::nbd::{Export, NbdServer, listen};
use front::{Access, Front, FuseFile, LoopDevice, LoopError};

use crate::kept::Keeper;
use crate::links::Links;
use crate::worker::{Command, Handle};

/// Logical block size of /dev/drbdN, as the kernel's DRBD has it on 512-byte disks.
const BLOCK_BYTES: u32 = 512;

/// Everything of one minor that clients may hold.
#[derive(Debug)]
pub struct Fronts {
    minor: u32,
    /// The mount, for its removal; the session itself is served by the resource's thread.
    directory: PathBuf,
    device: LoopDevice,
    nbd_path: PathBuf,
    links: Links,
}

/// Numbers of the fronts of a minor at its resource's thread.
fn fuse_number(minor: u32) -> u32 {
    minor * 2
}

fn nbd_number(minor: u32) -> u32 {
    minor * 2 + 1
}

/// Why the fronts of a minor stay open.
#[derive(Debug)]
pub enum StillOpen {
    /// Somebody has the device open.
    InUse(Box<Fronts>),
    /// The kernel refused.
    Failed(Box<Fronts>, LoopError),
}

impl Fronts {
    /// Makes the device node and the NBD socket of a minor.
    ///
    /// # Errors
    /// What of it failed; nothing is left behind.
    pub fn open(
        run: &Path,
        minor: u32,
        volume: u16,
        size_bytes: u64,
        links: Links,
        worker: &Handle,
        keeper: &Keeper,
    ) -> io::Result<Self> {
        let directory = run.join(format!("minor-{minor}"));
        std::fs::create_dir_all(&directory)?;
        let name = format!("drbd{minor}");
        let file = FuseFile::mount(&directory, &name, size_bytes, Access::ReadWrite)?;
        let path = file.path();
        keeper.store(&format!("fuse/{minor}"), &file.kept(), &[file.descriptor()]);
        serve(worker, volume, fuse_number(minor), Box::new(file))?;
        let node = PathBuf::from(format!("/dev/drbd{minor}"));
        // Served by the resource's thread, bound by this one: binding reads the file.
        let device = match LoopDevice::bind(&path, &node, BLOCK_BYTES, Access::ReadWrite) {
            Ok(device) => device,
            Err(error) => {
                leave(worker, fuse_number(minor));
                keeper.forget(&format!("fuse/{minor}"));
                unmount(&directory);
                return Err(io::Error::other(error));
            }
        };
        keeper.store(&format!("loop/{minor}"), &device.kept(), &[device.descriptor()]);
        worker.send(Command::SizeLoop { volume, sizer: device.sizer(path) });
        let nbd_path = run.join(format!("{name}.nbd"));
        links.make(&name);
        let fronts = Self { minor, directory, device, nbd_path, links };
        fronts.serve_nbd(volume, size_bytes, worker, keeper);
        Ok(fronts)
    }

    /// The NBD socket is an extra door: without it the device still stands.
    fn serve_nbd(&self, volume: u16, size_bytes: u64, worker: &Handle, keeper: &Keeper) {
        let export = Export { name: format!("drbd{}", self.minor), size_bytes, access: Access::ReadWrite };
        let served = listen(&self.nbd_path).and_then(|listener| {
            keeper.store(&format!("nbd/{}", self.minor), &size_bytes.to_le_bytes(), &[listener.as_fd()]);
            let server = NbdServer::new(listener, export)?;
            serve(worker, volume, nbd_number(self.minor), Box::new(server))
        });
        if let Err(error) = served {
            tracing::warn!(path = %self.nbd_path.display(), %error, "no NBD socket");
        }
    }

    /// Takes over what a worker that is gone left with the holder.
    ///
    /// # Errors
    /// If it cannot be resumed; the device is lost then.
    pub fn resume(
        run: &Path,
        minor: u32,
        volume: u16,
        kept: crate::kept::KeptFronts,
        links: Links,
        worker: &Handle,
    ) -> io::Result<Self> {
        let crate::kept::KeptFronts { fuse, device, nbd } = kept;
        let file = FuseFile::resume(fuse.1, &fuse.0)?;
        let size_bytes = file.size_bytes();
        let device = LoopDevice::resume(device.1, &device.0).map_err(io::Error::other)?;
        let sizer = device.sizer(file.path());
        serve(worker, volume, fuse_number(minor), Box::new(file))?;
        // The size may have changed while nobody served it.
        sizer.take_size().map_err(io::Error::other)?;
        worker.send(Command::SizeLoop { volume, sizer });
        if let Some((_, listener)) = nbd {
            let export = Export { name: format!("drbd{minor}"), size_bytes, access: Access::ReadWrite };
            match NbdServer::new(listener, export) {
                Ok(server) => serve(worker, volume, nbd_number(minor), Box::new(server))?,
                Err(error) => tracing::warn!(%error, "the NBD socket is lost"),
            }
        }
        let directory = run.join(format!("minor-{minor}"));
        links.make(&format!("drbd{minor}"));
        Ok(Self { minor, directory, device, nbd_path: run.join(format!("drbd{minor}.nbd")), links })
    }

    /// Takes the device away, unless somebody holds it.
    ///
    /// # Errors
    /// [`StillOpen`], with everything as it was.
    pub fn close(self, worker: &Handle, keeper: &Keeper) -> Result<(), StillOpen> {
        let Self { minor, directory, device, nbd_path, links } = self;
        keeper.forget(&format!("loop/{minor}"));
        if let Err(kept) = device.release() {
            let front::NotReleased { device, why } = *kept;
            keeper.store(&format!("loop/{minor}"), &device.kept(), &[device.descriptor()]);
            let fronts = Box::new(Self { minor, directory, device, nbd_path, links });
            return Err(if matches!(why, LoopError::Busy { .. }) {
                StillOpen::InUse(fronts)
            } else {
                StillOpen::Failed(fronts, why)
            });
        }
        links.remove(&format!("drbd{minor}"));
        keeper.forget(&format!("nbd/{minor}"));
        leave(worker, nbd_number(minor));
        let _ = std::fs::remove_file(&nbd_path);
        leave(worker, fuse_number(minor));
        unmount(&directory);
        keeper.forget(&format!("fuse/{minor}"));
        let _ = std::fs::remove_dir(&directory);
        Ok(())
    }
}

fn serve(worker: &Handle, volume: u16, number: u32, front: Box<dyn Front + Send>) -> io::Result<()> {
    worker
        .ask(|reply| Command::AddFront { volume, number, front, reply })
        .ok_or_else(|| io::Error::other("the resource's thread has ended"))
}

/// The front is dropped here, outside the thread that served it.
fn leave(worker: &Handle, number: u32) {
    drop(worker.ask(|reply| Command::RemoveFront { number, reply }));
}

/// The loop device above lets go of its file a moment after its last user did.
fn unmount(directory: &Path) {
    for _ in 0..100 {
        match fuse::unmount(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "cannot unmount");
                return;
            }
            Ok(()) => return,
        }
    }
    tracing::warn!(directory = %directory.display(), "still busy; left mounted");
}
