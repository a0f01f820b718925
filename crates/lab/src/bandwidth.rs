//! How fast a server's public interface is: its flavor's megabits per second, each way.
//!
//! Both limits are on the fabric's side of the cable, out of the server's reach. A token bucket stands where frames
//! leave the fabric for the server. What the server sends arrives, and can only be delayed where it leaves again, so
//! it makes a detour through a meter (an ifb device) whose other end is a token bucket too.

use std::fmt::Write as _;

use crate::catalog::flavor_of;
use crate::state::{Nic, PUBLIC, Server};

/// What a bucket holds at least: a burst of the largest frames that segmentation offload makes.
const BURST_BYTES_MIN: u32 = 65536;

/// What a bucket holds at least in terms of time. Buckets are filled by the kernel's timer, 100 times a second where
/// it is slow.
const BURST_MS: u32 = 10;

/// Time that a frame waits in the queue at most before it is dropped.
const LATENCY_MS: u32 = 50;

/// Megabits per second that an interface takes and gives; none if it is as fast as this machine.
pub fn limit(server: &Server, nic: &Nic) -> Option<u32> {
    (nic.network == PUBLIC && !server.no_limits).then(|| flavor_of(server).public_mbit_per_s)
}

/// What `nova show` says of a server's public interface.
pub fn text(server: &Server) -> String {
    let Some(public) = server.nics.iter().find(|nic| nic.network == PUBLIC) else {
        return "no public interface".to_owned();
    };
    limit(server, public).map_or("no limit".to_owned(), |mbit_per_s| format!("{mbit_per_s} Mb/s"))
}

/// Lines for `ip -batch`: the meter.
pub fn links(meter: &str) -> String {
    format!("link add {meter} type ifb\nlink set {meter} up\n")
}

/// Lines for `tc -batch`: what leaves the fabric through `port`, and what enters by it, is slowed down. The port has a
/// clsact qdisc already.
pub fn rules(port: &str, meter: &str, mbit_per_s: u32) -> String {
    let bucket = bucket(mbit_per_s);
    let mut rules = format!("qdisc add dev {port} root {bucket}\nqdisc add dev {meter} root {bucket}\n");
    let _ = writeln!(
        rules,
        "filter add dev {port} ingress protocol all u32 match u32 0 0 action mirred egress redirect dev {meter}"
    );
    rules
}

fn bucket(mbit_per_s: u32) -> String {
    let burst_bytes = (mbit_per_s * 1000 / 8 * BURST_MS).max(BURST_BYTES_MIN);
    format!("tbf rate {mbit_per_s}mbit burst {burst_bytes}b latency {LATENCY_MS}ms")
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn a_bucket_holds_what_comes_between_two_ticks() {
        assert_eq!(bucket(20), "tbf rate 20mbit burst 65536b latency 50ms");
        assert_eq!(bucket(300), "tbf rate 300mbit burst 375000b latency 50ms");
    }
}
