//! The kernel's DRBD 8.4 as peer, and as judge. A kernel's node is booted once for as many scenarios as it lives through.

mod after_split_brain;
mod checksums;
mod conflicts;
mod congestion;
mod fencing;
mod grown;
mod handlers;
mod handshake;
mod load;
mod meeting;
mod meta_forms;
mod protocols;
mod reconnect;
mod replication;
mod sizes;
mod split_brain;
mod suspend;
mod sync_orders;
mod table;
mod takeover;
mod timeouts;
mod verify;

use crate::scenario::{self, Need, Scenario, Selection};
use crate::tutorial::{Seat, Wish};
use crate::uml::{KERNEL, Segment};

use after_split_brain::{NO_PRIMARY, ONE_PRIMARY, TWO_PRIMARIES};
use conflicts::Load;
use meeting::{KERNELS, MIXED, MIXED_TURNED, OURS};
use meta_forms::Form;
use reconnect::Loss;
use table::{Maker, Table};

const NEEDS: &[Need] = &[
    Need::Personality("drbdadm"),
    Need::Personality("drbd"),
    Need::Path("/dev/fuse"),
    Need::Program("losetup"),
    Need::Program("nsenter"),
    Need::Root,
    Need::Path(KERNEL),
    Need::Path("/dev/net/tun"),
    Need::Program("unshare"),
    Need::Program("ip"),
    Need::Program("drbdadm"),
    Need::Program("fio"),
];

const fn scenario(name: &'static str, run: fn(&mut Table) -> anyhow::Result<()>) -> Scenario<Table> {
    Scenario { name, quick: false, needs: NEEDS, run }
}

/// One that the tests run, too.
const fn quick(name: &'static str, run: fn(&mut Table) -> anyhow::Result<()>) -> Scenario<Table> {
    Scenario { name, quick: true, needs: NEEDS, run }
}

/// The tutorial's resource with another protocol.
const fn protocol(letter: char) -> Wish {
    Wish { protocol: letter, ..Wish::TUTORIAL }
}

const fn digest(name: &'static str) -> Wish {
    Wish { digest: name, ..Wish::TUTORIAL }
}

const fn net(options: &'static str) -> Wish {
    Wish { net: options, ..Wish::TUTORIAL }
}

