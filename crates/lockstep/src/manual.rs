//! Manual pages, from the definitions that parse the command lines and print the help.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Columns of help shown as it is.
const HELP_COLUMNS: usize = 76;

/// One page.
pub struct Page {
    /// Name of the program, with `-` for blanks.
    pub name: &'static str,
    /// Section of the manual.
    pub section: u8,
    source: Source,
}

/// Where a page's text comes from.
enum Source {
    /// What parses the command line.
    CommandLine(fn() -> Command),
    /// One line for NAME, and the help as it is printed.
    Help(&'static str, fn() -> String),
}

/// Every page.
pub const PAGES: &[Page] = &[
    Page {
        name: "lockstep",
        section: 1,
        source: Source::Help("clustered storage in user space", crate::overview),
    },
    Page { name: "nova", section: 1, source: Source::CommandLine(lab::nova_command_line) },
    Page { name: "lockstep-lab", section: 1, source: Source::CommandLine(lab::lab_command_line) },
    Page {
        name: "lockstep-scenario",
        section: 5,
        source: Source::Help("timelines of faults for lockstep lab play", || lab::SCENARIO_MANUAL.to_owned()),
    },
    Page { name: "drbdadm", section: 8, source: Source::CommandLine(drbd_tools::drbdadm_command_line) },
    Page {
        name: "drbdsetup",
        section: 8,
        source: Source::Help("give the DRBD daemon one order", drbd_tools::drbdsetup_usage),
    },
    Page {
        name: "drbdmeta",
        section: 8,
        source: Source::Help("meta-data of a DRBD device that is not in use", || {
            drbd_tools::DRBDMETA_USAGE.to_owned()
        }),
    },
    Page {
        name: "lockstep-drbd",
        section: 8,
        source: Source::Help("the DRBD daemon of this server", || drbd_node::USAGE.to_owned()),
    },
];

impl Page {
    /// Name of its file below share/man/manN.
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// Its text for man(1).
    ///
    /// # Errors
    /// None that is not the writer's, and it writes to memory.
    pub fn render(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match self.source {
            Source::CommandLine(command) => self.command_line(command(), &mut text)?,
            Source::Help(purpose, help) => {
                self.man(Command::new(self.name)).render_title(&mut text)?;
                let mut page = Roff::new();
                page.control("SH", ["NAME"]);
                page.text([roman(format!("{} - {purpose}", self.name))]);
                page.control("SH", ["DESCRIPTION"]);
                as_it_is(&mut page, &help());
                self.see_also(&mut page);
                page.to_writer(&mut text)?;
            }
        }
        Ok(text)
    }

    fn command_line(&self, mut command: Command, text: &mut Vec<u8>) -> io::Result<()> {
        // Each subcommand's help then starts with all the words to type.
        command.build();
        let man = self.man(command.clone());
        man.render_title(text)?;
        let mut page = Roff::new();
        page.control("SH", ["NAME"]);
        let purpose = command.get_about().map(ToString::to_string).unwrap_or_default();
        page.text([roman(format!("{} - {purpose}", self.name))]);
        page.to_writer(text)?;
        man.render_synopsis_section(text)?;
        man.render_description_section(text)?;
        man.render_options_section(text)?;
        let mut page = Roff::new();
        let mut visible = command.get_subcommands().filter(|sub| !sub.is_hide_set()).peekable();
        if visible.peek().is_some() {
            page.control("SH", ["COMMANDS"]);
        }
        for subcommand in visible {
            page.control("SS", [subcommand.get_name()]);
            let help = subcommand.clone().term_width(HELP_COLUMNS).render_help().to_string();
            as_it_is(&mut page, &help);
        }
        if let Some(after) = command.get_after_help() {
            page.control("SH", ["NOTES"]);
            page.text([roman(after.to_string())]);
        }
        self.see_also(&mut page);
        page.to_writer(text)
    }

    fn man(&self, command: Command) -> Man {
        let version = concat!("lockstep ", env!("CARGO_PKG_VERSION"));
        Man::new(command)
            .title(self.name)
            .section(self.section.to_string())
            .source(version)
            .manual("Lockstep")
    }

    fn see_also(&self, page: &mut Roff) {
        page.control("SH", ["SEE ALSO"]);
        let others = PAGES.iter().filter(|other| other.name != self.name);
        let mut words = Vec::new();
        for other in others {
            let comma = if words.is_empty() { "" } else { ", " };
            words.extend([roman(comma), bold(other.name), roman(format!("({})", other.section))]);
        }
        page.text(words);
    }
}

/// Lines that stand as they are.
fn as_it_is(page: &mut Roff, help: &str) {
    page.control("nf", []);
    for line in help.lines() {
        page.text([roman(line.trim_end())]);
    }
    page.control("fi", []);
}

/// The page of that file name.
pub fn page(file_name: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.file_name() == file_name)
}

#[cfg(test)]
mod tests {
    use super::{PAGES, page};
    use crate::personality::PERSONALITIES;

    fn text(file_name: &str) -> String {
        let page = page(file_name).expect("a page");
        String::from_utf8(page.render().expect("rendering")).expect("UTF-8")
    }

    #[test]
    fn every_linked_name_has_a_page() {
        for personality in PERSONALITIES.iter().filter(|p| p.link.is_some()) {
            assert!(PAGES.iter().any(|page| page.name == personality.name), "{}", personality.name);
        }
    }

    #[test]
    fn pages_carry_every_visible_word_and_option() {
        for (file_name, words) in [
            ("lockstep.1", &["drbdadm", "nova", "\\-\\-names"][..]),
            ("nova.1", &["volume\\-attach", "\\-\\-display\\-name", "v4\\-fixed\\-ip"]),
            ("lockstep-lab.1", &["fault", "power\\-cut", "\\-\\-all"]),
            ("lockstep-scenario.5", &["within TIME..TIME", "one\\-of", "power\\-cut $1"]),
            ("drbdadm.8", &["create\\-md", "\\-\\-overwrite\\-data\\-of\\-peer", "SEE ALSO"]),
            ("lockstep-drbd.8", &["upgrade", "daemon"]),
        ] {
            let text = text(file_name);
            for word in words {
                assert!(text.contains(word), "{file_name} lacks {word}:\n{text}");
            }
        }
        assert!(!text("lockstep-lab.1").contains("server\\-init"), "hidden commands stay hidden");
    }
}
