//! What every decoder of this crate answers when bytes do not make sense.

/// Bytes from a disk or a peer that no correct implementation writes: where, what was found, what would be right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{place}: {field} is {found}, expected {expected}")]
pub struct Malformed {
    /// The structure that was being read, in upstream's words.
    pub place: &'static str,
    /// The field of it.
    pub field: &'static str,
    /// The value found.
    pub found: String,
    /// What would have been accepted.
    pub expected: String,
}

impl Malformed {
    /// An error from anything that prints.
    pub fn new(
        place: &'static str,
        field: &'static str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self { place, field, found: found.to_string(), expected: expected.to_string() }
    }
}
