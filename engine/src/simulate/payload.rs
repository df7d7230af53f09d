//! Hosts' data: every sector names its write and its place, so that a read tells what it saw.

/// A write's number; 0 stands for zeros.
pub(super) type Value = u32;

pub(super) const SECTOR: usize = crate::unit::SECTOR as usize;

/// Fills the sectors of `buf`, the first of which is sector `place` of the group.
pub(super) fn fill(buf: &mut [u8], place: usize, value: Value) {
    for (sector, place) in buf.chunks_exact_mut(SECTOR).zip(place..) {
        let word = (u64::from(value) | (place as u64) << 32).to_le_bytes();
        sector.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&word));
    }
}

/// Which write the sector `place` of the group shows; what is wrong if it shows none.
pub(super) fn value(sector: &[u8], place: usize) -> Result<Value, String> {
    let word = u64::from_le_bytes(sector[..8].try_into().expect("a sector"));
    if sector[8..] != sector[..SECTOR - 8] {
        return Err(format!("sector {place} is torn: it begins with {word:x}"));
    }
    if word != 0 && word >> 32 != place as u64 {
        return Err(format!("sector {place} holds {word:x}, which belongs to {}", word >> 32));
    }
    Ok(word as Value)
}
