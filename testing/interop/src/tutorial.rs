//! The tutorial's two servers and its resource, with what a scenario changes.

use std::fmt::Write;

/// One of the two servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seat {
    /// `drbd0`.
    First,
    /// `drbd1`.
    Second,
}

impl Seat {
    /// Both.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    /// Host name.
    pub fn name(self) -> &'static str {
        ["drbd0", "drbd1"][self as usize]
    }

    /// Address on the segment.
    pub fn address(self) -> &'static str {
        ["172.16.16.4", "172.16.16.3"][self as usize]
    }

    /// IPv6 address on the segment.
    pub fn address_v6(self) -> &'static str {
        ["fd00:16::4", "fd00:16::3"][self as usize]
    }

    /// The partition that is mirrored.
    pub fn disk(self) -> &'static str {
        ["/dev/xvdb1", "/dev/xvdf1"][self as usize]
    }

    /// The other one.
    pub fn other(self) -> Self {
        Self::ALL[1 - self as usize]
    }
}

/// Bytes of either disk here.
pub const DISK_BYTES: u64 = 64 << 20;

/// Bytes of it before the meta-data.
pub const USABLE_BYTES: u64 = 130_992 * 512;

/// What a scenario changes of the resource.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// `protocol`.
    pub protocol: char,
    /// More in the net section.
    pub net: &'static str,
    /// More in the disk section.
    pub disk: &'static str,
    /// `cram-hmac-alg`.
    pub digest: &'static str,
    /// `shared-secret`.
    pub secret: &'static str,
    /// Whether the servers speak IPv6.
    pub ipv6: bool,
    /// The highest version of the protocol that a daemon of ours offers; none: all it can.
    pub protocol_max: Option<u32>,
}

impl Wish {
    /// Nothing.
    pub const TUTORIAL: Self = Self {
        protocol: 'C',
        net: "",
        disk: "",
        digest: "sha1",
        secret: "dupersupersecret",
        ipv6: false,
        protocol_max: None,
    };

    /// The resource `r0`, with resyncs that do not wait for anything.
    pub fn resource(&self) -> String {
        let Self { protocol, net, disk, digest, secret, ipv6, .. } = self;
        let mut text = format!(
            "resource r0 {{\n  protocol {protocol};\n\
             \x20 net {{ cram-hmac-alg {digest}; shared-secret \"{secret}\"; ping-int 3; connect-int 1; {net} }}\n\
             \x20 disk {{ c-plan-ahead 0; c-min-rate 0; resync-rate 1G; {disk} }}\n"
        );
        for seat in Seat::ALL {
            let address =
                if *ipv6 { format!("ipv6 [{}]", seat.address_v6()) } else { seat.address().to_owned() };
            let _ = writeln!(
                text,
                "  on {} {{ device /dev/drbd0; disk {}; address {address}:7788; meta-disk internal; }}",
                seat.name(),
                seat.disk()
            );
        }
        text + "}\n"
    }
}
