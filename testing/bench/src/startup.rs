//! How long servers take until they are up.

use std::time::Instant;

use anyhow::{Context, ensure};

use crate::figure::{Figure, Goal};
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

/// Boots and takes down, so many times; in a lab that has nothing when the time begins.
pub fn measure(boot: &Boot, rounds: usize) -> anyhow::Result<[Figure; 2]> {
    let figure = |how| Figure {
        what: format!("{} servers, init {}, {how}", boot.servers, boot.init),
        unit: "s",
        goal: Some(Goal::AtMost(boot.goal_s)),
        values: Vec::new(),
    };
    let mut found = [figure("one command after the other"), figure("all commands at once")];
    for _ in 0..rounds {
        for (figure, at_once) in found.iter_mut().zip([false, true]) {
            let seconds = once(boot, at_once)?;
            eprintln!("{}: {seconds:.1} s", figure.what);
            figure.values.push(seconds);
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
