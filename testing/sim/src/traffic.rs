//! Connections: dialled, accepted, read, broken.

use block::Buffer;
use drbd_engine::event::{Event as EngineEvent, SocketId};
use drbd_format::wire::{Command, Header};
use drbd_node::shell::Chunk;

use crate::network::{End, Item, Segment};
use crate::world::{Event, MS, S, World};

/// How long a dial waits for a host that does not answer.
const DIAL_PATIENCE: u64 = 3 * S;

impl World {
    fn latency(&mut self) -> u64 {
        self.plan.latency(&mut self.net_rng)
    }

    fn new_socket(&mut self, node: usize, connection: usize, side: usize) -> SocketId {
        let n = &mut self.nodes[node];
        let socket = SocketId(n.next_socket);
        n.next_socket += 1;
        n.sockets.insert(socket, (connection, side));
        socket
    }

    pub(crate) fn dials(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let event = if self.cut[node] {
            (DIAL_PATIENCE, Event::DialFails { from: node, life })
        } else {
            (self.latency(), Event::DialArrives { from: node, life })
        };
        self.after(event.0, event.1);
    }

    pub(crate) fn dial_arrives(&mut self, from: usize, life: u64) {
        let to = 1 - from;
        if self.is_cut() || !self.nodes[to].is_up() {
            return self.after(DIAL_PATIENCE, Event::DialFails { from, life });
        }
        let delay = self.latency();
        if !self.nodes[to].listening {
            return self.after(delay, Event::DialFails { from, life });
        }
        let connection = self.connections.len();
        self.after(delay, Event::DialDone { from, life, connection });
        // The dialler's name comes when it learns of the connection.
        if self.lost_accepts > 0 {
            self.lost_accepts -= 1;
            self.note(|| format!("node {to}: does not learn that it was dialled"));
            let nobody = End { mute: true, ..End::new(to, SocketId(0)) };
            return self.connections.push([End::new(from, SocketId(0)), nobody]);
        }
        let accepted = self.new_socket(to, connection, 1);
        self.connections.push([End::new(from, SocketId(0)), End::new(to, accepted)]);
        self.note(|| format!("node {to}: accepts socket {}", accepted.0));
        self.turn(to, |shell| shell.opened(accepted, false));
    }

    pub(crate) fn dial_done(&mut self, from: usize, life: u64, connection: usize) {
        let gone = !self.nodes[from].is_up() || self.nodes[from].life != life;
        if gone || self.is_cut() || self.connections[connection][0].ended {
            self.connections[connection][0].closed = true;
            self.put(connection, 1, Item::End);
            if !gone {
                self.after(DIAL_PATIENCE, Event::DialFails { from, life });
            }
            return;
        }
        let socket = self.new_socket(from, connection, 0);
        self.connections[connection][0].socket = socket;
        self.note(|| format!("node {from}: dialled socket {}", socket.0));
        self.turn(from, |shell| shell.opened(socket, true));
    }

    pub(crate) fn dial_fails(&mut self, from: usize, life: u64) {
        if self.nodes[from].life == life {
            self.turn(from, |shell| shell.handle(EngineEvent::DialFailed));
        }
    }

    /// Puts an item on the wire to an end.
    fn put(&mut self, connection: usize, side: usize, item: Item) {
        let arrival = self.now.get() + self.latency() + self.lag[connection % 2];
        let end = &mut self.connections[connection][side];
        let arrival = arrival.max(end.last_arrival);
        end.last_arrival = arrival;
        end.wire.push_back(item);
        self.at(arrival, Event::Arrives { connection, side });
    }

    pub(crate) fn sends(&mut self, node: usize, socket: SocketId, head: Vec<u8>, data: Option<Chunk>) {
        let Some(&(connection, side)) = self.nodes[node].sockets.get(&socket) else { return };
        let (mut head, mut data) = (head, data);
        if self.plan.altered_per_10000 != 0 {
            self.alter(node, &mut head, &mut data);
        }
        self.put(connection, 1 - side, Item::Bytes(Segment::Head(head, 0)));
        if let Some(chunk) = data.filter(|chunk| chunk.len > 0) {
            self.put(connection, 1 - side, Item::Bytes(Segment::Payload(chunk, 0)));
        }
    }

    /// Changes, once in a while, a byte on the wire that a digest protects.
    fn alter(&mut self, node: usize, head: &mut [u8], data: &mut Option<Chunk>) {
        let is_protected = Header::decode(head).is_ok_and(|header| {
            let commands = [Command::Data, Command::DataReply, Command::RsDataReply];
            header.is_some_and(|(header, _)| commands.contains(&header.command))
        });
        if !is_protected || self.net_rng.below(10_000) >= self.plan.altered_per_10000 {
            return;
        }
        self.note(|| format!("a byte of what node {node} sends changes on its way"));
        self.altered += 1;
        let flip = 1 << self.net_rng.below(8);
        match data {
            Some(chunk) if self.net_rng.chance(90) => {
                let mut bytes = Buffer::copy_of(chunk.bytes());
                let at = self.net_rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= flip;
                *data = Some(Chunk::whole(bytes));
            }
            // The digest is the end of the head.
            _ => {
                if let Some(last) = head.last_mut() {
                    *last ^= flip;
                }
            }
        }
    }

