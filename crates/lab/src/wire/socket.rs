//! One end of a wire: a packet socket on one interface of the fabric.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What stands before each frame: `struct virtio_net_hdr`. It says where a checksum is still to be filled in, and so
/// lets frames pass whose sender left that to the card.
pub const HEADER_BYTES: usize = 10;

/// The longest frame with its header: segmentation offload makes 64 KiB of payload.
const FRAME_BYTES_MAX: usize = (64 << 10) + 256;

/// What the kernel keeps for us while we do not run.
const RECEIVE_BUFFER_BYTES: libc::c_int = 8 << 20;

/// A socket that hears what comes in by one interface, and sends through it.
#[derive(Debug)]
pub struct End {
    socket: OwnedFd,
    index: u32,
}

/// The number of an interface in this thread's namespace; none if it is not there.
pub fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the string ends with NUL and lives through the call.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|&index| index != 0)
}

impl End {
    /// On the interface of this number.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(index: u32) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked before it is used. Protocol 0 hears nothing before it is bound.
        let raw = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // SAFETY: all-zero bytes are a valid value of this C structure.
        let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_ll>() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as libc::c_int;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer is to a live local of the length that is given.
        if unsafe { libc::bind(raw, (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, index })
    }

    /// The number of its interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The next frame, with its header; none if there is none now, or the cable is pulled or gone.
    pub fn receive(&self, scratch: &mut Vec<u8>) -> Option<Vec<u8>> {
        scratch.resize(FRAME_BYTES_MAX, 0);
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let (_, length) = rustix::net::recv(&self.socket, scratch.as_mut_slice(), flags).ok()?;
        scratch.get(..length).filter(|frame| frame.len() > HEADER_BYTES).map(<[u8]>::to_vec)
    }

    /// Sends a frame with its header. One that the interface does not take now is lost, as on a full card.
    pub fn send(&self, frame: &[u8]) {
        let _ = rustix::net::send(&self.socket, frame, rustix::net::SendFlags::DONTWAIT);
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live local of the length that is given.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
