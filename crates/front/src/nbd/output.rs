//! What a client has still to be sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use block::Buffer;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

/// Parts of one sendmsg(2).
const PARTS_MAX: usize = 32;

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Data(Buffer),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Data(buffer) => buffer,
        }
    }
}

/// A queue of bytes, the data among them in the buffers they were read into.
#[derive(Debug, Default)]
pub(super) struct Output {
    parts: VecDeque<Part>,
    /// Of the first part.
    sent: usize,
    bytes: usize,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes - self.sent
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.parts.push_back(Part::Bytes(bytes));
        }
    }

    pub(super) fn push_data(&mut self, data: Buffer) {
        self.bytes += data.len();
        self.parts.push_back(Part::Data(data));
    }

    /// Sends what the socket takes without waiting.
    ///
    /// # Errors
    /// From sendmsg(2), except that the socket is full.
    pub(super) fn send(&mut self, socket: impl AsFd) -> io::Result<()> {
        while !self.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            let mut used = 0;
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(&part.bytes()[if used == 0 { self.sent } else { 0 }..]);
                used += 1;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&socket, &slices[..used], &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => self.advance(sent),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    fn advance(&mut self, sent: usize) {
        self.sent += sent;
        while let Some(first) = self.parts.front() {
            let length = first.bytes().len();
            if self.sent < length {
                break;
            }
            self.sent -= length;
            self.bytes -= length;
            self.parts.pop_front();
        }
    }
}
