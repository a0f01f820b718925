//! The personality `drbdsetup`: one call to the daemon, in the words of 8.4.

mod events;
mod events2;
mod local_time;
mod run;
mod show;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::drbd_conf::model::Setting;
use crate::drbd_conf::options::{self, Kind, Section};
use crate::drbdadm::cli::sector;
use crate::drbdadm::setup_option;
use crate::status_text::Color;

/// Exit status of a command line that cannot be understood, and of a daemon that does not answer.
const EXIT_OTHER: u8 = 20;

/// One command.
struct Verb {
    name: &'static str,
    /// What follows it, in order.
    arguments: &'static [&'static str],
    /// The section whose options it takes.
    section: Option<Section>,
    /// Its other options; all of them are yes or no.
    flags: &'static [&'static str],
    /// And those that name a place on the device.
    sectors: &'static [&'static str],
    /// What it is about without a word: `all`.
    may_be_all: bool,
}

const fn verb(name: &'static str, arguments: &'static [&'static str]) -> Verb {
    Verb { name, arguments, section: None, flags: &[], sectors: &[], may_be_all: false }
}

/// A verb that is about everything unless something is named.
const fn listing(name: &'static str, arguments: &'static [&'static str]) -> Verb {
    Verb { may_be_all: true, ..verb(name, arguments) }
}

impl Verb {
    const fn with(self, section: Section) -> Self {
        Self { section: Some(section), ..self }
    }

    const fn sectors(self, sectors: &'static [&'static str]) -> Self {
        Self { sectors, ..self }
    }

    const fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }
}

const ADDRESSES: &[&str] = &["[{af}:]{local_addr}[:{port}]", "[{af}:]{remote_addr}[:{port}]"];
const ADDRESSES_OF: &[&str] = &["{resource}", ADDRESSES[0], ADDRESSES[1]];
const DISKS: &[&str] = &["{minor}", "{lower_dev}", "{meta_data_dev}", "{meta_data_index}"];

const VERBS: &[Verb] = &[
    verb("primary", &["{minor}"]).flags(&["force"]),
    verb("secondary", &["{minor}"]),
    verb("attach", DISKS).with(Section::Disk),
    verb("disk-options", &["{minor}"]).with(Section::Disk).flags(&["set-defaults"]),
    verb("detach", &["{minor}"]).flags(&["force"]),
    verb("connect", ADDRESSES_OF).with(Section::Net).flags(&["discard-my-data", "tentative"]),
    verb("net-options", ADDRESSES).with(Section::Net).flags(&["set-defaults"]),
    verb("disconnect", ADDRESSES).flags(&["force"]),
    verb("resource-options", &["{resource}"]).with(Section::Options).flags(&["set-defaults"]),
    verb("resize", &["{minor}"]).with(Section::Resize),
    verb("check-resize", &["{minor}"]),
    verb("new-current-uuid", &["{minor}"]).flags(&["clear-bitmap"]),
    verb("invalidate", &["{minor}"]),
    verb("invalidate-remote", &["{minor}"]),
    verb("verify", &["{minor}"]).sectors(&["start", "stop"]),
    verb("suspend-io", &["{minor}"]),
    verb("resume-io", &["{minor}"]),
    verb("outdate", &["{minor}"]),
    verb("pause-sync", &["{minor}"]),
    verb("resume-sync", &["{minor}"]),
    verb("down", &["{resource}"]),
    verb("state", &["{minor}"]),
    verb("role", &["{minor}"]),
    listing("sh-status", &["{resource|minor|all}"]),
    verb("cstate", &["{minor}"]),
    verb("dstate", &["{minor}"]),
    verb("show-gi", &["{minor}"]),
    verb("get-gi", &["{minor}"]),
    listing("show", &["{resource|minor|all}"]).flags(&["show-defaults"]),
    listing("status", &["{resource|all}"]).flags(&["verbose", "statistics", "color", "json"]),
    listing("events", &["{resource|minor|all}"]),
    listing("events2", &["{resource|all}"]).flags(&["timestamps", "statistics", "now"]),
    verb("wait-connect", &["{minor}"]).with(Section::Startup),
    verb("wait-sync", &["{minor}"]).with(Section::Startup),
    verb("new-resource", &["{resource}"]).with(Section::Options),
    verb("new-minor", &["{resource}", "{minor}", "{volume}"]),
    verb("del-minor", &["{minor}"]),
    verb("del-resource", &["{resource}"]),
];

