//! The text of a scenario, line by line.

use std::time::Duration;

use clap::Parser;

use crate::fault::command::Fault;

/// The longest time that a line may name.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Rounds of one `repeat`.
const ROUNDS_MAX: u32 = 10_000;

/// A mistake, and what would be right.
#[derive(Debug, Eq, PartialEq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

/// What is wrong with a line, whose number its caller knows.
type Parsed<T> = std::result::Result<T, String>;

/// A time between two, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// At this time or later.
    pub earliest: Duration,
    /// At this time or earlier.
    pub latest: Duration,
}

/// A fault with its time.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its line, counted from 1.
    pub line: usize,
    /// When.
    pub when: Span,
    /// What `$1` may be; none if it does not occur.
    pub choices: Vec<String>,
    /// As after `lockstep lab fault`, with `$1`.
    pub words: Vec<String>,
}

/// What stands at the outer level of the file.
#[derive(Clone, Debug)]
pub enum Item {
    /// One fault.
    Once(Entry),
    /// Rounds of faults.
    Repeat {
        /// How many.
        rounds: u32,
        /// When the first begins.
        from: Span,
        /// From the beginning of one to that of the next.
        every: Span,
        /// Times count from the beginning of the round.
        entries: Vec<Entry>,
    },
}

/// A scenario's file.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// What the file says.
    pub seed: Option<u64>,
    /// In the file's order.
    pub items: Vec<Item>,
}

impl Script {
    /// Every fault, once.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().flat_map(|item| match item {
            Item::Once(entry) => std::slice::from_ref(entry),
            Item::Repeat { entries, .. } => entries.as_slice(),
        })
    }
}

/// A fault's words alone.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Words {
    #[command(subcommand)]
    fault: Fault,
}

/// Reads words as `lockstep lab fault` would.
///
/// # Errors
/// What is wrong with them.
pub fn fault(words: &[String]) -> Parsed<Fault> {
    match Words::try_parse_from(words) {
        Ok(Words { fault: Fault::List }) => Err("list breaks nothing; leave it out".to_owned()),
        Ok(Words { fault }) => Ok(fault),
        Err(error) => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            let joined: Vec<&str> = first.lines().map(str::trim).collect();
            Err(format!("{}; see lockstep lab fault --help", joined.join(" ")))
        }
    }
}

/// Reads a scenario.
///
/// # Errors
/// Its first mistake.
pub fn parse(text: &str) -> std::result::Result<Script, Mistake> {
    let mut script = Script::default();
    let mut open: Option<usize> = None;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let mistake = |what: String| Mistake { line: line_number, what };
        let words = split(line).map_err(mistake)?;
        let Some((first, rest)) = words.split_first() else { continue };
        match first.as_str() {
            "seed" => set_seed(&mut script, rest).map_err(mistake)?,
            "at" | "within" => {
                let entry = entry(line_number, first, rest).map_err(mistake)?;
                match script.items.last_mut() {
                    Some(Item::Repeat { entries, .. }) if open.is_some() => entries.push(entry),
                    _ => script.items.push(Item::Once(entry)),
                }
            }
            "repeat" if open.is_some() => {
                return Err(mistake("a repeat in a repeat; `end` the first".into()));
            }
            "repeat" => {
                script.items.push(repeat(rest).map_err(mistake)?);
                open = Some(line_number);
            }
            "end" if open.take().is_some() && rest.is_empty() => {}
            "end" => return Err(mistake("`end` stands alone, and ends a repeat".into())),
            other => {
                return Err(mistake(format!(
                    "{other:?}: a line begins with seed, at, within, repeat or end"
                )));
            }
        }
    }
    match open {
        Some(line) => Err(Mistake { line, what: "this repeat has no `end`".to_owned() }),
        None => Ok(script),
    }
}

/// The words of a line, without its comment.
fn split(line: &str) -> Parsed<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a quotation without its end; close it with {quote}"));
    }
    words.extend(word);
    Ok(words)
}

fn set_seed(script: &mut Script, rest: &[String]) -> Parsed<()> {
    if script.seed.is_some() || !script.items.is_empty() {
        return Err("the seed stands once, before all else".to_owned());
    }
    let [number] = rest else { return Err("write it as: seed 7".to_owned()) };
    let number =
        number.parse().map_err(|_| format!("seed {number:?} is no number from 0 to {}", u64::MAX))?;
    script.seed = Some(number);
    Ok(())
}

fn entry(line: usize, first: &str, rest: &[String]) -> Parsed<Entry> {
    let Some((time, rest)) = rest.split_first() else {
        return Err(format!("`{first}` needs a time and a fault: {first} 2s power-cut drbd0"));
    };
    let when = span(time)?;
    match first {
        "at" if time.contains("..") => {
            return Err(format!("at {time}: for a time in between write `within {time}`"));
        }
        "within" if !time.contains("..") => {
            return Err(format!("within {time}: write it as within 3s..5s, or `at {time}`"));
        }
        _ => {}
    }
    let (choices, words) = choices(rest)?;
    if words.is_empty() {
        return Err(format!("{first} {time}: a fault is missing, such as: power-cut drbd0"));
    }
    let entry = Entry { line, when, choices, words };
    let uses_choice = entry.words.iter().any(|word| word.contains("$1"));
    if uses_choice == entry.choices.is_empty() {
        return Err("`one-of A B:` and $1 go together: at 6s one-of drbd0 drbd1: power-cut $1".to_owned());
    }
    // Each of the choices, since any of them may come.
    for words in entry.alternatives() {
        fault(&words)?;
    }
    Ok(entry)
}

