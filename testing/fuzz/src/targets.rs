//! What is fuzzed: the one table.

mod control_frame;
mod drbd_activity_log;
mod drbd_bitmap_rle;
mod drbd_conf;
mod drbd_meta;
mod drbd_wire;
mod fuse_request;
mod nbd_option;

/// Something that reads bytes it has no reason to trust.
pub struct Target {
    /// As typed, and the corpus's folder.
    pub name: &'static str,
    /// Whose bytes.
    pub reads: &'static str,
    /// Longer inputs say nothing new, and take time.
    pub bytes_max: usize,
    /// Reads an input; panics only where the target is wrong.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "drbd-wire",
        reads: "a peer's packets, both sockets",
        bytes_max: 8192,
        run: drbd_wire::run,
    },
    Target { name: "drbd-meta", reads: "the superblock of a disk", bytes_max: 4096, run: drbd_meta::run },
    Target {
        name: "drbd-activity-log",
        reads: "the activity log of a disk",
        bytes_max: 32 << 10,
        run: drbd_activity_log::run,
    },
    Target { name: "drbd-bitmap-rle", reads: "a peer's bitmap", bytes_max: 4096, run: drbd_bitmap_rle::run },
    Target { name: "drbd-conf", reads: "drbd.conf", bytes_max: 8192, run: drbd_conf::run },
    Target {
        name: "fuse-request",
        reads: "a request of the kernel",
        bytes_max: 4096,
        run: fuse_request::run,
    },
    Target { name: "nbd-option", reads: "an NBD client", bytes_max: 4096, run: nbd_option::run },
    Target {
        name: "control-frame",
        reads: "a command over the control socket",
        bytes_max: 4096,
        run: control_frame::run,
    },
];

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use crate::corpus;

    #[test]
    fn every_corpus_is_there_and_is_read_without_a_panic() {
        for target in TARGETS {
            for (_, input) in corpus::load(target.name).expect("a corpus") {
                (target.run)(&input);
            }
        }
    }
}
