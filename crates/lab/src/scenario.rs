//! `lockstep lab play`: a timeline of faults, from a file and a seed.
//!
//! [`parser`] reads the file, [`plan`] draws every time and every choice from the seed before anything starts, and
//! [`play`] follows the plan. So the same file and seed give the same plan, whatever the lab does meanwhile.

pub mod parser;
pub mod plan;
pub mod play;

/// The language, for the manual.
pub const MANUAL: &str = include_str!("scenario/manual.txt");

use std::fs;
use std::path::Path;

use crate::error::{Doing, Error, Result};
use parser::Script;

/// A file of a person's is not larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a scenario's file.
///
/// # Errors
/// A file that cannot be read, or its first mistake with its line.
pub fn load(path: &Path) -> Result<Script> {
    let doing = || format!("read {}", path.display());
    let size = fs::metadata(path).doing(doing)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Error::refused(format!(
            "{}: {size} bytes, a scenario has at most {FILE_BYTES_MAX}",
            path.display()
        )));
    }
    let text = fs::read_to_string(path).doing(doing)?;
    parser::parse(&text).map_err(|mistake| at(path, mistake.line, &mistake.what))
}

/// A mistake in a line of a file.
fn at(path: &Path, line: usize, what: &str) -> Error {
    Error::refused(format!("{}:{line}: {what}", path.display()))
}
