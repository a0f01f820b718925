//! The parser: files, top level, resources.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use conf::{Diagnostic, FILE_BYTES_MAX, FileId, Lexer, Sources, Span, Token, TokenKind, nearest};

use super::model::{Config, Global, Resource, Sections, Word};
use super::options::Section;
use super::unique::Unique;

/// Depth of includes, as drbdadm has it.
const INCLUDE_DEPTH_MAX: usize = 10;

/// A configuration that is not one; all that is wrong with it.
#[derive(Debug)]
pub struct Invalid {
    /// Its files, as far as they were read.
    pub sources: Sources,
    /// What is wrong, and warnings.
    pub findings: Vec<Diagnostic>,
}

impl Invalid {
    /// The text for a person.
    pub fn render(&self, colour: bool) -> String {
        self.findings.iter().map(|finding| finding.render(&self.sources, colour)).collect()
    }
}

/// Reads the configuration at `path`.
///
/// # Errors
/// Everything that is wrong with it: of mistakes in the grammar the first in each file.
pub fn load(path: &Path) -> Result<Config, Invalid> {
    load_also(path, None)
}

/// Reads the configuration at `path`, or with `-` from stdin, and `also` as if it were part of it.
///
/// # Errors
/// As [`load`].
pub fn load_also(path: &Path, also: Option<&Path>) -> Result<Config, Invalid> {
    if path == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin().lock().take(FILE_BYTES_MAX));
        return match text {
            Ok(text) => load_with(Path::new("STDIN"), also, |sources| sources.add(Path::new("STDIN"), text)),
            Err(error) => Err(Invalid {
                sources: Sources::new(),
                findings: vec![Diagnostic::error_without_place(format!("stdin: {error}"))],
            }),
        };
    }
    load_with(path, also, |sources| sources.read(path))
}

/// Reads `/etc/drbd.conf`, or without one `/etc/drbd.d` as Debian's drbd.conf includes it.
///
/// # Errors
/// As [`load`].
pub fn load_default(also: Option<&Path>) -> Result<Config, Invalid> {
    let file = Path::new("/etc/drbd.conf");
    if file.exists() || !Path::new("/etc/drbd.d").is_dir() {
        return load_also(file, also);
    }
    let includes = if Path::new("/etc/drbd.d/global_common.conf").exists() {
        "include \"drbd.d/global_common.conf\";\ninclude \"drbd.d/*.res\";\n"
    } else {
        "include \"drbd.d/*.res\";\n"
    };
    load_with(file, also, |sources| sources.add(file, includes.into()))
}

fn load_with(
    path: &Path,
    also: Option<&Path>,
    read: impl FnOnce(&mut Sources) -> Result<FileId, conf::ReadFault>,
) -> Result<Config, Invalid> {
    let mut sources = Sources::new();
    sources.hide_values_of("shared-secret");
    let file = match read(&mut sources) {
        Ok(file) => file,
        Err(fault) => {
            let finding = Diagnostic::error_without_place(fault.to_string())
                .help("name a configuration with `-c FILE`, or write /etc/drbd.conf");
            return Err(Invalid { sources, findings: vec![finding] });
        }
    };
    let mut parser = Parser::new(&mut sources, file);
    parser.read_files.insert(identity(path));
    parser.include_stack.push(identity(path));
    parser.file();
    if let Some(also) = also {
        parser.second_file(also);
    }
    parser.finish();
    let Parser { global, common, resources, findings, .. } = parser;
    if findings.iter().all(Diagnostic::is_warning) {
        Ok(Config { sources, global, common, resources, warnings: findings })
    } else {
        Err(Invalid { sources, findings })
    }
}

