//! The table of segments: which files of the normal volumes were made.
//!
//! A segment that was never made reads as zeros, and one that has vanished would do so too. So a
//! bit for every segment, volumes in the order of their table, stands behind that table in the
//! superblock's file, in sectors, which the medium writes whole or not at all. It is set once the
//! segment is durable, and durable before a checkpoint counts on what the segment holds.

use super::superblock::{VOLUMES_OFFSET, VolumeSpec};
use super::{PAGE, check_page, checksum};
use crate::unit::SECTOR;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of a sector of the table.
pub const VERSION: u16 = 2;

const MADE_BYTES: usize = 496;

/// Segments that one sector of the table tells of.
pub const SECTOR_SEGMENTS: u64 = MADE_BYTES as u64 * 8;

#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SectorBytes {
    checksum: U64,
    number: U32,
    version: U16,
    reserved: U16,
    made: [u8; MADE_BYTES],
}

const _: () = assert!(size_of::<SectorBytes>() == SECTOR as usize);

/// Where the table begins in the superblock's file, in bytes, if there are so many volumes.
pub fn offset(volumes: usize) -> u64 {
    (VOLUMES_OFFSET + 16 * volumes as u64).next_multiple_of(PAGE)
}

/// How many segments of `segment_bytes` the volumes have.
pub fn count(volumes: &[VolumeSpec], segment_bytes: u64) -> u64 {
    volumes.iter().map(|v| v.bytes.div_ceil(segment_bytes)).fold(0, u64::saturating_add)
}

/// Bytes of the superblock's file up to the table's end.
pub fn end(volumes: &[VolumeSpec], segment_bytes: u64) -> u64 {
    let sectors = count(volumes, segment_bytes).div_ceil(SECTOR_SEGMENTS);
    offset(volumes.len()) + sectors * SECTOR
}

/// A sector of the table, which says that the segments `made`, all of that sector, were made.
pub fn encode(number: u32, made: impl IntoIterator<Item = u64>) -> [u8; SECTOR as usize] {
    let mut bytes = SectorBytes::new_zeroed();
    bytes.number = number.into();
    bytes.version = VERSION.into();
    for segment in made {
        let bit = (segment - u64::from(number) * SECTOR_SEGMENTS) as usize;
        bytes.made[bit / 8] |= 1 << (bit % 8);
    }
    bytes.checksum = checksum(0, bytes.as_bytes()).into();
    zerocopy::transmute!(bytes)
}

/// The segments that a sector of the table says were made.
///
/// # Errors
/// Which field is wrong, and how.
pub fn decode(number: u32, sector: &[u8; SECTOR as usize]) -> Result<Vec<u64>, String> {
    let bytes: SectorBytes = zerocopy::transmute!(*sector);
    let mut unsigned = bytes.clone();
    unsigned.checksum = 0.into();
    check_page(unsigned.as_bytes(), bytes.checksum.get(), bytes.version.get(), &[VERSION])?;
    if bytes.number.get() != number {
        return Err(format!("is sector {} of its table, not {number}", bytes.number));
    }
    let is_set = |bit: &u64| bytes.made[*bit as usize / 8] >> (bit % 8) & 1 == 1;
    let first = u64::from(number) * SECTOR_SEGMENTS;
    Ok((0..SECTOR_SEGMENTS).filter(is_set).map(|bit| first + bit).collect())
}
