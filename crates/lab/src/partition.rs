//! Partition tables, read by the lab because a kernel need not: MBR with logical partitions, and GPT.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use mbrman::{MBRHeader, MBRPartitionEntry};
use units::{SECTOR_BYTES, SectorRange};

use crate::loopdev::{KernelPartition, LoopDevice};

/// At most so many partitions of a disk appear: as many minors as the kernel reserves for one.
pub const PARTITIONS_MAX: usize = 255;

/// `sys` of the entry that a GPT puts into the MBR to guard itself.
const PROTECTIVE: u8 = 0xEE;

/// Number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;

/// A partition as a table has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slice {
    /// Number, from 1 on.
    pub number: u32,
    /// Where it lies on the disk.
    pub sectors: SectorRange,
}

/// The partitions of a disk of `disk_sectors`. A disk without a table, or with one that does not hold
/// together, has none: a boot sector that merely looks like a table must not cut a file system into pieces.
///
/// # Errors
/// Only what reading the disk gives.
pub fn read_table<D: Read + Seek>(disk: &mut D, disk_sectors: u64) -> io::Result<Vec<Slice>> {
    let Some(header) = header_at(disk, 0)? else { return Ok(Vec::new()) };
    let entries = [&header.partition_1, &header.partition_2, &header.partition_3, &header.partition_4];
    if entries.iter().any(|entry| entry.sys == PROTECTIVE) {
        return Ok(gpt_slices(disk, disk_sectors));
    }
    let mut slices = Vec::new();
    let mut extended = None;
    for (number, entry) in (1..).zip(entries).filter(|(_, entry)| entry.is_used() && entry.sectors > 0) {
        let sectors = SectorRange::new(entry.starting_lba.into(), entry.sectors.into());
        if sectors.start == 0 || sectors.end() > disk_sectors {
            return Ok(Vec::new());
        }
        if entry.is_extended() {
            extended = Some(sectors);
            // As the kernel shows it: just enough to hold a boot loader, so that nobody writes across its inside.
            slices.push(Slice { number, sectors: SectorRange::new(sectors.start, sectors.count.min(2)) });
        } else {
            slices.push(Slice { number, sectors });
        }
    }
    if let Some(extended) = extended {
        logical_slices(disk, extended, &mut slices)?;
    }
    let overlap = |a: &Slice, b: &Slice| a.number != b.number && a.sectors.overlaps(b.sectors);
    if slices.iter().any(|a| slices.iter().any(|b| overlap(a, b))) {
        return Ok(Vec::new());
    }
    Ok(slices)
}

/// The MBR, or the boot record of a logical partition, at this sector; none if it has no signature.
fn header_at<D: Read + Seek>(disk: &mut D, sector: u64) -> io::Result<Option<MBRHeader>> {
    let mut bytes = [0; SECTOR_BYTES as usize];
    disk.seek(SeekFrom::Start(sector * SECTOR_BYTES))?;
    disk.read_exact(&mut bytes)?;
    Ok(MBRHeader::read_from(&mut io::Cursor::new(&bytes)).ok())
}

/// Walks the chain of boot records inside the extended partition. A record names its own partition relative
/// to itself and the next record relative to the start of the extended partition.
fn logical_slices<D: Read + Seek>(
    disk: &mut D,
    extended: SectorRange,
    slices: &mut Vec<Slice>,
) -> io::Result<()> {
    let mut record = extended.start;
    let mut number = FIRST_LOGICAL;
    while slices.len() < PARTITIONS_MAX {
        let Some(header) = header_at(disk, record)? else { break };
        let own: &MBRPartitionEntry = &header.partition_1;
        let sectors = SectorRange::new(record + u64::from(own.starting_lba), own.sectors.into());
        if own.is_used() && own.sectors > 0 && sectors.end() <= extended.end() && own.starting_lba > 0 {
            slices.push(Slice { number, sectors });
            number += 1;
        }
        let next = extended.start + u64::from(header.partition_2.starting_lba);
        // Records follow each other: a chain that turns back would never end.
        if !header.partition_2.is_used() || next <= record || next >= extended.end() {
            break;
        }
        record = next;
    }
    Ok(())
}

fn gpt_slices<D: Read + Seek>(disk: &mut D, disk_sectors: u64) -> Vec<Slice> {
    let config = gpt::GptConfig::new().writable(false).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let Ok(table) = config.open_from_device(Seekable(disk)) else { return Vec::new() };
    table
        .partitions()
        .iter()
        .filter(|(_, partition)| partition.is_used())
        .filter(|(_, p)| p.first_lba > 0 && p.first_lba <= p.last_lba && p.last_lba < disk_sectors)
        .take(PARTITIONS_MAX)
        .map(|(&number, p)| Slice {
            number,
            sectors: SectorRange::new(p.first_lba, p.last_lba - p.first_lba + 1),
        })
        .collect()
}

/// The crate asks for a device that it could write; it is opened read-only, and nothing here writes.
struct Seekable<'a, D>(&'a mut D);

impl<D> std::fmt::Debug for Seekable<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seekable")
    }
}