/// What tells a file from others, whatever path leads to it.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// State of a parse. Methods that return an error have met a mistake after which the file makes no sense; lesser
/// mistakes are collected in `findings`.
pub(super) struct Parser<'a> {
    pub(super) sources: &'a mut Sources,
    lexer: Lexer,
    /// The token that [`Parser::next`] gave last.
    previous: Span,
    include_stack: Vec<PathBuf>,
    read_files: HashSet<PathBuf>,
    pub(super) unique: Unique,
    pub(super) findings: Vec<Diagnostic>,
    pub(super) global: Global,
    common: Option<Sections>,
    pub(super) resources: Vec<Resource>,
}

impl<'a> Parser<'a> {
    fn new(sources: &'a mut Sources, file: FileId) -> Self {
        Self {
            sources,
            lexer: Lexer::new(file),
            previous: Span { file, start: 0, end: 0 },
            include_stack: Vec::new(),
            read_files: HashSet::new(),
            unique: Unique::default(),
            findings: Vec::new(),
            global: Global::default(),
            common: None,
            resources: Vec::new(),
        }
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.lexer.next(self.sources);
        self.previous = token.span;
        token
    }

    pub(super) fn peek(&self) -> Token {
        self.lexer.peek(self.sources)
    }

    /// Everything up to `delimiter`, whatever it is made of.
    pub(super) fn raw_until(&mut self, delimiter: char) -> Span {
        let span = self.lexer.take_raw(self.sources, delimiter);
        self.previous = span;
        span
    }

    pub(super) fn previous(&self) -> Span {
        self.previous
    }

    pub(super) fn report(&mut self, outcome: Result<(), Diagnostic>) {
        self.findings.extend(outcome.err());
    }

    /// Takes `punctuation`, or says that it is missing. A missing `;` is missed where it should stand, not where the
    /// next word does.
    pub(super) fn expect(&mut self, punctuation: char) -> Result<Span, Diagnostic> {
        let before = self.previous;
        let token = self.peek();
        if token.is(punctuation) {
            return Ok(self.next().span);
        }
        if punctuation == ';' {
            let end = Span { start: before.end, ..before };
            return Err(Diagnostic::error("missing `;`", end, "expected `;` here")
                .help("every statement ends with `;`"));
        }
        Err(self.unexpected(token, &format!("`{punctuation}`")))
    }

    /// What is said about a token that fits nowhere.
    pub(super) fn unexpected(&self, token: Token, expected: &str) -> Diagnostic {
        let text = self.sources.slice(token.span);
        match token.kind {
            TokenKind::UnterminatedString => {
                Diagnostic::error("string without an end", token.span, "no closing `\"` on this line")
                    .help("close the string with `\"`; a string cannot go on in the next line")
            }
            TokenKind::StringTooLong => Diagnostic::error("string is too long", token.span, "")
                .help(format!("a string has at most {} bytes", conf::STRING_BYTES_MAX)),
            TokenKind::WordTooLong => Diagnostic::error("word is too long", token.span, "")
                .help(format!("a word has at most {} bytes", conf::WORD_BYTES_MAX)),
            TokenKind::Stray(c) => Diagnostic::error(
                format!("unexpected character `{c}`"),
                token.span,
                format!("expected {expected}"),
            )
            .help("put a value with characters other than letters, digits and ./_- into quotes"),
            TokenKind::End => {
                // Behind the last word there is nothing that could be marked.
                let end = self.sources.text(token.span.file).trim_end().len();
                let last = Span { start: end.saturating_sub(1), end, ..token.span };
                Diagnostic::error(
                    "unexpected end of the file",
                    last,
                    format!("expected {expected} after this"),
                )
                .help("is a `}` missing?")
            }
            TokenKind::Word | TokenKind::String | TokenKind::Punctuation(_) => {
                Diagnostic::error(format!("unexpected `{text}`"), token.span, format!("expected {expected}"))
            }
        }
    }

