//! The words after `lockstep lab fault`: the one definition that the command line and scenarios are read by.

use clap::{Args, Subcommand};

use super::cable::{self, Ailment, Way};
use super::clock::{self, Jump};
use super::server::Fall;
use super::{Cables, heal, link, list, network, server};
use crate::error::{Error, Result};
use crate::place::Lab;
use crate::servers;
use crate::state::Records;
use crate::volume_fault::{self, VolumeFaultCommand};
use crate::wire;

/// A longer delay loses the connections that it is to slow down.
const DELAY_MS_MAX: f64 = 60_000.0;

/// No wire of ours is faster.
const RATE_MBIT_MAX: f64 = 100_000.0;

/// The command line.
#[derive(Debug, Args)]
pub struct FaultCommand {
    /// Print as JSON what is in force afterwards
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    fault: Fault,
}

/// One fault, or what undoes some.
#[derive(Clone, Debug, Subcommand)]
pub enum Fault {
    /// Cut a server's power: what its volumes had not been told to flush is lost. It stays off
    PowerCut {
        /// Name or id
        server: String,
    },
    /// Boot a server that is off
    PowerOn {
        /// Name or id
        server: String,
    },
    /// Kill a server's process 1, and with it all others. The kernel still writes back what they wrote. It stays off
    Kill {
        /// Name or id
        server: String,
    },
    /// Stop every process of a server where it is
    Pause {
        /// Name or id
        server: String,
    },
    /// Let a paused server go on
    Resume {
        /// Name or id
        server: String,
    },
    /// Let the wall clock of a server jump; needs libfaketime. Programs see it that nova ssh or systemd started after the
    /// server's first jump, later jumps at once; monotonic clocks go on
    Clock {
        /// Name or id
        server: String,
        /// How far from what it shows now, or `true` for the machine's time again
        #[arg(value_name = "+1h|-30s|true", value_parser = clock::jump, allow_hyphen_values = true)]
        jump: Jump,
    },
    /// Pull a server's cables, all or those to one network; it sees its carrier go
    LinkDown {
        /// Whose, and to which network
        #[arg(value_name = "SERVER[:NETWORK]")]
        cables: String,
        /// The network, as a word of its own
        #[arg(hide = true)]
        network: Option<String>,
    },
    /// Plug a server's cables in again
    LinkUp {
        /// Whose, and to which network
        #[arg(value_name = "SERVER[:NETWORK]")]
        cables: String,
        /// The network, as a word of its own
        #[arg(hide = true)]
        network: Option<String>,
    },
    /// Lose a part of the frames on a server's cables; 0 ends that
    Loss {
        /// Whose cables, and to which network
        #[arg(value_name = "SERVER[:NETWORK]")]
        cables: String,
        /// Of a hundred frames, chosen by chance
        #[arg(value_parser = percent)]
        percent: f64,
        /// Which frames
        #[command(flatten)]
        way: WayArgs,
    },
    /// Let frames on a server's cables come late; 0 ends that
    Delay {
        /// Whose cables, and to which network
        #[arg(value_name = "SERVER[:NETWORK]")]
        cables: String,
        /// Milliseconds, each way
        #[arg(value_parser = milliseconds)]
        ms: f64,
        /// Vary the delay by up to so many milliseconds, up and down; frames stay in order
        #[arg(long, value_name = "MS", value_parser = milliseconds, default_value = "0")]
        jitter: f64,
        /// Which frames
        #[command(flatten)]
        way: WayArgs,
    },
    /// Limit how much passes on a server's cables; 0 ends that
    Rate {
        /// Whose cables, and to which network
        #[arg(value_name = "SERVER[:NETWORK]")]
        cables: String,
        /// Megabits per second, each way
        #[arg(value_parser = megabits)]
        mbit: f64,
        /// Which frames
        #[command(flatten)]
        way: WayArgs,
    },
    /// Let two servers no longer hear each other, on any network
    Partition {
        /// Name or id
        server: String,
        /// Name or id
        other: String,
        /// OTHER does not hear SERVER; SERVER still hears OTHER
        #[arg(long)]
        one_way: bool,
    },
    /// Let a network pass no more frames, between whichever servers
    Cut {
        /// Name or id
        network: String,
    },
    /// Let a network pass frames again
    Mend {
        /// Name or id
        network: String,
    },
    /// Break a volume, all of it or a range of bytes, attached or not
    Volume(VolumeFaultCommand),
    /// List the faults that are in force
    List,
    /// End all partitions, or those between two servers, or with --all every fault
    Heal {
        /// Name or id
        #[arg(requires = "other")]
        server: Option<String>,
        /// Name or id
        other: Option<String>,
        /// Every fault there is; servers that a fault ended are booted
        #[arg(long, conflicts_with = "server")]
        all: bool,
    },
}

/// Which frames; both ways without a word.
#[derive(Args, Clone, Copy, Debug)]
pub struct WayArgs {
    /// Only what the server receives
    #[arg(long = "in", conflicts_with = "outbound")]
    inbound: bool,
    /// Only what the server sends
    #[arg(long = "out")]
    outbound: bool,
}

impl WayArgs {
    fn way(self) -> Way {
        match (self.inbound, self.outbound) {
            (true, _) => Way::In,
            (_, true) => Way::Out,
            _ => Way::Both,
        }
    }
}

