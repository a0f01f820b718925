//! Carries the calls out: over the control socket, or on the device itself.

mod change;
mod resize;
mod staged;
mod startup;

use std::path::Path;

use drbd_engine::admin::{Command, Refusal};
use drbd_engine::status::{DeviceStatus, ResourceStatus};
use drbd_format::meta::MetaFlags;
use drbd_format::names::DiskState;

use super::cli::{Cli, Verb};
use super::plan::Plan;
use super::step::{Bounds, Ends, Step, VolumeRef};
use super::{EXIT_CONFIGURATION, Selected};
use crate::drbd_conf::effective;
use crate::drbd_conf::model::Setting;
use crate::meta_disk::{self, EXIT_DEVICE, MetaDisk, generations};
use crate::refusal::{self, MINOR_INVALID, RESOURCE_NOT_KNOWN};
use crate::session::{Session, SessionError, sync_command};
use crate::status_text::{self, Style};
use crate::{status_json, status_shell};

/// Exit status if the way to the daemon fails (`E_EXEC_ERROR`).
const EXIT_EXECUTION: u8 = 20;

/// From here on drbdadm gives up instead of going on with the next resource.
const EXIT_FATAL: u8 = 20;

/// Exit status of `up` and `adjust` if any of their calls failed.
const EXIT_STAGE_FAILED: u8 = 1;

/// Carries out what a command line asks for.
pub struct Executor<'a> {
    cli: &'a Cli,
    node: &'a str,
    session: Option<Session>,
    is_session_tried: bool,
    /// Where the calls of a dry run go instead of to stdout.
    calls: Option<&'a mut String>,
}

impl<'a> Executor<'a> {
    /// Nothing is connected yet.
    pub fn new(cli: &'a Cli, node: &'a str) -> Self {
        Self { cli, node, session: None, is_session_tried: false, calls: None }
    }

    /// The same, with the calls shown in `calls`.
    #[cfg(test)]
    pub fn printing_to(cli: &'a Cli, node: &'a str, calls: &'a mut String) -> Self {
        Self { calls: Some(calls), ..Self::new(cli, node) }
    }

    fn show(&mut self, line: &str) {
        match &mut self.calls {
            Some(calls) => calls.extend([line, "\n"]),
            None => println!("{line}"),
        }
    }

