//! One client: what it sends, what it is owed, and how much of both there may be.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use block::Buffer;
use rustix::io::Errno;
use units::SectorRange;
use zerocopy::big_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use super::handshake::{Handshake, Step};
use super::output::Output;
use super::proto::{
    CHUNK_DONE, CHUNK_ERROR, CHUNK_OFFSET_DATA, Chunk, DataChunk, ErrorChunk, NbdError, REQUEST_MAGIC,
    RequestHead, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, SimpleReply, command, command_flag,
};
use super::{Export, PAYLOAD_BYTES_MAX};
use crate::extent::{Access, BadExtent, sectors};
use crate::request::Op;

/// Commands of one client on their way at most; it is not listened to beyond that.
const COMMANDS_MAX: usize = 128;

/// Bytes that one client may make wait: payloads and read buffers on their way, and answers it does not fetch.
const BYTES_MAX: usize = 16 << 20;

/// A WRITE too long to be carried out is read and thrown away up to here; beyond it the client is dropped.
const REFUSED_PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Socket reads of one turn, so that no client keeps the others waiting.
const TURN_READS_MAX: usize = 32;

pub(super) type Cookie = [u8; 8];

/// A command that is for the device.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) cookie: Cookie,
    pub(super) op: Op,
    pub(super) payload: Option<Buffer>,
    /// Forced unit access for what has no such flag below: a flush follows before the answer.
    pub(super) flush_after: bool,
}

#[derive(Debug)]
enum Phase {
    Handshake(Handshake),
    Transmission,
    /// Nothing more is read; what is on its way is still answered.
    Closing,
}

/// A WRITE whose payload is on its way in.
#[derive(Debug)]
enum Incoming {
    /// To be carried out when complete.
    Payload { command: Command, buffer: Buffer, have: usize },
    /// To be answered with the error when so many more bytes were read and thrown away.
    Refused { cookie: Cookie, error: NbdError, left: usize },
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    phase: Phase,
    /// Whether READs are answered by structured replies.
    structured: bool,
    head: [u8; size_of::<RequestHead>()],
    head_have: usize,
    incoming: Option<Incoming>,
    output: Output,
    commands: usize,
    command_bytes: usize,
}

