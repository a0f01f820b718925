//! The fronts before clients: file systems, the field's NBD clients, workers that are killed.

mod held;
mod loop_on_fuse;
mod machine;
mod nbd;
mod store;
