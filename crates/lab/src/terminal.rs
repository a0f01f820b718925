//! A terminal in a server, carried to the terminal of whoever called.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

const CHUNK_BYTES: usize = 16 << 10;

/// In the command's process: opens a terminal in the server's own /dev/pts, makes it the controlling one and
/// standard input and output, and sends its other end to the caller.
///
/// # Errors
/// The system's refusal.
pub fn open_and_send(namespaces: &OwnedFd, caller: &UnixStream) -> io::Result<()> {
    move_into_thread_name_spaces(namespaces.as_fd(), ThreadNameSpaceType::MOUNT)?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        tcsetwinsize(&slave, size)?;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(caller, &[IoSlice::new(b"t")], &mut ancillary, SendFlags::empty())?;
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)?;
    Ok(())
}

/// The terminal that the command's process sends.
///
/// # Errors
/// It failed before it sent one.
pub fn receive(command: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(command, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// Our terminal without line editing, echo and signals; put back on drop.
struct Raw {
    before: Termios,
}

impl Raw {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Carries bytes and window sizes between our terminal and the server's until nobody has that one open.
///
/// # Errors
/// Our own terminal failed.
pub fn carry(master: BorrowedFd<'_>) -> io::Result<()> {
    let _raw = Raw::new()?;
    let resized = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    signal_hook::flag::register(signal_hook::consts::SIGWINCH, resized.clone())?;
    let mut chunk = [0; CHUNK_BYTES];
    let mut stdin_open = true;
    loop {
        if resized.swap(false, std::sync::atomic::Ordering::Relaxed)
            && let Ok(size) = tcgetwinsize(rustix::stdio::stdin())
        {
            // The command may be gone: the next read says so.
            let _ = tcsetwinsize(master, size);
        }
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::from_borrowed_fd(master, PollFlags::IN)];
        if stdin_open {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => drop(ready?),
        }
        let input = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if !fds[0].revents().is_empty() {
            match rustix::io::read(master, &mut chunk) {
                // EIO: the last process that had the terminal open is gone.
                Ok(0) | Err(rustix::io::Errno::IO) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                count => write_all(rustix::stdio::stdout(), &chunk[..count?])?,
            }
        }
        if input {
            match rustix::io::read(stdin, &mut chunk)? {
                0 => stdin_open = false,
                // EIO here too: the next read of the terminal ends the loop.
                count => drop(write_all(master, &chunk[..count])),
            }
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Err(rustix::io::Errno::INTR) => {}
            count => bytes = &bytes[count?..],
        }
    }
    Ok(())
}
