//! The personality `drbdadm`.

pub mod cli;
mod execute;
mod handler;
mod plan;
pub mod setup_option;
mod shell;
mod stages;
mod step;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use conf::Diagnostic;

use crate::drbd_conf::model::{Config, Resource, Setting, Volume};
use crate::drbd_conf::{self, dump, dump_xml, effective};
use cli::{Cli, Parsed, Verb};
use execute::Executor;

/// Exit status of a command line that cannot be understood, or names what is not configured (`E_USAGE`).
const EXIT_USAGE: u8 = 1;

/// The configuration where no other is named.
const CONFIG_DEFAULT: &str = "/etc/drbd.conf";

/// Exit status of a configuration with mistakes (`E_CONFIG_INVALID`).
const EXIT_CONFIGURATION: u8 = 10;

/// Runs drbdadm with the arguments after its name.
pub fn drbdadm(args: Vec<OsString>) -> ExitCode {
    let cli = match cli::parse(args) {
        Parsed::Run(cli) => cli,
        Parsed::Exit { text, status: 0 } => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Parsed::Exit { text, status } => {
            eprint!("{text}");
            return ExitCode::from(status);
        }
    };
    ExitCode::from(run(&cli).unwrap_or_else(|status| status))
}

/// The name of this machine, as `uname -n` says it.
fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn run(cli: &Cli) -> Result<u8, u8> {
    if cli.config_to_test.is_some() && !cli.verb.tests_configurations() {
        eprintln!("The --config-to-test (-t) option is only allowed with the dump and sh-nop commands");
        return Err(EXIT_USAGE);
    }
    let path = config_path(cli);
    let loaded = match cli.config_file.is_some() || path != Path::new(CONFIG_DEFAULT) {
        true => drbd_conf::load_also(&path, cli.config_to_test.as_deref()),
        false => drbd_conf::load_default(cli.config_to_test.as_deref()),
    };
    let mut config = loaded.map_err(|invalid| {
        eprint!("{}", invalid.render(has_colour()));
        EXIT_CONFIGURATION
    })?;
    for warning in &config.warnings {
        eprint!("{}", warning.render(&config.sources, has_colour()));
    }
    if cli.verb.uses_secrets() && !cli.dry_run {
        check_privacy(&config, cli.require_private_config)?;
    }
    let node = node_name();
    if !cli.verb.is_dump() || cli.dry_run || cli.verbose {
        effective::expand(&mut config);
    }
    if cli.verb.ignores_names() {
        return about_all(cli, &config, &node);
    }
    let selected = select(cli, &config, &node)?;
    if cli.verb.verifies_addresses() && !cli.dry_run && !config.global.disable_ip_verification {
        verify_addresses(&config, &selected, &node)?;
    }
    if cli.verb.uses_secrets() && !cli.dry_run {
        selected.iter().for_each(|one| warn_of_two_primaries(one.resource, &node));
    }
    if cli.verb.is_dump() {
        return Ok(print_dump(cli, &config, &selected, &node));
    }
    match cli.verb {
        Verb::ProxyUp | Verb::ProxyDown => return Ok(refuse_proxy(cli, &selected, &node)),
        Verb::ShLrOf if !cli.stacked => {
            eprintln!("sh-lower-resource only available in stacked mode");
            return Err(EXIT_USAGE);
        }
        _ => {}
    }
    let plan = plan::Plan::new(cli, &config, &node);
    if selected.iter().all(|&one| print_about(cli, &plan, one)) {
        return Ok(0);
    }
    if cli.verb.is_handler() {
        return Ok(handler::run(cli, &config, &plan, &selected, &path));
    }
    let outcome = Executor::new(cli, &node).run(&plan, &selected);
    if cli.verb.makes_minors() && !cli.dry_run {
        handler::register(&plan, &selected, &path);
    }
    outcome
}

