//! Cuts a file into words, strings and punctuation.
//!
//! Words are runs of letters, digits, `.`, `/`, `_` and `-`; strings stand in double quotes, on one line, with `\`
//! before a character that is to be taken as it is; `#` begins a comment. Punctuation is `{ } ; [ ] :`.

use std::borrow::Cow;

use crate::sources::{FileId, Sources, Span};

/// Longest word, as drbdadm's scanner has it.
pub const WORD_BYTES_MAX: usize = 128;

/// Longest string between its quotes, as drbdadm's scanner has it.
pub const STRING_BYTES_MAX: usize = 255;

/// What a token is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenKind {
    /// A word.
    Word,
    /// A string with its quotes.
    String,
    /// One of `{ } ; [ ] :`.
    Punctuation(char),
    /// The end of the file.
    End,
    /// A string whose closing quote is not on its line.
    UnterminatedString,
    /// A string beyond [`STRING_BYTES_MAX`].
    StringTooLong,
    /// A word beyond [`WORD_BYTES_MAX`].
    WordTooLong,
    /// A character that begins nothing.
    Stray(char),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token {
    /// What.
    pub kind: TokenKind,
    /// Where.
    pub span: Span,
}

impl Token {
    /// Whether it is this punctuation.
    pub fn is(self, punctuation: char) -> bool {
        self.kind == TokenKind::Punctuation(punctuation)
    }

    /// The value of a word or string: without quotes, escapes resolved. None for everything else.
    pub fn value(self, sources: &Sources) -> Option<Cow<'_, str>> {
        let text = sources.slice(self.span);
        match self.kind {
            TokenKind::Word => Some(Cow::Borrowed(text)),
            TokenKind::String => {
                let inner = text.strip_prefix('"')?.strip_suffix('"')?;
                Some(if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) })
            }
            _ => None,
        }
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

/// Where in a file the next token begins. After [`TokenKind::End`] comes the same again.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    file: FileId,
    offset: usize,
}

impl Lexer {
    /// At the beginning of a file.
    pub fn new(file: FileId) -> Self {
        Self { file, offset: 0 }
    }

    /// The next token; never fails and always ends.
    pub fn next(&mut self, sources: &Sources) -> Token {
        let text = sources.text(self.file);
        let rest = skip_blanks(&text[self.offset..]);
        let start = text.len() - rest.len();
        let (kind, length) = scan(rest);
        self.offset = start + length;
        Token { kind, span: Span { file: self.file, start, end: self.offset } }
    }

    /// The next token, which stays the next.
    pub fn peek(&self, sources: &Sources) -> Token {
        let mut ahead = *self;
        ahead.next(sources)
    }

    /// Takes everything up to but without `delimiter` or the end of the line, whatever characters it is made of.
    pub fn take_raw(&mut self, sources: &Sources, delimiter: char) -> Span {
        let text = sources.text(self.file);
        let start = self.offset;
        self.offset = text[start..].find([delimiter, '\n']).map_or(text.len(), |found| start + found);
        Span { file: self.file, start, end: self.offset }
    }
}

fn skip_blanks(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        match text.strip_prefix('#') {
            Some(comment) => text = comment.find('\n').map_or("", |newline| &comment[newline..]),
            None => return text,
        }
    }
}

fn is_word_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-')
}

/// Kind and length in bytes of the token that `text` begins with.
fn scan(text: &str) -> (TokenKind, usize) {
    match text.chars().next() {
        None => (TokenKind::End, 0),
        Some(c @ ('{' | '}' | ';' | '[' | ']' | ':')) => (TokenKind::Punctuation(c), 1),
        Some('"') => scan_string(text),
        Some(c) if is_word_character(c) => {
            let length = text.find(|c| !is_word_character(c)).unwrap_or(text.len());
            let kind = if length > WORD_BYTES_MAX { TokenKind::WordTooLong } else { TokenKind::Word };
            (kind, length)
        }
        Some(c) => (TokenKind::Stray(c), c.len_utf8()),
    }
}

fn scan_string(text: &str) -> (TokenKind, usize) {
    let mut escaped = false;
    for (offset, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return (TokenKind::UnterminatedString, offset),
            '"' if !escaped => {
                let too_long = offset - 1 > STRING_BYTES_MAX;
                let kind = if too_long { TokenKind::StringTooLong } else { TokenKind::String };
                return (kind, offset + 1);
            }
            _ => escaped = c == '\\' && !escaped,
        }
    }
    (TokenKind::UnterminatedString, text.len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::{Lexer, TokenKind};
    use crate::sources::Sources;

    fn tokens(text: &str) -> Vec<(TokenKind, String)> {
        let mut sources = Sources::new();
        let file = sources.add(Path::new("test"), text.into()).unwrap();
        let mut lexer = Lexer::new(file);
        let mut all = Vec::new();
        loop {
            let token = lexer.next(&sources);
            if token.kind == TokenKind::End {
                return all;
            }
            let value = token.value(&sources).map_or(sources.slice(token.span).into(), Into::into);
            all.push((token.kind, value));
        }
    }

    #[test]
    fn words_strings_and_punctuation() {
        let word = |text: &str| (TokenKind::Word, text.to_owned());
        let mark = |c: char| (TokenKind::Punctuation(c), c.to_string());
        assert_eq!(
            tokens("# c\nnet{ping-int 3;# d ;\n\taddress 10.0.0.1:7788;}"),
            [
                word("net"),
                mark('{'),
                word("ping-int"),
                word("3"),
                mark(';'),
                word("address"),
                word("10.0.0.1"),
                mark(':'),
                word("7788"),
                mark(';'),
                mark('}'),
            ]
        );
        assert_eq!(
            tokens(r#""a b" "\"q\" \\ \n" """#),
            [
                (TokenKind::String, "a b".into()),
                (TokenKind::String, r#""q" \ n"#.into()),
                (TokenKind::String, String::new()),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_a_token_too() {
        assert_eq!(tokens("\"open\nx")[0], (TokenKind::UnterminatedString, "\"open".into()));
        assert_eq!(tokens("\"open\\\"")[0].0, TokenKind::UnterminatedString);
        assert_eq!(tokens(&format!("\"{}\"", "x".repeat(256)))[0].0, TokenKind::StringTooLong);
        assert_eq!(tokens(&"x".repeat(129))[0].0, TokenKind::WordTooLong);
        assert_eq!(tokens("é=")[0].0, TokenKind::Stray('é'));
    }

    proptest! {
        #[test]
        fn every_text_ends_and_no_byte_is_lost(text in "[ -~é\n\t]{0,200}") {
            let mut sources = Sources::new();
            let file = sources.add(Path::new("test"), text.clone()).unwrap();
            let mut lexer = Lexer::new(file);
            let mut end = 0;
            for _ in 0..=text.len() {
                let token = lexer.next(&sources);
                prop_assert!(token.span.start >= end);
                let between = &text[end..token.span.start];
                prop_assert!(between.trim().is_empty() || between.contains('#'));
                end = token.span.end;
                if token.kind == TokenKind::End {
                    break;
                }
                prop_assert!(token.span.end > token.span.start);
            }
            prop_assert_eq!(end, text.len());
        }
    }
}
