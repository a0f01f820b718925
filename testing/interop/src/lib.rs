//! Our side against the originals, which are the judges of every format and protocol.
//!
//! A suite is a table of scenarios. One line a scenario: `ok|FAIL|skip NAME seconds`, what went wrong indented below
//! it; then the closing line alone.

//! Nodes, segments and seats serve others, too, who measure what is judged here.

mod lockstep;
mod ours;
mod program;
pub mod scenario;
pub mod side;
pub mod suites;
pub mod tutorial;
pub mod uml;

pub use lockstep::path as program_under_test;