impl<D: Read> Read for Seekable<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<D: Seek> Seek for Seekable<'_, D> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl<D> io::Write for Seekable<'_, D> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the table of a loop device says now. May take as long as the disk does.
///
/// # Errors
/// The disk cannot be read.
pub fn table_of(device: LoopDevice) -> io::Result<Vec<Slice>> {
    let mut disk: File = device.open(false)?;
    let disk_sectors = disk.seek(SeekFrom::End(0))? / SECTOR_BYTES;
    read_table(&mut disk, disk_sectors)
}

/// Makes the kernel's partitions of a loop device those of its table, and gives what it has then. A partition
/// that is in use stays as it is. Does not wait for the disk.
pub fn reconcile(device: LoopDevice, wanted: &[Slice]) -> Vec<KernelPartition> {
    let is_wanted = |p: &KernelPartition| wanted.contains(&Slice { number: p.number, sectors: p.sectors });
    for stale in device.partitions().iter().filter(|p| !is_wanted(p)) {
        // Held by somebody: the old one stays until the next time the disk is closed.
        let _ = device.remove_partition(stale.number);
    }
    let there: Vec<u32> = device.partitions().iter().map(|p| p.number).collect();
    for slice in wanted.iter().filter(|slice| !there.contains(&slice.number)) {
        // Overlaps one that is held: the same.
        let _ = device.add_partition(slice.number, slice.sectors);
    }
    device.partitions()
}

/// Removes the kernel's partitions of a loop device that goes away.
pub fn clear(device: LoopDevice) {
    for partition in device.partitions() {
        // One that is held goes with the device.
        let _ = device.remove_partition(partition.number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::{any, proptest};
    use units::SectorRange;

    use super::{Slice, read_table};

    const DISK_SECTORS: u64 = 1 << 16;

    /// An MBR entry as fdisk writes it: status, CHS, type, CHS, start, count.
    fn entry(sys: u8, start: u32, count: u32) -> Vec<u8> {
        [&[0, 0, 2, 0, sys, 0, 3, 0][..], &start.to_le_bytes(), &count.to_le_bytes()].concat()
    }

    fn disk(records: &[(u64, Vec<Vec<u8>>)]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; (DISK_SECTORS * 512) as usize];
        for (sector, entries) in records {
            let base = (*sector * 512) as usize;
            for (index, entry) in entries.iter().enumerate() {
                bytes[base + 446 + index * 16..][..16].copy_from_slice(entry);
            }
            bytes[base + 510..base + 512].copy_from_slice(&[0x55, 0xAA]);
        }
        Cursor::new(bytes)
    }

    fn slice(number: u32, start: u64, count: u64) -> Slice {
        Slice { number, sectors: SectorRange::new(start, count) }
    }

    #[test]
    fn primary_and_logical_partitions() {
        let mut disk = disk(&[
            (0, vec![entry(0x83, 2048, 4096), entry(0x05, 8192, 16384)]),
            (8192, vec![entry(0x83, 64, 1000), entry(0x05, 4096, 2000)]),
            (8192 + 4096, vec![entry(0x83, 64, 1000)]),
        ]);
        let expected = [slice(1, 2048, 4096), slice(2, 8192, 2), slice(5, 8256, 1000), slice(6, 12352, 1000)];
        assert_eq!(read_table(&mut disk, DISK_SECTORS).expect("memory reads"), expected);
    }

    #[test]
    fn what_does_not_hold_together_is_no_table() {
        let beyond = vec![entry(0x83, 2048, 1 << 20)];
        let overlapping = vec![entry(0x83, 2048, 4096), entry(0x83, 4096, 4096)];
        for entries in [vec![], beyond, overlapping] {
            assert_eq!(read_table(&mut disk(&[(0, entries)]), DISK_SECTORS).expect("memory reads"), []);
        }
    }

    #[test]
    fn a_chain_that_turns_back_ends() {
        let mut disk = disk(&[
            (0, vec![entry(0x0f, 64, 60000)]),
            (64, vec![entry(0x83, 64, 100), entry(0x05, 1000, 100)]),
            (1064, vec![entry(0x83, 64, 100), entry(0x05, 1000, 100)]),
        ]);
        let expected = [slice(1, 64, 2), slice(5, 128, 100), slice(6, 1128, 100)];
        assert_eq!(read_table(&mut disk, DISK_SECTORS).expect("memory reads"), expected);
    }

    #[test]
    fn guid_partition_table() {
        let mut disk = Cursor::new(vec![0; (DISK_SECTORS * 512) as usize]);
        let mbr = gpt::mbr::ProtectiveMBR::with_lb_size((DISK_SECTORS - 1) as u32);
        mbr.overwrite_lba0(&mut disk).expect("memory writes");
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
            .create_from_device(&mut disk, None)
            .expect("a new table");
        table.add_partition("one", 1 << 20, gpt::partition_types::LINUX_FS, 0, Some(2048)).expect("room");
        table.write().expect("memory writes");
        assert_eq!(read_table(&mut disk, DISK_SECTORS).expect("memory reads"), [slice(1, 2048, 2048)]);
    }

    proptest! {
        #[test]
        fn any_sectors_are_read_without_a_panic(seed in proptest::collection::vec(any::<u8>(), 2048)) {
            let mut bytes = seed;
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            bytes[1534..1536].copy_from_slice(&[0x55, 0xAA]);
            let sectors = bytes.len() as u64 / 512;
            let _ = read_table(&mut Cursor::new(bytes), sectors);
        }
    }
}
