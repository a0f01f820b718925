//! The personality `drbdmeta`: meta-data of a device that nobody uses, by device instead of by resource.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;

use drbd_format::meta::{AlSize, Placement};
use drbd_format::names::DiskState;

use crate::meta_disk::{self, EXIT_DEVICE, Failed, MetaDisk, NewMetaData, generations};
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
  create-md [--al-stripes N] [--al-stripe-size-kB N] [--peer-max-bio-size BYTES]
  restore-md FILE
  verify-dump FILE
  check-resize
  read-dev-uuid
  write-dev-uuid UUID
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
    let (options, words) = match Options::take_out(&words) {
        Ok(split) => split,
        Err(wrong) => {
            eprint!("drbdmeta: {wrong}\n{USAGE}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(&words, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => ExitCode::from(failed.status),
    }
}

/// Options, which may stand anywhere.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    force: bool,
    al_stripes: Option<u32>,
    al_stripe_size_kib: Option<u32>,
    peer_max_bio_bytes: u32,
}

impl Options {
    fn take_out(words: &[String]) -> Result<(Self, Vec<&str>), String> {
        let mut options = Self::default();
        let mut rest = Vec::new();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == "--force" {
                options.force = true;
                continue;
            }
            if !word.starts_with("--") {
                rest.push(word);
                continue;
            }
            let (name, value) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let mut number = || {
                let text = value.or_else(|| words.next()).unwrap_or_default();
                text.parse::<u32>().map_err(|_| format!("{name}: '{text}' is not a number"))
            };
            match name {
                "--al-stripes" => options.al_stripes = Some(number()?),
                "--al-stripe-size-kB" => options.al_stripe_size_kib = Some(number()?),
                "--peer-max-bio-size" => options.peer_max_bio_bytes = number()?,
                _ => return Err(format!("unrecognized option '{word}'")),
            }
        }
        if options.peer_max_bio_bytes > 1 << 20 {
            return Err("peer-max-bio-size out of range (0...1M)".to_owned());
        }
        Ok((options, rest))
    }

    /// The activity log's size that is asked for; none: not said.
    fn al(self) -> Option<AlSize> {
        let stripe_size_4k = self.al_stripe_size_kib.map_or(AlSize::DEFAULT.stripe_size_4k, |kib| kib / 4);
        let stripes = self.al_stripes.unwrap_or(AlSize::DEFAULT.stripes);
        let is_said = self.al_stripes.is_some() || self.al_stripe_size_kib.is_some();
        is_said.then_some(AlSize { stripes, stripe_size_4k })
    }
}

/// drbdmeta's own limit: what its buffer holds.
const AL_BLOCKS_MAX: u64 = 1024;

fn check_al(options: &Options, command: &str) -> Result<(), Failed> {
    let Some(al) = options.al() else { return Ok(()) };
    let wrong = if !matches!(command, "create-md" | "restore-md") {
        "The --al-stripe* options are only allowed with create-md and restore-md"
    } else if al.blocks() > AL_BLOCKS_MAX {
        "invalid (too large) al-stripe* settings"
    } else if al.is_too_small() {
        "invalid (too small) al-stripe* settings"
    } else {
        return Ok(());
    };
    eprintln!("{wrong}");
    Err(Failed { status: 10 })
}

fn refuse(text: &str) -> Failed {
    eprintln!("{text}");
    Failed { status: EXIT_USAGE }
}

fn run(words: &[&str], options: &Options) -> Result<(), Failed> {
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
    check_al(options, command)?;
    let takes_one = matches!(command, "set-gi" | "restore-md" | "verify-dump" | "write-dev-uuid");
    // `create-md` of version 9 has a number of peers, which version 8 ignores, as the original does.
    if arguments.len() > usize::from(takes_one) {
        eprintln!("Ignoring additional arguments");
    }
    let path = Path::new(device);
    let is_block = std::fs::metadata(path).map(|found| found.file_type().is_block_device());
    if matches!(is_block, Ok(false)) && !options.force {
        return Err(refuse(&format!("'{device}' is not a block device!")));
    }
    refuse_if_attached(minor)?;
    let disk = MetaDisk::open(path, placement, None)?.of_minor(crate::minor_of(minor));
    act(&disk, &Call { line: format!("drbdmeta {}", words.join(" ")), arguments, options })
}

/// What a command is given.
struct Call<'w> {
    line: String,
    arguments: &'w [&'w str],
    options: &'w Options,
}

impl Call<'_> {
    fn argument(&self) -> Result<&str, Failed> {
        self.arguments.first().copied().ok_or_else(|| {
            eprintln!("Required Argument missing");
            Failed { status: 10 }
        })
    }

    /// The file that is named, or stdin.
    fn source(&self) -> Result<Box<dyn io::Read>, Failed> {
        let Some(path) = self.arguments.first() else { return Ok(Box::new(io::stdin().lock())) };
        let file = std::fs::File::open(path).map_err(|error| {
            eprintln!("open of '{path}' failed: {error}");
            Failed { status: EXIT_USAGE }
        })?;
        Ok(Box::new(file))
    }
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
        "wipe-md" => |disk, call| generations::wipe_md(disk, call.options.force),
        "create-md" => |disk, call| {
            let Options { force, peer_max_bio_bytes, .. } = *call.options;
            let al = call.options.al().unwrap_or(AlSize::DEFAULT);
            NewMetaData { force, era2013: crate::is_era_2013(), al, peer_max_bio_bytes }.create(disk)
        },
        "restore-md" => |disk, call| {
            meta_disk::restore_md(disk, &mut call.source()?, call.options.al(), call.options.force)
        },
        "verify-dump" => |disk, call| meta_disk::verify_dump(disk, &mut call.source()?),
        "check-resize" => |disk, call| meta_disk::check_resize(disk, call.options.force),
        "read-dev-uuid" => |disk, _| generations::read_dev_uuid(disk),
        "write-dev-uuid" => |disk, call| generations::write_dev_uuid(disk, call.argument()?),
        "set-gi" => |disk, call| generations::set_gi(disk, call.argument()?, call.options.force),
        "dump-md" => |disk, call| {
            let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let mut out = BufWriter::new(io::stdout().lock());
            meta_disk::dump_md(&mut out, disk, &node, &call.line, call.options.force)
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