    /// Carries a plan out; the exit status.
    pub fn run(&mut self, plan: &Plan<'_>, selected: &[Selected<'_>]) -> Result<u8, u8> {
        if self.cli.verb == Verb::Up || self.cli.verb.is_adjust() {
            return self.run_stages(plan, selected);
        }
        if self.cli.verb == Verb::Status && self.cli.json && !self.cli.dry_run {
            return self.print_json(selected);
        }
        let mut worst = 0;
        for &one in selected {
            let steps = plan.steps(one)?;
            if self.cli.verb == Verb::ShBPri && !self.cli.dry_run {
                worst = worst.max(self.become_primary(plan, &steps));
                continue;
            }
            for step in steps {
                let status = self.step(plan, &step);
                worst = worst.max(status);
                if status >= EXIT_FATAL {
                    return Ok(status);
                }
                if status != 0 {
                    break;
                }
            }
        }
        Ok(worst)
    }

    /// What the daemon, which is started for it, has of a resource.
    fn present(&mut self, resource: &str) -> Result<Option<ResourceStatus>, u8> {
        let outcome = self.session(true).and_then(|session| match session {
            Some(session) => session.status(Some(resource)),
            None => Ok(Vec::new()),
        });
        let found = outcome.map_err(|error| report(&error))?;
        Ok(found.into_iter().find(|status| status.name == resource))
    }

    fn session(&mut self, may_start: bool) -> Result<Option<&mut Session>, SessionError> {
        if self.session.is_none() {
            if may_start {
                self.session = Some(Session::open_or_start()?);
            } else if !self.is_session_tried {
                self.session = Session::open()?;
            }
            self.is_session_tried = true;
        }
        Ok(self.session.as_mut())
    }

    /// One call; its exit status. A failed one is named, as the original does.
    fn step(&mut self, plan: &Plan<'_>, step: &Step<'_>) -> u8 {
        let line = step.line(self.node, &|name| plan.minor_of(name));
        if self.cli.dry_run || self.cli.verbose {
            self.show(&line);
            // The original shows what it would fall back on for a device that is not attached.
            let has_offline_form = matches!(
                step,
                Step::State(_, "dstate" | "show-gi" | "get-gi") | Step::Sync(_, "invalidate" | "outdate")
            );
            if let (&(Step::State(of, verb) | Step::Sync(of, verb)), true, true) =
                (step, has_offline_form, self.cli.dry_run)
            {
                let fallback = Step::Meta(of, verb, false).line(self.node, &|_| None);
                self.show(&fallback);
            }
        }
        if self.cli.dry_run {
            return 0;
        }
        let status = self.execute(step).unwrap_or_else(|error| report(&error));
        if status != 0 {
            eprintln!("Command '{line}' terminated with exit code {status}");
        }
        status
    }

    fn execute(&mut self, step: &Step<'_>) -> Result<u8, SessionError> {
        match step {
            Step::Meta(of, verb, force) => self.meta(*of, verb, *force),
            Step::Status(resource) => self.print_status(&resource.name.text),
            Step::State(of, verb) => self.print_state(*of, verb),
            Step::Sync(of, "invalidate") if !self.is_attached(*of)? => self.meta(*of, "invalidate", false),
            Step::Sync(of, "outdate") if !self.is_attached(*of)? => self.meta(*of, "outdate", false),
            Step::SetGi(of, text, force) => self.set_gi(*of, text, *force),
            Step::ChangeDisk(of, setup) => self.change_disk(step, *of, setup),
            Step::ChangeNet(ends, setup) => self.change_net(step, ends.resource, setup),
            Step::ChangeResource(resource, setup) => self.change_resource(step, resource, setup),
            Step::WaitConnect(of) => self.wait_connect(*of),
            Step::Resize(of, setup) => self.resize(step, *of, setup),
            Step::CheckResize(of, setup) => self.check_resize(step, *of, setup),
            _ => {
                self.warn_about_options_without_effect(step);
                let command = command(step, self.node);
                self.command(step, &command)
            }
        }
    }

    fn command(&mut self, step: &Step<'_>, command: &Command) -> Result<u8, SessionError> {
        let may_start = matches!(step, Step::NewResource(_) | Step::Attach(_) | Step::Connect(..));
        let Some(session) = self.session(may_start)? else {
            return Ok(if matches!(step, Step::Down(_)) { 0 } else { not_there(step) });
        };
        match session.command(command)? {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| eprintln!("{warning}"));
                Ok(0)
            }
            // What is not there need not be taken down.
            Err(refusal) if refusal.code == RESOURCE_NOT_KNOWN && matches!(step, Step::Down(_)) => Ok(0),
            Err(refusal) => {
                let (text, status) = refusal::explain(&step.object(), &refusal);
                eprint!("{text}");
                Ok(status)
            }
        }
    }

    fn warn_about_options_without_effect(&self, step: &Step<'_>) {
        let (object, settings): (_, &[Setting]) = match step {
            Step::NewResource(resource) => (&resource.name.text, &resource.sections.options),
            Step::Attach(of) => (&of.resource.name.text, &of.volume.disk_options),
            Step::Connect(ends, _) => (&ends.resource.name.text, &ends.resource.sections.net),
            _ => return,
        };
        for setting in effective::without_effect(settings) {
            eprintln!("{object}: `{} {}` is not acted on", setting.option.name, setting.value);
        }
    }

    fn status_of(
        &mut self,
        of: VolumeRef<'_>,
    ) -> Result<Option<(ResourceStatus, DeviceStatus)>, SessionError> {
        let Some(session) = self.session(false)? else { return Ok(None) };
        let name = &of.resource.name.text;
        let found = session.status(Some(name))?.into_iter().find(|status| status.name == *name);
        Ok(found.and_then(|resource| {
            let device = resource.devices.iter().find(|device| device.volume == of.volume.number)?.clone();
            Some((resource, device))
        }))
    }

    fn print_status(&mut self, name: &str) -> Result<u8, SessionError> {
        let found = match self.session(false)? {
            Some(session) => session.status(Some(name))?,
            None => Vec::new(),
        };
        let Some(resource) = found.iter().find(|status| status.name == name) else {
            eprintln!("{name}: No such resource");
            return Ok(10);
        };
        print!("{}", status_text::status(resource, Style::plain()));
        Ok(0)
    }

    fn print_json(&mut self, selected: &[Selected<'_>]) -> Result<u8, u8> {
        let found = self
            .session(false)
            .and_then(|session| session.map_or(Ok(Vec::new()), |session| session.status(None)))
            .map_err(|error| report(&error))?;
        let is_selected =
            |status: &ResourceStatus| selected.iter().any(|s| s.resource.name.text == status.name);
        let shown: Vec<_> = found.into_iter().filter(is_selected).collect();
        println!("{:#}", status_json::json(&shown));
        Ok(0)
    }

    fn print_state(&mut self, of: VolumeRef<'_>, verb: &str) -> Result<u8, SessionError> {
        let Some((resource, device)) = self.status_of(of)? else {
            return self.print_detached_state(of, verb);
        };
        if matches!(verb, "show-gi" | "get-gi") && device.disk == DiskState::Diskless {
            return self.print_detached_state(of, verb);
        }
        match verb {
            "role" => println!("{}", status_text::role(&resource, &device)),
            "cstate" => println!("{}", status_text::cstate(&device)),
            "get-gi" => print!("{}", generations::line(device.uuids, MetaFlags(device.md_flags))),
            "show-gi" => print!("{}", generations::explained(device.uuids, MetaFlags(device.md_flags))),
            "sh-status" => print!("{}", status_shell::shell(&resource, &device)),
            _ => println!("{}", status_text::dstate(&device)),
        }
        Ok(0)
    }

    /// The same of a device that is not attached, from its meta-data if they tell it.
    fn print_detached_state(&mut self, of: VolumeRef<'_>, verb: &str) -> Result<u8, SessionError> {
        match verb {
            "dstate" | "show-gi" | "get-gi" if !of.volume.is_diskless() => self.meta(of, verb, false),
            "sh-status" => {
                print!("{}", status_shell::shell_unconfigured(of.minor()));
                Ok(0)
            }
            _ => Ok(not_there(&Step::Secondary(of))),
        }
    }

    fn set_gi(&mut self, of: VolumeRef<'_>, text: &str, force: bool) -> Result<u8, SessionError> {
        if text.is_empty() {
            eprintln!("Required Argument missing");
            return Ok(EXIT_CONFIGURATION);
        }
        self.on_disk(of, |disk| generations::set_gi(disk, text, force))
    }

    /// A call of drbdmeta: on the device itself, if nobody uses it.
    fn meta(&mut self, of: VolumeRef<'_>, verb: &str, force: bool) -> Result<u8, SessionError> {
        let node = self.node;
        self.on_disk(of, |disk| match verb {
            "create-md" => meta_disk::create_md(disk, force, crate::is_era_2013()),
            "apply-al" => meta_disk::apply_al(disk),
            "dstate" => meta_disk::dstate(disk),
            "show-gi" => generations::show_gi(disk),
            "get-gi" => generations::get_gi(disk),
            "wipe-md" => generations::wipe_md(disk, force),
            "invalidate" => generations::invalidate(disk),
            "outdate" => generations::outdate(disk),
            "check-resize" => meta_disk::check_resize(disk, force),
            _ => {
                let line = Step::Meta(of, "dump-md", force).line(node, &|_| None);
                let mut out = std::io::BufWriter::new(std::io::stdout().lock());
                meta_disk::dump_md(&mut out, disk, node, &line, force)
            }
        })
    }

    fn is_attached(&mut self, of: VolumeRef<'_>) -> Result<bool, SessionError> {
        Ok(self.status_of(of)?.is_some_and(|(_, device)| device.disk != DiskState::Diskless))
    }

    /// Acts on a device that nobody uses.
    fn on_disk(
        &mut self,
        of: VolumeRef<'_>,
        act: impl FnOnce(&MetaDisk) -> Result<(), meta_disk::Failed>,
    ) -> Result<u8, SessionError> {
        if self.is_attached(of)? {
            eprintln!("Device '{}' is configured!", of.minor());
            return Ok(EXIT_DEVICE);
        }
        let data = of.separate_data();
        let opened = MetaDisk::open(Path::new(of.meta_disk()), of.placement(), data.as_deref());
        let opened = opened.map(|disk| disk.of_minor(Some(of.minor())));
        Ok(opened.and_then(|disk| act(&disk)).map_or_else(|failed| failed.status, |()| 0))
    }
}

