//! Words in lines of a terminal's width.
//!
//! Upstream: `wrap_printf` of drbd-utils; the columns of an indent do not count in the line that it begins.

/// The text so far.
#[derive(Debug)]
pub struct Wrapped {
    text: String,
    columns: usize,
    /// None: at the beginning of a line.
    column: Option<usize>,
}

impl Wrapped {
    /// Nothing yet, in lines of so many columns.
    pub fn new(columns: usize) -> Self {
        Self { text: String::new(), columns, column: None }
    }

    /// Appends a word with the blank before it, in the next line if it does not fit; lines begin with so many blanks.
    /// A line break at the beginning of the word breaks the line.
    pub fn put(&mut self, indent: usize, word: &str) {
        let rest = word.trim_start_matches('\n');
        for _ in rest.len()..word.len() {
            self.text.push('\n');
            self.column = None;
        }
        if rest.is_empty() {
            return;
        }
        if self.column.is_some_and(|column| column + rest.len() > self.columns) {
            self.text.push('\n');
            self.column = None;
        }
        let shown = match self.column {
            Some(_) => rest,
            None => {
                self.text.extend(std::iter::repeat_n(' ', indent));
                rest.trim_start_matches(' ')
            }
        };
        self.text += shown;
        self.column = Some(match self.column {
            Some(column) => column + shown.len(),
            None => shown.len().saturating_sub(1),
        });
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}
