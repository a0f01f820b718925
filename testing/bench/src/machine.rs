//! Where and when it was measured: a figure without it says nothing.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::program::output;

/// The machine and the date.
#[derive(Serialize)]
pub struct Machine {
    /// Kernel's release.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// Number of processors.
    pub processors: usize,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// UTC.
    pub date: String,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processor: value(&processors, "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: value(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default(),
            date: output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
                .map(|date| date.trim().to_owned())
                .unwrap_or_default(),
        }
    }
}
