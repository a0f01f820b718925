//! `cargo xtask setup`: lists what is missing, and installs only that. No service is started.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::packages::{NEEDS, Need, need, wanted};
use crate::process;

/// Asked by invoke-rc.d before it starts a service; status 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Sets up for what is named, or for everything. False if something is missing and was not installed.
pub fn run(what: &[String], list_only: bool) -> anyhow::Result<bool> {
    let mut rows: Vec<&'static Need> = Vec::new();
    for name in what {
        match need(name) {
            Some(row) => rows.push(row),
            None => bail!("`{name}` is not known to setup; these are: {}", names()),
        }
    }
    if rows.is_empty() {
        rows.extend(NEEDS);
    }
    let missing = Missing::of(&rows)?;
    missing.print();
    if missing.is_empty() {
        return Ok(true);
    }
    if list_only {
        return Ok(false);
    }
    missing.install()
}

/// Setup as the first step of something else: says what it does only if there is something to do, and leaves it to
/// the caller to go on without.
pub fn quietly(what: &'static str) -> anyhow::Result<bool> {
    let missing = Missing::of(&need(what).into_iter().collect::<Vec<_>>())?;
    if missing.is_empty() {
        return Ok(true);
    }
    missing.print();
    missing.install()
}

fn names() -> String {
    NEEDS.iter().map(|row| row.what).collect::<Vec<_>>().join(", ")
}

/// What has to be installed.
struct Missing {
    wanted: usize,
    packages: Vec<&'static str>,
    /// Of the Rust toolchain: a minimal profile of rustup has none.
    components: Vec<&'static str>,
    nextest: bool,
}

/// The toolchain's components that tests need, and the subcommand each brings.
const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "fmt"), ("clippy", "clippy")];

impl Missing {
    fn of(rows: &[&'static Need]) -> anyhow::Result<Self> {
        let (packages, nextest) = wanted(rows);
        if !process::is_installed("dpkg-query") {
            bail!("setup knows Debian and Ubuntu; install by hand what provides: {}", packages.join(" "));
        }
        // Who runs the tests needs the toolchain's checks as well.
        let components = if nextest { COMPONENTS } else { &[] };
        let wanted = packages.len() + components.len() + usize::from(nextest);
        let packages = packages.into_iter().filter(|package| !is_package_installed(package)).collect();
        let components = components.iter().filter(|(_, word)| !has_subcommand(word));
        let components = components.map(|(component, _)| *component).collect();
        Ok(Self { wanted, packages, components, nextest: nextest && !has_subcommand("nextest") })
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.components.is_empty() && !self.nextest
    }

    fn print(&self) {
        if self.is_empty() {
            println!("setup: all {} there", self.wanted);
        } else {
            let nextest = if self.nextest { &["cargo-nextest"][..] } else { &[] };
            println!(
                "setup: missing: {}",
                [&self.packages[..], &self.components, nextest].concat().join(" ")
            );
        }
    }

    /// False if part of it could not be had.
    fn install(&self) -> anyhow::Result<bool> {
        let mut complete = true;
        if !self.packages.is_empty() {
            if rustix::process::geteuid().is_root() {
                complete &= install_packages(&self.packages)?;
            } else {
                println!(
                    "setup: this needs root:\n  sudo apt-get update && sudo {}",
                    apt_line(&self.packages)
                );
                complete = false;
            }
        }
        if !self.components.is_empty() {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add"]).args(&self.components).stdin(Stdio::null());
            println!("setup: {}", process::typed(&rustup));
            complete &= rustup.status().is_ok_and(|status| status.success());
        }
        if self.nextest {
            println!("setup: building cargo-nextest; `cargo test` stands in if that fails");
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["install", "--locked", "--quiet", "cargo-nextest"]).stdin(Stdio::null());
            // Outside the workspace, whose target directory and lock file are not for this.
            cargo.current_dir("/").env_remove("CARGO_TARGET_DIR");
            complete &= process::succeeds(&mut cargo)?;
        }
        Ok(complete)
    }
}

fn is_package_installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|output| output.stdout.starts_with(b"install ok installed"))
}

fn has_subcommand(word: &str) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut version = Command::new(cargo);
    version.args([word, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

fn apt_line(packages: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// False if a package could not be had; the rest is installed all the same.
fn install_packages(packages: &[&'static str]) -> anyhow::Result<bool> {
    let mut is_updated = false;
    if !packages.iter().all(|package| has_candidate(package)) {
        // An image without package lists, as containers have.
        is_updated = update()?;
    }
    let (there, absent): (Vec<&str>, Vec<&str>) = packages.iter().partition(|package| has_candidate(package));
    if !absent.is_empty() {
        println!(
            "setup: this distribution has no package {}; what needs it will be skipped",
            absent.join(", ")
        );
    }
    if there.is_empty() {
        return Ok(absent.is_empty());
    }
    println!("setup: {}", apt_line(&there));
    let _policy = NoServices::begin()?;
    // Lists that are older than the archive name files that are gone.
    let installed = install_now(&there)? || (!is_updated && update()? && install_now(&there)?);
    if !installed {
        println!("setup: `{}` failed", apt_line(&there));
    }
    Ok(installed && absent.is_empty())
}

fn update() -> anyhow::Result<bool> {
    process::succeeds(apt_get().args(["-q", "update"]))
}

fn install_now(packages: &[&str]) -> anyhow::Result<bool> {
    process::succeeds(apt_get().args(["-q", "install", "-y", "--no-install-recommends"]).args(packages))
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_MODE", "l").stdin(Stdio::null());
    apt_get
}

fn has_candidate(package: &str) -> bool {
    let policy = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    policy.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .any(|candidate| candidate != "(none)")
    })
}

/// While this lives, package scripts start no service. A policy of the machine's own is left as it is.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("writing {POLICY}"))?;
        let guard = Self { ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .context("making the policy executable")?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("setup: {POLICY} is still there and keeps services from starting: {error}");
        }
    }
}