    /// An unknown word where one of `known` belongs.
    pub(super) fn unknown(&self, token: Token, what: &str, known: &[&str]) -> Diagnostic {
        if token.kind != TokenKind::Word {
            return self.unexpected(token, &known_text(known));
        }
        let text = self.sources.slice(token.span);
        let help = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", known_text(known)),
        };
        Diagnostic::error(format!("unknown {what} `{text}`"), token.span, "").help(help)
    }

    /// Takes a word or string as a value.
    pub(super) fn value(&mut self, expected: &str) -> Result<Word, Diagnostic> {
        let token = self.peek();
        match token.value(self.sources) {
            Some(text) => {
                let text = text.into_owned();
                self.next();
                Ok(Word { text, span: token.span })
            }
            None => Err(self.unexpected(token, expected)),
        }
    }

    /// Takes a number between limits.
    pub(super) fn integer(&mut self, what: &str, min: u32, max: u32) -> Result<(u32, Span), Diagnostic> {
        let word = self.value("a number")?;
        let out_of_range = |message: String| {
            Diagnostic::error(message, word.span, "").help(format!("{what} is {min} to {max}"))
        };
        match word.text.parse::<u64>() {
            Err(_) => Err(out_of_range(format!("`{}` is not a number", word.text))),
            Ok(number) => match u32::try_from(number) {
                Ok(small) if (min..=max).contains(&small) => Ok((small, word.span)),
                _ => Err(out_of_range(format!("{what} `{number}` is out of range"))),
            },
        }
    }

    /// One file, to its end or its first mistake in the grammar.
    fn file(&mut self) {
        let outcome = self.top_level();
        self.report(outcome);
    }

    /// Another file, after the first.
    fn second_file(&mut self, path: &Path) {
        match self.sources.read(path) {
            Err(fault) => self.findings.push(Diagnostic::error_without_place(fault.to_string())),
            Ok(file) => {
                self.lexer = Lexer::new(file);
                self.previous = Span { file, start: 0, end: 0 };
                self.file();
            }
        }
    }

    fn top_level(&mut self) -> Result<(), Diagnostic> {
        const KNOWN: &[&str] = &["global", "common", "resource", "include", "skip"];
        loop {
            let token = self.next();
            match self.sources.slice(token.span) {
                _ if token.kind == TokenKind::End => return Ok(()),
                "global" => self.global_section(token.span)?,
                "common" => self.common_section(token.span)?,
                "resource" => self.resource()?,
                "include" => self.include()?,
                "skip" => self.skip()?,
                _ => return Err(self.unknown(token, "keyword", KNOWN)),
            }
        }
    }

    fn global_section(&mut self, span: Span) -> Result<(), Diagnostic> {
        const KNOWN: &[&str] = &[
            "usage-count",
            "minor-count",
            "dialog-refresh",
            "disable-ip-verification",
            "udev-always-use-vnr",
            "cmd-timeout-short",
            "cmd-timeout-medium",
            "cmd-timeout-long",
        ];
        let once = self.unique.note("section", "global", span);
        self.report(once);
        self.expect('{')?;
        loop {
            let token = self.next();
            match self.sources.slice(token.span) {
                "}" => return Ok(()),
                "udev-always-use-vnr" => self.global.udev_always_use_vnr = true,
                "disable-ip-verification" => self.global.disable_ip_verification = true,
                "minor-count" => self.global.minor_count = Some(self.integer("minor-count", 1, 255)?.0),
                "dialog-refresh" => {
                    self.global.dialog_refresh = Some(self.integer("dialog-refresh", 0, 600)?.0);
                }
                "cmd-timeout-short" => self.command_timeout(0, "cmd-timeout-short")?,
                "cmd-timeout-medium" => self.command_timeout(1, "cmd-timeout-medium")?,
                "cmd-timeout-long" => self.command_timeout(2, "cmd-timeout-long")?,
                "usage-count" => self.usage_count()?,
                _ => return Err(self.unknown(token, "option of the global section", KNOWN)),
            }
            self.expect(';')?;
        }
    }

    fn command_timeout(&mut self, which: usize, name: &str) -> Result<(), Diagnostic> {
        self.global.command_timeouts_s[which] = Some(self.integer(name, 0, 900)?.0);
        Ok(())
    }

    fn usage_count(&mut self) -> Result<(), Diagnostic> {
        let word = self.value("yes, no or ask")?;
        if !["yes", "no", "ask"].contains(&word.text.as_str()) {
            return Err(Diagnostic::error(
                format!("`{}` is not a value of `usage-count`", word.text),
                word.span,
                "",
            )
            .help("`usage-count` is one of yes, no, ask"));
        }
        self.global.usage_count = Some(word.text);
        Ok(())
    }

    fn common_section(&mut self, span: Span) -> Result<(), Diagnostic> {
        let once = self.unique.note("section", "common", span);
        self.report(once);
        self.expect('{')?;
        let mut resource = Resource {
            name: Word { text: "common".into(), span },
            sections: Sections::default(),
            volumes: Vec::new(),
            hosts: Vec::new(),
            span,
        };
        self.resource_statements(&mut resource)?;
        for host in &resource.hosts {
            self.findings.push(
                Diagnostic::error("a host section in the common section", host.span, "")
                    .help("`on` belongs into a resource section"),
            );
        }
        self.common = Some(resource.sections);
        Ok(())
    }

    fn resource(&mut self) -> Result<(), Diagnostic> {
        let name = self.value("the name of a resource")?;
        let named = if name.text == "all" || name.text.is_empty() || name.text.contains(['/', ' ', '\t']) {
            Err(Diagnostic::error(format!("`{}` cannot be the name of a resource", name.text), name.span, "")
                .help("`all` means every resource, and `/` stands before the number of a volume"))
        } else {
            self.unique.note("resource", &name.text, name.span)
        };
        self.report(named);
        let span = self.expect('{')?;
        let mut resource =
            Resource { name, sections: Sections::default(), volumes: Vec::new(), hosts: Vec::new(), span };
        self.resource_statements(&mut resource)?;
        self.resources.push(resource);
        Ok(())
    }

    /// The statements between the braces of a resource; takes the closing one.
    fn resource_statements(&mut self, resource: &mut Resource) -> Result<(), Diagnostic> {
        const KNOWN: &[&str] = &[
            "protocol",
            "on",
            "disk",
            "net",
            "syncer",
            "startup",
            "handlers",
            "options",
            "volume",
            "device",
            "meta-disk",
            "flexible-meta-disk",
            "floating",
            "stacked-on-top-of",
        ];
        loop {
            let token = self.next();
            let word = self.sources.slice(token.span).to_owned();
            match word.as_str() {
                "}" => return Ok(()),
                "protocol" => {
                    self.once(resource, "protocol statement", token.span);
                    let setting = self.setting(Section::Net, token)?;
                    resource.sections.net.extend(setting);
                    self.expect(';')?;
                }
                "on" => self.host(resource, token.span)?,
                "floating" => self.floating(resource, token.span)?,
                "stacked-on-top-of" => self.stacked(resource, token.span)?,
                "disk" if self.peek().is('{') => {
                    self.option_section(resource, Section::Disk, "disk", token.span)?;
                }
                "net" => self.option_section(resource, Section::Net, "net", token.span)?,
                "syncer" => self.syncer_section(resource, token.span)?,
                "startup" => self.startup_section(resource, token.span)?,
                "handlers" => self.option_section(resource, Section::Handlers, "handlers", token.span)?,
                "options" => self.option_section(resource, Section::Options, "options", token.span)?,
                "volume" => self.volume_section(&mut resource.volumes)?,
                "disk" | "device" | "meta-disk" | "flexible-meta-disk" => {
                    let volume = self.implicit_volume(&mut resource.volumes, token.span);
                    self.volume_statement(volume, token)?;
                }
                "proxy" => return Err(proxy(token.span)),
                "ignore-on" => {
                    return Err(Diagnostic::error("`ignore-on` is not supported", token.span, "")
                        .help("remove it: a node that no section names ignores the resource"));
                }
                word @ ("connection" | "connection-mesh" | "peer-device-options" | "template-file") => {
                    return Err(only_in_9(word, token.span));
                }
                _ => return Err(self.unknown(token, "keyword", KNOWN)),
            }
        }
    }

    /// Notes something that a resource has once.
    pub(super) fn once(&mut self, resource: &Resource, what: &str, span: Span) {
        let once = self.unique.note(what, &resource.name.text, span);
        self.report(once);
    }

    /// `skip [TEXT] { … }`: what stands between the braces is not read.
    fn skip(&mut self) -> Result<(), Diagnostic> {
        let begin = self.previous();
        if !self.peek().is('{') {
            self.value("`{`")?;
        }
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            let token = self.next();
            match token.kind {
                TokenKind::Punctuation('{') => depth += 1,
                TokenKind::Punctuation('}') => depth -= 1,
                TokenKind::End => {
                    return Err(Diagnostic::error("end of the file in a skip block", token.span, "")
                        .also(begin, "it begins here"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn include(&mut self) -> Result<(), Diagnostic> {
        let pattern = self.value("a file name")?;
        self.expect(';')?;
        let including = self.sources.path(pattern.span.file).to_path_buf();
        let wild = conf::include::has_wildcard(&pattern.text);
        let found = conf::include::matches(&including, &pattern.text).unwrap_or_else(|error| {
            let message = format!("cannot search for `{}`: {error}", pattern.text);
            self.findings.push(Diagnostic::error(message, pattern.span, ""));
            Vec::new()
        });
        if found.is_empty() && !wild {
            self.findings.push(
                Diagnostic::error(
                    format!("include file `{}` does not exist", pattern.text),
                    pattern.span,
                    "",
                )
                .help(format!("the name is relative to the directory of {}", including.display())),
            );
        }
        for path in found {
            self.include_file(&path, &pattern, wild);
        }
        Ok(())
    }

    fn include_file(&mut self, path: &Path, pattern: &Word, wild: bool) {
        let identity = identity(path);
        if self.include_stack.contains(&identity) {
            // A pattern that also matches the file it stands in means the others.
            if !wild {
                self.findings.push(
                    Diagnostic::error(
                        format!("{} includes itself", path.display()),
                        pattern.span,
                        "this closes the circle",
                    )
                    .help("remove one of the include statements of the circle"),
                );
            }
            return;
        }
        // As the original: a file that two patterns match is read once.
        if !self.read_files.insert(identity.clone()) {
            return;
        }
        if self.include_stack.len() >= INCLUDE_DEPTH_MAX {
            let message = format!("includes are nested more than {INCLUDE_DEPTH_MAX} deep");
            self.findings.push(Diagnostic::error(message, pattern.span, ""));
            return;
        }
        match self.sources.read(path) {
            Err(fault) => {
                self.findings.push(Diagnostic::error(fault.to_string(), pattern.span, ""));
            }
            Ok(file) => {
                let (lexer, previous) = (self.lexer, self.previous);
                self.lexer = Lexer::new(file);
                self.previous = Span { file, start: 0, end: 0 };
                self.include_stack.push(identity);
                self.file();
                self.include_stack.pop();
                (self.lexer, self.previous) = (lexer, previous);
            }
        }
    }
}

/// What is said of a section that only DRBD 9 knows.
pub(super) fn only_in_9(word: &str, span: Span) -> Diagnostic {
    Diagnostic::error(format!("`{word}` is of DRBD 9"), span, "")
        .help("resources here are of 8.4: between two nodes, each with its `on HOST { … }` section")
}

/// What is said of DRBD Proxy.
pub(super) fn proxy(span: Span) -> Diagnostic {
    Diagnostic::error("`proxy` is not supported", span, "")
        .help("DRBD Proxy is a program of its own that is not part of this one: remove the section")
}

pub(super) fn known_text(known: &[&str]) -> String {
    known.join(", ")
}
