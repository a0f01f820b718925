//! `nova boot`, `delete`, `reboot`, `start`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::catalog;
use crate::error::{Doing, Error, Result};
use crate::fault::server::{Fall, fell};
use crate::init::End;
use crate::interfaces::{self, Wish};
use crate::life::{Life, Status};
use crate::place::Lab;
use crate::power;
use crate::state::{Init, Injected, Records, Server};
use crate::supervisor;
use crate::systemd;

/// Time for an orderly reboot: programs get seconds to end, file systems are written back.
const REBOOT_PATIENCE: Duration = Duration::from_secs(60);

/// The longest host name that Linux takes (`__NEW_UTS_LEN`) is 64; DNS labels end at 63.
const NAME_CHARS_MAX: usize = 63;

/// Size of a file that `--file` may bring.
const INJECTED_BYTES_MAX: u64 = 16 << 20;

/// What `nova boot` was given, as typed.
#[derive(Debug)]
pub struct Order<'a> {
    /// Id or name.
    pub image: &'a str,
    /// Number or name.
    pub flavor: &'a str,
    /// What process 1 is to be.
    pub init: Init,
    /// Its interfaces.
    pub nics: Wish<'a>,
    /// Lets the public interface be as fast as this machine.
    pub no_limits: bool,
    /// `DST=SRC`.
    pub files: &'a [String],
    /// Display and host name.
    pub name: &'a str,
}

/// Makes a server and boots it.
///
/// # Errors
/// A mistake in the order, or why it did not boot; then there is no such server.
pub fn boot(lab: &Lab, order: &Order<'_>) -> Result<Server> {
    let image = catalog::image(order.image)?;
    let flavor = catalog::flavor(order.flavor)?;
    host_name(order.name)?;
    if order.init == Init::Systemd {
        systemd::available()?;
    }
    let files = order.files.iter().map(|file| injected(file)).collect::<Result<Vec<_>>>()?;
    let server = {
        let lock = lab.lock()?;
        let mut records = Records::load(lab)?;
        if let Some(same) = records.servers.iter().find(|server| server.name == order.name) {
            return Err(Error::refused(format!(
                "boot: server {} exists already, with id {}",
                same.name, same.id
            )));
        }
        let id = Uuid::new_v4();
        let (image, flavor, name) = (image.id, flavor.id, order.name.to_owned());
        let nics = interfaces::ordered(&mut records, order.name, &order.nics)?;
        let inject = lab.server_dir(id).join("inject");
        fs::create_dir_all(&inject).doing(|| format!("create {}", inject.display()))?;
        for (index, (_, bytes)) in files.iter().enumerate() {
            fs::write(inject.join(index.to_string()), bytes).doing(|| "keep an injected file".into())?;
        }
        let inject = files.into_iter().map(|(file, _)| file).collect();
        let no_limits = order.no_limits;
        let init = order.init;
        let server = Server { id, name, image, flavor, init, nics, no_limits, inject };
        records.servers.push(server.clone());
        records.save(lab, &lock)?;
        server
    };
    if let Err(error) = bring_up(lab, &server) {
        let lock = lab.lock()?;
        let records = Records::load(lab)?;
        if Life::status(Life::load(lab, server.id)?.as_ref()) != Status::Shutoff {
            power::end(lab, &lock, &records, &server, Fall::PowerCut)?;
        }
        forget(lab, &lock, &server)?;
        return Err(error);
    }
    Ok(server)
}

/// Boots a server that is off, and waits until it is up.
fn bring_up(lab: &Lab, server: &Server) -> Result<()> {
    supervisor::start(lab, server)?;
    if server.init == Init::Systemd { systemd::wait_until_up(lab, server) } else { Ok(()) }
}

fn host_name(name: &str) -> Result<()> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fits {
        return Ok(());
    }
    Err(Error::refused(format!(
        "boot: {name:?} cannot be a host name; use up to {NAME_CHARS_MAX} letters, digits, - and ."
    )))
}

