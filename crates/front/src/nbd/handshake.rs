//! Fixed newstyle negotiation: bytes in, bytes out.

use zerocopy::{FromBytes, IntoBytes};

use super::Export;
use super::proto::{
    ExportReply, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Greeting, INIT_MAGIC, InfoBlockSize, InfoExport,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHead, OptionReply, info, option, reply, transmission,
};

/// More data than any option needs (a name has at most 4096 bytes).
const OPTION_BYTES_MAX: usize = 64 << 10;

const MINIMUM_BLOCK_BYTES: u32 = 512;
const PREFERRED_BLOCK_BYTES: u32 = 4096;

/// Where the negotiation stands.
#[derive(Debug)]
pub(super) struct Handshake {
    input: Vec<u8>,
    greeted: bool,
    no_zeroes: bool,
    structured: bool,
}

/// What follows from the bytes so far.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Negotiation goes on.
    More,
    /// Commands follow; with structured replies or without.
    Transmission { structured: bool },
    /// The client is done, or not to be talked to.
    Close,
}

fn transmission_flags(export: &Export, structured: bool) -> u16 {
    let base = transmission::HAS_FLAGS
        | transmission::SEND_FLUSH
        | transmission::SEND_FUA
        | transmission::CAN_MULTI_CONN;
    let writing = if export.access == crate::Access::ReadOnly {
        transmission::READ_ONLY
    } else {
        transmission::SEND_TRIM | transmission::SEND_WRITE_ZEROES
    };
    base | writing | if structured { transmission::SEND_DF } else { 0 }
}

fn answer(output: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).expect("replies are built here and small");
    let head = OptionReply {
        magic: OPTION_REPLY_MAGIC.into(),
        option: option.into(),
        kind: kind.into(),
        length: length.into(),
    };
    output.extend_from_slice(head.as_bytes());
    output.extend_from_slice(data);
}

/// A string with its length in 32 bits before it; gives the rest too.
fn counted(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = zerocopy::big_endian::U32::read_from_prefix(data).ok()?;
    rest.split_at_checked(length.get() as usize)
}

impl Handshake {
    /// A new negotiation, and what the server says first.
    pub(super) fn new() -> (Self, Vec<u8>) {
        let greeting = Greeting {
            init_magic: INIT_MAGIC.into(),
            option_magic: OPTION_MAGIC.into(),
            flags: (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).into(),
        };
        let handshake = Self { input: Vec::new(), greeted: false, no_zeroes: false, structured: false };
        (handshake, greeting.as_bytes().to_vec())
    }

    /// Bytes to be read next, never more than belong to the negotiation; None where the client asks too much.
    pub(super) fn wanted(&self) -> Option<usize> {
        let whole = match OptionHead::ref_from_prefix(&self.input) {
            _ if !self.greeted => size_of::<u32>(),
            Err(_) => size_of::<OptionHead>(),
            Ok((head, _)) if head.length.get() as usize <= OPTION_BYTES_MAX => {
                size_of::<OptionHead>() + head.length.get() as usize
            }
            Ok(_) => return None,
        };
        Some(whole.saturating_sub(self.input.len()))
    }

    /// Takes bytes, at most `wanted`.
    pub(super) fn take(&mut self, bytes: &[u8], export: &Export, output: &mut Vec<u8>) -> Step {
        self.input.extend_from_slice(bytes);
        match self.wanted() {
            None => Step::Close,
            Some(0) if !self.greeted => self.client_flags(),
            Some(0) => self.option(export, output),
            Some(_) => Step::More,
        }
    }

    fn client_flags(&mut self) -> Step {
        let known = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        let flags =
            zerocopy::big_endian::U32::read_from_bytes(&self.input).map_or(u32::MAX, |flags| flags.get());
        self.input.clear();
        self.greeted = true;
        self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        if flags & !known == 0 { Step::More } else { Step::Close }
    }

