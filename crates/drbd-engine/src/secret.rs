//! A text that must not be seen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `shared-secret`: nothing that prints it for a person, a log or a panic shows it.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The bytes, for the proof that one has them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

#[cfg(test)]
mod tests {
    use crate::admin::NetOptions;

    #[test]
    fn options_are_shown_without_it() {
        let options = NetOptions { shared_secret: "dupersupersecret".into(), ..NetOptions::default() };
        let shown = format!("{options:?} {options:#?}");
        assert!(shown.contains("shared_secret: hidden") && !shown.contains("dupersupersecret"), "{shown}");
    }
}
