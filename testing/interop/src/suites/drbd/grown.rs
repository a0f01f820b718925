//! Disks of a scenario's own, on loop devices inside the nodes: they can grow, and have other sectors.

use anyhow::ensure;

use super::table::Party;
use crate::side::Side;

/// Puts a disk of this size in place of the node's. The loop device goes when nobody has it open any more.
pub fn put(side: &mut Party, what: &str, mib: u32, sector_bytes: u32) -> anyhow::Result<()> {
    side.run(&format!(
        "set -e; modprobe loop 2>/dev/null || true\n\
         truncate -s {mib}M /run/{what}.img\n\
         loop=$(losetup --find --show --sector-size {sector_bytes} /run/{what}.img)\n\
         mkdir -p /dev/own; ln -sfn $loop /dev/own/{what}; echo $loop >/run/{what}.loop"
    ))?;
    Ok(())
}

/// The same, and it is the resource's disk.
pub fn put_disk(side: &mut Party, mib: u32, sector_bytes: u32) -> anyhow::Result<()> {
    put(side, "disk", mib, sector_bytes)?;
    let disk = side.seat().disk();
    side.run(&format!("ln -sfn /dev/own/disk {disk}"))?;
    Ok(())
}

/// The resource's meta-data go elsewhere: the words after `meta-disk`, or of `flexible-meta-disk`.
pub fn meta_elsewhere(side: &mut Party, words: &str) -> anyhow::Result<()> {
    side.run(&format!("sed -i 's|meta-disk internal|{words}|' /etc/drbd.d/r0.res"))?;
    Ok(())
}

/// The disk has another size from now on.
pub fn grow(side: &mut Party, mib: u32) -> anyhow::Result<()> {
    side.run(&format!("truncate -s {mib}M /run/disk.img && losetup -c $(cat /run/disk.loop)"))?;
    Ok(())
}

/// Sectors of the device on a node that is Primary, once they are as many as expected.
pub fn await_sectors(side: &mut Party, sectors: u64) -> anyhow::Result<()> {
    let said = side.run(&format!(
        "for i in $(seq 300); do s=$(blockdev --getsz /dev/drbd0); [ $s = {sectors} ] && break; sleep 0.1; done; echo $s"
    ))?;
    ensure!(said.trim() == sectors.to_string(), "the device has {} sectors, not {sectors}", said.trim());
    Ok(())
}

/// Both read the same from their devices; then both go down, and their disks go.
pub fn part(mut parties: [Party; 2], primary: usize) -> anyhow::Result<()> {
    let mut digests = Vec::new();
    parties[primary].run("drbdadm secondary r0")?;
    for party in &mut parties {
        party.await_in_sync()?;
        party.run("drbdadm primary r0")?;
        digests.push(party.device_digest()?);
        party.run("drbdadm secondary r0")?;
    }
    ensure!(digests[0] == digests[1], "the devices differ");
    gone(parties)
}

/// Both go down, and their disks go.
pub fn gone(parties: [Party; 2]) -> anyhow::Result<()> {
    for mut party in parties {
        party.run("drbdadm down r0")?;
        lose(&mut party)?;
    }
    Ok(())
}

/// A node's own disks go.
pub fn lose(side: &mut Party) -> anyhow::Result<()> {
    side.run("for f in /run/*.loop; do losetup -d $(cat $f); done; rm -f /run/*.loop /run/*.img")?;
    Ok(())
}
