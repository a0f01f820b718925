//! Formats against what two kernels and drbd-utils wrote.

mod activity_log;
mod auth;
mod bitmap;
mod capture;
mod meta;
mod wire;
