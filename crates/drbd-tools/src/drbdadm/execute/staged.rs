//! `up` and `adjust`: all resources' first stage, then all resources' second, and so on.

use std::io::{self, Write};

use super::{EXIT_STAGE_FAILED, Executor, report};
use crate::drbd_conf::model::Resource;
use crate::drbdadm::Selected;
use crate::drbdadm::cli::Verb;
use crate::drbdadm::plan::Plan;
use crate::drbdadm::stages::Stages;
use crate::drbdadm::step::Step;

impl Executor<'_> {
    pub(super) fn run_stages(&mut self, plan: &Plan<'_>, selected: &[Selected<'_>]) -> Result<u8, u8> {
        let mut stages = Stages::default();
        for &one in selected {
            if self.cli.verb.is_adjust() {
                let running = self.configuration(one.resource).map_err(|error| report(&error))?;
                stages.adjust(plan, one, running.as_ref())?;
            } else {
                let present = if self.cli.dry_run { None } else { self.present(&one.resource.name.text)? };
                stages.up(plan, one, present.as_ref())?;
            }
        }
        if self.cli.skip_disk {
            stages.skip_disk();
        }
        if self.cli.skip_net {
            stages.skip_net();
        }
        let shows_progress =
            self.cli.verb == Verb::AdjustWithProgress && !self.cli.verbose && !self.cli.dry_run;
        if shows_progress {
            print!("[");
        }
        let mut status = 0;
        let mut spared = Vec::new();
        for (name, is_prerequisite, steps) in stages.in_order() {
            if shows_progress && !steps.is_empty() {
                print!("\n{name:>15}:");
                let _ = io::stdout().flush();
            }
            if self.run_stage(plan, steps, shows_progress, is_prerequisite, &mut spared) {
                status = EXIT_STAGE_FAILED;
                if !shows_progress {
                    return Ok(status);
                }
            }
        }
        if shows_progress {
            println!("\n]");
        }
        Ok(status)
    }

    /// Whether any of the calls failed.
    fn run_stage<'c>(
        &mut self,
        plan: &Plan<'_>,
        steps: Vec<Step<'c>>,
        shows_progress: bool,
        is_prerequisite: bool,
        spared: &mut Vec<&'c Resource>,
    ) -> bool {
        let mut is_failed = false;
        // A volume whose meta-data cannot be used is not attached; the others are.
        let mut skip_attach_of = None;
        let mut named: Option<&Resource> = None;
        for step in steps {
            if matches!(&step, Step::Attach(of) if skip_attach_of == Some(of.minor())) {
                continue;
            }
            let resource = step.resource();
            let name = &resource.name.text;
            let is_spared = spared.iter().any(|spared| std::ptr::eq(*spared, resource));
            if shows_progress && !named.is_some_and(|named| std::ptr::eq(named, resource)) {
                if is_spared { print!(" [skipped:{name}]") } else { print!(" {name}") }
            }
            named = Some(resource);
            if is_spared {
                if !shows_progress {
                    eprintln!("drbdadm: {} {name}: skipped due to earlier error", step.verb());
                }
                continue;
            }
            let status = self.step(plan, &step);
            if status != 0 {
                is_failed = true;
                if is_prerequisite {
                    spared.push(resource);
                }
                if shows_progress {
                    print!(":failed({}:{status})", step.verb());
                }
                if let Step::Meta(of, ..) = &step {
                    skip_attach_of = Some(of.minor());
                }
            }
        }
        is_failed
    }
}
