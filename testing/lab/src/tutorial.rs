//! The rows of docs/tutorial.md, which is the one place that has the tutorial's lines.

use std::collections::BTreeMap;
use std::path::Path;

/// What a row says about today.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Now {
    /// Today's line works.
    Yes,
    /// The tutorial's line is refused, today's works: a slip in the tutorial, or a part that is not written.
    Instead,
    /// A part of Lockstep is not written: today's line, if there is one, must fail.
    NotYet,
    /// No program in user space could do it; today's line, if there is one, works.
    Cannot,
    /// Left out.
    NotNeeded,
}

/// A line as it is typed, which may be several.
pub type Line = String;

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its line number in the document, for messages.
    pub number: usize,
    /// `cloud`, a server, a group of servers, or the prompt of a program.
    pub place: String,
    /// As the tutorial has it; none if it has no such line, or names an editor.
    pub tutorial: Option<Line>,
    /// As it is typed today; none if it is not.
    pub today: Option<Line>,
    /// What is true of it.
    pub now: Now,
    /// What the reader is told.
    pub about: String,
}

impl Row {
    /// What the line that decides must print.
    pub fn says(&self) -> Vec<&str> {
        after(&self.about, "Says `")
    }

    /// What is waited for, by typing the line again.
    pub fn waits_for(&self) -> Vec<&str> {
        after(&self.about, "ait until it says `")
    }
}

fn after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    text.split(marker).skip(1).filter_map(|rest| rest.split('`').next()).collect()
}

/// The rows of each part, in order; parts begin with `## `.
///
/// # Panics
/// On a row that is not as the document's own explanation has it.
pub fn parts() -> Vec<Vec<Row>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tutorial.md");
    let text = std::fs::read_to_string(&path).expect("docs/tutorial.md");
    let blocks = blocks(&text);
    let mut parts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("## ") {
            parts.push(Vec::new());
        }
        let header = line.starts_with("| where |") || line.starts_with("|---");
        if let (true, false, Some(part)) = (line.starts_with("| "), header, parts.last_mut()) {
            part.push(row(index + 1, line, &blocks));
        }
    }
    parts
}

/// The fenced blocks by name: behind the fence stand the language and the name.
fn blocks(text: &str) -> BTreeMap<&str, Line> {
    let mut blocks = BTreeMap::new();
    for block in text.split("\n```sh ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a block's name ends its line");
        let (body, _) = rest.split_once("\n```").expect("a block ends with a fence");
        assert!(blocks.insert(name, format!("{body}\n")).is_none(), "two blocks {name}");
    }
    blocks
}

fn row(number: usize, line: &str, blocks: &BTreeMap<&str, Line>) -> Row {
    // A bar within a cell stands behind a backslash.
    let cells: Vec<String> = line
        .trim_matches('|')
        .replace("\\|", "\u{1}")
        .split('|')
        .map(|cell| cell.trim().replace('\u{1}', "|"))
        .collect();
    let [place, tutorial, today, now, about] = &cells[..] else { panic!("line {number}: not five cells") };
    let now = match now.as_str() {
        "yes" => Now::Yes,
        "mended" | "partly" => Now::Instead,
        "not yet" => Now::NotYet,
        "cannot" => Now::Cannot,
        "not needed" => Now::NotNeeded,
        other => panic!("line {number}: {other:?} is not explained"),
    };
    let typed = |cell: &str| -> Option<Line> {
        if let Some(name) = cell.strip_prefix("block `").and_then(|cell| cell.strip_suffix('`')) {
            return Some(
                blocks.get(name).unwrap_or_else(|| panic!("line {number}: no block {name}")).clone(),
            );
        }
        let line = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
        let line = line.filter(|line| !line.contains('`')).map(str::to_owned);
        line.or_else(|| (cell == "*Enter*").then(String::new))
    };
    let tutorial = typed(tutorial);
    let today = match today.as_str() {
        "same" => tutorial.clone(),
        "—" => None,
        cell => Some(typed(cell).unwrap_or_else(|| panic!("line {number}: what is typed?"))),
    };
    Row { number, place: place.clone(), tutorial, today, now, about: about.clone() }
}