    pub(crate) fn closes(&mut self, node: usize, socket: SocketId, drain: bool) {
        let Some((connection, side)) = self.nodes[node].sockets.remove(&socket) else { return };
        self.connections[connection][side].closed = true;
        if !drain && self.net_rng.chance(50) {
            // A reset overtakes what is under way.
            self.connections[connection][1 - side].wire.clear();
        }
        self.put(connection, 1 - side, Item::End);
    }

    /// The next item reaches an end.
    pub(crate) fn arrives(&mut self, connection: usize, side: usize) {
        let other = self.connections[connection][1 - side].node;
        let end = &mut self.connections[connection][side];
        if self.cut[other] {
            end.held += 1;
            return;
        }
        let Some(item) = end.wire.pop_front() else { return };
        if end.mute {
            return;
        }
        let node = end.node;
        if end.closed {
            // Nobody is there: the sender is told, if there is a system to tell it.
            if matches!(item, Item::Bytes(_)) && self.nodes[node].is_up() && self.nodes[other].is_up() {
                self.put(connection, 1 - side, Item::End);
            }
            return;
        }
        match item {
            Item::Bytes(segment) => end.inbox.push_back(segment),
            Item::End => end.ended = true,
        }
        self.turn(node, |_| {});
    }

    /// Lets the shell read what has arrived, in odd pieces, as far as it wants.
    pub(crate) fn read_sockets(&mut self, node: usize) {
        let mut progress = true;
        while progress {
            progress = false;
            let sockets: Vec<(SocketId, (usize, usize))> =
                self.nodes[node].sockets.iter().map(|(socket, at)| (*socket, *at)).collect();
            for (socket, (connection, side)) in sockets {
                progress |= self.read_socket(node, socket, connection, side);
            }
        }
    }

    fn read_socket(&mut self, node: usize, socket: SocketId, connection: usize, side: usize) -> bool {
        let end = &mut self.connections[connection][side];
        let Some(shell) = &mut self.nodes[node].shell else { return false };
        // The dialler has no socket before it knows of it; its end's name is 0 until then.
        if end.closed || end.socket != socket {
            return false;
        }
        let Some(segment) = end.inbox.front_mut() else {
            if !end.ended {
                return false;
            }
            end.closed = true;
            self.nodes[node].sockets.remove(&socket);
            if let Some(shell) = &mut self.nodes[node].shell {
                shell.ended(socket);
            }
            self.put(connection, 1 - side, Item::End);
            self.execute(node);
            return true;
        };
        let Self { net_rng, .. } = self;
        let received = shell.receive(socket, |_, space| {
            let rest = segment.rest();
            let mut len = rest.len().min(space.len());
            if net_rng.chance(20) {
                len = net_rng.within(1, len as u64 + 1) as usize;
            }
            space[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        });
        let Ok(Some((len, _))) = received else { return false };
        segment.consume(len);
        if segment.rest().is_empty() {
            end.inbox.pop_front();
        }
        self.execute(node);
        true
    }

    /// Whether something does not pass.
    pub fn is_cut(&self) -> bool {
        self.cut.contains(&true)
    }

    /// What these send does not arrive, until it does.
    pub fn cut_network(&mut self, cut: [bool; 2]) {
        self.note(|| format!("the network is cut: {cut:?}"));
        self.cut = cut;
    }

    /// The network is whole and even again: what was under way arrives now.
    pub fn heal_network(&mut self) {
        self.lag = [0; 2];
        self.lost_accepts = 0;
        if !self.is_cut() {
            return;
        }
        self.note(|| "the network is whole".into());
        self.cut = [false; 2];
        for connection in 0..self.connections.len() {
            for side in 0..2 {
                let held = std::mem::take(&mut self.connections[connection][side].held);
                for _ in 0..held {
                    self.after(MS, Event::Arrives { connection, side });
                }
            }
        }
    }

    /// Connections break, and only this node sees it: what the other sends vanishes.
    pub fn break_connections_for(&mut self, node: usize) {
        self.note(|| format!("node {node}: connections are reset, and the other does not hear of it"));
        let both = self.net_rng.chance(50);
        for connection in 0..self.connections.len() {
            let open = self.connections[connection].iter().all(|end| !end.closed && !end.mute);
            if !open || !(both || self.net_rng.chance(50)) {
                continue;
            }
            for end in &mut self.connections[connection] {
                end.wire.clear();
                end.mute = true;
                end.ended |= end.node == node;
            }
        }
        self.turn(node, |_| {});
    }

    /// A connection between the two breaks, seen by both.
    pub fn reset_connections(&mut self) {
        self.note(|| "connections are reset".into());
        for connection in 0..self.connections.len() {
            let open = self.connections[connection].iter().all(|end| !end.closed);
            if open && self.net_rng.chance(70) {
                for side in 0..2 {
                    self.connections[connection][side].wire.clear();
                    self.put(connection, side, Item::End);
                }
            }
        }
    }

    /// The sockets of a node are gone with its daemon; the peer learns of it only if the system survives.
    pub(crate) fn drop_sockets(&mut self, node: usize, silently: bool) {
        for (_, (connection, side)) in std::mem::take(&mut self.nodes[node].sockets) {
            self.connections[connection][side].closed = true;
            if !silently {
                self.put(connection, 1 - side, Item::End);
            }
        }
    }
}
