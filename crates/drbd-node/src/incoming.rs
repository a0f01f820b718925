//! Bytes of a socket become packets. Payload lands in its aligned buffer: a long one is read into place, of a short one
//! the copy costs less than a call of its own would.

use block::Buffer;
use drbd_format::Malformed;
use drbd_format::auth::Digest;
use drbd_format::wire::{Agreed, Command, Header, Packet, body_bytes};

/// Bytes read ahead at most: many packets in one call.
const STAGING_BYTES: usize = 64 << 10;

/// What is missing of a payload is read into place if it is at least so long.
const DIRECT_BYTES_MIN: usize = 16 << 10;

/// A packet that has arrived whole.
#[derive(Debug)]
pub struct Received {
    /// Volume of its header.
    pub volume: u16,
    /// Its header and body.
    pub packet: Packet,
    /// What follows the body.
    pub payload: Option<Buffer>,
    /// The payload is not what the digest in front of it was computed of.
    pub is_altered: bool,
}

#[derive(Debug)]
struct Partial {
    volume: u16,
    packet: Packet,
    /// What the payload's digest must be.
    digest: Option<(Digest, Vec<u8>)>,
    buffer: Buffer,
    filled: usize,
}

/// The receiving side of one socket.
#[derive(Debug)]
pub struct Incoming {
    staging: Box<[u8]>,
    start: usize,
    end: usize,
    partial: Option<Partial>,
    /// How packets are to be understood from the next one on.
    pub agreed: Agreed,
    /// The digest that protected packets carry from the next one on.
    pub integrity: Option<Digest>,
}

impl Incoming {
    /// Nothing has arrived.
    pub fn new(agreed: Agreed) -> Self {
        Self {
            staging: vec![0; STAGING_BYTES].into(),
            start: 0,
            end: 0,
            partial: None,
            agreed,
            integrity: None,
        }
    }

    /// The payload whose missing part is read into place.
    fn direct(&mut self) -> Option<&mut Partial> {
        self.partial.as_mut().filter(|p| p.buffer.len() - p.filled >= DIRECT_BYTES_MIN)
    }

    /// Where the next bytes belong; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        // `next_packet` leaves nothing staged behind a payload that is not whole.
        if self.direct().is_some()
            && let Some(partial) = &mut self.partial
        {
            return &mut partial.buffer[partial.filled..];
        }
        if self.start > 0 {
            self.staging.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.staging[self.end..]
    }

    /// So many bytes were put into `space`.
    pub fn filled(&mut self, bytes: usize) {
        match self.direct() {
            Some(partial) => partial.filled += bytes,
            None => self.end += bytes,
        }
    }

    /// The next packet, if it has arrived whole.
    ///
    /// # Errors
    /// If the bytes are no packet; the stream cannot be understood any further.
    pub fn next_packet(&mut self) -> Result<Option<Received>, Malformed> {
        if self.partial.is_none() && !self.begin()? {
            return Ok(None);
        }
        if let Some(partial) = &mut self.partial {
            let wanted = partial.buffer.len() - partial.filled;
            let here = wanted.min(self.end - self.start);
            partial.buffer[partial.filled..partial.filled + here]
                .copy_from_slice(&self.staging[self.start..self.start + here]);
            partial.filled += here;
            self.start += here;
            if partial.filled < partial.buffer.len() {
                return Ok(None);
            }
        }
        Ok(self.partial.take().map(|Partial { volume, packet, digest, buffer, .. }| {
            let is_altered = digest.is_some_and(|(alg, expected)| alg.of(&buffer) != expected);
            let payload = (!buffer.is_empty()).then_some(buffer);
            Received { volume, packet, payload, is_altered }
        }))
    }

    /// Takes header and body out of the staging; false if they are not there yet.
    fn begin(&mut self) -> Result<bool, Malformed> {
        let staged = &self.staging[self.start..self.end];
        let Some((Header { volume, command, length }, header_len)) = Header::decode(staged)? else {
            return Ok(false);
        };
        let body_len = body_bytes(command, length, &self.agreed)?;
        let Some(body) = staged.get(header_len..header_len + body_len) else { return Ok(false) };
        let packet = Packet::decode(command, body, &self.agreed)?;
        let alg = self.integrity.filter(|_| packet.is_protected());
        let digest_len = alg.map_or(0, Digest::bytes);
        let Some(payload_len) = (length as usize - body_len).checked_sub(digest_len) else {
            let place = command.name().unwrap_or("packet");
            let expected = format!("at least the {digest_len} bytes of its digest after the body");
            return Err(Malformed::new(place, "length", length, expected));
        };
        let digest_at = header_len + body_len;
        let Some(digest) = staged.get(digest_at..digest_at + digest_len) else { return Ok(false) };
        let digest = alg.map(|alg| (alg, digest.to_vec()));
        self.start += digest_at + digest_len;
        debug_assert!(command != Command::Ping || payload_len == 0);
        self.partial = Some(Partial { volume, packet, digest, buffer: Buffer::new(payload_len), filled: 0 });
        Ok(true)
    }
}
