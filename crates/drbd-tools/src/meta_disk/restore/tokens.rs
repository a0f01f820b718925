//! The words of a dump. Upstream: drbdmeta_scanner.fl, `md_parse_error`.

/// One of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Token {
    /// One of `{};[]`.
    Sign(char),
    /// `"..."`.
    String(String),
    /// 0x and 16 digits.
    Hex64(u64),
    /// 0x and 8 digits.
    Hex32(u32),
    /// At most 19 digits.
    Number(u64),
    /// A keyword.
    Word(String),
    /// What can be none of these, and was told.
    Bad(String),
    /// The end.
    End,
}

/// A text, read from its start.
pub struct Tokens<'t> {
    rest: &'t str,
    line: usize,
}

/// A keyword's longest form; what is longer is cut in messages.
const WORD_BYTES_MAX: usize = 100;

impl<'t> Tokens<'t> {
    /// Nothing read.
    pub fn new(text: &'t str) -> Self {
        Self { rest: text, line: 1 }
    }

    fn skip_blank(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches([' ', '\t', '\r']);
            self.rest = match trimmed.as_bytes().first() {
                Some(b'\n') => {
                    self.line += 1;
                    &trimmed[1..]
                }
                Some(b'#') => &trimmed[trimmed.find('\n').unwrap_or(trimmed.len())..],
                _ => {
                    self.rest = trimmed;
                    return;
                }
            };
        }
    }

    /// The next one.
    pub fn next(&mut self) -> Token {
        self.skip_blank();
        let Some(first) = self.rest.chars().next() else { return Token::End };
        if "{};[]".contains(first) {
            self.rest = &self.rest[1..];
            return Token::Sign(first);
        }
        if first == '"' {
            let end = self.rest[1..].find(['"', '\n']).map(|at| at + 1);
            let whole = end.filter(|&end| self.rest[end..].starts_with('"') && (2..=21).contains(&end));
            let Some(end) = whole else {
                let shown: String = self.rest.chars().take(21).collect();
                self.rest = "";
                return Token::Bad(format!("line {}: invalid string: {shown} ...", self.line));
            };
            let text = self.rest[1..end].to_owned();
            self.rest = &self.rest[end + 1..];
            return Token::String(text);
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        if end == 0 {
            self.rest = &self.rest[first.len_utf8()..];
            return Token::Bad(format!("got invalid input character '\\x{:02x}' [{first}]", first as u32));
        }
        let word = &self.rest[..end];
        self.rest = &self.rest[end..];
        self.classify(word)
    }

    fn classify(&self, word: &str) -> Token {
        let bad = |what: &str| {
            let shown: String = word.chars().take(WORD_BYTES_MAX).collect();
            Token::Bad(format!("line {}: {what}: {shown} ...", self.line))
        };
        if let Some(digits) = word.strip_prefix("0x") {
            return match (digits.len(), u64::from_str_radix(digits, 16)) {
                (16, Ok(number)) => Token::Hex64(number),
                (8, Ok(number)) => Token::Hex32(number as u32),
                _ => bad("invalid hex number (only 8 or 16 hex digits accepted)"),
            };
        }
        if word.bytes().all(|b| b.is_ascii_digit()) {
            return match word.parse() {
                Ok(number) if word.len() <= 19 => Token::Number(number),
                _ => bad("number too big"),
            };
        }
        Token::Word(word.to_owned())
    }

    /// What is said of one that should be another.
    pub fn wrong(&self, expected: &str, found: &Token) -> String {
        let found = match found {
            Token::End => ", but end of file encountered".to_owned(),
            Token::Bad(why) => format!("; {why}"),
            Token::Sign(sign) => format!(", not '{sign}'"),
            Token::Number(_) | Token::Hex32(_) | Token::Hex64(_) => ", not some number".to_owned(),
            Token::Word(word) | Token::String(word) => format!(", not '{word}'"),
        };
        format!("Parse error in line {}: {expected} expected{found}", self.line)
    }

    /// A keyword.
    pub fn word(&mut self, keyword: &str) -> Result<(), String> {
        match self.next() {
            Token::Word(word) if word == keyword => Ok(()),
            other => Err(self.wrong(&format!("keyword '{keyword}'"), &other)),
        }
    }

    /// A sign.
    pub fn sign(&mut self, sign: char) -> Result<(), String> {
        let name = match sign {
            ';' => "semicolon (;)",
            '{' => "opening brace ({)",
            _ => "closing brace (})",
        };
        match self.next() {
            Token::Sign(found) if found == sign => Ok(()),
            other => Err(self.wrong(name, &other)),
        }
    }

    /// A string.
    pub fn string(&mut self) -> Result<String, String> {
        match self.next() {
            Token::String(text) => Ok(text),
            other => Err(self.wrong("short quoted string (\"..up to 20 characters, no newline..\")", &other)),
        }
    }

    /// 16 digits.
    pub fn hex64(&mut self) -> Result<u64, String> {
        match self.next() {
            Token::Hex64(number) => Ok(number),
            other => Err(self.wrong("a 16-digit hex number", &other)),
        }
    }

    /// 8 digits.
    pub fn hex32(&mut self) -> Result<u32, String> {
        match self.next() {
            Token::Hex32(number) => Ok(number),
            other => Err(self.wrong("an 8-digit hex number", &other)),
        }
    }

    /// `KEYWORD NUMBER;`.
    pub fn setting(&mut self, keyword: &str) -> Result<u64, String> {
        self.word(keyword)?;
        let number = match self.next() {
            Token::Number(number) => number,
            other => return Err(self.wrong("number ([0-9], up to 20 digits)", &other)),
        };
        self.sign(';')?;
        Ok(number)
    }

    /// Nothing more.
    pub fn end(&mut self) -> Result<(), String> {
        match self.next() {
            Token::End => Ok(()),
            other => Err(self.wrong("end of file", &other)),
        }
    }
}
