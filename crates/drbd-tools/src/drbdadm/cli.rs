//! The command line of drbdadm.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, ValueEnum};

use super::setup_option::{self, SetupOption};
use crate::drbd_conf::value::{self, Scale};

/// Administers DRBD resources by their configuration in /etc/drbd.conf.
#[derive(Debug, Parser)]
#[command(
    name = "drbdadm",
    disable_version_flag = true,
    after_help = "Options may stand before, between and after the words; `drbdadm -- --overwrite-data-of-peer primary \
                  all` is understood as it was in 2013."
)]
pub struct Cli {
    /// Read this configuration instead of /etc/drbd.conf.
    #[arg(short = 'c', long = "config-file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// For `dump`, `dump-xml` and `sh-nop`: check this file, too, as if it were part of the configuration.
    #[arg(short = 't', long = "config-to-test", value_name = "FILE")]
    pub config_to_test: Option<PathBuf>,
    /// Mean the resources that are stacked on top of others, instead of the others.
    #[arg(short = 'S', long)]
    pub stacked: bool,
    /// Which of several other host sections of a resource is the peer's.
    #[arg(short = 'P', long, value_name = "HOST")]
    pub peer: Option<String>,
    /// Taken and not used: that program is not called.
    #[arg(short = 's', long = "drbdsetup", value_name = "PATH", hide = true)]
    pub drbdsetup: Option<PathBuf>,
    /// Taken and not used.
    #[arg(short = 'm', long = "drbdmeta", value_name = "PATH", hide = true)]
    pub drbdmeta: Option<PathBuf>,
    /// Taken and not used.
    #[arg(short = 'p', long = "drbd-proxy-ctl", value_name = "PATH", hide = true)]
    pub drbd_proxy_ctl: Option<PathBuf>,
    /// Taken and not used.
    #[arg(short = 'n', long = "sh-varname", value_name = "NAME", hide = true)]
    pub sh_varname: Option<String>,
    /// Print what would be done and do nothing.
    #[arg(short = 'd', long)]
    pub dry_run: bool,
    /// Print what is done; for `dump`, show inherited options where they count.
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Do without asking: `primary` without current data, `create-md` over what is there, `detach`, `disconnect`.
    #[arg(long, short = 'f', visible_alias = "overwrite-data-of-peer", alias = "do-what-I-say")]
    pub force: bool,
    /// For `connect`: solve a split brain by giving up what was written on this node.
    #[arg(long)]
    pub discard_my_data: bool,
    /// For `new-current-uuid`: declare both disks equal; before the first resync this spares it.
    #[arg(long)]
    pub clear_bitmap: bool,
    /// For `verify`: where to begin, in sectors or with a unit (`8192`, `4M`); else where the last one ended too early.
    #[arg(long, value_name = "SECTOR", value_parser = sector)]
    pub start: Option<u64>,
    /// For `verify`: where to end.
    #[arg(long, value_name = "SECTOR", value_parser = sector)]
    pub stop: Option<u64>,
    /// For `status`: JSON in the form of DRBD 9.
    #[arg(long)]
    pub json: bool,
    /// For `adjust`: leave disks as they are.
    #[arg(long)]
    pub skip_disk: bool,
    /// For `adjust`: leave connections as they are.
    #[arg(long)]
    pub skip_net: bool,
    /// Refuse a configuration that holds a secret and that others may read.
    #[arg(long)]
    pub require_private_config: bool,
    /// Hand an option to drbdsetup: `-W--c-max-rate=10M`. Those of the command may stand by themselves, too.
    #[arg(short = 'W', long = "setup-option", value_name = "OPTION", allow_hyphen_values = true)]
    pub setup_option: Vec<String>,
    /// The options among the words that are for drbdsetup.
    #[arg(skip)]
    pub setup: Vec<SetupOption>,
    /// What to do.
    #[arg(value_enum, value_name = "COMMAND")]
    pub verb: Verb,
    /// Resources, volumes of them, or all.
    #[arg(value_name = "RES[/VOL]|all")]
    pub resources: Vec<String>,
}

