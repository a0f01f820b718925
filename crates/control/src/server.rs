//! The daemon's end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Answer;
use crate::error::ControlError;
use crate::frame;
use crate::hello::{self, CLIENT_HELLO_BYTES, Verdict, Versions};

/// Clients served at a time; one more is told so and closed.
pub const CLIENTS_MAX: usize = 64;

/// Time for a greeting, for a frame once begun, and for a client to take its answer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

const BACKLOG: i32 = 64;

/// Who is at the other end of a connection, by `SO_PEERCRED`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Process; 0 if it lives in a process namespace that we do not see.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Peer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the pointers are to live locals, and `length` is the size of the one the kernel writes to.
        let rc = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                credentials.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: three integers, all zero before the kernel wrote them; any value is valid.
        let credentials = unsafe { credentials.assume_init() };
        Ok(Self { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid })
    }

    fn may_command(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

/// Ends a [`Server::serve`] from any thread, the handler's own included: its answer still goes out.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Lets `serve` return once the requests now in the handler are answered.
    pub fn stop(&self) {
        // The counter is only ever added to, so that every thread that polls it sees it; it cannot overflow.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// A listening control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    stop: Arc<OwnedFd>,
}

impl Server {
    /// Listens on `path`, mode 0600. A socket that a dead daemon left there is replaced.
    ///
    /// # Errors
    /// [`ControlError::AlreadyServed`] if somebody listens there, else the system's refusal.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let system = |step| {
            move |source: rustix::io::Errno| ControlError::System {
                step,
                path: path.into(),
                source: source.into(),
            }
        };
        // The directory's lock makes probing, removing and binding one step among daemons that start together.
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = File::open(directory).map_err(|source| ControlError::System {
            step: "open directory of",
            path: path.into(),
            source,
        })?;
        flock(&directory, FlockOperation::LockExclusive).map_err(system("lock directory of"))?;
        remove_stale(path)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(system("make socket for"))?;
        // On Linux a unix socket's inode takes its mode from the descriptor, so there is no moment of a wider one.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(system("set mode of"))?;
        let address = SocketAddrUnix::new(path).map_err(system("name socket"))?;
        rustix::net::bind(&socket, &address).map_err(system("bind"))?;
        rustix::net::listen(&socket, BACKLOG).map_err(system("listen on"))?;
        Self::over(UnixListener::from(socket), path)
    }

    /// Serves a listening socket that was inherited, from a predecessor or from socket activation.
    ///
    /// # Errors
    /// [`ControlError::NotAListener`] if the descriptor is anything else.
    pub fn inherit(socket: OwnedFd) -> Result<Self, ControlError> {
        let is_listener = sockopt::socket_acceptconn(&socket) == Ok(true)
            && sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
        if !is_listener {
            return Err(ControlError::NotAListener);
        }
        Self::over(UnixListener::from(socket), Path::new("inherited socket"))
    }

    fn over(listener: UnixListener, path: &Path) -> Result<Self, ControlError> {
        let system = |step| move |source: io::Error| ControlError::System { step, path: path.into(), source };
        listener.set_nonblocking(true).map_err(system("set mode of"))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| system("make event for")(errno.into()))?;
        Ok(Self { listener, stop: Arc::new(stop) })
    }

    /// What ends [`Server::serve`].
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Serves clients, a thread each, until stopped; returns when the last of them has its answer. A client's fault
    /// ends that client's connection only.
    ///
    /// # Errors
    /// Only what ends the socket as a whole.
    pub fn serve<Q, R, H>(&self, handler: H) -> io::Result<()>
    where
        Q: DeserializeOwned,
        R: Serialize,
        H: Fn(Peer, Q) -> R + Send + Sync,
    {
        let clients = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            while !self.stopped_before_readable(self.listener.as_fd())? {
                let stream = match self.listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(e) if is_passing(&e) => continue,
                    Err(e) if is_exhaustion(&e) => {
                        self.pause_for_resources()?;
                        continue;
                    }
                    Err(e) => return Err(e),
                };
                let Ok(peer) = Peer::of(&stream) else { continue };
                if !peer.may_command() {
                    dismiss(stream, Verdict::NotPermitted);
                } else if clients.load(Ordering::Acquire) >= CLIENTS_MAX {
                    dismiss(stream, Verdict::TooManyClients);
                } else {
                    let place = Place::take(&clients);
                    let handler = &handler;
                    let spawned =
                        std::thread::Builder::new().name("control".into()).spawn_scoped(scope, move || {
                            let _place = place;
                            // What the client did wrong was told to it, or it is gone.
                            let _ = self.serve_client(stream, peer, handler);
                        });
                    if spawned.is_err() {
                        self.pause_for_resources()?;
                    }
                }
            }
            Ok(())
        })
    }

    fn serve_client<Q, R, H>(
        &self,
        mut stream: UnixStream,
        peer: Peer,
        handler: &H,
    ) -> Result<(), ControlError>
    where
        Q: DeserializeOwned,
        R: Serialize,
        H: Fn(Peer, Q) -> R,
    {
        let timeout = Some(TRANSFER_TIMEOUT);
        let fault = |source| ControlError::transfer("greeting", timeout, source);
        stream.set_nonblocking(false).map_err(fault)?;
        stream.set_read_timeout(timeout).map_err(fault)?;
        stream.set_write_timeout(timeout).map_err(fault)?;
        let mut greeting = [0; CLIENT_HELLO_BYTES];
        stream.read_exact(&mut greeting).map_err(fault)?;
        let verdict = hello::judge_client(Versions::OURS, &greeting)?;
        stream.write_all(&hello::server_hello(Versions::OURS, verdict)).map_err(fault)?;
        if verdict != Verdict::Welcome {
            return Ok(());
        }
        while !self.stopped_before_readable(stream.as_fd()).map_err(fault)? {
            let request = frame::receive(&mut stream, "request", timeout)?;
            let answer = match frame::decode("request", &request) {
                Ok(request) => Answer::Reply(handler(peer, request)),
                Err(error) => Answer::NotUnderstood(error.to_string()),
            };
            frame::send(&mut stream, "answer", timeout, &answer)?;
        }
        Ok(())
    }

    /// Lets a moment pass when descriptors or threads ran out, so that the wait for them is not a busy one.
    fn pause_for_resources(&self) -> io::Result<()> {
        let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        match poll(&mut [PollFd::new(&*self.stop, PollFlags::IN)], Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until `fd` is readable or the server is stopped; true if stopped.
    fn stopped_before_readable(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        loop {
            let mut fds =
                [PollFd::new(&*self.stop, PollFlags::IN), PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
                Ok(_) => {}
            }
        }
    }
}

impl AsFd for Server {
    /// The listening socket, for handing it over.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// One of the [`CLIENTS_MAX`] places; given back when dropped, also by a handler that panics.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(clients: &'a AtomicUsize) -> Self {
        clients.fetch_add(1, Ordering::AcqRel);
        Self(clients)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tells a client that it is not served. Sixteen bytes fit into any socket's buffer: this does not block.
fn dismiss(mut stream: UnixStream, verdict: Verdict) {
    let _ = stream.write_all(&hello::server_hello(Versions::OURS, verdict));
}

/// Whether an error of `accept` concerns one connection or one moment only.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

/// Whether an error of `accept` may pass when others give descriptors or memory back.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let system = |step, source| ControlError::System { step, path: PathBuf::from(path), source };
    match UnixStream::connect(path) {
        Ok(_) => Err(ControlError::AlreadyServed { path: path.into() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            let metadata = std::fs::symlink_metadata(path).map_err(|e| system("look at", e))?;
            // A file that is no socket refuses as well; it is not ours to remove.
            if !std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) {
                return Err(system("replace", io::Error::other("exists and is not a socket")));
            }
            std::fs::remove_file(path).map_err(|e| system("remove stale", e))
        }
        Err(e) => Err(system("probe", e)),
    }
}
