//! The store daemon.

use std::io::Write;
use std::sync::Arc;
use std::thread;

use control::{Peer, Server};

use super::files::Volumes;
use super::watch::Watch;
use super::{Reply, Request, served};
use crate::error::{Doing, Error, Result};
use crate::place::Lab;

/// One thread for each processor up to this many, each with a FUSE descriptor of its own.
const THREADS_MAX: usize = 4;

/// Runs as the daemon, until it is killed. Says `up`, or why not, as one line on stdout, which it then closes.
///
/// # Errors
/// It cannot start, or its socket fails.
pub fn run(lab: &Lab) -> Result<()> {
    // Whoever started this must be able to leave with its terminal.
    let _ = rustix::process::setsid();
    let started = Started::new(lab);
    let line = started.as_ref().map_or_else(|error| error.to_string().replace('\n', "; "), |_| "up".into());
    // A starter that was interrupted does not read it.
    let _ = writeln!(std::io::stdout(), "{line}");
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
    started?.serve()
}

struct Started {
    server: Server,
    volumes: Arc<Volumes>,
    watch: Arc<Watch>,
}

impl Started {
    fn new(lab: &Lab) -> Result<Self> {
        let mount = lab.store_mount();
        std::fs::create_dir_all(&mount).doing(|| format!("create {}", mount.display()))?;
        let server = Server::bind(&lab.store_socket()).map_err(|error| Error::refused(error.to_string()))?;
        let watch = Arc::new(Watch::new(lab.clone())?);
        if let Err(error) = watch.refresh() {
            // One server's trouble must not keep the others from their volumes.
            eprintln!("{error}");
        }
        let volumes = Arc::new(Volumes::new(lab.clone()));
        let session = served::mount(&mount).doing(|| format!("mount the store on {}", mount.display()))?;
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for _ in 1..threads {
            let another = session.another().doing(|| "clone the FUSE device".into())?;
            spawn_server(another, &volumes)?;
        }
        spawn_server(session, &volumes)?;
        let watching = watch.clone();
        thread::Builder::new()
            .name("partitions".into())
            .spawn(move || report(watching.run()))
            .doing(|| "start a thread".into())?;
        Ok(Self { server, volumes, watch })
    }

    fn serve(self) -> Result<()> {
        let handler = |_: Peer, request: Request| -> Reply {
            match request {
                Request::Refresh => self.watch.refresh().map_err(|error| error.to_string()),
                Request::Cut(volume) => self.volumes.cut(volume).map_err(|error| error.to_string()),
                Request::Restore(volume) => {
                    self.volumes.restore(volume);
                    Ok(())
                }
                Request::Close(volume) => {
                    self.volumes.close(volume);
                    Ok(())
                }
            }
        };
        self.server.serve(handler).doing(|| "serve the store's socket".into())
    }
}

fn spawn_server(session: fuse::Session, volumes: &Arc<Volumes>) -> Result<()> {
    let volumes = volumes.clone();
    thread::Builder::new()
        .name("fuse".into())
        .spawn(move || report(served::serve(session, &volumes).doing(|| "serve volumes".into())))
        .map(drop)
        .doing(|| "start a thread".into())
}

/// A thread that ends takes the daemon with it: volumes that nobody serves must fail, not hang.
fn report(ended: Result<()>) {
    if let Err(error) = ended {
        eprintln!("lockstep lab store: {error}");
    }
    std::process::exit(1);
}
