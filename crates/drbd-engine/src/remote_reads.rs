//! Reads of the front that the peer answers, because our disk cannot.

use drbd_format::wire::{BlockAck, BlockRequest, Data, Packet};
use units::SectorRange;

use crate::device::FrontRead;
use crate::event::{Action, FrontFault, FrontId, Payload, Slice, Tag};
use crate::replication::pieces;
use crate::resource::Resource;

/// What came of a question to the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Awaited,
    Came(Payload),
    Refused,
}

/// A read that the peer is asked for, in as many pieces as the agreed version needs.
#[derive(Debug)]
pub struct RemoteRead {
    pieces: Vec<(SectorRange, Answer)>,
}

impl RemoteRead {
    /// The answer to one piece; false if that was not asked for.
    fn take(&mut self, sector: u64, bytes: u64, answer: Answer) -> bool {
        let asked = self.pieces.iter_mut().find(|(range, answer)| {
            range.start == sector && range.bytes() == bytes && *answer == Answer::Awaited
        });
        asked.map(|(_, place)| *place = answer).is_some()
    }

    fn is_complete(&self) -> bool {
        self.pieces.iter().all(|(_, answer)| *answer != Answer::Awaited)
    }

    fn is_refused(&self) -> bool {
        self.pieces.iter().any(|(_, answer)| *answer == Answer::Refused)
    }

    /// What came, in the order of the sectors.
    fn slices(&self) -> impl Iterator<Item = Slice> {
        self.pieces.iter().filter_map(|(range, answer)| match answer {
            Answer::Came(payload) => Some(Slice { payload: *payload, offset: 0, len: range.bytes() as u32 }),
            _ => None,
        })
    }
}

impl Resource {
    /// Asks the peer for a read of the front.
    pub(crate) fn ask_peer_to_read(&mut self, volume: u16, tag: Tag, request: FrontId, range: SectorRange) {
        let Self { devices, turn, link, .. } = self;
        let Some(device) = devices.get_mut(&volume) else { return };
        let sectors_max = u64::from(link.agreed.bio_bytes_max()) / 512;
        let pieces: Vec<_> = pieces(range, sectors_max).map(|piece| (piece, Answer::Awaited)).collect();
        for (piece, _) in &pieces {
            let ask = BlockRequest { sector: piece.start, block_id: tag.0, blksize: piece.bytes() as u32 };
            link.send(turn, volume, Packet::DataRequest(ask), None);
        }
        device.reads.insert(tag, FrontRead { request, range, remote: Some(RemoteRead { pieces }) });
    }

    /// The peer has answered a read of the front.
    pub(crate) fn data_replied(&mut self, volume: u16, reply: Data, payload: Option<(Payload, u32)>) {
        let Some((payload, len)) = payload else { return self.misbehaved("DataReply without data") };
        let tag = Tag(reply.block_id);
        let Some(device) = self.devices.get_mut(&volume) else { return };
        device.counters.received_kib += u64::from(len) / 1024;
        let asked = device.reads.get_mut(&tag).and_then(|read| read.remote.as_mut());
        if asked.is_some_and(|asked| asked.take(reply.sector, u64::from(len), Answer::Came(payload))) {
            return self.finish_remote_read(volume, tag);
        }
        self.turn.out.push(Action::Release { payload });
        self.misbehaved("DataReply to a request that was not made");
    }

    /// The peer could not answer a read of the front.
    pub(crate) fn data_refused(&mut self, volume: u16, ack: BlockAck) {
        let tag = Tag(ack.block_id);
        let asked = self.devices.get_mut(&volume).and_then(|d| d.reads.get_mut(&tag)?.remote.as_mut());
        if asked.is_some_and(|asked| asked.take(ack.sector, u64::from(ack.blksize), Answer::Refused)) {
            self.finish_remote_read(volume, tag);
        }
    }

    fn finish_remote_read(&mut self, volume: u16, tag: Tag) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let complete = |read: &FrontRead| read.remote.as_ref().is_some_and(RemoteRead::is_complete);
        if !device.reads.get(&tag).is_some_and(complete) {
            return;
        }
        let Some(read) = device.reads.remove(&tag) else { return };
        let Some(answers) = &read.remote else { return };
        let slices: Vec<Slice> = answers.slices().collect();
        match slices.as_slice() {
            _ if answers.is_refused() => {
                self.release(&slices);
                self.fail_front(volume, read.request, None, FrontFault::Io);
            }
            [only] => self.complete_read(volume, &read, only.payload),
            _ => {
                let whole = Payload(self.turn.tag().0);
                let len = read.range.bytes() as u32;
                self.turn.out.push(Action::Gather { payload: whole, len, slices: slices.clone() });
                self.release(&slices);
                self.complete_read(volume, &read, whole);
            }
        }
    }

    fn release(&mut self, slices: &[Slice]) {
        let payloads = slices.iter().map(|slice| slice.payload);
        self.turn.out.extend(payloads.map(|payload| Action::Release { payload }));
    }

    /// Reads that the lost peer was asked for are tried here.
    pub(crate) fn retry_remote_reads(&mut self, volume: u16) {
        let Some(device) = self.devices.get_mut(&volume) else { return };
        let lost: Vec<Tag> =
            device.reads.iter().filter(|(_, r)| r.remote.is_some()).map(|(tag, _)| *tag).collect();
        let lost: Vec<FrontRead> = lost.into_iter().filter_map(|tag| device.reads.remove(&tag)).collect();
        for read in lost {
            let came: Vec<Slice> = read.remote.iter().flat_map(RemoteRead::slices).collect();
            self.release(&came);
            self.begin_read(volume, read.request, read.range);
        }
    }
}
