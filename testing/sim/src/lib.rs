//! Deterministic simulation: two nodes that run the real engine, codec and shell on a simulated clock, network and disks.
//!
//! A seed decides everything: sizes, options, latencies, the administrator's steps, faults. The same seed is the same run.

mod administrator;
mod check;
mod clock;
mod disk;
mod image;
mod life;
mod model;
mod network;
mod node;
mod plan;
mod ports;
mod rng;
mod scenario;
mod settle;
mod stamp;
mod steps;
mod traffic;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What failed, and how; none if everything held.
    pub fault: Option<String>,
    /// Stands for the whole course of events: equal for equal seeds.
    pub trace_hash: u64,
    /// Events handled.
    pub events: u64,
    /// Requests of the front that were acknowledged or read back.
    pub requests: u64,
}

/// Runs one seed of the two-node simulation of DRBD; with `tracing` it prints what happens.
pub fn drbd(seed: u64, tracing: bool) -> Outcome {
    let mut world = world::World::new(seed, tracing);
    let panic = catch_unwind(AssertUnwindSafe(|| scenario::run(&mut world))).err();
    let panicked = panic.map(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(|&s| s.to_owned())).unwrap_or_default()
    });
    let fault = match panicked {
        Some(text) => Some(format!("panic: {text}")),
        None => world.fault.take().map(|(check, why)| format!("{check}: {why}")),
    };
    Outcome {
        fault,
        trace_hash: world.trace_hash(),
        events: world.events,
        requests: world.work.acked + world.work.reads,
    }
}