/// No configuration has a proxy section here, so all resources are somebody else's.
fn refuse_proxy(cli: &Cli, selected: &[Selected<'_>], node: &str) -> u8 {
    if cli.resources == ["all"] {
        eprintln!("WARN: no normal resources defined for this host ({node})!?");
    }
    for name in selected.iter().map(|one| &one.resource.name.text).filter(|_| cli.resources != ["all"]) {
        eprintln!("There is no proxy config for host {node} in resource {name}.");
    }
    EXIT_USAGE
}

/// Prints what a verb for scripts says about one resource; false if this is no such verb.
fn print_about(cli: &Cli, plan: &plan::Plan<'_>, selected: Selected<'_>) -> bool {
    let text = shell::about_one(cli.verb, plan, selected);
    print!("{}", text.as_deref().unwrap_or_default());
    text.is_some()
}

/// A command about everything in the configuration.
fn about_all(cli: &Cli, config: &Config, node: &str) -> Result<u8, u8> {
    if !cli.resources.is_empty() {
        eprintln!("This command will ignore resource names!");
    }
    if let Some(text) = shell::about_all(cli, config, node) {
        print!("{text}");
        return Ok(0);
    }
    let plan = plan::Plan::new(cli, config, node);
    let mut executor = Executor::new(cli, node);
    match cli.verb {
        Verb::WaitConInt => executor.wait_con_int(&plan, config),
        _ => executor.sh_status(&plan, config, &config_path(cli)),
    }
}

/// Two primaries that lose each other both go on writing, unless one is kept from it: the next connection finds a split
/// brain, and one of them loses what it wrote.
fn warn_of_two_primaries(resource: &Resource, node: &str) {
    let last = |settings: &[Setting], name: &str| {
        settings.iter().rfind(|setting| setting.option.name == name).map(|setting| setting.value.clone())
    };
    if last(&resource.sections.net, "allow-two-primaries").as_deref() != Some("yes") {
        return;
    }
    let unfenced =
        |volume: &Volume| last(&volume.disk_options, "fencing").is_none_or(|policy| policy == "dont-care");
    if resource.host(node).is_some_and(|host| host.volumes.iter().any(unfenced)) {
        let name = &resource.name.text;
        eprintln!("WARNING: {name} allows two primaries, and neither is fenced when they lose each other:");
        eprintln!("WARNING: both go on writing then, and what one of them wrote will be thrown away.");
        eprintln!("  = help: `fencing resource-and-stonith;` in the disk section, and a fence-peer handler");
    }
}

/// A secret that others may read is none: the files of the configuration that hold one are looked at.
fn check_privacy(config: &Config, is_required: bool) -> Result<(), u8> {
    let nets = config.resources.iter().map(|r| &r.sections.net).chain(config.common.iter().map(|c| &c.net));
    let mut said = Vec::new();
    for setting in nets.flatten().filter(|setting| setting.option.is_secret()) {
        let path = config.sources.path(setting.span.file);
        let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o004 == 0 || said.contains(&path) {
            continue;
        }
        said.push(path);
        let level = if is_required { "error" } else { "warning" };
        eprintln!("{level}: {} holds a shared-secret, and everybody may read it", path.display());
        eprintln!("  = help: chmod o-rwx {}", path.display());
    }
    if is_required && !said.is_empty() { Err(EXIT_CONFIGURATION) } else { Ok(()) }
}

fn config_path(cli: &Cli) -> PathBuf {
    let noted = || match cli.names() {
        [name] if cli.verb.is_handler() => handler::registered_config(name),
        _ => None,
    };
    cli.config_file.clone().or_else(noted).unwrap_or_else(|| CONFIG_DEFAULT.into())
}

fn has_colour() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}

/// A resource, or one volume of it, that a command is about.
#[derive(Clone, Copy, Debug)]
struct Selected<'c> {
    resource: &'c Resource,
    /// None: all of them.
    volume: Option<u16>,
}

