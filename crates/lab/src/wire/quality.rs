//! What is wrong with a cable, each way.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What befalls frames one way. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Quality {
    /// Frames that are lost, of a hundred.
    pub loss_percent: f64,
    /// Time that each takes longer.
    pub delay_ms: f64,
    /// How far that time varies, up and down. Frames stay in order all the same.
    pub jitter_ms: f64,
    /// Megabits per second that pass; 0: as fast as this machine.
    pub rate_mbit: f64,
}

impl Quality {
    /// Whether nothing is wrong.
    pub fn is_perfect(&self) -> bool {
        *self == Self::default()
    }
}

/// A server's cable with what is wrong with it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Wire {
    /// Whose.
    pub server: Uuid,
    /// Which interface of it.
    pub index: usize,
    /// What the server receives.
    pub inbound: Quality,
    /// What it sends.
    pub outbound: Quality,
}