/// A place on a device.
pub fn sector(text: &str) -> Result<u64, String> {
    value::number(text, Scale::Sectors).ok_or_else(|| format!("`{text}` is no number of sectors"))
}

/// What drbdadm can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Verb {
    /// Bring resources into use: make them, attach their disks, connect. What is there already stays.
    Up,
    /// Take resources out of use.
    Down,
    /// Attach the lower-level devices.
    Attach,
    /// Detach the lower-level devices.
    Detach,
    /// Begin to look for the peer.
    Connect,
    /// Leave the peer.
    Disconnect,
    /// Become primary.
    Primary,
    /// Become secondary.
    Secondary,
    /// Bring what is in use into line with the configuration.
    Adjust,
    /// The same, and show which stage is at which resource.
    AdjustWithProgress,
    /// Wait until the peers have appeared, as long as the startup section says.
    WaitConnect,
    /// The same for everything in the configuration; at a terminal, `yes` ends it.
    WaitConInt,
    /// Become primary if `become-primary-on` names this node, or both.
    ShBPri,
    /// Print our role and the peer's.
    Role,
    /// Print the state of the connection.
    Cstate,
    /// Print the state of our disk and of the peer's.
    Dstate,
    /// Print the state of resources.
    Status,
    /// Print the configuration as it is understood.
    Dump,
    /// Print the same as XML.
    DumpXml,
    /// Change options of attached disks: `disk-options --c-max-rate=10M r0`.
    DiskOptions,
    /// Change options of connections: `net-options --ping-timeout=9 r0`.
    NetOptions,
    /// Change options of resources.
    ResourceOptions,
    /// Make resources, and nothing of them.
    NewResource,
    /// Make volumes.
    #[value(alias = "sh-new-minor")]
    NewMinor,
    /// Pause a resync.
    PauseSync,
    /// Let a resync go on.
    ResumeSync,
    /// Let the front wait.
    SuspendIo,
    /// Let the front go on, whatever it waits for.
    ResumeIo,
    /// Declare the data of this node no longer current.
    Outdate,
    /// Give up the data of this node: all of them come from the peer.
    Invalidate,
    /// Give up the data of the peer: all of them go there.
    InvalidateRemote,
    /// Compare both disks block by block, and mark what differs.
    Verify,
    /// Begin a generation of the data.
    NewCurrentUuid,
    /// Use what disks have that have grown, or another size: `resize --size=10G r0`.
    Resize,
    /// After disks have grown: resize what is in use, else move internal meta-data to the new end.
    CheckResize,
    /// Print generation identifiers and what they mean.
    ShowGi,
    /// Print generation identifiers.
    GetGi,
    /// Set generation identifiers of a device that is not in use: `set-gi r0/0 CURRENT:BITMAP:…`.
    SetGi,
    /// Remove the meta-data.
    WipeMd,
    /// List the commands that are for scripts.
    HiddenCommands,
    /// For scripts: check the configuration.
    ShNop,
    /// For scripts: names of this node's resources, in one line.
    ShResources,
    /// For scripts: names of resources.
    ShResource,
    /// For scripts: what the module would be loaded with.
    ShModParms,
    /// For scripts: devices.
    ShDev,
    /// For scripts: what udev asks of a volume.
    ShUdev,
    /// For scripts: minors.
    ShMinor,
    /// For scripts: lower-level devices.
    ShLlDev,
    /// For scripts: devices of the meta-data.
    ShMdDev,
    /// For scripts: places on them.
    ShMdIdx,
    /// For scripts: our addresses.
    ShIp,
    /// For scripts: the resources below stacked ones.
    ShLrOf,
    /// For scripts: configuration and state as variables of a shell.
    ShStatus,
    /// For scripts: DRBD Proxy, which is not part of this program.
    ProxyUp,
    /// For scripts: the same.
    ProxyDown,
    /// Write fresh meta-data.
    CreateMd,
    /// Print the meta-data of a device that is not in use.
    DumpMd,
    /// Mark what the activity log says may differ, after a crash. Attaching does it by itself.
    ApplyAl,
    /// Run the handler for it: a resync to this node will begin.
    #[value(hide = true)]
    BeforeResyncTarget,
    /// Run the handler for it: a resync to this node has ended.
    #[value(hide = true)]
    AfterResyncTarget,
    /// Run the handler for it: a resync from this node will begin.
    #[value(hide = true)]
    BeforeResyncSource,
    /// Run the handler for it: a primary has lost the last current data.
    #[value(hide = true)]
    PriOnInconDegr,
    /// Run the handler for it: a primary has lost a split brain.
    #[value(hide = true)]
    PriLostAfterSb,
    /// Run the handler for it: the peer is lost and must be kept from becoming primary.
    #[value(hide = true)]
    FencePeer,
    /// Run the handler for it: the peer is equal again.
    #[value(hide = true)]
    UnfencePeer,
    /// Run the handler for it: the lower-level device has failed.
    #[value(hide = true)]
    LocalIoError,
    /// Run the handler for it: a primary must become the target of a resync.
    #[value(hide = true)]
    PriLost,
    /// Run the handler for it: both nodes have written alone.
    #[value(hide = true)]
    InitialSplitBrain,
    /// Run the handler for it: both have, and no policy solves it.
    #[value(hide = true)]
    SplitBrain,
    /// Run the handler for it: an online verify has found differences.
    #[value(hide = true)]
    OutOfSync,
}

