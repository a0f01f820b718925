//! `cargo xtask tidy`: the rules of the house that a program can check, so that they do not erode.

mod dependencies;
mod floors;
mod licence;
mod manifests;
mod sources;
mod text;

use crate::process;
use crate::workspace::Workspace;

/// Prints every breach. True if there is none.
pub fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let files = tracked(workspace)?;
    let mut breaches = Vec::new();
    floors::check(&workspace.metadata, &mut breaches);
    dependencies::check(&workspace.metadata, &mut breaches);
    manifests::check(&workspace.metadata, &mut breaches)?;
    for file in &files {
        // A file that was removed but not committed yet, or that is no text, has no lines to check.
        let Ok(content) = std::fs::read_to_string(workspace.root().join(file)) else { continue };
        text::check(workspace.root(), file, &content, &mut breaches);
        if file.ends_with(".rs") {
            sources::check(file, &content, &mut breaches);
        }
    }
    for breach in &breaches {
        println!("tidy: {breach}");
    }
    println!("tidy: {} files, {} breaches", files.len(), breaches.len());
    Ok(breaches.is_empty())
}

/// Files that git knows, or would know after `git add .`; without git, none of the text rules can be checked.
fn tracked(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut git = std::process::Command::new("git");
    git.arg("-C").arg(workspace.root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let (success, text) = process::output(&mut git)?;
    anyhow::ensure!(success, "`git ls-files` failed in {}", workspace.root().display());
    Ok(text.lines().map(str::to_owned).collect())
}