/// The resources that the command line names.
fn select<'c>(cli: &Cli, config: &'c Config, node: &str) -> Result<Vec<Selected<'c>>, u8> {
    let is_all = match cli.names() {
        [] => cli.verb.is_dump() || cli.verb == Verb::Status,
        [one] => one == "all",
        _ => false,
    };
    let everything = |resource| Selected { resource, volume: None };
    if is_all {
        if cli.verb.is_dump() {
            return Ok(config.resources.iter().map(everything).collect());
        }
        if config.resources.is_empty() {
            eprintln!("no resources defined!");
            return Err(EXIT_USAGE);
        }
        let ours: Vec<_> = config
            .resources
            .iter()
            .filter(|resource| resource.host(node).is_some() && resource.is_stacked(node) == cli.stacked)
            .map(everything)
            .collect();
        if ours.is_empty() {
            let kind = kind(cli.stacked);
            eprintln!("WARN: no {kind} resources defined for this host ({node})!?");
            eprintln!("Misspelled name of the local machine with the 'on' keyword ?");
            eprintln!("The configuration has sections for {}.", hosts_text(config.resources.iter()));
            return Err(EXIT_USAGE);
        }
        return Ok(ours);
    }
    if cli.names().is_empty() {
        eprint!("{}", cli::usage_error("No resource names specified"));
        return Err(EXIT_USAGE);
    }
    cli.names().iter().map(|word| select_one(cli, config, node, word)).collect()
}

fn select_one<'c>(cli: &Cli, config: &'c Config, node: &str, word: &str) -> Result<Selected<'c>, u8> {
    let of_minor = named_by_minor(config, node, word);
    let (name, volume) = match (word.split_once('/'), &of_minor) {
        (Some((name, volume)), _) => (name, Some(volume)),
        (None, Some((name, volume))) => (*name, volume.as_deref()),
        (None, None) => (word, None),
    };
    let Some(resource) = config.resource(name) else {
        eprintln!("'{word}' not defined in your config (for this host).");
        if let Some(near) = conf::nearest(name, config.resources.iter().map(|r| r.name.text.as_str())) {
            eprintln!("Did you mean '{near}'?");
        }
        return Err(EXIT_USAGE);
    };
    let Some(host) = resource.host(node) else {
        if cli.verb.is_dump() {
            return Ok(Selected { resource, volume: None });
        }
        eprintln!("'{name}' ignored, since this host ({node}) is not mentioned with an 'on' keyword.");
        eprintln!("It is defined for {}.", hosts_text(std::iter::once(resource)));
        return Err(EXIT_USAGE);
    };
    if resource.is_stacked(node) != cli.stacked && !cli.verb.is_dump() {
        let (is, mode) = (kind(!cli.stacked), kind(cli.stacked));
        eprintln!("'{name}' is a {is} resource, and not available in {mode} mode.");
        return Err(EXIT_USAGE);
    }
    let Some(volume) = volume else {
        if let ([only], true) = (&host.volumes[..], cli.verb.needs_volume())
            && only.is_implicit
        {
            return Ok(Selected { resource, volume: Some(only.number) });
        }
        if cli.verb.needs_volume() {
            eprintln!("{} requires a specific volume id, but none is specified.", cli.verb.word());
            let verb = cli.verb.word();
            eprintln!("Try '{verb} minor-<minor_number>' or '{verb} {name}/<vnr>'");
            return Err(EXIT_USAGE);
        }
        return Ok(Selected { resource, volume: None });
    };
    let number = volume.parse().ok().filter(|number| host.volumes.iter().any(|v| v.number == *number));
    let Some(number) = number else {
        let known: Vec<_> = host.volumes.iter().map(|v| v.number.to_string()).collect();
        eprintln!("'{word}': resource {name} has no volume '{volume}'; it has {}.", known.join(", "));
        return Err(EXIT_USAGE);
    };
    if !cli.verb.takes_volume() {
        eprintln!("{} operates on whole resources, but you specified a specific volume!", cli.verb.word());
        return Err(EXIT_USAGE);
    }
    Ok(Selected { resource, volume: Some(number) })
}

