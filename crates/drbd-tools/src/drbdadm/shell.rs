//! `sh-…` and `hidden-commands`: words about the configuration for scripts.

use std::fmt::Write;

use clap::ValueEnum;

use super::Selected;
use super::cli::{Cli, Verb};
use super::plan::Plan;
use super::step::VolumeRef;
use crate::drbd_conf::dump::escaped;
use crate::drbd_conf::model::Config;

/// `DRBD_MINOR_COUNT_DEF` and `_MAX`.
const MINOR_COUNT_DEFAULT: usize = 32;
const MINOR_COUNT_MAX: usize = 255;

/// What a verb prints about the whole configuration; none if it is about resources.
pub fn about_all(cli: &Cli, config: &Config, node: &str) -> Option<String> {
    let ours =
        config.resources.iter().filter(|r| r.host(node).is_some() && r.is_stacked(node) == cli.stacked);
    Some(match cli.verb {
        Verb::ShNop => String::new(),
        Verb::ShResources => {
            let names: Vec<_> = ours.map(|resource| escaped(&resource.name.text)).collect();
            if names.is_empty() { String::new() } else { names.join(" ") + "\n" }
        }
        Verb::ShModParms => {
            let minors =
                config.resources.iter().filter_map(|r| r.host(node)).map(|h| h.volumes.len()).sum::<usize>();
            let count = config.global.minor_count.map_or_else(
                || (minors + 3).clamp(MINOR_COUNT_DEFAULT, MINOR_COUNT_MAX),
                |count| count as usize,
            );
            format!("minor_count={count}\n")
        }
        Verb::HiddenCommands => hidden_commands(),
        _ => return None,
    })
}

/// What a verb prints about one resource or volume; none if it is for the daemon.
pub fn about_one(verb: Verb, plan: &Plan<'_>, selected: Selected<'_>) -> Option<String> {
    if verb == Verb::ShResource {
        return Some(format!("{}\n", selected.resource.name.text));
    }
    let of_volume: &dyn Fn(VolumeRef<'_>) -> String = match verb {
        Verb::ShDev => &|of| of.device(),
        Verb::ShUdev => &|of| udev(of, plan.always_uses_numbers()),
        Verb::ShMinor => &|of| of.minor().to_string(),
        Verb::ShLlDev => &|of| of.disk().to_owned(),
        Verb::ShMdDev => &|of| of.meta_disk().to_owned(),
        Verb::ShMdIdx => &|of| of.index_word("flexible"),
        Verb::ShIp => &|_| plan.own_address(selected.resource).unwrap_or_default(),
        Verb::ShLrOf => &|_| plan.lower(selected.resource).unwrap_or_default(),
        _ => return None,
    };
    let mut text = String::new();
    for of in plan.volumes(selected) {
        writeln!(text, "{}", of_volume(of)).expect("a String takes every text");
    }
    Some(text)
}

fn udev(of: VolumeRef<'_>, always_uses_numbers: bool) -> String {
    let name = &of.resource.name.text;
    let volume = if of.volume.is_implicit && !always_uses_numbers {
        String::new()
    } else {
        format!("/{}", of.volume.number)
    };
    let device = of.device();
    let short = |path: &str| path.strip_prefix("/dev/").unwrap_or(path).to_owned();
    format!("RESOURCE={name}{volume}\nDEVICE={}\nDISK={}", short(&device), short(of.disk()))
}

fn hidden_commands() -> String {
    let mut text = String::from(
        "\nThese additional commands might be useful for writing\nnifty shell scripts around drbdadm:\n\n",
    );
    let words = Verb::value_variants().iter().map(|verb| verb.word()).filter(|word| word.starts_with("sh-"));
    for (index, word) in words.enumerate() {
        let end = if index % 2 == 1 { "\n" } else { "" };
        let _ = write!(text, " {word:<35}{end}");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
