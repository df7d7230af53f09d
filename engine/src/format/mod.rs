//! Bytes only: what stands on disk and what travels on the wire. No I/O, no state.
//!
//! Every layout is little-endian, made of [`zerocopy`] types without padding, and carries a magic
//! number, a version of its own at a fixed place and a checksum (XXH3-64). Decoders check lengths and
//! checksums before they believe a field, and never panic on any input. `docs/format.md` has the
//! byte tables; the golden tests hold both to them.

pub mod batch;
pub mod frame;
pub mod image;
mod number;
pub mod planned;
pub mod salvage;
pub mod segments;
pub mod superblock;
pub mod table;
pub(crate) mod told;
pub(crate) mod told_bits;
pub(crate) mod unsaved;

use crate::unit::{Block, Extent, Stamp};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The unit in which logs are laid out, in bytes.
pub const PAGE: u64 = 4096;

/// The checksum of a block's data, as records carry it from admission to the normal volume.
pub fn data_checksum(data: &[u8]) -> u64 {
    xxh3_64(data)
}

/// The checksum by which two devices find that they have the same content: as long as it is, no two
/// contents that come by chance have the same one.
pub(crate) fn content_checksum(data: &[u8]) -> u128 {
    xxh3_128(data)
}

pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// Checks a page whose own checksum field is zeroed against what that field said, and that its
/// version is one of those that this program reads.
fn check_page(unsigned: &[u8], stored: u64, version: u16, reads: &[u16]) -> Result<(), String> {
    let computed = checksum(0, unsigned);
    if stored != computed {
        return Err(format!("checksum is {stored:016x}, the bytes give {computed:016x}"));
    }
    if !reads.contains(&version) {
        let reads: Vec<String> = reads.iter().map(u16::to_string).collect();
        return Err(format!("version is {version}, this program reads {}", reads.join(" and ")));
    }
    Ok(())
}

/// Whether a structure begins as it should.
pub(crate) fn is_magic(found: &[u8], expected: &[u8]) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!(
            "expected magic \"{}\", found \"{}\"",
            expected.escape_ascii(),
            found.escape_ascii()
        )),
    }
}

/// A [`Stamp`] as bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StampBytes {
    epoch: U64,
    time: U64,
    sequence: U32,
}

impl From<Stamp> for StampBytes {
    fn from(s: Stamp) -> Self {
        StampBytes { epoch: s.epoch.into(), time: s.time.into(), sequence: s.sequence.into() }
    }
}

impl From<StampBytes> for Stamp {
    fn from(s: StampBytes) -> Self {
        Stamp { epoch: s.epoch.get(), time: s.time.get(), sequence: s.sequence.get() }
    }
}

/// A row of an unreflected table (figures 12 and 13), in a log's batch and in a shipped frame.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RowBytes {
    epoch: U64,
    time: U64,
    number: U64,
    checksum: U64,
    /// Room for a running digest over applied records; zero so far.
    digest: U64,
    sequence: U32,
    volume: U32,
    index: U32,
    count: U32,
    /// 1: a block of data follows; 2: zeros; 3: zeros over an extent of many blocks.
    content: u8,
    /// The level of that extent, else 0.
    level: u8,
    reserved: [u8; 6],
}

const _: () = assert!(size_of::<RowBytes>() == 64);
const _: () = assert!(size_of::<StampBytes>() == 20);

/// A row of an unreflected table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The record's place in history.
    pub stamp: Stamp,
    /// Where it belongs: the first block of its extent.
    pub block: Block,
    /// The level of its extent (R19); 0 with data.
    pub level: u8,
    /// Checksum of its data, 0 for zeros.
    pub checksum: u64,
    /// Which record of its request, from 0.
    pub index: u32,
    /// How many records its request has.
    pub count: u32,
    /// Whether a block of data goes with it; if not, its extent reads as zeros.
    pub has_data: bool,
}

impl Row {
    /// The blocks that it covers.
    pub fn extent(&self) -> Extent {
        Extent::around(self.block, self.level)
    }

    /// Most records of a request: the positions of a queue, of which one request has a part, are
    /// told apart by 31 bits of a stamp's sequence.
    pub const COUNT_MAX: u32 = u32::MAX >> 1;
}

impl From<&Row> for RowBytes {
    fn from(row: &Row) -> Self {
        RowBytes {
            epoch: row.stamp.epoch.into(),
            time: row.stamp.time.into(),
            number: row.block.number.into(),
            checksum: row.checksum.into(),
            digest: 0.into(),
            sequence: row.stamp.sequence.into(),
            volume: row.block.volume.into(),
            index: row.index.into(),
            count: row.count.into(),
            content: match (row.has_data, row.level) {
                (true, _) => 1,
                (false, 0) => 2,
                (false, _) => 3,
            },
            level: row.level,
            reserved: [0; 6],
        }
    }
}

impl RowBytes {
    /// The row.
    ///
    /// # Errors
    /// Which field is wrong and how: content, level, number, epoch, index, or count.
    pub fn decode(&self) -> Result<Row, String> {
        let has_data = match self.content {
            1 => true,
            2 | 3 => false,
            other => {
                let what = format!(
                    "content is {other}, neither 1 (data) nor 2 (zeros) nor 3 (an extent of zeros)"
                );
                return Err(what);
            }
        };
        let row = Row {
            stamp: Stamp {
                epoch: self.epoch.get(),
                time: self.time.get(),
                sequence: self.sequence.get(),
            },
            block: Block { volume: self.volume.get(), number: self.number.get() },
            level: self.level,
            checksum: self.checksum.get(),
            index: self.index.get(),
            count: self.count.get(),
            has_data,
        };
        let (level, most) = (row.level, Extent::LEVEL_MAX);
        if (self.content == 3) != (level > 0) || level > most {
            let content = self.content;
            return Err(format!(
                "level is {level} with content {content}: an extent of many blocks has 1 to {most}, any other 0"
            ));
        }
        if row.extent().first != row.block {
            return Err(format!("no extent of level {level} begins with block {}", row.block));
        }
        if row.stamp.epoch == 0 {
            return Err("epoch is 0, which no record has".into());
        }
        if row.index >= row.count {
            return Err(format!("index {} is not below count {}", row.index, row.count));
        }
        if row.count > Row::COUNT_MAX {
            return Err(format!("count {} is above {}", row.count, Row::COUNT_MAX));
        }
        Ok(row)
    }
}