/// What to wait for on a connection's socket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Interest {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Connection {
    /// Greets the client.
    pub(super) fn new(socket: UnixStream) -> Self {
        let (handshake, greeting) = Handshake::new();
        let mut output = Output::default();
        output.push(greeting);
        Self {
            socket,
            phase: Phase::Handshake(handshake),
            structured: false,
            head: [0; size_of::<RequestHead>()],
            head_have: 0,
            incoming: None,
            output,
            commands: 0,
            command_bytes: 0,
        }
    }

    fn may_read(&self) -> bool {
        let bytes = self.command_bytes + self.output.len();
        !matches!(self.phase, Phase::Closing) && self.commands < COMMANDS_MAX && bytes < BYTES_MAX
    }

    pub(super) fn interest(&self) -> Interest {
        Interest { readable: self.may_read(), writable: !self.output.is_empty() }
    }

    /// Whether nothing is left to be done for the client.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closing) && self.commands == 0 && self.output.is_empty()
    }

    /// Reads and sends what can be without waiting.
    ///
    /// # Errors
    /// The client is gone or breaks the protocol: the connection is to be dropped.
    pub(super) fn advance(&mut self, export: &Export, commands: &mut Vec<Command>) -> io::Result<()> {
        self.output.send(&self.socket)?;
        for _ in 0..TURN_READS_MAX {
            if !self.may_read() {
                break;
            }
            let read = match self.phase {
                Phase::Handshake(_) => self.read_handshake(export),
                _ => self.read_commands(export, commands),
            };
            match read {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::AGAIN) => break,
                Err(e) if Errno::from_io_error(&e) == Some(Errno::INTR) => {}
                other => other?,
            }
        }
        self.output.send(&self.socket)
    }

    fn read_handshake(&mut self, export: &Export) -> io::Result<()> {
        let Phase::Handshake(handshake) = &mut self.phase else { return Ok(()) };
        let mut bytes = [0; 512];
        let wanted = handshake.wanted().ok_or(io::ErrorKind::InvalidData)?.min(bytes.len());
        let count = rustix::io::read(&self.socket, &mut bytes[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut answer = Vec::new();
        let step = handshake.take(&bytes[..count], export, &mut answer);
        self.output.push(answer);
        match step {
            Step::More => {}
            Step::Transmission { structured } => {
                self.phase = Phase::Transmission;
                self.structured = structured;
            }
            Step::Close => self.phase = Phase::Closing,
        }
        Ok(())
    }

    fn read_commands(&mut self, export: &Export, commands: &mut Vec<Command>) -> io::Result<()> {
        if let Some(Incoming::Refused { cookie, error, left }) = self.incoming {
            return self.throw_away(cookie, error, left);
        }
        // One readv(2) brings the rest of a payload and the head after it.
        let payload: &mut [u8] = match &mut self.incoming {
            Some(Incoming::Payload { buffer, have, .. }) => &mut buffer[*have..],
            _ => &mut [],
        };
        let payload_bytes = payload.len();
        let head = &mut self.head[self.head_have..];
        let count = rustix::io::readv(&self.socket, &mut [IoSliceMut::new(payload), IoSliceMut::new(head)])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.payload_read(count.min(payload_bytes), commands);
        self.head_have += count.saturating_sub(payload_bytes);
        if self.head_have == self.head.len() {
            self.head_have = 0;
            self.head_read(export, commands)?;
        }
        Ok(())
    }

    fn throw_away(&mut self, cookie: Cookie, error: NbdError, left: usize) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        let wanted = left.min(bytes.len());
        let count = rustix::io::read(&self.socket, &mut bytes[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if count < left {
            self.incoming = Some(Incoming::Refused { cookie, error, left: left - count });
        } else {
            self.incoming = None;
            self.refuse(cookie, error);
        }
        Ok(())
    }

    fn payload_read(&mut self, count: usize, commands: &mut Vec<Command>) {
        let Some(Incoming::Payload { mut command, buffer, have }) = self.incoming.take() else { return };
        let have = have + count;
        if have < buffer.len() {
            self.incoming = Some(Incoming::Payload { command, buffer, have });
        } else {
            command.payload = Some(buffer);
            self.submit(command, commands);
        }
    }

    fn head_read(&mut self, export: &Export, commands: &mut Vec<Command>) -> io::Result<()> {
        let Ok(head) = RequestHead::read_from_bytes(&self.head) else { return Ok(()) };
        if head.magic.get() != REQUEST_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if head.command.get() == command::DISC {
            self.phase = Phase::Closing;
            return Ok(());
        }
        let is_write = head.command.get() == command::WRITE;
        let cookie = head.cookie;
        match operation(&head, export) {
            Err(_) if is_write && head.length.get() > REFUSED_PAYLOAD_BYTES_MAX => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Err(error) if is_write && head.length.get() > 0 => {
                let left = head.length.get() as usize;
                self.incoming = Some(Incoming::Refused { cookie, error, left });
            }
            Err(error) if head.command.get() == command::READ => self.refuse_read(cookie, error),
            Err(error) => self.refuse(cookie, error),
            // Nothing was written here, so nothing needs to be made durable.
            Ok((Op::Flush, _)) if export.access == Access::ReadOnly => self.done(cookie),
            Ok((op, flush_after)) => {
                let command = Command { cookie, op, payload: None, flush_after };
                if is_write {
                    let buffer = Buffer::new(head.length.get() as usize);
                    self.incoming = Some(Incoming::Payload { command, buffer, have: 0 });
                } else {
                    self.submit(command, commands);
                }
            }
        }
        Ok(())
    }

    fn submit(&mut self, command: Command, commands: &mut Vec<Command>) {
        self.commands += 1;
        self.command_bytes += held_bytes(&command.op);
        commands.push(command);
    }

    /// A command of this connection is no longer on its way.
    fn completed(&mut self, op: &Op) {
        self.commands -= 1;
        self.command_bytes -= held_bytes(op);
    }

    /// Answers a command that came with `submit`, in this or an earlier turn.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn answer(
        &mut self,
        cookie: Cookie,
        op: &Op,
        outcome: Result<Option<Buffer>, NbdError>,
    ) -> io::Result<()> {
        self.completed(op);
        match (op, outcome) {
            (Op::Read(range), Ok(Some(data))) if data.len() as u64 >= range.bytes() => {
                self.read_done(cookie, *range, data);
            }
            (Op::Read(_), Ok(_)) => self.refuse_read(cookie, NbdError::IO),
            (Op::Read(_), Err(error)) => self.refuse_read(cookie, error),
            (_, Ok(_)) => self.done(cookie),
            (_, Err(error)) => self.refuse(cookie, error),
        }
        self.output.send(&self.socket)
    }

    fn read_done(&mut self, cookie: Cookie, range: SectorRange, mut data: Buffer) {
        // `submit` bounds a read far below 4 GiB.
        let bytes = range.bytes() as usize;
        data.set_len(bytes);
        if self.structured {
            let length = ((bytes + size_of::<U64>()) as u32).into();
            let chunk = Chunk {
                magic: STRUCTURED_REPLY_MAGIC.into(),
                flags: CHUNK_DONE.into(),
                kind: CHUNK_OFFSET_DATA.into(),
                cookie,
                length,
            };
            self.output.push(DataChunk { chunk, offset: range.byte_offset().into() }.as_bytes().to_vec());
        } else {
            self.done(cookie);
        }
        self.output.push_data(data);
    }

    fn done(&mut self, cookie: Cookie) {
        self.refuse(cookie, NbdError(0));
    }

    fn refuse(&mut self, cookie: Cookie, error: NbdError) {
        let reply = SimpleReply { magic: SIMPLE_REPLY_MAGIC.into(), error: error.0.into(), cookie };
        self.output.push(reply.as_bytes().to_vec());
    }

    /// Only a structured reply may end a READ once they are agreed on.
    fn refuse_read(&mut self, cookie: Cookie, error: NbdError) {
        if !self.structured {
            return self.refuse(cookie, error);
        }
        let length = ((size_of::<ErrorChunk>() - size_of::<Chunk>()) as u32).into();
        let chunk = Chunk {
            magic: STRUCTURED_REPLY_MAGIC.into(),
            flags: CHUNK_DONE.into(),
            kind: CHUNK_ERROR.into(),
            cookie,
            length,
        };
        let error = ErrorChunk { chunk, error: error.0.into(), message_length: 0.into() };
        self.output.push(error.as_bytes().to_vec());
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Memory that a command holds until it is answered.
fn held_bytes(op: &Op) -> usize {
    match op {
        Op::Read(range) | Op::Write { range, .. } => range.bytes() as usize,
        Op::Flush | Op::Discard(_) | Op::WriteZeroes { .. } => 0,
    }
}

/// What the device is asked, and whether a flush must follow it; or the answer that needs no device.
fn operation(head: &RequestHead, export: &Export) -> Result<(Op, bool), NbdError> {
    let (kind, flags) = (head.command.get(), head.flags.get());
    let known = match kind {
        command::READ => command_flag::DF | command_flag::FUA,
        command::WRITE | command::TRIM | command::FLUSH => command_flag::FUA,
        command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
        _ => return Err(NbdError::INVAL),
    };
    if flags & !known != 0 {
        return Err(NbdError::INVAL);
    }
    if kind == command::FLUSH {
        return Ok((Op::Flush, false));
    }
    if kind != command::READ && export.access == Access::ReadOnly {
        return Err(NbdError::PERM);
    }
    let range =
        sectors(head.offset.get(), u64::from(head.length.get()), export.size_bytes).map_err(|bad| {
            // Writing beyond the end is running out of space, by the protocol.
            let beyond = if kind == command::READ { NbdError::INVAL } else { NbdError::NOSPC };
            if bad == BadExtent::OutOfRange { beyond } else { NbdError::INVAL }
        })?;
    let fua = flags & command_flag::FUA != 0;
    let (op, flush_after) = match kind {
        command::READ => (Op::Read(range), false),
        command::WRITE => (Op::Write { range, fua }, false),
        command::TRIM => (Op::Discard(range), fua),
        _ => (Op::WriteZeroes { range, may_unmap: flags & command_flag::NO_HOLE == 0 }, fua),
    };
    if matches!(kind, command::READ | command::WRITE) && head.length.get() > PAYLOAD_BYTES_MAX {
        return Err(NbdError::INVAL);
    }
    Ok((op, flush_after))
}
