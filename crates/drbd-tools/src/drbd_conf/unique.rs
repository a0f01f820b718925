//! What must be there once only.

use std::collections::HashMap;

use conf::{Diagnostic, Span};

/// Uses of names that must not be used twice.
#[derive(Debug, Default)]
pub struct Unique {
    uses: HashMap<String, Span>,
}

impl Unique {
    /// Notes a use of `key`, which is a `what` in the words of a person. The second use is a finding that names both
    /// places.
    pub fn note(&mut self, what: &str, key: &str, span: Span) -> Result<(), Diagnostic> {
        match self.uses.insert(format!("{what}\0{key}"), span) {
            None => Ok(()),
            Some(first) => {
                self.uses.insert(format!("{what}\0{key}"), first);
                Err(Diagnostic::error(format!("conflicting use of {what} '{key}'"), span, "used again here")
                    .also(first, "first used here")
                    .help(format!("each {what} may be used once")))
            }
        }
    }
}
