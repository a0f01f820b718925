//! `cargo xtask install`: the binary, its names as links, manual pages, systemd units and udev rules.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::process;
use crate::workspace::{Profile, Workspace};

/// Installs below `prefix` and prints each path.
pub fn run(workspace: &Workspace, prefix: &Path) -> anyhow::Result<bool> {
    let prefix = std::path::absolute(prefix)?;
    let built = workspace.build(&["lockstep"], Profile::Release)?.join("lockstep");
    let binary = prefix.join("bin/lockstep");
    put(&binary, &fs::read(&built).with_context(|| format!("reading {}", built.display()))?, 0o755)?;
    for (name, directory) in names(&built)? {
        link(&prefix.join(directory).join(name))?;
    }
    for page in listed(&built, "--manual")? {
        let section = page.rsplit_once('.').map_or("1", |(_, section)| section);
        let text = printed(&built, "--manual", &page)?;
        put(&prefix.join("share/man").join(format!("man{section}")).join(&page), text.as_bytes(), 0o644)?;
    }
    for unit in listed(&binary, "--units")? {
        // The program that is asked fills in its own path: it has to be the installed one.
        let text = printed(&binary, "--units", &unit)?;
        put(&prefix.join("lib/systemd/system").join(&unit), text.as_bytes(), 0o644)?;
    }
    let rules = prefix.join("lib/udev/rules.d/50-lockstep-lab.rules");
    put(&rules, include_bytes!("../../crates/lab/udev/50-lockstep-lab.rules"), 0o644)?;
    Ok(true)
}

/// The linked names as the binary itself tells them: name and directory below the prefix.
fn names(lockstep: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let (success, text) = process::output(Command::new(lockstep).arg("--names"))?;
    if !success {
        bail!("`lockstep --names` failed");
    }
    let pair = |line: &str| line.split_once(' ').map(|(name, dir)| (name.to_owned(), dir.to_owned()));
    text.lines()
        .map(|line| pair(line).with_context(|| format!("`lockstep --names` printed `{line}`")))
        .collect()
}

/// File names that `lockstep OPTION` lists.
fn listed(lockstep: &Path, option: &str) -> anyhow::Result<Vec<String>> {
    let (success, text) = process::output(Command::new(lockstep).arg(option))?;
    anyhow::ensure!(success, "`lockstep {option}` failed");
    Ok(text.lines().map(str::to_owned).collect())
}

/// The file of that name, as `lockstep OPTION` prints it.
fn printed(lockstep: &Path, option: &str, file_name: &str) -> anyhow::Result<String> {
    let (success, text) = process::output(Command::new(lockstep).args([option, file_name]))?;
    anyhow::ensure!(success, "`lockstep {option} {file_name}` failed");
    Ok(text)
}

fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let parent = path.parent().context("an installed file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    // Renamed into place: a running daemon keeps the program it was started from.
    let staged = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&staged, content).with_context(|| format!("writing {}", staged.display()))?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(mode))?;
    fs::rename(&staged, path).with_context(|| format!("renaming to {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Every directory of links is one level below the prefix, as the binary's is.
fn link(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().context("a link has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::remove_file(path)?,
        Ok(_) => bail!("{} exists and is no link: not replaced", path.display()),
        Err(_) => {}
    }
    symlink("../bin/lockstep", path).with_context(|| format!("linking {}", path.display()))?;
    println!("{} -> ../bin/lockstep", path.display());
    Ok(())
}