impl Cli {
    /// For `set-gi`: what is to be set. The original takes it from the words after the name.
    pub fn generations(&self) -> Option<&str> {
        (self.verb == Verb::SetGi).then(|| self.resources.get(1).map(String::as_str)).flatten()
    }

    /// The names of resources among the words.
    pub fn names(&self) -> &[String] {
        match self.verb {
            Verb::SetGi => &self.resources[..self.resources.len().min(1)],
            _ => &self.resources,
        }
    }
}

impl Verb {
    /// The word for it.
    pub fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether `RES/VOL` makes sense.
    pub fn takes_volume(self) -> bool {
        !matches!(
            self,
            Self::Down
                | Self::Connect
                | Self::Disconnect
                | Self::Adjust
                | Self::AdjustWithProgress
                | Self::Status
                | Self::Dump
                | Self::DumpXml
                | Self::ShBPri
                | Self::NetOptions
                | Self::ResourceOptions
                | Self::NewResource
                | Self::ShResource
                | Self::ProxyUp
                | Self::ProxyDown
                | Self::FencePeer
                | Self::UnfencePeer
        )
    }

    /// Whether one volume must be named.
    pub fn needs_volume(self) -> bool {
        matches!(self, Self::SetGi | Self::ShUdev | Self::NewCurrentUuid)
            || (self.is_handler() && !matches!(self, Self::FencePeer | Self::UnfencePeer))
    }

    /// Whether it runs one of the configuration's handlers.
    pub fn is_handler(self) -> bool {
        matches!(
            self,
            Self::BeforeResyncTarget
                | Self::AfterResyncTarget
                | Self::BeforeResyncSource
                | Self::PriOnInconDegr
                | Self::PriLostAfterSb
                | Self::FencePeer
                | Self::UnfencePeer
                | Self::LocalIoError
                | Self::PriLost
                | Self::InitialSplitBrain
                | Self::SplitBrain
                | Self::OutOfSync
        )
    }

    /// Whether it is about everything in the configuration, whatever names follow.
    pub fn ignores_names(self) -> bool {
        matches!(
            self,
            Self::WaitConInt
                | Self::ShNop
                | Self::ShResources
                | Self::ShModParms
                | Self::ShStatus
                | Self::HiddenCommands
        )
    }

    /// Whether it prints the configuration, that of other nodes too.
    pub fn is_dump(self) -> bool {
        matches!(self, Self::Dump | Self::DumpXml)
    }

    /// Whether it brings something into use.
    pub fn makes_minors(self) -> bool {
        self.is_adjust() || matches!(self, Self::Up | Self::NewMinor | Self::Attach | Self::Connect)
    }

    /// Whether what is in use is brought into line.
    pub fn is_adjust(self) -> bool {
        matches!(self, Self::Adjust | Self::AdjustWithProgress)
    }

