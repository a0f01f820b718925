//! What one event's handling shares: the time, the tags, the randomness, and where actions go.

use crate::event::{Action, Actions, Level, Tag};
use crate::time::Instant;

/// Where random bytes come from: the shell gives the system's, the simulator a seeded stream.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// Context of the turn under way.
pub struct Turn {
    /// The time of the event.
    pub now: Instant,
    /// What is to be done.
    pub out: Actions,
    next_tag: u64,
    entropy: Entropy,
    prefix: String,
}

impl Turn {
    /// For the resource of this name.
    pub fn new(name: &str, entropy: Entropy) -> Self {
        Self { now: Instant(0), out: Vec::new(), next_tag: 1, entropy, prefix: name.to_owned() }
    }

    /// A tag that was never used.
    pub fn tag(&mut self) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        tag
    }

    /// Fills an array with random bytes.
    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.entropy)(&mut bytes);
        bytes
    }

    /// A random generation identifier.
    pub fn random_u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.random())
    }

    /// Says something to the log, in DRBD's words.
    pub fn log(&mut self, level: Level, text: impl std::fmt::Display) {
        let text = format!("{}: {text}", self.prefix);
        self.out.push(Action::Log { level, text });
    }

    /// Says what happens.
    pub fn info(&mut self, text: impl std::fmt::Display) {
        self.log(Level::Info, text);
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn(at {:?}, {} actions)", self.now, self.out.len())
    }
}