fn report(error: &SessionError) -> u8 {
    eprintln!("drbdadm: {error}");
    EXIT_EXECUTION
}

/// What is said of an object when no daemon runs: it is not configured.
fn not_there(step: &Step<'_>) -> u8 {
    let object = step.object();
    let code = if object.parse::<u32>().is_ok() { MINOR_INVALID } else { RESOURCE_NOT_KNOWN };
    let detail = if code == MINOR_INVALID { "unknown minor" } else { "unknown resource" };
    let (text, status) = refusal::explain(&object, &Refusal { code, detail: detail.into() });
    eprint!("{text}");
    status
}

/// A call as the daemon takes it.
fn command(step: &Step<'_>, node: &str) -> Command {
    let name = |resource: &crate::drbd_conf::model::Resource| resource.name.text.clone();
    match step {
        Step::NewResource(resource) => Command::NewResource {
            resource: name(resource),
            options: effective::resource_options(&resource.sections.options),
        },
        Step::NewMinor(of) => {
            let is_implicit = of.volume.is_implicit;
            let volume = of.volume.number;
            Command::NewMinor { resource: name(of.resource), minor: of.minor(), volume, is_implicit }
        }
        Step::Attach(of) => Command::Attach {
            minor: of.minor(),
            disk: of.disk().into(),
            meta_disk: of.meta_disk().into(),
            meta_index: effective::meta_index(of.volume.meta_disk.as_ref()),
            options: effective::disk_options(&of.volume.disk_options),
        },
        Step::DiskOptions(of) => Command::DiskOptions {
            minor: of.minor(),
            options: effective::disk_options(&of.volume.disk_options),
        },
        Step::Connect(ends, discard_my_data) => {
            let [local, peer] = [ends.us, ends.peer].map(|host| {
                let address = host.address.as_ref().expect("a host without an address is no configuration");
                address.to_socket_addr()
            });
            Command::Connect {
                resource: name(ends.resource),
                local,
                peer,
                options: effective::net_options(&ends.resource.sections.net, node),
                discard_my_data: *discard_my_data,
            }
        }
        Step::ResourceOptions(resource) => Command::ResourceOptions {
            resource: name(resource),
            options: effective::resource_options(&resource.sections.options),
        },
        Step::Gone(_, minor, "detach") => Command::Detach { minor: *minor, force: false },
        Step::Gone(_, minor, _) => Command::DelMinor { minor: *minor },
        Step::Leave(resource, _) => Command::Disconnect { resource: name(resource), force: false },
        Step::NetOptions(ends) => Command::NetOptions {
            resource: name(ends.resource),
            options: effective::net_options(&ends.resource.sections.net, node),
        },
        Step::Sync(of, verb) => sync_command(verb, of.minor()),
        Step::Verify(of, Bounds { start_sector, stop_sector }) => {
            Command::Verify { minor: of.minor(), start_sector: *start_sector, stop_sector: *stop_sector }
        }
        Step::NewCurrentUuid(of, clear_bitmap) => {
            Command::NewCurrentUuid { minor: of.minor(), clear_bitmap: *clear_bitmap }
        }
        Step::Disconnect(ends, force) => Command::Disconnect { resource: name(ends.resource), force: *force },
        Step::Detach(of, force) => Command::Detach { minor: of.minor(), force: *force },
        Step::Primary(of, force) => Command::Primary { resource: name(of.resource), force: *force },
        Step::Secondary(of) => Command::Secondary { resource: name(of.resource) },
        Step::Down(resource) => Command::Down { resource: name(resource) },
        Step::ChangeNet(Ends { resource, .. }, _)
        | Step::ChangeResource(resource, _)
        | Step::Status(resource) => Command::Status { resource: Some(name(resource)) },
        Step::State(of, _)
        | Step::Meta(of, ..)
        | Step::WaitConnect(of)
        | Step::Resize(of, _)
        | Step::CheckResize(of, _)
        | Step::SetGi(of, ..)
        | Step::ChangeDisk(of, _) => Command::Status { resource: Some(name(of.resource)) },
    }
}