    /// Whether the secrets of the configuration are handed on.
    pub fn uses_secrets(self) -> bool {
        self.verifies_addresses() && !self.is_dump()
    }

    /// Whether a file to test may come with it.
    pub fn tests_configurations(self) -> bool {
        self.is_dump() || self == Self::ShNop
    }

    /// Whether our address must be one of this machine's.
    pub fn verifies_addresses(self) -> bool {
        matches!(
            self,
            Self::Up | Self::Connect | Self::Adjust | Self::AdjustWithProgress | Self::Dump | Self::DumpXml
        )
    }
}

/// What a command line means.
#[derive(Debug)]
pub enum Parsed {
    /// A command.
    Run(Box<Cli>),
    /// A text and an exit status.
    Exit {
        /// For stdout if the status is 0, else for stderr.
        text: String,
        /// Exit status.
        status: u8,
    },
}

/// The words of `--version`, in the form of drbdadm 9.22.
pub const VERSION: &str = "DRBDADM_API_VERSION=1\nDRBD_KERNEL_VERSION_CODE=0x08040b\nDRBDADM_VERSION_CODE=0x091600\n\
                       DRBDADM_VERSION=9.22.0\n";

/// Parses the arguments after the name. `--` only says, as it did in 8.3, that options for drbdsetup follow.
pub fn parse(args: Vec<OsString>) -> Parsed {
    let args: Vec<_> = args.into_iter().filter(|arg| arg != "--").collect();
    let is_any = |words: &[&str]| args.iter().any(|arg| words.iter().any(|word| arg == word));
    if is_any(&["-V", "--version"]) {
        return Parsed::Exit { text: crate::drbdadm_version(), status: 0 };
    }
    if args.first().is_some_and(|word| word == "help") || is_any(&["-h", "--help"]) {
        return Parsed::Exit { text: Cli::command().render_long_help().to_string(), status: 0 };
    }
    let (args, mut setup) = match setup_option::take_out(args) {
        Ok(split) => split,
        Err(text) => return Parsed::Exit { text, status: super::EXIT_USAGE },
    };
    match Cli::try_parse_from(std::iter::once(OsString::from("drbdadm")).chain(args)) {
        Ok(mut cli) => {
            for word in std::mem::take(&mut cli.setup_option) {
                match setup_option::parse(cli.verb, &word) {
                    Ok(option) => setup.push(option),
                    Err(text) => return Parsed::Exit { text, status: super::EXIT_USAGE },
                }
            }
            cli.setup = setup;
            Parsed::Run(Box::new(cli))
        }
        Err(error) => Parsed::Exit { text: error.to_string(), status: super::EXIT_USAGE },
    }
}

/// The command line, for the manual page.
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// A mistake of the command line that only the configuration shows.
pub fn usage_error(message: &str) -> String {
    Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, message).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Cli, Parsed, Verb, parse};

    fn cli(line: &str) -> Cli {
        match parse(line.split_whitespace().map(Into::into).collect()) {
            Parsed::Run(cli) => *cli,
            Parsed::Exit { text, .. } => panic!("{text}"),
        }
    }

    #[test]
    fn the_spellings_of_a_forced_primary() {
        for line in [
            "-- --overwrite-data-of-peer primary all",
            "primary --force all",
            "--force primary all",
            "primary all --overwrite-data-of-peer",
        ] {
            let cli = cli(line);
            assert!(cli.force && cli.verb == Verb::Primary && cli.resources == ["all"], "{line}");
        }
        assert!(cli("-- --discard-my-data connect r0").discard_my_data);
        assert!(cli("connect --discard-my-data r0").discard_my_data);
    }

    #[test]
    fn mistakes_end_with_1_and_a_suggestion() {
        let Parsed::Exit { text, status } = parse(vec!["primry".into(), "r0".into()]) else { panic!() };
        assert_eq!(status, 1);
        assert!(text.contains("primary"), "{text}");
        let Parsed::Exit { status, .. } = parse(vec!["help".into()]) else { panic!() };
        assert_eq!(status, 0);
    }
}
