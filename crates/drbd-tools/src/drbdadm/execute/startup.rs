//! What a server does when it starts: wait for peers, and become primary where the configuration says so.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Executor, not_there, report};
use crate::drbd_conf::model::{Config, Resource};
use crate::drbdadm::plan::Plan;
use crate::drbdadm::step::{Step, VolumeRef};
use crate::session::SessionError;
use crate::wait::{self, Awaited, POLL, WaitOptions};

/// How long `wait-con-int` only shows dots.
const DOTS: Duration = Duration::from_secs(10);

/// How often a promotion at the start is tried: both nodes may be at it, and one is declined.
const PROMOTION_TRIES: u32 = 5;

/// Pause between them.
const PROMOTION_PAUSE: Duration = Duration::from_secs(1);

/// A device that is waited for.
struct Waiting<'c> {
    of: VolumeRef<'c>,
    options: WaitOptions,
    /// None: for ever.
    deadline: Option<Instant>,
}

fn options(of: VolumeRef<'_>) -> WaitOptions {
    match of.stacked_timeout_s() {
        Some(wfc_timeout_s) => WaitOptions { wfc_timeout_s, ..WaitOptions::default() },
        None => WaitOptions::from_settings(&of.resource.sections.startup),
    }
}

impl Executor<'_> {
    /// Waits until one device is connected; the exit status.
    pub(super) fn wait_connect(&mut self, of: VolumeRef<'_>) -> Result<u8, SessionError> {
        let options = options(of);
        match self.session(false)? {
            Some(session) => wait::wait(session, of.minor(), Awaited::Connected, options),
            None => Ok(not_there(&Step::WaitConnect(of))),
        }
    }

    fn begin_to_wait<'c>(&mut self, of: VolumeRef<'c>) -> Result<Option<Waiting<'c>>, SessionError> {
        let Some((_, device)) = self.status_of(of)? else {
            eprintln!("error determining which timeout to use: minor not available");
            return Ok(None);
        };
        let options = options(of);
        let (timeout, said) = options.timeout(device.peer_disk, device.was_degraded);
        eprint!("{said}");
        Ok(Some(Waiting { of, options, deadline: timeout.map(|timeout| Instant::now() + timeout) }))
    }

    fn is_over(&mut self, waiting: &Waiting<'_>) -> Result<bool, SessionError> {
        let found = self.status_of(waiting.of)?;
        // A device that is gone meanwhile is not waited for.
        Ok(found.is_none_or(|(_, device)| waiting.options.is_over(Awaited::Connected, device.connection)))
    }

    /// `wait-con-int`: waits for all connections of this node at once. A person at a terminal may end it by `yes`.
    pub fn wait_con_int(&mut self, plan: &Plan<'_>, config: &Config) -> Result<u8, u8> {
        let (node, is_stacked) = (self.node, self.cli.stacked);
        let meant = config.resources.iter().filter(|resource| resource.is_stacked(node) == is_stacked);
        let volumes: Vec<_> = meant.flat_map(|resource| plan.all_volumes(resource)).collect();
        for &of in &volumes {
            let step = Step::WaitConnect(of);
            if self.cli.dry_run || self.cli.verbose {
                self.show(&step.line(self.node, &|_| None));
            }
        }
        if self.cli.dry_run {
            return Ok(0);
        }
        let mut waiting = Vec::new();
        for of in volumes {
            waiting.extend(self.begin_to_wait(of).map_err(|error| report(&error))?);
        }
        let first = config.resources.iter().find(|resource| resource.host(self.node).is_some());
        self.wait_for_all(waiting, first).map_err(|error| report(&error))?;
        Ok(0)
    }

    fn wait_for_all(
        &mut self,
        mut waiting: Vec<Waiting<'_>>,
        first: Option<&Resource>,
    ) -> Result<(), SessionError> {
        let started = Instant::now();
        let mut dots = 0;
        let mut answers: Option<Receiver<()>> = None;
        loop {
            let mut left = Vec::new();
            for one in waiting {
                if self.is_over(&one)? {
                    continue;
                }
                if one.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    let name = &one.of.resource.name.text;
                    eprintln!("{name}: the peer of volume {} has not appeared in time", one.of.volume.number);
                    continue;
                }
                left.push(one);
            }
            waiting = left;
            if waiting.is_empty() {
                if dots > 0 {
                    println!();
                }
                return Ok(());
            }
            let waited = started.elapsed();
            if waited < DOTS {
                while dots < waited.as_secs() {
                    print!(".");
                    dots += 1;
                }
                let _ = io::stdout().flush();
                thread::sleep(POLL);
                continue;
            }
            let answers = answers.get_or_insert_with(|| explain_and_listen(first));
            match answers.recv_timeout(POLL) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody can answer.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
            }
        }
    }

    /// `sh-b-pri`: becomes primary if `become-primary-on` names this node, or both.
    pub(super) fn become_primary(&mut self, plan: &Plan<'_>, steps: &[Step<'_>]) -> u8 {
        let mut status = 0;
        for attempt in 0..PROMOTION_TRIES {
            if attempt > 0 {
                thread::sleep(PROMOTION_PAUSE);
            }
            status = 0;
            for step in steps {
                status = self.step(plan, step);
                if status != 0 {
                    break;
                }
            }
            if status == 0 {
                break;
            }
        }
        status
    }
}

/// Says what is waited for and how to end it; the receiver hears a `yes` from the terminal, if there is one.
fn explain_and_listen(first: Option<&Resource>) -> Receiver<()> {
    if let Some(resource) = first {
        let options = WaitOptions::from_settings(&resource.sections.startup);
        println!(
            "\n***************************************************************\n \
             DRBD's startup script waits for the peer node(s) to appear.\n \
             - If this node was already a degraded cluster before the\n   \
               reboot, the timeout is {} seconds. [degr-wfc-timeout]\n \
             - If the peer was available before the reboot, the timeout\n   \
               is {} seconds. [wfc-timeout]\n   \
               (These values are for resource '{}'; 0 sec -> wait forever)",
            options.degr_wfc_timeout_s, options.wfc_timeout_s, resource.name.text
        );
    }
    let (sender, receiver) = channel();
    if io::stdin().is_terminal() {
        print!(" To abort waiting enter 'yes' [ -- ]: ");
        thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                match line {
                    Ok(line) if line == "yes" => {
                        let _ = sender.send(());
                        return;
                    }
                    Ok(_) => print_prompt(),
                    Err(_) => return,
                }
            }
        });
    } else {
        let process = std::process::id();
        println!(" To abort waiting for DRBD connections, kill this process: kill {process}");
    }
    let _ = io::stdout().flush();
    receiver
}

fn print_prompt() {
    print!(" To abort waiting enter 'yes' [ -- ]: ");
    let _ = io::stdout().flush();
}
