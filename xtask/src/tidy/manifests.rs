//! What every crate of the workspace says about itself.

use anyhow::Context;
use cargo_metadata::Metadata;

/// A description, the licence, no publishing by accident, and the workspace's lints: `missing_docs` is one of them.
pub fn check(metadata: &Metadata, breaches: &mut Vec<String>) -> anyhow::Result<()> {
    for package in metadata.workspace_packages() {
        let name = &package.name;
        if package.description.as_deref().unwrap_or_default().trim().is_empty() {
            breaches.push(format!("crate `{name}` has no description"));
        }
        if package.license.as_deref() != Some("Apache-2.0 OR MIT") {
            breaches.push(format!("crate `{name}` does not take the workspace's licence"));
        }
        if package.publish.as_deref() != Some(&[]) {
            breaches.push(format!("crate `{name}` does not take the workspace's `publish`"));
        }
        let manifest = std::fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("reading {}", package.manifest_path))?;
        if !takes_lints(&manifest) {
            breaches.push(format!(
                "crate `{name}` does not take the workspace's lints (`[lints] workspace = true`)"
            ));
        }
    }
    Ok(())
}

fn takes_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.any(|line| line == "[lints]")
        && lines.next().is_some_and(|line| line.replace(' ', "") == "workspace=true")
}