impl Entry {
    /// Its words with this choice for `$1`.
    pub fn with(&self, choice: &str) -> Vec<String> {
        self.words.iter().map(|word| word.replace("$1", choice)).collect()
    }

    /// All that its words can be.
    pub fn alternatives(&self) -> Vec<Vec<String>> {
        if self.choices.is_empty() {
            return vec![self.words.clone()];
        }
        self.choices.iter().map(|choice| self.with(choice)).collect()
    }
}

/// `one-of A B: FAULT`: the choices, and the fault.
fn choices(words: &[String]) -> Parsed<(Vec<String>, Vec<String>)> {
    let Some((_, rest)) = words.split_first().filter(|(first, _)| *first == "one-of") else {
        return Ok((Vec::new(), words.to_vec()));
    };
    let wrong = || "write it as: one-of drbd0 drbd1: power-cut $1".to_owned();
    let last = rest.iter().position(|word| word.ends_with(':')).ok_or_else(wrong)?;
    let choices: Vec<String> =
        rest[..=last].iter().map(|word| word.trim_end_matches(':').to_owned()).collect();
    let choices: Vec<String> = choices.into_iter().filter(|choice| !choice.is_empty()).collect();
    if choices.is_empty() {
        return Err(wrong());
    }
    Ok((choices, rest[last + 1..].to_vec()))
}

/// `N from TIME every TIME`.
fn repeat(words: &[String]) -> Parsed<Item> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [rounds, "from", from, "every", every] = words.as_slice() else {
        return Err("write it as: repeat 5 from 30s every 10s..20s".to_owned());
    };
    let rounds = match rounds.parse() {
        Ok(rounds) if (1..=ROUNDS_MAX).contains(&rounds) => rounds,
        _ => return Err(format!("repeat {rounds:?}: use a number from 1 to {ROUNDS_MAX}")),
    };
    Ok(Item::Repeat { rounds, from: span(from)?, every: span(every)?, entries: Vec::new() })
}

/// `TIME` or `TIME..TIME`.
fn span(text: &str) -> Parsed<Span> {
    let (earliest, latest) = text.split_once("..").unwrap_or((text, text));
    let span = Span { earliest: time(earliest)?, latest: time(latest)? };
    if span.earliest > span.latest {
        return Err(format!("{text}: the earlier time comes first, as in {latest}..{earliest}"));
    }
    Ok(span)
}

/// A number with its unit; whole milliseconds.
fn time(text: &str) -> Parsed<Duration> {
    let wrong = || format!("{text:?} is no time; write it as 250ms, 2s, 1.5s or 3m");
    let digits = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => number,
        "s" => number * 1e3,
        "m" | "min" => number * 60e3,
        _ => return Err(wrong()),
    };
    if ms > TIME_MAX.as_millis() as f64 {
        return Err(format!("{text} is longer than {} days", TIME_MAX.as_secs() / 86_400));
    }
    Ok(Duration::from_millis(ms.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::{Mistake, parse};

    #[test]
    fn mistakes_say_where_and_what_would_be_right() {
        for (line, says) in [
            ("on 2s heal", "a line begins with seed, at, within, repeat or end"),
            ("at 2 heal --all", "write it as 250ms, 2s, 1.5s or 3m"),
            ("at 2h heal --all", "no time"),
            ("at 2s", "a fault is missing"),
            ("at 2s..3s heal --all", "write `within 2s..3s`"),
            ("within 2s heal --all", "or `at 2s`"),
            ("within 5s..3s heal --all", "as in 3s..5s"),
            ("at 2s explode drbd0", "unrecognized subcommand 'explode'"),
            ("at 2s loss drbd0 101", "from 0 to 100"),
            ("at 2s power-cut", "<SERVER>"),
            ("at 2s list", "list breaks nothing"),
            ("at 2s power-cut $1", "go together"),
            ("at 2s one-of a b: heal --all", "go together"),
            ("at 2s one-of a b power-cut $1", "write it as: one-of"),
            ("at 2s power-cut 'drbd0", "close it with '"),
            ("seed 8", "once, before all else"),
            ("seed x", "once, before all else"),
            ("repeat 0 from 1s every 1s", "from 1 to"),
            ("repeat 2 every 1s", "repeat 5 from 30s every 10s..20s"),
            ("end", "ends a repeat"),
            ("repeat 2 from 1s every 2s", "no `end`"),
        ] {
            let Mistake { line: number, what } =
                parse(&format!("# a file\nseed 7\n{line}\n")).expect_err(line);
            assert_eq!(number, 3, "{line}");
            assert!(what.contains(says), "{line}: {what}");
        }
    }

    #[test]
    fn the_manuals_example_is_read() {
        let (_, example) = super::super::MANUAL.split_once("Example:").expect("an example");
        let script = parse(example).expect("a scenario");
        assert_eq!((script.seed, script.items.len()), (Some(7), 6));
    }
}
