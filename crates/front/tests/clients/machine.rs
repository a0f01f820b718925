//! What the machine has, and its programs.

/// Whether a test that mounts and binds can run; says so loudly where it cannot.
pub fn can_bind(test: &str) -> bool {
    let missing =
        ["/dev/fuse", "/dev/loop-control"].into_iter().find(|path| !std::path::Path::new(path).exists());
    if !rustix::process::geteuid().is_root() {
        eprintln!("skip {test}: not root");
    } else if let Some(path) = missing {
        eprintln!("skip {test}: no {path}");
    } else {
        return true;
    }
    false
}

/// Whether the programs are there.
pub fn has_programs(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing =
        programs.iter().find(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if let Some(program) = missing {
        eprintln!("skip {test}: no `{program}`");
    }
    missing.is_none()
}

/// Runs a program to its end; what it printed.
pub fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let output =
        std::process::Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{program} {words:?}: {}\n{text}", output.status))
    }
}
