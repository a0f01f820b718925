//! What a tool of the lab says when it cannot do what it was asked.

use std::io;

/// Why nothing was done. Printed on stderr behind the program's name; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request contains a mistake; the text names it and says what would be right.
    #[error("{0}")]
    Refused(String),
    /// The system refused a step of ours.
    #[error("{doing}: {source}")]
    System {
        /// What was tried, with its object.
        doing: String,
        /// The system's word.
        source: io::Error,
    },
}

impl Error {
    /// A mistake in the request.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }
}

/// The result of everything in this crate that can be refused.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the step that an operating system error belongs to.
pub trait Doing<T> {
    /// `doing` is called only for an error.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System { doing: doing(), source: source.into() })
    }
}
