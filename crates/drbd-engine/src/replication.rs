//! What the peer is told of a change of the front, in packets that the agreed version can carry.

use drbd_format::wire::{Agreed, Data, DataFlags, Features, Packet};
use units::SectorRange;

use crate::admin::ReplicationProtocol;
use crate::device::{Change, Part};
use crate::event::{Action, Payload, Slice, Tag};
use crate::link::Link;
use crate::protocol_version::known_flags;
use crate::transfer_log::Sent;
use crate::turn::Turn;

/// Which packet tells of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Data,
    Trim,
    Zeroes,
}

/// A change as the peer is told.
#[derive(Debug)]
pub(crate) struct Message {
    kind: Kind,
    block_id: u64,
    flags: DataFlags,
    /// The bytes are zeroes, which the peer cannot be told otherwise.
    is_blank: bool,
    /// Sectors that one packet tells of at most.
    sectors_max: u64,
}

impl Message {
    /// About a part of a change of the front.
    pub(crate) fn about(
        part: &Part,
        tag: Tag,
        protocol: ReplicationProtocol,
        agreed: &Agreed,
        syncing: bool,
    ) -> Self {
        let mut flags = match protocol {
            ReplicationProtocol::A => DataFlags(0),
            ReplicationProtocol::B => DataFlags::SEND_RECEIVE_ACK,
            ReplicationProtocol::C => DataFlags::SEND_WRITE_ACK,
        };
        if syncing {
            flags = flags.with(DataFlags::MAY_SET_IN_SYNC);
        }
        let (kind, flags) = match part.change {
            Change::Write { fua: true } => (Kind::Data, flags.with(DataFlags::FUA).with(DataFlags::SYNC)),
            Change::Write { fua: false } => (Kind::Data, flags),
            Change::Zeroes { may_unmap } if agreed.has(Features::WZEROES) => {
                let unmap = if may_unmap { DataFlags::DISCARD } else { DataFlags(0) };
                (Kind::Zeroes, flags.with(DataFlags::ZEROES).with(unmap))
            }
            Change::Discard | Change::Zeroes { .. } if agreed.has(Features::TRIM) => {
                (Kind::Trim, flags.with(DataFlags::DISCARD))
            }
            // A range that is discarded reads as zeroes here: it has to there.
            Change::Discard | Change::Zeroes { .. } => (Kind::Data, flags),
        };
        let is_blank = kind == Kind::Data && !matches!(part.change, Change::Write { .. });
        let sectors_max = if kind == Kind::Data { u64::from(agreed.bio_bytes_max()) / 512 } else { u64::MAX };
        Self { kind, block_id: tag.0, flags: known_flags(flags, agreed), is_blank, sectors_max }
    }

    fn packet(&self, range: SectorRange, seq_num: u32) -> Packet {
        let data = Data { sector: range.start, block_id: self.block_id, seq_num, flags: self.flags };
        let size = range.bytes() as u32;
        match self.kind {
            Kind::Data => Packet::Data(data),
            Kind::Trim => Packet::Trim { data, size },
            Kind::Zeroes => Packet::Zeroes { data, size },
        }
    }

    /// Sends it, with the bytes of a write, and counts what is to be acknowledged.
    pub(crate) fn send(
        &self,
        turn: &mut Turn,
        link: &mut Link,
        volume: u16,
        part: &mut Part,
        bytes: Option<Slice>,
    ) {
        let bytes = bytes.filter(|_| self.kind == Kind::Data);
        let blank = self.is_blank.then(|| {
            let len = (part.range.count.min(self.sectors_max) * 512) as u32;
            let payload = Payload(turn.tag().0);
            turn.out.push(Action::Gather { payload, len, slices: Vec::new() });
            payload
        });
        part.sent_at = turn.now;
        link.epoch_touched_at = turn.now;
        if link.epoch_has_completed || link.log.open_len() >= link.epoch_writes_max() {
            link.close_epoch(turn);
        }
        // All in one epoch: what the peer says of one of them it says of that.
        for piece in pieces(part.range, self.sectors_max) {
            part.acks_left += 1;
            let is_last = piece.end() == part.range.end();
            let extents = if is_last { part.extents.clone() } else { Vec::new() };
            part.epoch = Some(link.log.sent(Sent { volume, range: piece, extents }));
            let (offset, len) = ((piece.start - part.range.start) as u32 * 512, piece.bytes() as u32);
            let data = match blank {
                Some(payload) => Some(Slice { payload, offset: 0, len }),
                None => bytes.map(|whole| Slice { offset: whole.offset + offset, len, ..whole }),
            };
            let packet = self.packet(piece, link.next_sequence(volume));
            link.send(turn, volume, packet, data);
        }
        if let Some(payload) = blank {
            turn.out.push(Action::Release { payload });
        }
    }
}

/// Cuts a range into pieces of so many sectors at most.
pub(crate) fn pieces(range: SectorRange, sectors_max: u64) -> impl Iterator<Item = SectorRange> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        (start < range.end()).then(|| {
            let piece = SectorRange::new(start, sectors_max.min(range.end() - start));
            start = piece.end();
            piece
        })
    })
}
