//! Checked-in inputs, and where those that fail are kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The inputs of a target in the order of their names.
pub fn load(target: &str) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no corpus in {}", folder.display()))? {
        let path = entry?.path();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        inputs.push((path, bytes));
    }
    inputs.sort();
    anyhow::ensure!(!inputs.is_empty(), "the corpus in {} is empty", folder.display());
    Ok(inputs)
}

/// Keeps an input outside the corpus; it moves in when what it found is mended.
pub fn keep(target: &str, input: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join("lockstep-fuzz").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    // FNV-1a: the same input gets the same name.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{hash:016x}"));
    fs::write(&path, input).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
