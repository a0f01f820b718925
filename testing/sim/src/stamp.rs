//! What a sector holds: the stamp of the write that it comes from, and its own number, over and over. Zeroes are stamp 0.

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Fills the sectors from `first_sector` on as the write of this stamp does.
pub fn fill(bytes: &mut [u8], stamp: u64, first_sector: u64) {
    if stamp == 0 {
        return bytes.fill(0);
    }
    for (sector, content) in (first_sector..).zip(bytes.chunks_exact_mut(SECTOR)) {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&stamp.to_le_bytes());
        mark[8..].copy_from_slice(&sector.to_le_bytes());
        for piece in content.as_chunks_mut().0 {
            *piece = mark;
        }
    }
}

/// Whose content a sector holds; none if it is a mixture, or another sector's.
pub fn of(content: &[u8; SECTOR], sector: u64) -> Option<u64> {
    let word = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().unwrap_or_default());
    let uniform = content[..SECTOR - 16] == content[16..];
    let stamp = word(0);
    let own = if stamp == 0 { word(8) == 0 } else { word(8) == sector };
    (uniform && own).then_some(stamp)
}