    fn option(&mut self, export: &Export, output: &mut Vec<u8>) -> Step {
        let input = std::mem::take(&mut self.input);
        let Ok((head, data)) = OptionHead::ref_from_prefix(&input) else { return Step::Close };
        if head.magic.get() != OPTION_MAGIC {
            return Step::Close;
        }
        let option = head.option.get();
        match option {
            option::EXPORT_NAME => return self.export_name(data, export, output),
            option::ABORT => {
                answer(output, option, reply::ACK, &[]);
                return Step::Close;
            }
            option::INFO | option::GO => return self.go(option, data, export, output),
            option::LIST if data.is_empty() => {
                let name = export.name.as_bytes();
                let length = u32::try_from(name.len()).expect("a name is at most 4096 bytes");
                answer(output, option, reply::SERVER, &[&length.to_be_bytes(), name].concat());
                answer(output, option, reply::ACK, &[]);
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                answer(output, option, reply::ACK, &[]);
            }
            // No context is known: what is allocated below would have to be asked of every disk of the mirror. An
            // empty list is the protocol's way to say so.
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                let kind = self.meta_contexts(data, export);
                answer(output, option, kind, &[]);
            }
            option::LIST | option::STRUCTURED_REPLY => answer(output, option, reply::ERR_INVALID, &[]),
            _ => answer(output, option, reply::ERR_UNSUP, &[]),
        }
        Step::More
    }

    fn meta_contexts(&self, data: &[u8], export: &Export) -> u32 {
        match counted(data) {
            Some((name, _)) if self.structured && export.is_named(name) => reply::ACK,
            Some((name, _)) if !export.is_named(name) => reply::ERR_UNKNOWN,
            _ => reply::ERR_INVALID,
        }
    }

    /// EXPORT_NAME has no way to say no.
    fn export_name(&self, name: &[u8], export: &Export, output: &mut Vec<u8>) -> Step {
        if !export.is_named(name) {
            return Step::Close;
        }
        let flags = transmission_flags(export, self.structured).into();
        output.extend_from_slice(ExportReply { size_bytes: export.size_bytes.into(), flags }.as_bytes());
        output.resize(output.len() + if self.no_zeroes { 0 } else { 124 }, 0);
        Step::Transmission { structured: self.structured }
    }

    fn go(&self, option: u32, data: &[u8], export: &Export, output: &mut Vec<u8>) -> Step {
        let asked = counted(data).and_then(|(name, rest)| {
            let (count, kinds) = zerocopy::big_endian::U16::read_from_prefix(rest).ok()?;
            (kinds.len() == usize::from(count.get()) * 2).then_some((name, kinds))
        });
        let Some((name, kinds)) = asked else {
            answer(output, option, reply::ERR_INVALID, &[]);
            return Step::More;
        };
        if !export.is_named(name) {
            answer(output, option, reply::ERR_UNKNOWN, &[]);
            return Step::More;
        }
        let flags = transmission_flags(export, self.structured).into();
        let about = InfoExport { kind: info::EXPORT.into(), size_bytes: export.size_bytes.into(), flags };
        answer(output, option, reply::INFO, about.as_bytes());
        if kinds.chunks(2).any(|kind| kind == info::NAME.to_be_bytes()) {
            answer(
                output,
                option,
                reply::INFO,
                &[&info::NAME.to_be_bytes(), export.name.as_bytes()].concat(),
            );
        }
        let sizes = InfoBlockSize {
            kind: info::BLOCK_SIZE.into(),
            minimum: MINIMUM_BLOCK_BYTES.into(),
            preferred: PREFERRED_BLOCK_BYTES.into(),
            maximum: super::PAYLOAD_BYTES_MAX.into(),
        };
        answer(output, option, reply::INFO, sizes.as_bytes());
        answer(output, option, reply::ACK, &[]);
        if option == option::GO { Step::Transmission { structured: self.structured } } else { Step::More }
    }
}
