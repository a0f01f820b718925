//! The tutorial's two servers and its resource.

/// Address of `drbd0`.
pub const ADDRESS_0: &str = "172.16.16.4";

/// Address of `drbd1`.
pub const ADDRESS_1: &str = "172.16.16.3";

/// Bytes of either disk here.
pub const DISK_BYTES: u64 = 64 << 20;

/// Bytes of it before the meta-data.
pub const USABLE_BYTES: u64 = 130_992 * 512;

/// The resource `r0`, with a resync rate that does not begin slowly.
pub fn resource(disk_1: &str) -> String {
    format!(
        "resource r0 {{\n  protocol C;\n  net {{ cram-hmac-alg sha1; shared-secret \"dupersupersecret\"; ping-int 3; \
         }}\n  disk {{ c-plan-ahead 0; resync-rate 60M; }}\n\
         \x20 on drbd0 {{ device /dev/drbd0; disk /dev/xvdb1; address {ADDRESS_0}:7788; meta-disk internal; }}\n\
         \x20 on drbd1 {{ device /dev/drbd0; disk {disk_1}; address {ADDRESS_1}:7788; meta-disk internal; }}\n}}\n"
    )
}
