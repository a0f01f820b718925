//! Options of a command line over what the daemon has: `disk-options`, `net-options`, `resource-options`; and `sh-status`.

use std::path::Path;

use drbd_engine::admin::{Command, Configuration};

use super::{Executor, not_there, report};
use crate::drbd_conf::effective;
use crate::drbd_conf::model::{Config, Resource, Setting};
use crate::drbdadm::plan::Plan;
use crate::drbdadm::setup_option::SetupOption;
use crate::drbdadm::step::{Step, VolumeRef};
use crate::session::SessionError;

fn settings(setup: &[SetupOption]) -> Vec<Setting> {
    setup.iter().map(|option| option.setting.clone()).collect()
}

/// Options that are read and not acted on are named, as where the configuration has them.
fn warn_without_effect(object: &str, settings: &[Setting]) {
    for setting in effective::without_effect(settings) {
        eprintln!("{object}: `{} {}` is not acted on", setting.option.name, setting.value);
    }
}

impl Executor<'_> {
    pub(super) fn configuration(
        &mut self,
        resource: &Resource,
    ) -> Result<Option<Configuration>, SessionError> {
        let Some(session) = self.session(false)? else { return Ok(None) };
        Ok(session.configurations(Some(&resource.name.text))?.pop())
    }

    pub(super) fn change_disk(
        &mut self,
        step: &Step<'_>,
        of: VolumeRef<'_>,
        setup: &[SetupOption],
    ) -> Result<u8, SessionError> {
        let found = self.configuration(of.resource)?;
        let minor = found.and_then(|found| found.minors.into_iter().find(|m| m.minor == of.minor()));
        let Some(minor) = minor else { return Ok(not_there(step)) };
        let settings = settings(setup);
        warn_without_effect(&of.resource.name.text, &settings);
        // Without a disk the daemon refuses, in its own words.
        let present = minor.disk.map(|disk| disk.options).unwrap_or_default();
        let options = effective::disk_options_over(present, &settings);
        self.command(step, &Command::DiskOptions { minor: of.minor(), options })
    }

    pub(super) fn change_net(
        &mut self,
        step: &Step<'_>,
        resource: &Resource,
        setup: &[SetupOption],
    ) -> Result<u8, SessionError> {
        let Some(found) = self.configuration(resource)? else { return Ok(not_there(step)) };
        let settings = settings(setup);
        warn_without_effect(&resource.name.text, &settings);
        let present = found.connection.map(|connection| connection.options).unwrap_or_default();
        let options = effective::net_options_over(present, &settings, self.node);
        self.command(step, &Command::NetOptions { resource: resource.name.text.clone(), options })
    }

    pub(super) fn change_resource(
        &mut self,
        step: &Step<'_>,
        resource: &Resource,
        setup: &[SetupOption],
    ) -> Result<u8, SessionError> {
        let Some(found) = self.configuration(resource)? else { return Ok(not_there(step)) };
        let settings = settings(setup);
        warn_without_effect(&resource.name.text, &settings);
        let options = effective::resource_options_over(found.options, &settings);
        self.command(step, &Command::ResourceOptions { resource: resource.name.text.clone(), options })
    }

    /// `sh-status`: the configuration and the state of everything as variables of a shell.
    pub fn sh_status(&mut self, plan: &Plan<'_>, config: &Config, path: &Path) -> Result<u8, u8> {
        println!("_drbd_version=9.22.0\n_drbd_api=1\n_config_file={}\n\n", path.display());
        for resource in config.resources.iter().filter(|resource| resource.host(self.node).is_some()) {
            let (line, _) = config.sources.line_column(resource.span);
            let file = config.sources.path(resource.span.file).display();
            println!("_conf_res_name={}\n_conf_file_line={file}:{line}\n", resource.name.text);
            let lower = plan.lower(resource).and_then(|name| config.resource(&name));
            let below: Vec<_> = lower.map(|lower| plan.all_volumes(lower)).unwrap_or_default();
            match lower {
                Some(lower) => println!("_stacked_on={}", lower.name.text),
                None => println!("_stacked_on=\n_stacked_on_device=\n_stacked_on_minor="),
            }
            for (index, of) in plan.all_volumes(resource).into_iter().enumerate() {
                if let Some(below) = below.get(index) {
                    println!("_stacked_on_device={}\n_stacked_on_minor={}", below.device(), below.minor());
                }
                println!("_conf_volume={}", of.volume.number);
                let step = Step::State(of, "sh-status");
                if self.cli.dry_run {
                    let line = step.line(self.node, &|_| None);
                    self.show(&line);
                } else {
                    self.execute(&step).map_err(|error| report(&error))?;
                }
            }
        }
        Ok(0)
    }
}
