//! The command line of `lockstep lab`.

use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use uuid::Uuid;

use crate::error::{Doing, Result};
use crate::fault::command::FaultCommand;
use crate::init::{self, End};
use crate::place::Lab;
use crate::scenario::play::PlayCommand;
use crate::supervisor::{self, INIT_SOCKET};
use crate::{down, fault, forward, fstab, inventory, record, scenario, store, topology, wire};

/// What a cloud does not offer: an overview, faults, removal
#[derive(Debug, Parser)]
#[command(name = "lockstep lab", disable_help_subcommand = true)]
pub struct LabCommand {
    /// The lab
    #[arg(long, env = "LOCKSTEP_LAB", default_value = "default", global = true)]
    lab: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all labs with their servers, volumes and processes
    Ps {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show what is plugged into what, and what of it is broken
    Show(topology::Order),
    /// Remove the lab and all that it made
    Down {
        /// Every lab on this machine
        #[arg(long)]
        all: bool,
    },
    /// Break something
    Fault(FaultCommand),
    /// Play a timeline of faults from a file; lockstep-scenario(5) tells its language
    Play(PlayCommand),
    /// Record frames, consoles and events into a directory, until a command ends or Ctrl-C
    Record(record::Order),
    /// Let a port of this machine's loopback lead to a port of a server
    Forward(forward::Order),
    /// Serve the lab's volumes
    #[command(hide = true)]
    Store,
    /// Carry frames over bad cables
    #[command(hide = true)]
    Wires,
    /// Boot a server, and again after each reboot
    #[command(hide = true)]
    Server {
        #[arg(long)]
        id: Uuid,
    },
    /// Be process 1 of a server
    #[command(hide = true)]
    ServerInit {
        #[arg(long)]
        id: Uuid,
    },
    /// In a server: units for lines of /etc/fstab
    #[command(hide = true)]
    ServerFstab { directory: PathBuf },
    /// In a server: unmount what is on block devices
    #[command(hide = true)]
    ServerUnmount,
    /// In a server: unmount and unbind what its processes left
    #[command(hide = true)]
    ServerLast,
    /// In a server: ask its process 1 to end it
    #[command(hide = true)]
    ServerPower {
        word: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Runs one command of `lockstep lab`.
///
/// # Errors
/// What was refused.
pub fn run(command: LabCommand) -> Result<ExitCode> {
    let lab = Lab::named(&command.lab)?;
    match command.verb {
        Verb::Ps { json: true } => {
            let text = serde_json::to_string_pretty(&inventory::json()).unwrap_or_default();
            print(&format!("{text}\n"));
        }
        Verb::Ps { json: false } => print(&inventory::table()),
        Verb::Show(order) => topology::show(&lab, &order)?,
        Verb::Down { all: true } => Lab::all().iter().map(down::down).fold(Ok(()), Result::and)?,
        Verb::Down { all: false } => down::down(&lab)?,
        Verb::Fault(command) => print(&fault::command::run(&lab, &command)?),
        Verb::Forward(order) => forward::run(&lab, &order)?,
        Verb::Play(command) => return scenario::play::run(&lab, &command),
        Verb::Record(order) => return record::run(&lab, order),
        Verb::Store => store::keeper::run(&lab)?,
        Verb::Wires => wire::relay::run(&lab)?,
        Verb::Server { id } => supervisor::run(&lab, id)?,
        Verb::ServerInit { id } => return be_init(&lab, id),
        Verb::ServerFstab { directory } => fstab::generate(&directory)?,
        Verb::ServerUnmount => init::unmount_disks(),
        Verb::ServerLast => init::let_go(),
        Verb::ServerPower { word, words } => init::ask(&word, &words)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes to stdout; a reader that has gone away is no fault of ours.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Process 1 tells its supervisor why it gives up, if it does.
fn be_init(lab: &Lab, id: Uuid) -> Result<ExitCode> {
    rustix::io::fcntl_getfd(
        // SAFETY: only asks whether the descriptor is open; it is not used beyond this call.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(INIT_SOCKET) },
    )
    .doing(|| "find the supervisor; `nova boot` starts servers".into())?;
    // SAFETY: open, as just seen, given to this process by its supervisor, and nobody else's here.
    let socket = unsafe { UnixStream::from_raw_fd(INIT_SOCKET) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)
        .doing(|| "keep the supervisor's socket".into())?;
    let mut to_supervisor = socket.try_clone().doing(|| "keep the supervisor's socket".into())?;
    match init::run(lab, id, socket) {
        Ok(End::Reboot) => Ok(ExitCode::from(init::REBOOT)),
        Ok(End::PowerOff) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            // Gone: then nobody waits for the reason.
            let _ = writeln!(to_supervisor, "{}", error.to_string().replace('\n', "; "));
            Err(error)
        }
    }
}
