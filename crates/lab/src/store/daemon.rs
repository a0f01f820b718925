//! The store's serving process.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;

use control::{Peer, Server};
use fuse::Session;

use super::files::Volumes;
use super::keeper::{Farewell, Kept};
use super::parked::Parked;
use super::watch::Watch;
use super::{Request, served};
use crate::error::{Doing, Error, Result};
use crate::place::Lab;
use crate::process::Process;

/// `linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// What the threads share.
struct Serving {
    volumes: Volumes,
    parked: Parked,
    watch: Arc<Watch>,
    /// To tell the kernel of new sizes.
    notices: Session,
    farewell: Arc<Farewell>,
}

/// Runs as the serving process, until it is killed or the file system is unmounted.
///
/// # Errors
/// It cannot start, or its socket fails.
pub fn run(lab: &Lab, kept: Kept, farewell: Arc<Farewell>, successor: bool) -> Result<Infallible> {
    stay_in_memory();
    end_on_panic();
    let Kept { server, sessions } = kept;
    let notices = served::answers_of(&sessions[0]).doing(|| "duplicate the FUSE device".into())?;
    let watch = Arc::new(Watch::new(lab.clone())?);
    let volumes = Volumes::new(lab.clone());
    let serving = Arc::new(Serving { volumes, parked: Parked::default(), watch, notices, farewell });
    for session in sessions {
        serving.spawn("fuse", move |serving| {
            served::serve(session, &serving.volumes, &serving.parked).doing(|| "serve volumes".into())
        })?;
    }
    serving.spawn("parked", |serving| serving.parked.run().doing(|| "serve volumes".into()))?;
    if successor {
        serving.notices.resend().doing(|| "ask for what was not answered".into())?;
    }
    if let Err(error) = serving.watch.refresh() {
        // One server's trouble must not keep the others from their volumes.
        eprintln!("{error}");
    }
    serving.spawn("partitions", |serving| serving.watch.run())?;
    serving.listen(&server)
}

impl Serving {
    /// A thread that ends takes the daemon with it: volumes that nobody serves must fail, not hang.
    fn spawn(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Self) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let serving = self.clone();
        let until_end = move || {
            if let Err(error) = work(&serving) {
                eprintln!("lockstep lab store: {error}");
            }
            serving.farewell.exit()
        };
        let spawned = thread::Builder::new().name(name.into()).spawn(until_end);
        spawned.map(drop).doing(|| "start a thread".into())
    }

    fn listen(self: &Arc<Self>, server: &Server) -> Result<Infallible> {
        let handler = |_: Peer, request: Request| self.answer(request).map_err(|error| error.to_string());
        server.serve(handler).doing(|| "serve the store's socket".into())?;
        Err(Error::refused("the store's socket is closed"))
    }

    fn answer(self: &Arc<Self>, request: Request) -> Result<bool> {
        let of = |volume| move || format!("volume {volume}");
        match request {
            Request::Refresh => self.watch.refresh()?,
            Request::Cut(volume) => {
                self.volumes.cut(volume).doing(of(volume))?;
                // Those that hang meet the cut now, so that whoever waits for them can die.
                self.parked.release(volume);
            }
            Request::Restore { volume, plug } => self.volumes.restore(volume, plug),
            Request::Close(volume) => self.volumes.close(volume),
            Request::ReadFaults(volume) => {
                self.volumes.read_faults(volume).doing(of(volume))?;
                self.parked.release(volume);
            }
            Request::Freeze { volume, tool } => self.freeze(volume, tool)?,
            Request::Thaw(volume) => self.thaw(volume),
            Request::Resize(volume) => {
                for node in self.volumes.resize(volume).doing(of(volume))? {
                    // Attributes only: what is cached of the bytes is right.
                    self.notices.invalidate_inode(node, -1, 0).doing(of(volume))?;
                }
            }
            Request::ExchangeByte { volume, at, expected, new } => {
                return self.volumes.exchange_byte(volume, at, expected, new).doing(of(volume));
            }
        }
        Ok(true)
    }

    /// Lets writes to a volume wait while `tool` lives.
    fn freeze(self: &Arc<Self>, volume: uuid::Uuid, tool: Process) -> Result<()> {
        let Some(alive) = tool.pidfd() else { return Err(Error::refused("the tool is gone")) };
        self.volumes.freeze(volume, true);
        let serving = self.clone();
        let watch = move || {
            let mut fds = [rustix::event::PollFd::new(&alive, rustix::event::PollFlags::IN)];
            let _ = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None));
            serving.thaw(volume);
        };
        // Whoever freezes has the lab's lock, so nobody else froze the volume meanwhile.
        let spawned = thread::Builder::new().name("freeze".into()).spawn(watch);
        spawned.map(drop).doing(|| "start a thread".into()).inspect_err(|_| self.thaw(volume))
    }

    fn thaw(&self, volume: uuid::Uuid) {
        self.volumes.freeze(volume, false);
        self.parked.release(volume);
    }
}

/// A process killed while the kernel copies into a page that is not there fails the request instead of leaving it to
/// its successor; and one that the page cache's writers wait for must not wait for them.
fn stay_in_memory() {
    // SAFETY: calls without pointers. Where they are not granted, what they prevent can happen.
    unsafe {
        libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT);
        libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    }
}

/// A thread that serves no more would let its requests hang; a successor takes them.
fn end_on_panic() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        previous(panic);
        std::process::abort();
    }));
}
