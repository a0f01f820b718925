//! The files of a configuration.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Upper bound of one file. A configuration of a thousand resources is a tenth of it.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Upper bound of the number of files.
pub const FILES_MAX: usize = 4096;

/// Names a file of a [`Sources`].
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileId(u32);

/// A run of bytes of one file. The default is the empty run at the beginning: of what stands in no file.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

impl Span {
    /// From the beginning of `self` to the end of `other`, which is later in the same file.
    pub fn to(self, other: Self) -> Self {
        Self { end: other.end.max(self.start), ..self }
    }
}

/// Why a file is not part of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// The system's refusal.
    #[error("cannot read {}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("{} is longer than {FILE_BYTES_MAX} bytes: not a configuration", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{} is not text: byte {offset} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
    /// More than [`FILES_MAX`].
    #[error("more than {FILES_MAX} files")]
    TooManyFiles,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: String,
}

/// The files of a configuration, in the order in which they were read.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
    hidden: Option<&'static str>,
}

impl Sources {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file; `path` is also the name shown in diagnostics.
    ///
    /// # Errors
    /// If it cannot be read, or is not text of a bearable length.
    pub fn read(&mut self, path: &Path) -> Result<FileId, ReadFault> {
        let system = |source| ReadFault::System { path: path.into(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(system)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(system)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(ReadFault::TooLong { path: path.into() });
        }
        let text = String::from_utf8(bytes).map_err(|error| ReadFault::NotText {
            path: path.into(),
            offset: error.utf8_error().valid_up_to(),
        })?;
        self.add(path, text)
    }

    /// From now on, what stands behind this word is not shown.
    pub fn hide_values_of(&mut self, word: &'static str) {
        self.hidden = Some(word);
    }

    /// A file's text as a person may see it: as long as it is, with `*` for what is hidden.
    pub fn shown(&self, file: FileId) -> String {
        let mut rest = self.text(file);
        let Some(word) = self.hidden else { return rest.to_owned() };
        let mut shown = String::with_capacity(rest.len());
        while let Some(at) = rest.find(word) {
            let (head, tail) = rest.split_at(at + word.len());
            let value = tail.trim_start();
            shown += head;
            shown += &tail[..tail.len() - value.len()];
            let hidden_bytes = value_bytes(value);
            shown.extend(std::iter::repeat_n('*', hidden_bytes));
            rest = &value[hidden_bytes..];
        }
        shown + rest
    }

    /// Takes a text that is there already.
    ///
    /// # Errors
    /// [`ReadFault::TooManyFiles`].
    pub fn add(&mut self, path: &Path, text: String) -> Result<FileId, ReadFault> {
        if self.files.len() >= FILES_MAX {
            return Err(ReadFault::TooManyFiles);
        }
        let id = FileId(self.files.len() as u32);
        self.files.push(Source { path: path.into(), text });
        Ok(id)
    }

    /// Name of a file.
    pub fn path(&self, file: FileId) -> &Path {
        &self.files[file.0 as usize].path
    }

    /// Text of a file.
    pub fn text(&self, file: FileId) -> &str {
        &self.files[file.0 as usize].text
    }

    /// The bytes a span means.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.file).get(span.start..span.end).unwrap_or("")
    }

    /// Line and column of the span's beginning, both from 1; columns count characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let before = self.text(span.file).get(..span.start).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Length of the word or string at the beginning of a text; a string without an end takes its line.
fn value_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    let is_string = text.starts_with('"');
    let mut chars = text.char_indices().skip(usize::from(is_string));
    let end = chars.find(|&(_, c)| match c {
        '\n' => true,
        '"' if is_string => !std::mem::take(&mut is_escaped),
        '\\' if is_string => {
            is_escaped = !is_escaped;
            false
        }
        _ if is_string => {
            is_escaped = false;
            false
        }
        c => c.is_whitespace() || matches!(c, ';' | '{' | '}'),
    });
    match end {
        Some((at, '"')) => at + 1,
        Some((at, _)) => at,
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::Sources;

    #[test]
    fn what_is_hidden_is_not_shown_and_nothing_moves() {
        let mut sources = Sources::new();
        sources.hide_values_of("shared-secret");
        for (text, expected) in [
            ("net { shared-secret \"a;\\\" b\"; }", "net { shared-secret ********; }"),
            ("shared-secret plain; x", "shared-secret *****; x"),
            ("shared-secret\n  \"open\nnext", "shared-secret\n  *****\nnext"),
            ("shared-secret \"ä\";", "shared-secret ****;"),
            ("shared-secret;", "shared-secret;"),
            ("nothing", "nothing"),
        ] {
            let file = sources.add(std::path::Path::new("x"), text.to_owned()).unwrap();
            assert_eq!(sources.shown(file), expected);
        }
    }
}