/// Resources that are stacked, and the others.
fn kind(is_stacked: bool) -> &'static str {
    if is_stacked { "stacked" } else { "normal" }
}

/// The resource of `minor-N` on this node, and its volume if that was given a number.
fn named_by_minor<'c>(config: &'c Config, node: &str, word: &str) -> Option<(&'c str, Option<String>)> {
    let minor: u32 = word.strip_prefix("minor-")?.parse().ok()?;
    config.resources.iter().find_map(|resource| {
        let volumes = &resource.host(node)?.volumes;
        let volume = volumes.iter().find(|volume| volume.minor.is_some_and(|(number, _)| number == minor))?;
        let number = (!volume.is_implicit).then(|| volume.number.to_string());
        Some((resource.name.text.as_str(), number))
    })
}

fn hosts_text<'c>(resources: impl Iterator<Item = &'c Resource>) -> String {
    let mut names: Vec<_> =
        resources.flat_map(|r| &r.hosts).flat_map(|h| &h.names).map(|name| name.text.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// An address of ours that this machine does not have would make us wait for the peer for ever.
fn verify_addresses(config: &Config, selected: &[Selected<'_>], node: &str) -> Result<(), u8> {
    let mut is_valid = true;
    for resource in selected.iter().map(|selected| selected.resource) {
        let Some(host) = resource.host(node) else { continue };
        let Some(address) = &host.address else { continue };
        let mut probe = address.to_socket_addr();
        probe.set_port(0);
        if std::net::UdpSocket::bind(probe).is_ok() {
            continue;
        }
        is_valid = false;
        let message = format!(
            "in resource {}, on {}: IP {} not found on this host",
            resource.name.text,
            host.names_text(),
            address.written
        );
        let finding = Diagnostic::error(message, address.span, "")
            .help("give this machine the address, or `disable-ip-verification;` in the global section");
        eprint!("{}", finding.render(&config.sources, has_colour()));
    }
    if is_valid { Ok(()) } else { Err(EXIT_CONFIGURATION) }
}

fn print_dump(cli: &Cli, config: &Config, selected: &[Selected<'_>], node: &str) -> u8 {
    let path = config_path(cli);
    if cli.verb == Verb::DumpXml {
        let resources: Vec<_> = selected.iter().map(|selected| selected.resource).collect();
        print!("{}", dump_xml::document(config, &path, &resources));
        return 0;
    }
    let is_whole = cli.resources.is_empty() || cli.resources == ["all"];
    if is_whole {
        print!("{}", dump::head(config, &path, cli.verbose));
        if selected.is_empty() {
            println!("# no resources configured");
        }
    }
    for selected in selected {
        print!("{}", dump::resource(config, selected.resource, node));
    }
    0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::cli::{self, Parsed};
    use super::execute::Executor;
    use super::plan::Plan;
    use super::{select, shell};
    use crate::drbd_conf::{effective, load};

    /// What drbdadm 9.22 for 8.4 printed with `-d` for each verb on `node` (tests/conf/README.md).
    fn check_dry_runs(name: &str, calls: &str, option: Option<&str>, node: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
        let golden = std::fs::read_to_string(directory.join(format!("{calls}.dry-run"))).unwrap();
        let golden = without_secrets(&golden);
        let mut config = load(&directory.join(format!("{name}.conf"))).unwrap();
        effective::expand(&mut config);
        let mut checked = 0;
        for section in golden.split("## ").skip(1) {
            let (verb, expected) = section.split_once('\n').unwrap();
            let Parsed::Run(cli) =
                cli::parse(["-d", verb, "all"].into_iter().chain(option).map(Into::into).collect())
            else {
                panic!("{verb}")
            };
            let selected = select(&cli, &config, node).unwrap();
            let plan = Plan::new(&cli, &config, node);
            let mut lines = String::new();
            let status = Executor::printing_to(&cli, node, &mut lines).run(&plan, &selected);
            assert_eq!((lines.as_str(), status), (expected, Ok(0)), "{calls}: {verb}");
            checked += 1;
        }
        assert_eq!(checked, 31);
    }

    /// The original prints them.
    fn without_secrets(text: &str) -> String {
        const OPTION: &str = "--shared-secret=";
        let hidden = |word: &str| match word.strip_prefix(OPTION) {
            Some(secret) => format!("{OPTION}_hidden_{}", if secret.ends_with('\n') { "\n" } else { "" }),
            None => word.to_owned(),
        };
        let lines = text.split_inclusive('\n');
        lines.map(|line| line.split(' ').map(hidden).collect::<Vec<_>>().join(" ")).collect()
    }

    /// What drbdadm printed for each `sh-` verb, not as a dry run.
    #[test]
    fn scripts_are_told_what_the_original_tells_them() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
        for name in ["tutorial", "tutorial-dual", "debian/drbd", "spelling-83", "spelling-84"] {
            let golden = std::fs::read_to_string(directory.join(format!("{name}.shell"))).unwrap();
            let mut config = load(&directory.join(format!("{name}.conf"))).unwrap();
            effective::expand(&mut config);
            for section in golden.split("## ").skip(1) {
                let (verb, expected) = section.split_once('\n').unwrap();
                let Parsed::Run(cli) = cli::parse([verb, "all"].map(Into::into).to_vec()) else {
                    panic!("{verb}")
                };
                let plan = Plan::new(&cli, &config, "drbd0");
                let text = shell::about_all(&cli, &config, "drbd0").unwrap_or_else(|| {
                    let selected = select(&cli, &config, "drbd0").unwrap();
                    selected.iter().map(|&one| shell::about_one(cli.verb, &plan, one).unwrap()).collect()
                });
                assert_eq!(text, expected, "{name}: {verb}");
            }
        }
    }

    #[test]
    fn options_of_the_command_line_reach_drbdsetup() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conf");
        let mut config = load(&directory.join("spelling-84.conf")).unwrap();
        effective::expand(&mut config);
        for (words, expected) in [
            ("disk-options --c-max-rate 10M pair/0", "drbdsetup-84 disk-options 10 --c-max-rate=10M\n"),
            ("-- --al-updates disk-options pair/1", "drbdsetup-84 disk-options 11 --al-updates\n"),
            (
                "net-options -W--shared-secret=x pair",
                "drbdsetup-84 net-options ipv6:\\[fd00::0004\\]:7791 ipv6:\\[fd00::3\\]:7791 --shared-secret=_hidden_\n",
            ),
            ("set-gi pair/0 A0:::: --force", "drbdmeta 10 v08 /dev/vg/a internal set-gi A0:::: --force\n"),
        ] {
            let words = std::iter::once("-d").chain(words.split(' ')).map(Into::into).collect();
            let Parsed::Run(cli) = cli::parse(words) else { panic!("{expected}") };
            let selected = select(&cli, &config, "drbd0").unwrap();
            let plan = Plan::new(&cli, &config, "drbd0");
            let mut lines = String::new();
            Executor::printing_to(&cli, "drbd0", &mut lines).run(&plan, &selected).unwrap();
            assert_eq!(lines, expected);
        }
        let words = ["net-options", "--ping-timeout=70000", "pair"].map(Into::into).to_vec();
        let Parsed::Exit { text, status: 1 } = cli::parse(words) else { panic!() };
        assert!(text.contains("--ping-timeout"), "{text}");
    }

    #[test]
    fn dry_runs_print_the_originals_calls() {
        for name in ["tutorial", "tutorial-dual", "debian/drbd", "spelling-83", "spelling-84", "stacked"] {
            check_dry_runs(name, name, None, "drbd0");
        }
        check_dry_runs("stacked", "stacked-top", Some("--stacked"), "drbd0");
        check_dry_runs("floating", "floating", None, "172.16.16.4");
    }
}
