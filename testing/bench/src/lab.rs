//! A lab of the bench's own, beside any other.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::program::output;

/// A running lab; dropping it takes it down.
pub struct Lab {
    name: &'static str,
    lockstep: PathBuf,
}

impl Lab {
    /// The lab of this name, empty.
    pub fn new(name: &'static str) -> anyhow::Result<Self> {
        let lockstep = match std::env::var_os("LOCKSTEP") {
            Some(path) => path.into(),
            None => std::env::current_exe()?.with_file_name("lockstep"),
        };
        let lab = Self { name, lockstep };
        // One of a run that was interrupted would be measured too.
        lab.down()?;
        Ok(lab)
    }

    fn down(&self) -> anyhow::Result<()> {
        output(Command::new(&self.lockstep).args(["lab", "--lab", self.name, "down"])).map(drop)
    }

    /// `lockstep nova ssh SERVER`, ready for a command's words.
    pub fn ssh(&self, server: &str) -> Command {
        self.nova_command(&["ssh", server])
    }

    /// What a script in a server prints.
    pub fn sh(&self, server: &str, script: &str) -> anyhow::Result<String> {
        output(self.ssh(server).arg(script))
    }

    /// Puts a program where the server's `PATH` finds it.
    pub fn install(&self, server: &str, program: &Path, name: &str) -> anyhow::Result<()> {
        let place = format!("/usr/local/bin/{name}");
        let mut command = self.ssh(server);
        command.arg(format!("cat >{place} && chmod 755 {place}"));
        let status = command.stdin(File::open(program)?).status()?;
        ensure!(status.success(), "{} did not get to {server}: {status}", program.display());
        Ok(())
    }

    /// Makes every request to a volume take longer.
    pub fn slow_down(&self, volume: &str, ms: &str) -> anyhow::Result<()> {
        let words = ["lab", "--lab", self.name, "fault", "volume", volume, "slow", ms];
        output(Command::new(&self.lockstep).args(words)).map(drop)
    }

    /// `lockstep nova` with these words, not started.
    pub fn nova_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.lockstep);
        command.args(["nova", "--lab", self.name]).args(words);
        command
    }

    /// What `lockstep nova` prints.
    pub fn nova(&self, words: &[&str]) -> anyhow::Result<String> {
        output(&mut self.nova_command(words))
    }

    /// The words that boot a server of 512 MB; more may follow.
    pub fn boot_words(&self, init: &str, name: &str) -> anyhow::Result<Vec<String>> {
        let images = self.listing("image-list")?;
        let image = images.first().and_then(|image| image["id"].as_str()).context("an image")?;
        Ok(["boot", "--image", image, "--flavor", "2", "--init", init, name].map(str::to_owned).into())
    }

    /// A new volume of 1 GB, attached; gives its id.
    pub fn attach(&self, server: &str, name: &str, kind: &str, device: &str) -> anyhow::Result<String> {
        self.attach_of_size(1, server, name, kind, device)
    }

    /// The same of so many GB.
    pub fn attach_of_size(
        &self,
        gb: u32,
        server: &str,
        name: &str,
        kind: &str,
        device: &str,
    ) -> anyhow::Result<String> {
        self.nova(&["volume-create", "--display-name", name, "--volume-type", kind, &gb.to_string()])?;
        let id = self.id_of("volume-list", name)?;
        self.nova(&["volume-attach", server, &id, device])?;
        Ok(id)
    }

    /// The id that a listing has for a name.
    pub fn id_of(&self, listing: &str, name: &str) -> anyhow::Result<String> {
        let is_named = |row: &&Value| ["name", "label", "display_name"].iter().any(|key| row[*key] == name);
        let rows = self.listing(listing)?;
        let row = rows.iter().find(is_named).with_context(|| format!("no `{name}` in {listing}"))?;
        Ok(row["id"].as_str().context("an id")?.to_owned())
    }

    fn listing(&self, verb: &str) -> anyhow::Result<Vec<Value>> {
        let rows: Vec<Value> = serde_json::from_str(&self.nova(&[verb, "--json"])?)?;
        ensure!(!rows.is_empty(), "{verb} is empty");
        Ok(rows)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("bench: the lab `{}` is still there: {error:#}", self.name);
        }
    }
}
