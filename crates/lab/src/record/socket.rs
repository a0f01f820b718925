//! A packet socket that hears every cable of the lab's fabric.

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::pcapng::Direction;
use crate::error::{Doing, Result};
use crate::place::{Lab, NETNS_ROOT};

/// Frames that wait for us in the kernel, in bytes; what comes when it is full is dropped and counted.
const QUEUE_BYTES: libc::c_int = 32 << 20;

/// The longest frame that is kept whole; what servers send at once for the kernel to cut is at most 64 KiB.
pub const FRAME_BYTES_MAX: u32 = 128 << 10;

/// A frame as the socket gives it; its bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The fabric's interface.
    pub interface: u32,
    /// Nanoseconds since 1970, by the kernel.
    pub at_unix_ns: u64,
    /// As the server at the other end of the cable sees it.
    pub direction: Direction,
    /// Bytes in the buffer.
    pub kept_bytes: usize,
    /// Length before it was cut to the buffer.
    pub wire_bytes: u32,
}

/// The socket, and which namespace it is in: a lab that goes down and comes up again has another one.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    namespace: (u64, u64),
}

fn namespace_path(lab: &Lab) -> PathBuf {
    PathBuf::from(NETNS_ROOT).join(lab.fabric())
}

fn namespace(lab: &Lab) -> Option<(u64, u64)> {
    let about = std::fs::metadata(namespace_path(lab)).ok()?;
    Some((about.dev(), about.ino()))
}

impl Socket {
    /// Listens in the lab's fabric; none if the lab has none at the moment.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(lab: &Lab) -> Result<Option<Self>> {
        // Between `ip netns add`'s two steps the name is a plain file.
        let Ok(fabric) = File::open(namespace_path(lab)) else { return Ok(None) };
        let Some(namespace) = namespace(lab) else { return Ok(None) };
        let home = File::open("/proc/thread-self/ns/net").doing(|| "find our own namespace".into())?;
        if move_into_link_name_space(fabric.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            return Ok(None);
        }
        let opened = packet_socket();
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
            .doing(|| "leave the fabric".into())?;
        let descriptor = opened.doing(|| "open a packet socket in the fabric".into())?;
        Ok(Some(Self { descriptor, namespace }))
    }

    /// Whether the lab's fabric is still the one that this socket hears.
    pub fn is_current(&self, lab: &Lab) -> bool {
        namespace(lab) == Some(self.namespace)
    }

    /// The descriptor, to wait on.
    pub fn as_fd(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// The next frame that waits, if one does.
    ///
    /// # Errors
    /// The system's; a cable that is pulled is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
        // SAFETY: all-zero bytes are valid values of these C structures.
        let (mut from, mut message) = unsafe { (zeroed::<libc::sockaddr_ll>(), zeroed::<libc::msghdr>()) };
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = [0_u64; 8];
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: every pointer in `message` is to a live local of the length given beside it.
        let length = unsafe { libc::recvmsg(self.descriptor.as_raw_fd(), &raw mut message, flags) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Ok(None),
                _ => Err(error),
            };
        }
        let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
        Ok(Some(Arrival {
            interface: from.sll_ifindex as u32,
            at_unix_ns: timestamp(&message),
            // What leaves the bridge arrives at the server.
            direction: if outgoing { Direction::Inbound } else { Direction::Outbound },
            kept_bytes: (length as usize).min(buffer.len()),
            wire_bytes: length as u32,
        }))
    }

    /// The name of an interface in the fabric; none if it is gone.
    pub fn name_of(&self, interface: u32) -> Option<String> {
        // SAFETY: all-zero bytes are a valid value of this C structure.
        let mut request = unsafe { zeroed::<libc::ifreq>() };
        request.ifr_ifru.ifru_ifindex = interface as libc::c_int;
        // SAFETY: SIOCGIFNAME reads the index and writes a name of at most IFNAMSIZ bytes, into a live local.
        let done = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) };
        let name: Vec<u8> =
            request.ifr_name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
        (done == 0).then(|| String::from_utf8_lossy(&name).into_owned())
    }

    /// Frames that were dropped since the last call because the queue was full.
    pub fn take_dropped(&self) -> u64 {
        // SAFETY: all-zero bytes are a valid value of this C structure.
        let mut statistics = unsafe { zeroed::<libc::tpacket_stats>() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into a live local of that length.
        let done = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if done == 0 { u64::from(statistics.tp_drops) } else { 0 }
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers; the result is checked before it is used.
    let raw =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let options = [(libc::SO_TIMESTAMPNS, 1), (libc::SO_RCVBUFFORCE, QUEUE_BYTES)];
    for (option, value) in options {
        let value: libc::c_int = value;
        // SAFETY: the pointer is to a live local of the length that is given.
        let done = unsafe {
            libc::setsockopt(
                raw,
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

/// The kernel's time of a message; 0 if it gave none.
fn timestamp(message: &libc::msghdr) -> u64 {
    // SAFETY: recvmsg filled `message` in; the macros stay within its control buffer, which is aligned for them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(about) = header.as_ref() {
            if about.cmsg_level == libc::SOL_SOCKET && about.cmsg_type == libc::SCM_TIMESTAMPNS {
                let at = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                return at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64;
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    0
}