/// By what they show; the makers are `drbd0`'s and `drbd1`'s.
const SCENARIOS: &[Scenario<Table>] = &[
    quick("first-sync-to-us", |t| replication::first_sync(t, MIXED, Seat::First)),
    quick("first-sync-from-us", |t| replication::first_sync(t, MIXED, Seat::Second)),
    scenario("first-sync-of-ours", |t| replication::first_sync(t, OURS, Seat::Second)),
    quick("role-swap", |t| replication::role_swap(t, MIXED)),
    quick("protocol-a-from-kernel", |t| replication::writes(t, Maker::Kernel, &protocol('A'))),
    quick("protocol-a-from-us", |t| replication::writes(t, Maker::Ours, &protocol('A'))),
    scenario("protocol-b-from-kernel", |t| replication::writes(t, Maker::Kernel, &protocol('B'))),
    scenario("protocol-b-from-us", |t| replication::writes(t, Maker::Ours, &protocol('B'))),
    scenario("protocol-c-from-kernel", |t| replication::writes(t, Maker::Kernel, &protocol('C'))),
    scenario("protocol-c-from-us", |t| replication::writes(t, Maker::Ours, &protocol('C'))),
    quick("discards-from-kernel", |t| replication::discards(t, Maker::Kernel)),
    quick("discards-from-us", |t| replication::discards(t, Maker::Ours)),
    scenario("two-primaries", replication::two_primaries),
    scenario("conflicts-of-sectors-we-resolve", |t| conflicts::same_place(t, MIXED, Load::Sectors)),
    scenario("conflicts-of-sectors-kernel-resolves", |t| {
        conflicts::same_place(t, MIXED_TURNED, Load::Sectors)
    }),
    scenario("conflicts-of-sectors-of-ours", |t| conflicts::same_place(t, OURS, Load::Sectors)),
    scenario("conflicts-in-part-we-resolve", |t| conflicts::same_place(t, MIXED, Load::Overlapping)),
    scenario("conflicts-in-part-kernel-resolves", |t| {
        conflicts::same_place(t, MIXED_TURNED, Load::Overlapping)
    }),
    scenario("conflicts-in-part-of-ours", |t| conflicts::same_place(t, OURS, Load::Overlapping)),
    scenario("diskless-kernel", |t| replication::diskless_primary(t, Maker::Kernel)),
    scenario("diskless-us", |t| replication::diskless_primary(t, Maker::Ours)),
    quick("bitmap-rle-from-kernel", |t| {
        reconnect::sends_what_differs(t, Maker::Kernel, &net("use-rle yes;"))
    }),
    scenario("bitmap-rle-from-us", |t| reconnect::sends_what_differs(t, Maker::Ours, &net("use-rle yes;"))),
    scenario("bitmap-plain-from-kernel", |t| {
        reconnect::sends_what_differs(t, Maker::Kernel, &net("use-rle no;"))
    }),
    scenario("bitmap-plain-from-us", |t| reconnect::sends_what_differs(t, Maker::Ours, &net("use-rle no;"))),
    scenario("disconnects-under-kernels-load", |t| reconnect::under_load(t, Maker::Kernel, Loss::Disconnect)),
    scenario("disconnects-under-our-load", |t| reconnect::under_load(t, Maker::Ours, Loss::Disconnect)),
    scenario("cable-pulled-under-kernels-load", |t| reconnect::under_load(t, Maker::Kernel, Loss::Cable)),
    scenario("cable-pulled-under-our-load", |t| reconnect::under_load(t, Maker::Ours, Loss::Cable)),
    scenario("we-are-mute-under-kernels-load", |t| {
        reconnect::under_load(t, Maker::Kernel, Loss::Mute(Maker::Ours))
    }),
    scenario("we-are-mute-under-our-load", |t| {
        reconnect::under_load(t, Maker::Ours, Loss::Mute(Maker::Ours))
    }),
    scenario("kernel-is-mute-under-our-load", |t| {
        reconnect::under_load(t, Maker::Ours, Loss::Mute(Maker::Kernel))
    }),
    scenario("kernel-primary-loses-power", |t| reconnect::primary_dies(t, Maker::Kernel)),
    scenario("our-primary-is-killed", |t| reconnect::primary_dies(t, Maker::Ours)),
    scenario("kernel-secondary-loses-power", |t| reconnect::secondary_dies(t, Maker::Kernel)),
    scenario("our-secondary-is-killed", |t| reconnect::secondary_dies(t, Maker::Ours)),
    scenario("disk-from-kernel-to-us", |t| reconnect::disk_changes_hands(t, Maker::Kernel, false)),
    scenario("disk-from-us-to-kernel", |t| reconnect::disk_changes_hands(t, Maker::Ours, false)),
    scenario("crashed-disk-from-kernel-to-us", |t| reconnect::disk_changes_hands(t, Maker::Kernel, true)),
    scenario("crashed-disk-from-us-to-kernel", |t| reconnect::disk_changes_hands(t, Maker::Ours, true)),
    scenario("wrong-secret", |t| {
        let wrong = Wish { secret: "wrongersecret", ..Wish::TUTORIAL };
        handshake::refused(t, [Wish::TUTORIAL, wrong], "Authentication of peer failed")
    }),
    scenario("other-protocol", |t| {
        handshake::refused(t, [protocol('C'), protocol('B')], "incompatible protocol settings")
    }),
    scenario("other-after-split-brain", |t| {
        handshake::refused(
            t,
            [net("after-sb-0pri discard-least-changes;"), Wish::TUTORIAL],
            "incompatible after-sb-0pri settings",
        )
    }),
    scenario("other-two-primaries", |t| {
        handshake::refused(
            t,
            [net("allow-two-primaries;"), Wish::TUTORIAL],
            "incompatible allow-two-primaries settings",
        )
    }),
    scenario("digest-md5", |t| handshake::agrees(t, &digest("md5"))),
    scenario("digest-sha384", |t| handshake::agrees(t, &digest("sha384"))),
    scenario("digest-that-is-none", handshake::digests_that_are_none),
    scenario("only-kernel-authenticates", |t| handshake::one_authenticates(t, Maker::Kernel)),
    scenario("only-we-authenticate", |t| handshake::one_authenticates(t, Maker::Ours)),
    scenario("kernel-pulls-ahead", congestion::kernel_pulls_ahead),
    scenario("connect-times", timeouts::connect_times),
    scenario("digest-sha256", |t| handshake::agrees(t, &digest("sha256"))),
    scenario("digest-sha512", |t| handshake::agrees(t, &digest("sha512"))),
    scenario("ipv6", |t| handshake::agrees(t, &Wish { ipv6: true, ..Wish::TUTORIAL })),
    scenario("one-primary-only", handshake::one_primary_only),
    scenario("outdated-kernel", |t| handshake::outdated_is_no_primary(t, Maker::Kernel)),
    scenario("split-brain-kernel-loses", |t| split_brain::told_who_loses(t, Seat::First)),
    scenario("split-brain-we-lose", |t| split_brain::told_who_loses(t, Seat::Second)),
    scenario("grows-by-kernels-word", |t| sizes::grows(t, Maker::Kernel, Maker::Kernel, false)),
    scenario("grows-by-our-word", |t| sizes::grows(t, Maker::Ours, Maker::Ours, false)),
    scenario("grows-by-kernels-secondary", |t| sizes::grows(t, Maker::Ours, Maker::Kernel, false)),
    scenario("grows-by-our-secondary", |t| sizes::grows(t, Maker::Kernel, Maker::Ours, false)),
    scenario("grows-clean-by-kernels-word", |t| sizes::grows(t, Maker::Kernel, Maker::Kernel, true)),
    scenario("grows-clean-by-our-word", |t| sizes::grows(t, Maker::Ours, Maker::Ours, true)),
    scenario("kernel-is-smaller", |t| sizes::differ(t, Maker::Kernel)),
    scenario("we-are-smaller", |t| sizes::differ(t, Maker::Ours)),
    scenario("kernel-is-too-small", |t| sizes::too_small(t, Maker::Kernel)),
    scenario("we-are-too-small", |t| sizes::too_small(t, Maker::Ours)),
    scenario("size-asked-of-kernel", |t| sizes::asked_for(t, Maker::Kernel)),
    scenario("size-asked-of-us", |t| sizes::asked_for(t, Maker::Ours)),
    scenario("resize-refusals", sizes::refusals),
    scenario("meta-data-flexible", |t| meta_forms::elsewhere(t, Form::Flexible)),
    scenario("meta-data-in-a-slot", |t| meta_forms::elsewhere(t, Form::Slot)),
    scenario("crash-with-flexible-meta-data", meta_forms::crash_with_meta_elsewhere),
    scenario("orderly-stop-marks-nothing", meta_forms::orderly_stop_marks_nothing),
    scenario("large-sectors-at-kernel", |t| meta_forms::large_sectors(t, Maker::Kernel, Maker::Ours)),
    scenario("large-sectors-at-us", |t| meta_forms::large_sectors(t, Maker::Ours, Maker::Kernel)),
    scenario("after-sb-0pri-kernels", |t| after_split_brain::policies(t, KERNELS, NO_PRIMARY)),
    scenario("after-sb-1pri-kernels", |t| after_split_brain::policies(t, KERNELS, ONE_PRIMARY)),
    scenario("after-sb-2pri-kernels", |t| after_split_brain::policies(t, KERNELS, TWO_PRIMARIES)),
    scenario("after-sb-0pri-kernel-and-us", |t| after_split_brain::policies(t, MIXED, NO_PRIMARY)),
    scenario("after-sb-1pri-kernel-and-us", |t| after_split_brain::policies(t, MIXED, ONE_PRIMARY)),
    scenario("after-sb-2pri-kernel-and-us", |t| after_split_brain::policies(t, MIXED, TWO_PRIMARIES)),
    scenario("after-sb-0pri-us-and-kernel", |t| after_split_brain::policies(t, MIXED_TURNED, NO_PRIMARY)),
    scenario("after-sb-1pri-us-and-kernel", |t| after_split_brain::policies(t, MIXED_TURNED, ONE_PRIMARY)),
    scenario("after-sb-2pri-us-and-kernel", |t| after_split_brain::policies(t, MIXED_TURNED, TWO_PRIMARIES)),
    scenario("after-sb-0pri-ours", |t| after_split_brain::policies(t, OURS, NO_PRIMARY)),
    scenario("after-sb-1pri-ours", |t| after_split_brain::policies(t, OURS, ONE_PRIMARY)),
    scenario("after-sb-2pri-ours", |t| after_split_brain::policies(t, OURS, TWO_PRIMARIES)),
    scenario("resync-paused-by-kernel", |t| sync_orders::paused(t, Seat::First)),
    scenario("resync-paused-by-us", |t| sync_orders::paused(t, Seat::Second)),
    scenario("kernel-invalidates-itself", |t| sync_orders::invalidated(t, Seat::First, true)),
    scenario("kernel-is-invalidated-by-us", |t| sync_orders::invalidated(t, Seat::First, false)),
    scenario("we-invalidate-ourselves", |t| sync_orders::invalidated(t, Seat::Second, true)),
    scenario("we-are-invalidated-by-kernel", |t| sync_orders::invalidated(t, Seat::Second, false)),
    scenario("first-sync-spared-by-kernel", |t| sync_orders::first_sync_is_spared(t, Seat::First)),
    scenario("first-sync-spared-by-us", |t| sync_orders::first_sync_is_spared(t, Seat::Second)),
    scenario("kernel-pair", |t| replication::role_swap(t, KERNELS)),
    scenario("protocol-86-from-kernel", |t| protocols::a_life(t, 86, Maker::Kernel)),
    scenario("protocol-86-from-us", |t| protocols::a_life(t, 86, Maker::Ours)),
    scenario("protocol-90-from-kernel", |t| protocols::a_life(t, 90, Maker::Kernel)),
    scenario("protocol-90-from-us", |t| protocols::a_life(t, 90, Maker::Ours)),
    scenario("protocol-95-from-kernel", |t| protocols::a_life(t, 95, Maker::Kernel)),
    scenario("protocol-95-from-us", |t| protocols::a_life(t, 95, Maker::Ours)),
    scenario("protocol-96-from-kernel", |t| protocols::a_life(t, 96, Maker::Kernel)),
    scenario("protocol-96-from-us", |t| protocols::a_life(t, 96, Maker::Ours)),
    scenario("protocol-99-from-kernel", |t| protocols::a_life(t, 99, Maker::Kernel)),
    scenario("protocol-99-from-us", |t| protocols::a_life(t, 99, Maker::Ours)),
    scenario("protocol-100-from-kernel", |t| protocols::a_life(t, 100, Maker::Kernel)),
    scenario("protocol-100-from-us", |t| protocols::a_life(t, 100, Maker::Ours)),
    scenario("handlers-environment", handlers::environment),
    scenario("target-refuses-kernel", |t| handlers::target_refuses(t, Maker::Kernel)),
    scenario("fence-peer-4-kernel", |t| {
        fencing::handler_says(t, Maker::Kernel, "exit 4", "fencing resource-only;", "Outdated")
    }),
    scenario("fence-peer-5-kernel", |t| {
        fencing::handler_says(t, Maker::Kernel, "exit 5", "fencing resource-only;", "Outdated")
    }),
    scenario("fence-peer-3-kernel", |t| {
        fencing::handler_says(t, Maker::Kernel, "exit 3", "fencing resource-only;", "Inconsistent")
    }),
    scenario("stonith-freezes-kernel", |t| fencing::stonith_freezes(t, Maker::Kernel)),
    scenario("peer-returns-to-frozen-kernel", |t| fencing::peer_returns_to_frozen(t, Maker::Kernel)),
    scenario("leaving-outdates-kernel", |t| fencing::leaving_outdates(t, Maker::Kernel)),
    scenario("suspended-by-order-kernel", |t| suspend::by_order(t, Maker::Kernel)),
    scenario("suspended-without-data-kernel", |t| suspend::without_data(t, Maker::Kernel)),
    scenario("target-refuses-us", |t| handlers::target_refuses(t, Maker::Ours)),
    scenario("fence-peer-4-us", |t| {
        fencing::handler_says(t, Maker::Ours, "exit 4", "fencing resource-only;", "Outdated")
    }),
    scenario("fence-peer-5-us", |t| {
        fencing::handler_says(t, Maker::Ours, "exit 5", "fencing resource-only;", "Outdated")
    }),
    scenario("fence-peer-3-us", |t| {
        fencing::handler_says(t, Maker::Ours, "exit 3", "fencing resource-only;", "Inconsistent")
    }),
    scenario("stonith-freezes-us", |t| fencing::stonith_freezes(t, Maker::Ours)),
    scenario("peer-returns-to-frozen-us", |t| fencing::peer_returns_to_frozen(t, Maker::Ours)),
    scenario("leaving-outdates-us", |t| fencing::leaving_outdates(t, Maker::Ours)),
    scenario("suspended-by-order-us", |t| suspend::by_order(t, Maker::Ours)),
    scenario("suspended-without-data-us", |t| suspend::without_data(t, Maker::Ours)),
    quick("verify-from-kernel", |t| verify::finds(t, Seat::First, Seat::First, "sha1")),
    quick("verify-from-us", |t| verify::finds(t, Seat::Second, Seat::First, "sha1")),
    scenario("verify-from-kernel-of-our-primary", |t| verify::finds(t, Seat::First, Seat::Second, "md5")),
    scenario("verify-from-us-as-primary", |t| verify::finds(t, Seat::Second, Seat::Second, "crc32c")),
    scenario("verify-in-part-from-kernel", |t| verify::finds_in_part(t, Maker::Kernel)),
    scenario("verify-in-part-from-us", |t| verify::finds_in_part(t, Maker::Ours)),
    scenario("verify-refused", verify::refusals),
    scenario("other-verify", |t| {
        let wishes = [net("verify-alg md5;"), net("verify-alg sha1;")];
        handshake::refused(t, wishes, "Different verify-alg settings.")
    }),
    scenario("checksums-from-kernel", |t| checksums::resync(t, Maker::Kernel, "csums-alg sha1;")),
    scenario("checksums-from-us", |t| checksums::resync(t, Maker::Ours, "csums-alg md5;")),
    scenario("integrity-md5", |t| checksums::integrity(t, "data-integrity-alg md5;")),
    scenario("integrity-sha1", |t| checksums::integrity(t, "data-integrity-alg sha1;")),
    scenario("integrity-crc32c", |t| checksums::integrity(t, "data-integrity-alg crc32c;")),
    scenario("other-integrity", |t| {
        let wishes = [net("data-integrity-alg md5;"), net("data-integrity-alg sha1;")];
        handshake::refused(t, wishes, "incompatible data-integrity-alg settings")
    }),
    scenario("thin-from-kernel", |t| checksums::thin(t, Maker::Kernel)),
    scenario("thin-from-us", |t| checksums::thin(t, Maker::Ours)),
    scenario("live-takeover", takeover::of_the_tutorial),
    scenario("live-takeover-protocol-a", |t| takeover::with_protocol(t, 'A', false)),
    scenario("live-takeover-protocol-b", |t| takeover::with_protocol(t, 'B', false)),
    scenario("live-takeover-ipv6", |t| takeover::with_protocol(t, 'C', true)),
];

/// The suite.
pub fn run(selection: &Selection) -> anyhow::Result<bool> {
    if selection.list || !rustix::process::geteuid().is_root() {
        return scenario::run(SCENARIOS, selection, || anyhow::bail!("not root"));
    }
    let segment = Segment::enter()?;
    scenario::run(SCENARIOS, selection, || Table::new(segment))
}
