//! Strokes of an SVG drawing. Everything is placed by whole numbers and styled by classes.

use std::fmt::Write as _;

/// Average width of a letter of the drawing's proportional font, in hundredths of a pixel; letters are at most a
/// little wider.
const LETTER_CENTIPIXELS: i32 = 760;

/// The same of its bold one.
const BOLD_CENTIPIXELS: i32 = 930;

/// Width of every letter of its fixed font.
const MONO_CENTIPIXELS: i32 = 723;

/// Colours and fonts. The page has a ground of its own, so that the drawing can be read wherever it is put; it is dark
/// where the reader's other pages are.
const STYLE: &str = include_str!("style.css");

/// Which end of a text its place is.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// The left one.
    Start,
    /// Its middle.
    Middle,
    /// The right one.
    End,
}

/// What was drawn so far.
#[derive(Debug, Default)]
pub struct Pen {
    body: String,
}

impl Pen {
    /// A rectangle with round corners.
    pub fn rect(&mut self, class: &str, x: i32, y: i32, width: i32, height: i32, radius: i32) {
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>"#
        );
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, x1: i32, y1: i32, x2: i32, y2: i32) {
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    /// A circle.
    pub fn circle(&mut self, class: &str, x: i32, y: i32, radius: i32) {
        let _ = writeln!(self.body, r#"<circle class="{class}" cx="{x}" cy="{y}" r="{radius}"/>"#);
    }

    /// What a disk has been drawn as since there were drums.
    pub fn cylinder(&mut self, class: &str, x: i32, y: i32, width: i32, height: i32) {
        let (rx, ry) = (width / 2, 4);
        let (upper, side) = (y + ry, height - 2 * ry);
        let _ = writeln!(
            self.body,
            "<path class=\"{class}\" d=\"M{x} {upper}a{rx} {ry} 0 0 1 {width} 0v{side}a{rx} {ry} 0 0 1 -{width} 0z\
             M{x} {upper}a{rx} {ry} 0 0 0 {width} 0\"/>"
        );
    }

    /// A line of text.
    pub fn text(&mut self, class: &str, anchor: Anchor, x: i32, baseline: i32, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let text = escaped(text);
        let _ = writeln!(self.body, r#"<text class="{class}" x="{x}" y="{baseline}"{anchor}>{text}</text>"#);
    }

    /// The whole drawing.
    pub fn finish(self, width: i32, height: i32, title: &str) -> String {
        let (title, body) = (escaped(title), self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" x=\"0\" y=\"0\" width=\"{width}\" height=\"{height}\" rx=\"12\"/>\n{body}</svg>\n"
        )
    }
}

/// Text as XML has it. What XML cannot have is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            _ if letter.is_control() => {}
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// The text, or as much of its beginning as `room` pixels hold.
pub fn fitted(text: &str, room: i32) -> String {
    cut(text, room, LETTER_CENTIPIXELS)
}

/// The same in bold.
pub fn bold_fitted(text: &str, room: i32) -> String {
    cut(text, room, BOLD_CENTIPIXELS)
}

/// The same in the fixed font.
pub fn mono_fitted(text: &str, room: i32) -> String {
    cut(text, room, MONO_CENTIPIXELS)
}

/// Pixels that a text takes in the fixed font.
pub fn mono_width(text: &str) -> i32 {
    (text.chars().count() as i32 * MONO_CENTIPIXELS + 99) / 100
}

fn cut(text: &str, room: i32, letter_centipixels: i32) -> String {
    let letters = usize::try_from(room * 100 / letter_centipixels).unwrap_or_default();
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use super::{escaped, fitted};

    #[test]
    fn texts_are_texts() {
        assert_eq!(escaped("<a & \"b\">\u{1b}[1m"), "&lt;a &amp; &quot;b&quot;&gt;[1m");
        assert_eq!(fitted("drbd0", 100), "drbd0");
        assert_eq!(fitted("a name that is too long", 80), "a name th\u{2026}");
    }
}