/// A command line that was understood.
struct Call {
    verb: &'static Verb,
    arguments: Vec<String>,
    settings: Vec<Setting>,
    flags: Vec<&'static str>,
    sectors: Vec<(&'static str, u64)>,
    color: Color,
}

impl Call {
    fn sector(&self, name: &str) -> Option<u64> {
        self.sectors.iter().find(|(given, _)| *given == name).map(|&(_, sector)| sector)
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

/// Runs drbdsetup with the arguments after its name.
pub fn drbdsetup(args: Vec<OsString>) -> ExitCode {
    let mut words: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let find = |word: Option<&String>| VERBS.iter().find(|verb| word.is_some_and(|word| verb.name == word));
    // Once the object stood before the command; and help may stand behind it.
    let is_help = |word: &String| word == "-h" || word == "--help";
    let is_swapped = find(words.first()).is_none() && find(words.get(1)).is_some();
    if words.len() > 1 && (is_swapped && !is_help(&words[0]) && words[0] != "help" || is_help(&words[1])) {
        words.swap(0, 1);
    }
    let first = words.first().map_or("", String::as_str);
    match first {
        "-h" | "--help" | "help" if words.len() == 1 => {
            print!("{}", usage());
            return ExitCode::SUCCESS;
        }
        "-h" | "--help" | "help" => return help(&words[1]),
        "-V" | "--version" => {
            print!("{}", crate::drbdadm_version());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == first) else {
        eprint!("{}", usage());
        if !first.is_empty() {
            eprintln!("invalid command `{first}`");
        }
        return ExitCode::from(EXIT_OTHER);
    };
    let call = match parse(verb, &words[1..]) {
        Ok(call) => call,
        Err(wrong) => {
            eprint!("{wrong}\n{}", usage_of(verb));
            return ExitCode::from(EXIT_OTHER);
        }
    };
    match run::run(&call) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("drbdsetup: {error}");
            ExitCode::from(EXIT_OTHER)
        }
    }
}

fn help(name: &str) -> ExitCode {
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => {
            print!("{}", usage_of(verb));
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{}unknown command", usage());
            ExitCode::from(EXIT_OTHER)
        }
    }
}

fn parse(verb: &'static Verb, words: &[String]) -> Result<Call, String> {
    let mut call = Call {
        verb,
        arguments: Vec::new(),
        settings: Vec::new(),
        flags: Vec::new(),
        sectors: Vec::new(),
        color: Color::Auto,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--") else {
            call.arguments.push(word.clone());
            continue;
        };
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        if let Some(&flag) = verb.flags.iter().find(|&&flag| flag == name) {
            match value {
                Some(when) if flag == "color" => call.color = Color::from_word(when)?,
                None if flag == "color" => call.color = Color::Always,
                None | Some("yes") => call.flags.push(flag),
                Some("no") => {}
                Some(other) => return Err(format!("--{name}: `{other}` is neither yes nor no")),
            }
            continue;
        }
        if let Some(&place) = verb.sectors.iter().find(|&&place| place == name) {
            let text = match value {
                Some(text) => text,
                None => words.next().ok_or_else(|| format!("option '--{name}' requires an argument"))?,
            };
            call.sectors.push((place, sector(text)?));
            continue;
        }
        let option = verb.section.and_then(|section| options::find(section, name));
        let is_flag = option.is_some_and(|option| matches!(option.kind, Kind::Flag { .. }));
        let parsed = match value {
            None if option.is_some() && !is_flag => {
                let value = words.next().ok_or_else(|| format!("option '--{name}' requires an argument"))?;
                setup_option::parse_of(verb.section, &format!("--{name}={value}"))
            }
            _ => setup_option::parse_of(verb.section, word),
        };
        call.settings.push(parsed.map_err(|why| why.trim_end().to_owned())?.setting);
    }
    if verb.may_be_all && call.arguments.is_empty() {
        call.arguments.push("all".to_owned());
    }
    if let Some(missing) = verb.arguments.get(call.arguments.len()) {
        return Err(format!("missing argument {missing}"));
    }
    if call.arguments.len() > verb.arguments.len() {
        return Err(format!("Excess arguments: {}", call.arguments[verb.arguments.len()..].join(" ")));
    }
    Ok(call)
}

