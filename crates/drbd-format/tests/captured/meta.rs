//! Superblocks and layouts against what drbdmeta and the kernel wrote.

use crate::capture::capture;
use drbd_format::meta::{Layout, Magic, MetaFlags, Placement, SuperBlock};
use proptest::prelude::*;

fn last_block(raw: &[u8]) -> &[u8] {
    &raw[raw.len() - 4096..]
}

#[test]
fn superblocks_of_kernel_and_drbdmeta_survive_a_round_trip() {
    for (file, magic, flags) in [
        ("md-01-drbd0.raw.zst", Magic::V84_UNCLEAN, 0x11),
        ("md-03d-drbd0-after-crash.raw.zst", Magic::V84_UNCLEAN, 0x17),
        ("md-1GiB-fresh.raw.zst", Magic::V08, 0x80),
    ] {
        let raw = capture(file);
        let block = SuperBlock::decode(last_block(&raw)).expect(file);
        assert_eq!((block.magic, block.flags), (magic, MetaFlags(flags)), "{file}");
        assert_eq!(block.needs_apply_al(), magic == Magic::V84_UNCLEAN, "{file}");
        assert_eq!(block.encode(), last_block(&raw), "{file}");
    }
}

#[test]
fn a_crashed_primary_is_read_field_by_field() {
    let raw = capture("md-03d-drbd0-after-crash.raw.zst");
    let block = SuperBlock::decode(last_block(&raw)).expect("a superblock");
    assert_eq!(block.la_size_sectors, 130_992);
    assert_eq!(block.uuids, [0x9C9F_9E76_1566_ECEE, 0, 0, 0]);
    assert_eq!(block.device_uuid, 0xC954_4857_346A_AAAC);
    assert_eq!((block.al_extents, block.peer_max_bio_bytes), (1237, 1_048_576));
    let layout = Layout::recorded(&block, Placement::Internal, 64 << 20, 64 << 20).expect("it fits its disk");
    assert_eq!(layout, Layout::internal(64 << 20).expect("64 MiB are enough"));
}

/// Sizes and offsets as `drbdmeta --force 0 v08 DEVICE internal create-md` of drbd-utils 9.22 chose them.
#[test]
fn internal_layouts_are_drbdmetas() {
    for (disk_bytes, md_offset, al_offset, bm_offset, md_sectors, usable) in [
        (64 << 20, 67_104_768, 67_072_000, 67_067_904, 80, 130_992),
        (1 << 30, 1_073_737_728, 1_073_704_960, 1_073_672_192, 136, 2_097_016),
        (8191 << 10, 8_380_416, 8_347_648, 8_343_552, 80, 16_296),
        (68 << 10, 65_536, 32_768, 28_672, 80, 56),
    ] {
        let layout = Layout::internal(disk_bytes).expect("large enough");
        let found = (layout.md_offset_bytes, layout.al_offset_bytes, layout.bm_offset_bytes);
        assert_eq!(found, (md_offset, al_offset, bm_offset), "{disk_bytes}");
        assert_eq!((layout.md_size_sectors, layout.usable_sectors), (md_sectors, usable), "{disk_bytes}");
    }
    let small = Layout::internal((68 << 10) - 1).expect_err("drbdmeta refuses it too");
    assert_eq!(small.needed_bytes, 68 << 10);
}

/// The first 96 bytes of what drbdmeta of drbd-utils 9.22 wrote for the three placements; zeroes follow.
#[test]
fn fresh_superblocks_are_drbdmetas() {
    let internal = capture("md-1GiB-fresh.raw.zst");
    let layout = Layout::internal(1 << 30).expect("large enough");
    assert_eq!(SuperBlock::fresh(&layout, 0).encode(), last_block(&internal));

    let flex = "00000080 8374026b 00000800 00000008 00000101 00000048 00001000 00000000 00000001 00000008";
    let indexed = "00000080 8374026b 00040000 00000008 00000101 00000048 00001000 00000000 00000001 00000008";
    let flex_layout = Layout::flex_external(1 << 20, 1 << 30).expect("large enough");
    let indexed_layout = Layout::indexed(1, 256 << 20, 1 << 30).expect("large enough");
    assert_eq!(indexed_layout.md_offset_bytes, 128 << 20);
    for (layout, tail) in [(flex_layout, flex), (indexed_layout, indexed)] {
        let mut expected = [0; 4096];
        expected[15] = 4;
        for (word, hex) in expected[56..].chunks_exact_mut(4).zip(tail.split(' ')) {
            word.copy_from_slice(&u32::from_str_radix(hex, 16).expect("hex").to_be_bytes());
        }
        assert_eq!(SuperBlock::fresh(&layout, 0).encode(), expected);
    }
}

#[test]
fn a_wrong_field_is_named() {
    let raw = capture("md-1GiB-fresh.raw.zst");
    for (offset, word, field) in [
        (60, 0u32, "magic"),
        (60, 0x8374_026a, "magic"),
        (64, 128, "bm_offset"),
        (68, 0xffff_ffb8, "al_offset"),
        (76, 0xffff_ff88, "bm_offset"),
        (80, 8192, "bm_bytes_per_bit"),
        (88, 0, "al_stripes x al_stripe_size_4k"),
        (0, 1, "la_size_sect"),
    ] {
        let mut block = last_block(&raw).to_vec();
        block[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
        let error = SuperBlock::decode(&block).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
    assert_eq!(SuperBlock::decode(&[0; 100]).expect_err("too short").field, "length");
}

proptest! {
    #[test]
    fn decode_is_total(mut bytes in proptest::collection::vec(any::<u8>(), 4096), unclean: bool) {
        let magic: u32 = if unclean { 0x8374_026c } else { 0x8374_026b };
        bytes[60..64].copy_from_slice(&magic.to_be_bytes());
        bytes[80..84].copy_from_slice(&4096u32.to_be_bytes());
        let _ = SuperBlock::decode(&bytes);
    }

    #[test]
    fn fresh_meta_data_are_read_back_as_they_were_laid_out(disk_bytes in (68u64 << 10)..(1 << 50)) {
        let layout = Layout::internal(disk_bytes).expect("large enough");
        let block = SuperBlock::fresh(&layout, 7);
        let read = SuperBlock::decode(&block.encode()).expect("what we wrote");
        prop_assert_eq!(&read, &block);
        prop_assert_eq!(Layout::recorded(&read, Placement::Internal, disk_bytes, disk_bytes), Ok(layout));
        prop_assert!(layout.usable_sectors <= layout.bm_bytes * 8 * 8);
    }

    #[test]
    fn recorded_layouts_are_total(size: u32, al: i32, bm: i32, stripes in 0u32..64, stripe in 0u32..64, disk: u64) {
        let layout = Layout::internal(1 << 30).expect("large enough");
        let block = SuperBlock {
            md_size_sectors: size, al_offset_sectors: al, bm_offset_sectors: bm, al_stripes: stripes,
            al_stripe_size_4k: stripe, ..SuperBlock::fresh(&layout, 0)
        };
        for placement in [Placement::Internal, Placement::FlexExternal, Placement::Indexed(size)] {
            let _ = Layout::recorded(&block, placement, disk, disk);
        }
    }
}
