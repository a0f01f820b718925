//! The DRBD daemon: events in, actions out.
