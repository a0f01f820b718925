//! How long servers take until they are up.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::lab::Lab;

/// Servers, how they are booted, and how long that may take.
pub struct Boot {
    init: &'static str,
    servers: usize,
    goal_s: f64,
}

/// The goals.
pub const BOOTS: &[Boot] =
    &[Boot { init: "tiny", servers: 2, goal_s: 3.0 }, Boot { init: "systemd", servers: 6, goal_s: 10.0 }];

/// A measurement.
#[derive(Clone, Serialize)]
pub struct Startup {
    /// As printed.
    pub what: String,
    /// The goal in seconds.
    pub goal_s: f64,
    /// From the first command to the last server's answer, in seconds; one for each round.
    pub seconds: Vec<f64>,
}

impl Startup {
    /// The median, in seconds.
    pub fn median_s(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Boots and takes down, so many times; in a lab that has nothing when the time begins.
pub fn measure(boot: &Boot, rounds: usize) -> anyhow::Result<[Startup; 2]> {
    let startup = |how| Startup {
        what: format!("{} servers, init {}, {how}", boot.servers, boot.init),
        goal_s: boot.goal_s,
        seconds: Vec::new(),
    };
    let mut found = [startup("one command after the other"), startup("all commands at once")];
    for _ in 0..rounds {
        for (startup, at_once) in found.iter_mut().zip([false, true]) {
            let seconds = once(boot, at_once)?;
            eprintln!("{}: {seconds:.1} s", startup.what);
            startup.seconds.push(seconds);
        }
    }
    Ok(found)
}

/// The seconds until each server has been booted, and has run a command.
fn once(boot: &Boot, at_once: bool) -> anyhow::Result<f64> {
    let lab = Lab::new("bench")?;
    let names: Vec<String> = (1..=boot.servers).map(|number| format!("server{number}")).collect();
    let words: Vec<Vec<String>> =
        names.iter().map(|name| lab.boot_words(boot.init, name)).collect::<anyhow::Result<_>>()?;
    let begun = Instant::now();
    let mut booting = Vec::new();
    for words in words {
        let mut child =
            lab.nova_command(&[]).args(words).stdout(std::process::Stdio::null()).spawn().context("boot")?;
        if at_once {
            booting.push(child);
        } else {
            ensure!(child.wait()?.success(), "a server did not boot");
        }
    }
    for mut child in booting {
        ensure!(child.wait()?.success(), "a server did not boot");
    }
    for name in &names {
        let up = if boot.init == "systemd" { "systemctl is-system-running" } else { "true" };
        lab.sh(name, up)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}
