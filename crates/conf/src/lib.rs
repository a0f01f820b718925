//! Configuration tokens with spans, and diagnostics that point.
//!
//! A configuration is several files: [`Sources`] keeps their text, a [`Span`] names a place in one of them, [`Lexer`]
//! cuts a file into tokens, [`include`] finds the files an include statement means, and a [`Diagnostic`] shows a
//! person the place, what is wrong with it and what would be right.

mod diagnostic;
pub mod include;
mod lexer;
mod nearest;
mod sources;

pub use diagnostic::Diagnostic;
pub use lexer::{Lexer, STRING_BYTES_MAX, Token, TokenKind, WORD_BYTES_MAX};
pub use nearest::nearest;
pub use sources::{FILE_BYTES_MAX, FILES_MAX, FileId, ReadFault, Sources, Span};
