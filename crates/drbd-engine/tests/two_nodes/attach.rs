//! What a disk's meta-data mean when it is attached.

use drbd_engine::event::{Event, Order};
use drbd_format::bitmap::Bitmap;
use drbd_format::meta::MetaFlags;
use drbd_format::names::{ConnectionState as C, DiskState as D};

use crate::fresh_disk::fresh_disk;
use crate::pair::Pair;

const DISK_BYTES: u64 = 9 << 20;

/// The log vouches for a node that was Primary to its end; one that let go in order has nothing to mark, even if it has
/// not met its peer since an earlier crash.
#[test]
fn a_log_counts_after_a_crash_only() {
    let good = MetaFlags::CONSISTENT.with(MetaFlags::WAS_UP_TO_DATE);
    for (flags, marked_kib) in [
        (good, 0),
        (good.with(MetaFlags::CRASHED_PRIMARY), 0),
        (good.with(MetaFlags::PRIMARY_IND), 4096),
        (good.with(MetaFlags::PRIMARY_IND).with(MetaFlags::CRASHED_PRIMARY), 4096),
    ] {
        let mut pair = Pair::sound(1);
        pair.until((C::Connected, D::Inconsistent, D::Inconsistent));
        pair.ordered(1, Order::Disconnect { force: true });
        pair.ordered(1, Order::Detach { volume: 0 });
        let mut disk = fresh_disk(DISK_BYTES);
        disk.superblock.flags = flags;
        disk.superblock.la_size_sectors = disk.layout.usable_sectors;
        disk.bitmap = Bitmap::of_device(disk.layout.usable_sectors);
        disk.hot_extents = vec![1];
        pair.attach_disk(1, disk);
        let marked = pair.nodes[1].engine.status().devices[0].counters.out_of_sync_kib;
        assert_eq!(marked, marked_kib, "flags {flags:x?}");
    }
}

/// The front has seen nothing that it lacks: a generation that begins when the peer is lost follows the one before on the
/// same disk, whether or not that was written down in time.
#[test]
fn a_disk_that_failed_with_a_generation_just_begun_may_come_back() {
    let mut pair = Pair::in_sync(1);
    pair.until_holds(|pair| pair.nodes[0].due.is_empty());
    pair.log.clear();
    let socket = pair.nodes[0].data.expect("connected");
    pair.closes(0, socket);
    pair.happens(0, Event::Closed { socket });
    assert!(pair.log.iter().any(|line| line.contains("new current UUID")), "{:#?}", pair.log);
    let begun = pair.nodes[0].engine.status().devices[0].uuids;
    pair.fail_disk(0);
    assert_eq!(pair.state(0).1, D::Diskless);
    pair.attach_generation(0, begun);
    assert_ne!(pair.state(0).1, D::Diskless, "{:?}", pair.answers);
}
