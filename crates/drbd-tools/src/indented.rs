//! Text in lines that are indented by what they stand in.

use std::fmt::{self, Write};

/// Of each level.
const INDENT_COLUMNS: usize = 4;

/// The text so far, and how deep its next line is.
#[derive(Debug, Default)]
pub struct Indented {
    text: String,
    depth: usize,
}

impl Indented {
    /// One line.
    pub fn line(&mut self, content: fmt::Arguments<'_>) {
        let indent = self.columns();
        writeln!(self.text, "{:indent$}{content}", "").expect("a String takes every text");
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.text.push('\n');
    }

    /// Lines between two others, one level deeper than they are.
    pub fn between(
        &mut self,
        open: fmt::Arguments<'_>,
        close: fmt::Arguments<'_>,
        content: impl FnOnce(&mut Self),
    ) {
        self.line(open);
        self.depth += 1;
        content(self);
        self.depth -= 1;
        self.line(close);
    }

    /// The same in braces behind a title.
    pub fn block(&mut self, title: &str, content: impl FnOnce(&mut Self)) {
        self.between(format_args!("{title} {{"), format_args!("}}"), content);
    }

    /// How far the next line is indented.
    pub fn columns(&self) -> usize {
        self.depth * INDENT_COLUMNS
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}
