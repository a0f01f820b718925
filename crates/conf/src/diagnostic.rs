//! Diagnostics that point.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};

use crate::sources::{Sources, Span};

/// One finding about a configuration: a message, the place, other places that have to do with it, and what would be
/// right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Boxed: a diagnostic travels as the error of functions that succeed most of the time.
    content: Box<Content>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Content {
    message: String,
    place: Option<(Span, String)>,
    others: Vec<(Span, String)>,
    help: Option<String>,
    is_warning: bool,
}

impl Diagnostic {
    /// A mistake at `span`; `label` is written below the marked text and may be empty.
    pub fn error(message: impl Into<String>, span: Span, label: impl Into<String>) -> Self {
        Self::new(message.into(), Some((span, label.into())))
    }

    /// A mistake that no place of a file shows, such as a file that is missing.
    pub fn error_without_place(message: impl Into<String>) -> Self {
        Self::new(message.into(), None)
    }

    fn new(message: String, place: Option<(Span, String)>) -> Self {
        let content = Content { message, place, others: Vec::new(), help: None, is_warning: false };
        Self { content: Box::new(content) }
    }

    /// The same as a warning: what is written works, but perhaps not as meant.
    #[must_use]
    pub fn into_warning(mut self) -> Self {
        self.content.is_warning = true;
        self
    }

    /// Adds another place, such as where something was first used.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.content.others.push((span, label.into()));
        self
    }

    /// Adds what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.content.help = Some(help.into());
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.content.message
    }

    /// Where, if a place of a file shows it.
    pub fn span(&self) -> Option<Span> {
        self.content.place.as_ref().map(|&(span, _)| span)
    }

    /// Whether it is a warning only.
    pub fn is_warning(&self) -> bool {
        self.content.is_warning
    }

    /// The text for a person: message, `file:line:column`, the line with the place marked, other places, help.
    pub fn render(&self, sources: &Sources, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_wrap_lines(false)
            .with_context_lines(1);
        let mut text = String::new();
        handler.render_report(&mut text, &self.report(sources)).expect("a String takes every text");
        let mut trimmed: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        // The renderer begins with an empty line.
        if trimmed.starts_with('\n') {
            trimmed.remove(0);
        }
        trimmed
    }

    fn report(&self, sources: &Sources) -> Report {
        let content = &self.content;
        let named = |span: Span| {
            let path = sources.path(span.file).display().to_string();
            NamedSource::new(path, sources.shown(span.file))
        };
        let mut labels = Vec::new();
        let mut related = Vec::new();
        for (number, (span, label)) in content.place.iter().chain(&content.others).enumerate() {
            let same_file = content.place.as_ref().is_some_and(|(first, _)| first.file == span.file);
            let label = (!label.is_empty()).then(|| label.clone());
            let range = span.start..span.end.max(span.start);
            if number == 0 {
                labels.push(LabeledSpan::new_primary_with_span(label, range));
            } else if same_file {
                labels.push(LabeledSpan::new_with_span(label, range));
            } else {
                related.push(Report {
                    message: label.unwrap_or_else(|| "see also".into()),
                    severity: Severity::Advice,
                    source: Some(named(*span)),
                    labels: vec![LabeledSpan::new_primary_with_span(None, range)],
                    help: None,
                    related: Vec::new(),
                });
            }
        }
        Report {
            message: content.message.clone(),
            severity: if content.is_warning { Severity::Warning } else { Severity::Error },
            source: content.place.as_ref().map(|&(span, _)| named(span)),
            labels,
            help: content.help.clone(),
            related,
        }
    }
}

/// A [`Diagnostic`] together with its texts, as the renderer wants it.
#[derive(Debug)]
struct Report {
    message: String,
    severity: Severity,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
    related: Vec<Report>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl miette::Diagnostic for Report {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        if self.related.is_empty() {
            return None;
        }
        Some(Box::new(self.related.iter().map(|related| related as &dyn miette::Diagnostic)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Diagnostic;
    use crate::sources::{Sources, Span};

    #[test]
    fn a_place_is_shown_with_its_line() {
        let mut sources = Sources::new();
        let file = sources.add(Path::new("r0.res"), "net {\n  timeuot 180;\n}\n".into()).unwrap();
        let other = sources.add(Path::new("global.conf"), "timeout 60;\n".into()).unwrap();
        let text =
            Diagnostic::error("unknown option", Span { file, start: 8, end: 15 }, "not an option of net")
                .also(Span { file: other, start: 0, end: 7 }, "first used here")
                .help("did you mean `timeout`?")
                .render(&sources, false);
        assert!(!text.contains('\x1b'), "{text}");
        for part in
            ["unknown option", "r0.res:2:3", "timeuot 180;", "did you mean `timeout`?", "global.conf:1:1"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