/// The whole help; also the manual page's text.
pub fn usage() -> String {
    let mut text = String::from(
        "\nUSAGE: drbdsetup command device arguments options\n\nDevice is usually /dev/drbdX or /dev/drbd/X.\n\n\
         Commands are:\n",
    );
    for row in VERBS.chunks(3) {
        let names: Vec<_> = row.iter().map(|verb| format!("{:<20}", verb.name)).collect();
        text += &format!("    {}\n", names.concat());
    }
    text + "\nTo get more details about a command issue 'drbdsetup help cmd'.\n\n"
}

fn usage_of(verb: &Verb) -> String {
    let mut words: Vec<String> = verb.arguments.iter().map(|argument| (*argument).to_owned()).collect();
    words.extend(verb.flags.iter().map(|flag| format!("[--{flag}={{yes|no}}]")));
    words.extend(verb.sectors.iter().map(|place| format!("[--{place}=SECTOR]")));
    for name in verb.section.into_iter().flat_map(options::names) {
        words.push(format!("[--{name}=…]"));
    }
    let mut text = format!("USAGE:\n drbdsetup {}", verb.name);
    let mut column = text.len();
    for word in words {
        if column + word.len() > 78 {
            text += "\n   ";
            column = 4;
        }
        column += word.len() + 1;
        text += &format!(" {word}");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::{VERBS, parse, usage_of};

    fn parsed(line: &str) -> Result<super::Call, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let verb = VERBS.iter().find(|verb| verb.name == words[0]).unwrap();
        parse(verb, &words[1..])
    }

    #[test]
    fn the_lines_that_drbdadm_makes_are_understood() {
        let call =
            parsed("attach 0 /dev/xvdb1 /dev/xvdb1 internal --al-extents=3389 --disk-barrier=no").unwrap();
        assert_eq!((call.arguments.len(), call.settings.len()), (4, 2));
        let call =
            parsed("connect r0 ipv4:172.16.16.4:7788 ipv4:172.16.16.3:7788 --protocol=C --discard-my-data")
                .unwrap();
        assert!(call.has("discard-my-data") && call.settings[0].value == "C");
        assert!(parsed("disk-options 0 --set-defaults --resync-rate 30M").unwrap().has("set-defaults"));
        assert!(!parsed("primary 0 --force=no").unwrap().has("force"));
        let call = parsed("verify 0 --start=8192 --stop 8M").unwrap();
        assert_eq!((call.sector("start"), call.sector("stop")), (Some(8192), Some(16384)));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("primary", "missing argument {minor}"),
            ("primary 0 1", "Excess arguments: 1"),
            ("primary 0 --bogus", "unrecognized option '--bogus'"),
            ("attach 0 a b internal --al-extents", "option '--al-extents' requires an argument"),
            ("verify 0 --start=here", "`here` is no number of sectors"),
            ("detach 0 --force=perhaps", "--force: `perhaps` is neither yes nor no"),
        ] {
            assert_eq!(parsed(line).err().as_deref(), Some(expected), "{line}");
        }
        assert!(usage_of(&VERBS[0]).starts_with("USAGE:\n drbdsetup primary {minor} [--force"));
    }
}
