//! What the demo prints: typed lines, what they answered, its own words, and a bar. Colour and redrawing only on a
//! terminal.

use std::cell::Cell;
use std::io::{IsTerminal, Write};

const BOLD: &str = "\x1b[1m";
const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";
const ERASE_LINE: &str = "\r\x1b[K";

/// Standard output.
pub struct Screen {
    is_terminal: bool,
    has_bar: Cell<bool>,
}

impl Screen {
    /// Looks whether it is a terminal.
    pub fn begin() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { is_terminal: std::io::stdout().is_terminal() && !dumb, has_bar: Cell::new(false) }
    }

    /// Whether lines can be redrawn.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A reader that has gone away must not keep the lab from being taken down: errors are nobody's.
    fn write(&self, text: &str) {
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    fn line(&self, colour: &str, text: &str) {
        self.end_bar();
        if self.is_terminal && !colour.is_empty() {
            self.write(&format!("{colour}{text}{PLAIN}\n"));
        } else {
            self.write(&format!("{text}\n"));
        }
    }

    /// The heading of what comes.
    pub fn chapter(&self, title: &str) {
        self.line("", "");
        self.line(BOLD, &format!("== {title}"));
    }

    /// A line as a person types it behind a prompt.
    pub fn typed(&self, prompt: &str, line: &str) {
        self.end_bar();
        if self.is_terminal {
            self.write(&format!("{CYAN}{prompt}{PLAIN} {BOLD}{line}{PLAIN}\n"));
        } else {
            self.write(&format!("{prompt} {line}\n"));
        }
    }

    /// What a program printed; nothing if it printed nothing.
    pub fn output(&self, text: &str) {
        for line in text.lines() {
            self.line("", overstruck(line).trim_end());
        }
    }

    /// The demo's own words.
    pub fn own(&self, text: &str) {
        self.line("", "");
        self.line("", text);
    }

    /// A check that held.
    pub fn holds(&self, text: &str) {
        self.line(GREEN, &format!("-- {text}"));
    }

    /// The check that did not hold.
    pub fn failure(&self, text: &str) {
        self.line("", "");
        self.line(RED, &format!("The demo failed: {text}"));
    }

    /// The last line anew, on a terminal; nothing elsewhere.
    pub fn bar(&self, text: &str) {
        if self.is_terminal {
            self.has_bar.set(true);
            self.write(&format!("{ERASE_LINE}{text}"));
        }
    }

    /// The bar gives way to what comes.
    fn end_bar(&self) {
        if self.has_bar.replace(false) {
            self.write(ERASE_LINE);
        }
    }
}

/// A line as a terminal shows it that got backspaces and carriage returns.
fn overstruck(line: &str) -> String {
    let mut shown: Vec<char> = Vec::new();
    let mut column: usize = 0;
    for c in line.chars() {
        match c {
            '\u{8}' => column = column.saturating_sub(1),
            '\r' => column = 0,
            _ => {
                if let Some(cell) = shown.get_mut(column) {
                    *cell = c;
                } else {
                    shown.push(c);
                }
                column += 1;
            }
        }
    }
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::overstruck;

    #[test]
    fn progress_of_mkfs() {
        assert_eq!(
            overstruck("inode tables: 0/8\u{8}\u{8}\u{8}   \u{8}\u{8}\u{8}done"),
            "inode tables: done"
        );
        assert_eq!(overstruck("10%\r20%"), "20%");
        assert_eq!(overstruck("\u{8}plain"), "plain");
    }
}
