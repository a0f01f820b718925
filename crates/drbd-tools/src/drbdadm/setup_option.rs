//! Options on drbdadm's command line that are drbdsetup's: `disk-options --c-max-rate=10M r0`.

use std::ffi::OsString;

use clap::ValueEnum;
use conf::Span;

use super::cli::Verb;
use crate::drbd_conf::model::Setting;
use crate::drbd_conf::options::{self, Kind, Section};
use crate::drbd_conf::value;

/// One of them.
#[derive(Clone, Debug)]
pub struct SetupOption {
    /// Which, and its value, checked.
    pub setting: Setting,
    /// Whether a value was written; a flag may stand without.
    pub is_bare: bool,
}

impl SetupOption {
    /// As a word for drbdsetup.
    pub fn word(&self) -> String {
        let name = self.setting.option.name;
        if self.is_bare { format!("--{name}") } else { format!("--{name}={}", shown_value(&self.setting)) }
    }
}

/// What is shown of a secret.
pub const HIDDEN: &str = "_hidden_";

/// A value as it may be seen by others.
pub fn shown_value(setting: &Setting) -> &str {
    if setting.option.is_secret() { HIDDEN } else { &setting.value }
}

/// The section whose options a verb takes.
fn section(verb: Verb) -> Option<Section> {
    match verb {
        Verb::DiskOptions => Some(Section::Disk),
        Verb::NetOptions => Some(Section::Net),
        Verb::Resize | Verb::CheckResize => Some(Section::Resize),
        Verb::ResourceOptions => Some(Section::Options),
        _ => None,
    }
}

/// Splits the words into drbdadm's own and the options for drbdsetup that the verb among them takes.
///
/// # Errors
/// A value that is none: what to print.
pub fn take_out(args: Vec<OsString>) -> Result<(Vec<OsString>, Vec<SetupOption>), String> {
    let verb = args.iter().find_map(|arg| Verb::from_str(arg.to_str()?, false).ok());
    let Some((verb, section)) = verb.and_then(|verb| Some((verb, section(verb)?))) else {
        return Ok((args, Vec::new()));
    };
    let (mut own, mut setup) = (Vec::new(), Vec::new());
    let mut words = args.into_iter();
    while let Some(arg) = words.next() {
        let name = arg.to_str().and_then(|word| word.strip_prefix("--"));
        let name = name.map(|word| word.split('=').next().unwrap_or(word));
        let Some(option) = name.and_then(|name| options::find(section, name)) else {
            own.push(arg);
            continue;
        };
        let mut word = arg.to_string_lossy().into_owned();
        if !word.contains('=') && !matches!(option.kind, Kind::Flag { .. }) {
            let value =
                words.next().ok_or_else(|| format!("drbdadm: `--{}` needs a value\n", option.name))?;
            word = format!("{word}={}", value.to_string_lossy());
        }
        setup.push(parse(verb, &word)?);
    }
    Ok((own, setup))
}

/// One word: `--NAME=VALUE`, or `--NAME` of a flag.
///
/// # Errors
/// It is no option of this verb's, or the value is none; what to print.
pub fn parse(verb: Verb, word: &str) -> Result<SetupOption, String> {
    parse_of(section(verb), word).map_err(|why| format!("drbdadm: {why}"))
}

/// The same for options of a section.
///
/// # Errors
/// It is none of its options, or the value is none; what to print.
pub fn parse_of(section: Option<Section>, word: &str) -> Result<SetupOption, String> {
    let body = word.strip_prefix("--").unwrap_or(word);
    let (name, text) = body.split_once('=').map_or((body, None), |(name, text)| (name, Some(text)));
    let option = section
        .and_then(|section| options::find(section, name))
        .ok_or_else(|| format!("unrecognized option '--{name}'\n"))?;
    let value = match (text, option.kind) {
        (Some(text), _) => value::check(option, text)
            .map_err(|bad| format!("--{name}: {}\nhelp: {}\n", bad.message, bad.help))?,
        (None, Kind::Flag { .. }) => "yes".to_owned(),
        (None, _) => return Err(format!("option '--{name}' requires an argument\n")),
    };
    let setting = Setting { option, value, span: Span::default(), in_syncer: false };
    Ok(SetupOption { setting, is_bare: text.is_none() })
}