fn injected(file: &str) -> Result<(Injected, Vec<u8>)> {
    let refused = |mistake: String| Err(Error::refused(format!("boot: --file {file}: {mistake}")));
    let Some((target, source)) = file.split_once('=') else {
        return refused("write it as PATH-IN-THE-SERVER=PATH-HERE".into());
    };
    if !target.starts_with('/') || target.ends_with('/') || target.split('/').any(|part| part == "..") {
        return refused(format!("{target:?} is no absolute path of a file in the server"));
    }
    let read = || -> std::io::Result<(u64, u32, Vec<u8>)> {
        let about = fs::metadata(source)?;
        let bytes = if about.len() <= INJECTED_BYTES_MAX { fs::read(source)? } else { Vec::new() };
        Ok((about.len(), about.permissions().mode() & 0o7777, bytes))
    };
    match read() {
        Ok((size, ..)) if size > INJECTED_BYTES_MAX => {
            refused(format!("{source} has {size} bytes, the most is {INJECTED_BYTES_MAX}"))
        }
        Ok((_, mode, bytes)) => Ok((Injected { path: target.to_owned(), mode }, bytes)),
        Err(error) => refused(format!("{source}: {error}")),
    }
}

/// Forgets a server that is off, with its root.
fn forget(lab: &Lab, lock: &crate::place::LabLock, server: &Server) -> Result<()> {
    let mut records = Records::load(lab)?;
    power::clean_up(lab, server, &records)?;
    Life::forget(lab, server.id, lock);
    for volume in &mut records.volumes {
        volume.attachment.take_if(|attachment| attachment.server == server.id);
    }
    records.faults.forget(server.id);
    records.servers.retain(|other| other.id != server.id);
    records.save(lab, lock)?;
    let directory = lab.server_dir(server.id);
    if directory.exists() {
        fs::remove_dir_all(&directory).doing(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// Ends a server as a power cut does and forgets it. Its volumes are free.
///
/// # Errors
/// No such server, or something of it that is still held.
pub fn delete(lab: &Lab, wanted: &str) -> Result<()> {
    let lock = lab.lock()?;
    let records = Records::load(lab)?;
    let server = records.server("delete", wanted)?.clone();
    if Life::status(Life::load(lab, server.id)?.as_ref()) != Status::Shutoff {
        power::end(lab, &lock, &records, &server, Fall::PowerCut)?;
    }
    forget(lab, &lock, &server)
}

/// Boots a server that is off.
///
/// # Errors
/// It runs, or why it does not boot.
pub fn start(lab: &Lab, verb: &str, wanted: &str) -> Result<()> {
    let server = Records::load(lab)?.server(verb, wanted)?.clone();
    match Life::status(Life::load(lab, server.id)?.as_ref()) {
        Status::Shutoff => bring_up(lab, &server),
        Status::Active => Err(Error::refused(format!("{verb}: server {} runs", server.name))),
        Status::Reboot => Err(Error::refused(format!("{verb}: server {} boots", server.name))),
    }
}

/// Reboots a server: in an orderly way, or `hard` by a power cut. One that is off is booted.
///
/// # Errors
/// No such server, or why it does not come back.
pub fn reboot(lab: &Lab, wanted: &str, hard: bool) -> Result<()> {
    let server = Records::load(lab)?.server("reboot", wanted)?.clone();
    let life = Life::load(lab, server.id)?;
    let (Some(life), Status::Active | Status::Reboot) = (&life, Life::status(life.as_ref())) else {
        return bring_up(lab, &server);
    };
    if hard {
        fell(lab, Fall::PowerCut, "reboot", wanted)?;
        return bring_up(lab, &server);
    }
    life.init.signal(End::Reboot.signal());
    if !life.init.wait_gone(REBOOT_PATIENCE) {
        return Err(Error::refused(format!("reboot: server {} does not go down; try --hard", server.name)));
    }
    let patience_ends = Instant::now() + REBOOT_PATIENCE;
    loop {
        match Life::status(Life::load(lab, server.id)?.as_ref()) {
            Status::Active if server.init == Init::Systemd => return systemd::wait_until_up(lab, &server),
            Status::Active => return Ok(()),
            // Its supervisor was killed, and nobody else boots it.
            Status::Shutoff => return bring_up(lab, &server),
            Status::Reboot if Instant::now() > patience_ends => {
                return Err(Error::refused(format!("reboot: server {} does not come up", server.name)));
            }
            Status::Reboot => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
