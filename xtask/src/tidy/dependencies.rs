//! Licences, sources and bans of everything that is linked. `deny.toml` says the same to cargo-deny.

use cargo_metadata::{DependencyKind, Metadata};

use super::{floors, licence};

/// Crates that are not to be linked anywhere, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("async-std", "a resource's thread does front, engine and io_uring together, without a runtime"),
    ("fuser", "the FUSE session is the `fuse` crate"),
    ("openssl-sys", "no system library in the default build"),
    ("tokio", "a resource's thread does front, engine and io_uring together, without a runtime"),
];

/// Crates that give access to the operating system, which formats and engines have none of.
const OPERATING_SYSTEM: &[&str] =
    &["getrandom", "io-uring", "libc", "mio", "nix", "rustix", "signal-hook", "socket2", "tempfile", "tokio"];

/// Checks every package that cargo resolved.
pub fn check(metadata: &Metadata, breaches: &mut Vec<String>) {
    for package in &metadata.packages {
        let name = package.name.as_str();
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            breaches.push(format!("dependency `{name}` is banned: {reason}"));
        }
        match &package.source {
            None if metadata.workspace_members.contains(&package.id) => {}
            Some(source) if source.is_crates_io() => {}
            _ => breaches
                .push(format!("dependency `{name}` comes neither from the workspace nor the registry")),
        }
        match package.license.as_deref() {
            Some(expression) if licence::is_permissive(expression) => {}
            Some(expression) => {
                breaches.push(format!("dependency `{name}`: licence `{expression}` is not permissive"))
            }
            None => breaches.push(format!("dependency `{name}` states no licence")),
        }
    }
    for package in metadata.workspace_packages() {
        if !floors::is_pure(&package.name) {
            continue;
        }
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            if OPERATING_SYSTEM.contains(&dependency.name.as_str()) {
                breaches.push(format!(
                    "{} -> {}: formats and engines have no access to the operating system",
                    package.name, dependency.name
                ));
            }
        }
    }
}