fn number(text: &str, max: f64, unit: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=max).contains(&number) => Ok(number),
        _ => Err(format!("use a number of {unit} from 0 to {max}")),
    }
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    number(text.strip_suffix('%').unwrap_or(text), 100.0, "percent")
}

fn milliseconds(text: &str) -> std::result::Result<f64, String> {
    number(text.strip_suffix("ms").unwrap_or(text), DELAY_MS_MAX, "milliseconds")
}

fn megabits(text: &str) -> std::result::Result<f64, String> {
    number(text, RATE_MBIT_MAX, "megabits per second")
}

impl Fault {
    /// Does it, and gives what a person should be told.
    ///
    /// # Errors
    /// What was refused; then nothing has changed.
    pub fn run(&self, lab: &Lab) -> Result<String> {
        match self {
            Self::PowerCut { server } => server::fell(lab, Fall::PowerCut, "fault power-cut", server)?,
            Self::PowerOn { server } => servers::start(lab, "fault power-on", server)?,
            Self::Kill { server } => server::fell(lab, Fall::Kill, "fault kill", server)?,
            Self::Pause { server } => server::set_paused(lab, server, true)?,
            Self::Resume { server } => server::set_paused(lab, server, false)?,
            Self::Clock { server, jump } => clock::set(lab, server, *jump)?,
            Self::LinkDown { cables, network } => link::set(lab, &joined(cables, network.as_deref()), false)?,
            Self::LinkUp { cables, network } => link::set(lab, &joined(cables, network.as_deref()), true)?,
            Self::Loss { cables, percent, way } => {
                cable::set(lab, cables, Ailment::Loss(*percent), way.way())?;
            }
            Self::Delay { cables, ms, jitter, way } => {
                fits(*ms, *jitter)?;
                cable::set(lab, cables, Ailment::Delay(*ms, *jitter), way.way())?;
            }
            Self::Rate { cables, mbit, way } => cable::set(lab, cables, Ailment::Rate(*mbit), way.way())?,
            Self::Partition { server, other, one_way } => network::partition(lab, server, other, *one_way)?,
            Self::Cut { network } => network::set_cut(lab, network, true)?,
            Self::Mend { network } => network::set_cut(lab, network, false)?,
            Self::Volume(command) => volume_fault::run(lab, command)?,
            Self::List => {
                revive_wires(lab)?;
                return Ok(list::text(&list::in_force(lab)?));
            }
            Self::Heal { all: true, .. } => {
                return Ok(heal::all(lab)?.iter().map(|name| format!("booted server {name}\n")).collect());
            }
            Self::Heal { server, other, all: false } => {
                heal::partitions(lab, server.as_deref().zip(other.as_deref()))?;
            }
        }
        Ok(String::new())
    }

    /// Whether the lab knows what it names, and its numbers go together: what can be told before it is its turn.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, records: &Records) -> Result<()> {
        match self {
            Self::PowerCut { server }
            | Self::PowerOn { server }
            | Self::Kill { server }
            | Self::Pause { server }
            | Self::Resume { server }
            | Self::Clock { server, .. } => records.server("fault", server).map(drop),
            Self::Delay { cables, ms, jitter, .. } => {
                fits(*ms, *jitter)?;
                Cables::named(records, "fault", cables).map(drop)
            }
            Self::Loss { cables, .. } | Self::Rate { cables, .. } => {
                Cables::named(records, "fault", cables).map(drop)
            }
            Self::LinkDown { cables, network } | Self::LinkUp { cables, network } => {
                Cables::named(records, "fault", &joined(cables, network.as_deref())).map(drop)
            }
            Self::Partition { server, other, .. } => {
                records.server("fault", server).and_then(|_| records.server("fault", other)).map(drop)
            }
            Self::Cut { network } | Self::Mend { network } => records.network("fault", network).map(drop),
            Self::Heal { server, other, .. } => {
                server.iter().chain(other).try_for_each(|server| records.server("fault", server).map(drop))
            }
            Self::Volume(command) => command.check(records),
            Self::List => Ok(()),
        }
    }
}

/// Nothing arrives before it was sent.
fn fits(ms: f64, jitter_ms: f64) -> Result<()> {
    if jitter_ms <= ms {
        return Ok(());
    }
    Err(Error::refused(format!(
        "fault delay: a jitter of {jitter_ms} ms around {ms} ms; use at most the delay itself"
    )))
}

/// A relay that died is noticed by whoever looks at the faults.
fn revive_wires(lab: &Lab) -> Result<()> {
    let _lock = lab.lock()?;
    if wire::revive(lab, &Records::load(lab)?)? {
        eprintln!(
            "the process that carries frames over bad cables had died: nothing passed there; it runs again"
        );
    }
    Ok(())
}

/// `SERVER NETWORK` is `SERVER:NETWORK`.
fn joined(server: &str, network: Option<&str>) -> String {
    network.map_or_else(|| server.to_owned(), |network| format!("{server}:{network}"))
}

/// Runs one command of `lockstep lab fault`, and gives what to print.
///
/// # Errors
/// What was refused.
pub fn run(lab: &Lab, command: &FaultCommand) -> Result<String> {
    let said = command.fault.run(lab)?;
    if !command.json {
        return Ok(said);
    }
    Ok(list::json(&list::in_force(lab)?))
}
