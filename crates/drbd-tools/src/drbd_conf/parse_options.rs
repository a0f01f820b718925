//! The parser: sections of options.

use conf::{Diagnostic, Span, Token, TokenKind, nearest};

use super::model::{Resource, Setting, Word};
use super::options::{self, Kind, ONLY_IN_9, OptionDef, Section};
use super::parse::{Parser, known_text};
use super::value;

impl Parser<'_> {
    /// `net { … }` and its like, from the brace on.
    pub(super) fn option_section(
        &mut self,
        resource: &mut Resource,
        section: Section,
        name: &str,
        span: Span,
    ) -> Result<(), Diagnostic> {
        self.once(resource, &format!("{name} section"), span);
        self.expect('{')?;
        let settings = self.options_until_brace(section)?;
        resource.sections.of_mut(section).extend(settings);
        Ok(())
    }

    /// Options of a section and the brace that closes it.
    pub(super) fn options_until_brace(&mut self, section: Section) -> Result<Vec<Setting>, Diagnostic> {
        let mut settings = Vec::new();
        loop {
            let token = self.next();
            if token.is('}') {
                return Ok(settings);
            }
            settings.extend(self.setting(section, token)?);
            self.expect(';')?;
        }
    }

    /// The syncer section of 8.3; its options go to the sections where 8.4 has them.
    pub(super) fn syncer_section(&mut self, resource: &mut Resource, span: Span) -> Result<(), Diagnostic> {
        self.once(resource, "syncer section", span);
        self.expect('{')?;
        loop {
            let token = self.next();
            if token.is('}') {
                return Ok(());
            }
            let word = self.sources.slice(token.span);
            let Some(option) = options::find_syncer(word).filter(|_| token.kind == TokenKind::Word) else {
                let known: Vec<_> = options::OPTIONS
                    .iter()
                    .filter(|option| option.syncer_83)
                    .map(|option| option.name_83.unwrap_or(option.name))
                    .collect();
                return Err(self.unknown(token, "option of the syncer section", &known));
            };
            let setting = self.setting_of(option, token.span)?;
            let setting = setting.map(|setting| Setting { in_syncer: true, ..setting });
            resource.sections.of_mut(option.section).extend(setting);
            self.expect(';')?;
        }
    }

    /// The startup section: options, and lists of hosts.
    pub(super) fn startup_section(&mut self, resource: &mut Resource, span: Span) -> Result<(), Diagnostic> {
        self.once(resource, "startup section", span);
        self.expect('{')?;
        loop {
            let token = self.next();
            match self.sources.slice(token.span) {
                "}" => return Ok(()),
                "stacked-timeouts" => resource.sections.stacked_timeouts = true,
                "become-primary-on" => {
                    resource.sections.become_primary_on = self.host_names(';')?;
                }
                _ => {
                    let setting = self.setting(Section::Startup, token)?;
                    resource.sections.startup.extend(setting);
                }
            }
            self.expect(';')?;
        }
    }

    /// One or more names before `delimiter`, which stays the next token.
    pub(super) fn host_names(&mut self, delimiter: char) -> Result<Vec<Word>, Diagnostic> {
        let mut names = vec![self.value("the name of a host")?];
        while !self.peek().is(delimiter) {
            names.push(self.value(&format!("the name of a host or `{delimiter}`"))?);
        }
        Ok(names)
    }

    /// An option of `section`, whose name is `token`, up to its semicolon. None if it is one to forget.
    pub(super) fn setting(&mut self, section: Section, token: Token) -> Result<Option<Setting>, Diagnostic> {
        if token.kind != TokenKind::Word {
            return Err(
                self.unexpected(token, &format!("an option of the {} section or `}}`", section.name()))
            );
        }
        let word = self.sources.slice(token.span);
        if let Some(option) = options::find_negated(section, word) {
            return Ok(Some(Setting { option, value: "no".into(), span: token.span, in_syncer: false }));
        }
        match options::find(section, word) {
            Some(option) => self.setting_of(option, token.span),
            None => Err(unknown_option(section, word, token.span)),
        }
    }

    fn setting_of(&mut self, option: &'static OptionDef, name: Span) -> Result<Option<Setting>, Diagnostic> {
        let is_flag = matches!(option.kind, Kind::Flag { .. });
        if self.peek().is(';') {
            if is_flag {
                return Ok(Some(Setting { option, value: "yes".into(), span: name, in_syncer: false }));
            }
            let message = format!("`{}` needs a value", option.name);
            return Err(Diagnostic::error(message, name, "").help(example(option)));
        }
        let word = self.value("a value")?;
        if option.kind == Kind::Forgotten {
            return Ok(None);
        }
        match value::check(option, &word.text) {
            Ok(value) => Ok(Some(Setting { option, value, span: name.to(word.span), in_syncer: false })),
            Err(bad) => {
                let help = match nearest(&word.text, bad.choices.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`? {}", bad.help),
                    None => bad.help,
                };
                self.findings.push(Diagnostic::error(bad.message, word.span, "").help(help));
                Ok(None)
            }
        }
    }
}

fn example(option: &OptionDef) -> String {
    match option.kind {
        Kind::Number { default, .. } => format!("for example `{} {default};`", option.name),
        Kind::Choice(choices) => {
            let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
            format!("`{}` is one of {}", option.name, known_text(&names))
        }
        Kind::Protocol => "for example `protocol C;`".into(),
        Kind::Flag { .. } | Kind::Text { .. } | Kind::Forgotten => {
            format!("for example `{} \"…\";`", option.name)
        }
    }
}

fn unknown_option(section: Section, word: &str, span: Span) -> Diagnostic {
    let error = |label: &str| {
        Diagnostic::error(format!("unknown option `{word}` in the {} section", section.name()), span, label)
    };
    if let Some(elsewhere) = options::find_anywhere(word) {
        let right = elsewhere.section.name();
        return error("").help(format!("`{}` is an option of the {right} section", elsewhere.name));
    }
    if let Some(near) = nearest(word, options::names(section)) {
        return error("").help(format!("did you mean `{near}`?"));
    }
    if ONLY_IN_9.contains(&word) {
        return error("").help("this is an option of DRBD 9; these resources are of 8.4: remove it");
    }
    let known: Vec<_> = options::names(section).collect();
    error("").help(format!("the {} section has {}", section.name(), known_text(&known)))
}
