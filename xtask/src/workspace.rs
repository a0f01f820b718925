//! The workspace as cargo sees it, and building in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};

use crate::process;

/// Which of the root manifest's profiles to build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// Everything that `test` runs.
    Ci,
    /// What is installed, shown and measured.
    Release,
}

impl Profile {
    /// As cargo's `--profile` and as the directory below the target directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Release => "release",
        }
    }
}

/// Cargo's description of the project.
pub struct Workspace {
    /// As printed by `cargo metadata`, dependencies included.
    pub metadata: Metadata,
}

impl Workspace {
    /// Asks cargo.
    pub fn load() -> anyhow::Result<Self> {
        let manifest =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
        let metadata = MetadataCommand::new()
            .manifest_path(manifest.join("Cargo.toml"))
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .context("cargo metadata --locked (is Cargo.lock committed and up to date?)")?;
        Ok(Self { metadata })
    }

    /// The checkout's root.
    pub fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Package> {
        self.metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == name)
    }

    /// Where cargo puts a profile's programs.
    pub fn bin_dir(&self, profile: Profile) -> PathBuf {
        self.metadata.target_directory.as_std_path().join(profile.name())
    }

    /// Builds the programs of `packages` and says where they are.
    pub fn build(&self, packages: &[&str], profile: Profile) -> anyhow::Result<PathBuf> {
        let mut cargo = process::cargo(self.root());
        cargo.args(["build", "--locked", "--profile", profile.name()]);
        for package in packages {
            if self.member(package).is_none() {
                bail!("the workspace has no crate `{package}` yet");
            }
            cargo.args(["-p", package]);
        }
        process::run(&mut cargo)?;
        Ok(self.bin_dir(profile))
    }
}
