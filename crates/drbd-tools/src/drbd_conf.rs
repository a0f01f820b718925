//! The language of drbd.conf, in the spelling of 8.3 and of 8.4.
//!
//! [`load`] reads a configuration and everything it includes. What it returns is the text's structure with the
//! places; [`effective`] works out what a volume or connection gets from all sections together, and [`dump`] prints
//! it as `drbdadm dump` does.

pub mod dump;
pub mod dump_xml;
pub mod effective;
pub mod model;
pub mod options;
mod parse;
mod parse_host;
mod parse_options;
mod unique;
pub mod value;

pub use parse::{Invalid, load, load_also, load_default};
