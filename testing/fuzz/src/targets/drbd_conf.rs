//! A configuration as somebody wrote it.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use drbd_tools::drbd_conf::{dump, load};

/// One file a process, overwritten by each input.
fn path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("lockstep-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder below the system's for temporary files");
        folder.join("drbd.conf")
    })
}

/// Loads it; prints what is in it, or what is wrong with it.
pub fn run(input: &[u8]) {
    fs::write(path(), input).expect("the file can be written");
    match load(path()) {
        Ok(config) => {
            for resource in &config.resources {
                dump::resource(&config, resource, "drbd0");
            }
        }
        Err(invalid) => drop(invalid.render(false)),
    }
}
