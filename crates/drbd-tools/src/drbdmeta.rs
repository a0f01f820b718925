//! The personality `drbdmeta`: meta-data of a device that nobody uses, by device instead of by resource.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;

use drbd_format::meta::Placement;
use drbd_format::names::DiskState;

use crate::meta_disk::{self, EXIT_DEVICE, Failed, MetaDisk, generations};
use crate::session::Session;

/// What `drbdmeta --help` prints.
pub const USAGE: &str = "
USAGE: drbdmeta [--force] MINOR v08 DEVICE INDEX COMMAND [CMD ARGS...]

INDEX: internal, flex-external, or the number of a slot of 128 MiB

COMMANDS:
  get-gi
  show-gi
  dump-md
  apply-al
  wipe-md
  outdate
  invalidate
  dstate
  set-gi CURRENT:BITMAP:HISTORY:HISTORY:FLAG:...
  create-md
";

/// Exit status of a command line that cannot be understood.
const EXIT_USAGE: u8 = 20;

/// Runs drbdmeta with the arguments after its name.
pub fn drbdmeta(args: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (options, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| *option != "--force") {
        eprint!("drbdmeta: unrecognized option '{unknown}'\n{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words, !options.is_empty()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => ExitCode::from(failed.status),
    }
}

fn refuse(text: &str) -> Failed {
    eprintln!("{text}");
    Failed { status: EXIT_USAGE }
}

fn run(words: &[&str], force: bool) -> Result<(), Failed> {
    let &[minor, format, ref rest @ ..] = words else {
        eprint!("{USAGE}");
        return Err(Failed { status: EXIT_USAGE });
    };
    match format {
        "v08" => {}
        "v06" | "v07" | "v09" => {
            return Err(refuse(&format!("Format '{format}' is not supported; use v08.")));
        }
        _ => return Err(refuse(&format!("Unknown format '{format}'."))),
    }
    let &[device, index, ref rest @ ..] = rest else { return Err(refuse("Too few arguments for format")) };
    let placement = match index {
        "internal" | "flex-internal" => Placement::Internal,
        "flex-external" | "flexible" => Placement::FlexExternal,
        number => match number.parse() {
            Ok(number) => Placement::Indexed(number),
            Err(_) => return Err(refuse(&format!("'{index}' is not a valid index number."))),
        },
    };
    let &[command, ref arguments @ ..] = rest else { return Err(refuse("command missing")) };
    let Some(act) = act(command) else { return Err(refuse(&format!("Unknown command '{command}'."))) };
    let is_over = arguments.len() > usize::from(command == "set-gi");
    if is_over {
        eprintln!("Ignoring additional arguments");
    }
    let path = Path::new(device);
    let is_block = std::fs::metadata(path).map(|found| found.file_type().is_block_device());
    if matches!(is_block, Ok(false)) && !force {
        return Err(refuse(&format!("'{device}' is not a block device!")));
    }
    refuse_if_attached(minor)?;
    let disk = MetaDisk::open(path, placement, None)?;
    act(&disk, &Call { line: format!("drbdmeta {}", words.join(" ")), arguments, force })
}

/// What a command is given.
struct Call<'w> {
    line: String,
    arguments: &'w [&'w str],
    force: bool,
}

type Act = fn(&MetaDisk, &Call<'_>) -> Result<(), Failed>;

fn act(command: &str) -> Option<Act> {
    Some(match command {
        "get-gi" => |disk, _| generations::get_gi(disk),
        "show-gi" => |disk, _| generations::show_gi(disk),
        "dstate" => |disk, _| meta_disk::dstate(disk),
        "apply-al" => |disk, _| meta_disk::apply_al(disk),
        "outdate" => |disk, _| generations::outdate(disk),
        "invalidate" => |disk, _| generations::invalidate(disk),
        "wipe-md" => |disk, call| generations::wipe_md(disk, call.force),
        "create-md" => |disk, call| meta_disk::create_md(disk, call.force, crate::is_era_2013()),
        "set-gi" => |disk, call| match call.arguments.first() {
            Some(text) => generations::set_gi(disk, text, call.force),
            None => {
                eprintln!("Required Argument missing");
                Err(Failed { status: 10 })
            }
        },
        "dump-md" => |disk, call| {
            let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let mut out = BufWriter::new(io::stdout().lock());
            meta_disk::dump_md(&mut out, disk, &node, &call.line, call.force)
        },
        _ => return None,
    })
}

/// Meta-data of a device in use are the daemon's.
fn refuse_if_attached(word: &str) -> Result<(), Failed> {
    // `-` stands for no device of DRBD's.
    let Some(minor) = crate::minor_of(word) else { return Ok(()) };
    let found = Session::open().and_then(|session| session.map_or(Ok(None), |mut s| s.minor(minor)));
    match found {
        Ok(Some((_, device))) if device.disk != DiskState::Diskless => {
            eprintln!("Device '{word}' is configured!");
            Err(Failed { status: EXIT_DEVICE })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(refuse(&format!("drbdmeta: {error}"))),
    }
}
