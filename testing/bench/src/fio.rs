//! The work, done by fio.

use std::process::Command;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::program::output;

/// Bytes of each contender's file that are worked on.
pub const REGION_MIB: u32 = 512;

/// One kind of work.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Work {
    /// As printed.
    pub name: &'static str,
    rw: &'static str,
    block_kib: u32,
    depth: u32,
}

/// Every kind of work.
pub const WORKS: &[Work] = &[WRITE_1, WRITE_32, READ_1, READ_32, BIG_WRITE, BIG_READ];

/// Writes for a machine that is slow by itself.
pub const WRITE_16: Work =
    Work { name: "4 KiB random write, depth 16", rw: "randwrite", block_kib: 4, depth: 16 };

/// A writer that waits for each write.
pub const WRITE_1: Work =
    Work { name: "4 KiB random write, depth 1", rw: "randwrite", block_kib: 4, depth: 1 };
/// Many writers.
pub const WRITE_32: Work =
    Work { name: "4 KiB random write, depth 32", rw: "randwrite", block_kib: 4, depth: 32 };
const READ_1: Work = Work { name: "4 KiB random read, depth 1", rw: "randread", block_kib: 4, depth: 1 };
const READ_32: Work = Work { name: "4 KiB random read, depth 32", rw: "randread", block_kib: 4, depth: 32 };
/// A file being copied to the disk.
pub const BIG_WRITE: Work =
    Work { name: "1 MiB sequential write, depth 4", rw: "write", block_kib: 1024, depth: 4 };
/// A file being copied from the disk.
pub const BIG_READ: Work =
    Work { name: "1 MiB sequential read, depth 4", rw: "read", block_kib: 1024, depth: 4 };

/// What fio measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Requests a second.
    pub iops: f64,
    /// MiB a second.
    pub mib_per_s: f64,
    /// Median time of a request in microseconds.
    pub latency_us: f64,
}

/// What fio works on.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A file or block device, with direct I/O.
    Path(String),
    /// An NBD server's unix socket and export.
    Nbd {
        /// The socket.
        socket: String,
        /// The export.
        export: String,
    },
}

fn arguments(subject: &Subject, work: Work) -> Vec<String> {
    let mut arguments = vec![
        "--name=bench".to_owned(),
        format!("--rw={}", work.rw),
        format!("--bs={}k", work.block_kib),
        format!("--iodepth={}", work.depth),
        format!("--size={REGION_MIB}m"),
        "--randrepeat=0".to_owned(),
        "--norandommap".to_owned(),
        "--output-format=json".to_owned(),
    ];
    match subject {
        Subject::Path(path) => {
            arguments.extend([format!("--filename={path}"), "--ioengine=libaio".into(), "--direct=1".into()]);
        }
        Subject::Nbd { socket, export } => {
            arguments
                .extend(["--ioengine=nbd".into(), format!("--uri=nbd+unix:///{export}?socket={socket}")]);
        }
    }
    arguments
}

/// Measures for so many seconds. `start` makes the command that fio's arguments are added to.
pub fn measure(
    start: &dyn Fn() -> Command,
    subject: &Subject,
    work: Work,
    seconds: u32,
) -> anyhow::Result<Measured> {
    read_answer(&output(start().args(measuring(subject, work, seconds)))?, work)
}

/// fio's arguments for a measurement of so many seconds.
pub fn measuring(subject: &Subject, work: Work, seconds: u32) -> Vec<String> {
    let mut arguments = arguments(subject, work);
    arguments.extend(["--time_based".to_owned(), format!("--runtime={seconds}")]);
    arguments
}

/// What fio says of it.
pub fn read_answer(text: &str, work: Work) -> anyhow::Result<Measured> {
    measured(text, work.rw.ends_with("read")).with_context(|| format!("fio's answer to {}", work.name))
}

/// Writes the whole region once, so that no contender allocates while it is measured.
pub fn prepare(start: &dyn Fn() -> Command, subject: &Subject) -> anyhow::Result<()> {
    output(start().args(filling(subject))).map(drop)
}

/// fio's arguments for that.
pub fn filling(subject: &Subject) -> Vec<String> {
    arguments(subject, Work { name: "fill", rw: "write", block_kib: 1024, depth: 4 })
}

fn measured(text: &str, reads: bool) -> anyhow::Result<Measured> {
    // Warnings stand before the JSON.
    let json = text.find('{').map(|at| &text[at..]).context("no JSON")?;
    let report: Value = serde_json::from_str(json)?;
    let job = &report["jobs"][0][if reads { "read" } else { "write" }];
    let number = |value: &Value| value.as_f64().context("a number");
    Ok(Measured {
        iops: number(&job["iops"])?,
        mib_per_s: number(&job["bw_bytes"])? / f64::from(1 << 20),
        latency_us: number(&job["clat_ns"]["percentile"]["50.000000"])? / 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::{Measured, measured};

    #[test]
    fn fio_3_33() {
        let text = r#"fio: a note on stderr that landed here
{ "fio version" : "fio-3.33", "jobs" : [ { "jobname" : "bench",
  "read" : { "iops" : 0.0, "bw_bytes" : 0, "clat_ns" : { } },
  "write" : { "iops" : 1024.5, "bw_bytes" : 4194304, "clat_ns" : { "percentile" : { "50.000000" : 25500 } } } } ] }"#;
        let expected = Measured { iops: 1024.5, mib_per_s: 4.0, latency_us: 25.5 };
        assert_eq!(measured(text, false).ok(), Some(expected));
        assert!(measured(text, true).is_err());
        assert!(measured("nothing", false).is_err());
    }
}
