//! Saved blocks as they stand in a side file: salvage, which is what a forced takeover gave up, and the last
//! consistent image, behind its header (`image.rs`). Chunks stand one behind the other,
//! each a header, its entries, the data of those that have any, and zeros to the end of its last page. A
//! chunk is written whole and synced before what it saves is overwritten; one that was cut short is the end.

use super::{PAGE, StampBytes, checksum, data_checksum};
use crate::unit::{Block, Blocks, Stamp};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"AFTSALVG";
const VERSION: u32 = 1;

/// Most entries of a chunk.
pub(crate) const ENTRIES_MAX: usize = 1024;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    entries: U32,
    checksum: U64,
    group: [u8; 16],
    device: U64,
    lineage: [U64; 2],
    saved_at: U64,
    block_size: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryBytes {
    number: U64,
    volume: U32,
    stamp: StampBytes,
    count: U64,
    has_data: U32,
    checksum: U64,
}

const HEAD: usize = size_of::<Head>();
const ENTRY: usize = size_of::<EntryBytes>();

/// The device that a chunk belongs to, and the lineage that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The consistency group.
    pub group: u128,
    /// The device.
    pub device: u64,
    /// The lineage that the content was of: number and unique id.
    pub lineage: (u64, u64),
    /// Bytes of a block.
    pub block_size: u32,
}

/// One block that was given up, or neighbouring blocks of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The first block.
    pub block: Block,
    /// How many, at least 1; 1 with data.
    pub count: u64,
    /// When it was written; zero: a bit told of it only. In an image: zero; else the blocks are read in
    /// the volumes.
    pub stamp: Stamp,
    /// Whether there is a block of data; if not, they read as zeros.
    pub has_data: bool,
    /// Checksum of the data.
    pub checksum: u64,
}

/// A chunk as it was read, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of which device and lineage it is.
    pub origin: Origin,
    /// Wall time at which it was saved, in nanoseconds since 1970.
    pub saved_at: u64,
    /// Its entries, each with the offset of its data from the chunk's start.
    pub entries: Vec<(Saved, u64)>,
    /// Its bytes, a multiple of the page.
    pub bytes: u64,
}

/// The bytes of a chunk: `data` has a block for each entry with data.
pub fn encode(origin: &Origin, saved_at: u64, entries: &[Saved], data: &[u8]) -> Vec<u8> {
    let mut head = Head::new_zeroed();
    head.magic = MAGIC;
    head.version = VERSION.into();
    head.entries = (entries.len() as u32).into();
    head.group = origin.group.to_le_bytes();
    head.device = origin.device.into();
    head.lineage = [origin.lineage.0.into(), origin.lineage.1.into()];
    head.saved_at = saved_at.into();
    head.block_size = origin.block_size.into();
    let mut bytes = vec![0; HEAD];
    for entry in entries {
        let entry = EntryBytes {
            number: entry.block.number.into(),
            volume: entry.block.volume.into(),
            stamp: entry.stamp.into(),
            count: entry.count.into(),
            has_data: u32::from(entry.has_data).into(),
            checksum: entry.checksum.into(),
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    head.checksum = checksum(checksum(0, head.as_bytes()), &bytes[HEAD..]).into();
    bytes[..HEAD].copy_from_slice(head.as_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(chunk_bytes(entries.len(), data.len()), 0);
    bytes
}

/// The length of a chunk of so many entries, with so many bytes of data.
pub(crate) fn chunk_bytes(entries: usize, data: usize) -> usize {
    (HEAD + entries * ENTRY + data).next_multiple_of(PAGE as usize)
}

/// How many bytes of a file must be read to have a chunk's header and entries, at most.
pub(crate) const TABLE_BYTES_MAX: usize = HEAD + ENTRIES_MAX * ENTRY;

/// Whether a chunk may begin here.
pub(crate) fn is_begin(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads the chunk that `bytes` begins with, whose data is not looked at; `None` if none stands there.
pub fn decode(bytes: &[u8]) -> Option<Chunk> {
    let (head, rest) = Head::read_from_prefix(bytes).ok()?;
    let (count, block_size) = (head.entries.get() as usize, head.block_size.get());
    let is_size = block_size.is_power_of_two() && (512..=65_536).contains(&block_size);
    if head.magic != MAGIC || head.version.get() != VERSION || count > ENTRIES_MAX || !is_size {
        return None;
    }
    let table = rest.get(..count * ENTRY)?;
    let mut unsigned = head.clone();
    unsigned.checksum = 0.into();
    if checksum(checksum(0, unsigned.as_bytes()), table) != head.checksum.get() {
        return None;
    }
    let mut at = (HEAD + count * ENTRY) as u64;
    let mut entries = Vec::with_capacity(count);
    for row in table.chunks_exact(ENTRY) {
        let row = EntryBytes::read_from_bytes(row).ok()?;
        let saved = Saved {
            block: Block { volume: row.volume.get(), number: row.number.get() },
            count: row.count.get(),
            stamp: row.stamp.into(),
            has_data: row.has_data.get() == 1,
            checksum: row.checksum.get(),
        };
        let is_sound = row.has_data.get() <= 1
            && saved.count > 0
            && (saved.count == 1 || !saved.has_data)
            && saved.block.number.checked_add(saved.count).is_some();
        if !is_sound {
            return None;
        }
        entries.push((saved, at));
        at += if saved.has_data { u64::from(block_size) } else { 0 };
    }
    let origin = Origin {
        group: u128::from_le_bytes(head.group),
        device: head.device.get(),
        lineage: (head.lineage[0].get(), head.lineage[1].get()),
        block_size,
    };
    let bytes = at.next_multiple_of(PAGE);
    Some(Chunk { origin, saved_at: head.saved_at.get(), entries, bytes })
}

/// The entry of blocks that read as zeros.
pub(crate) fn saved_zeros(blocks: &Blocks, stamp: Stamp) -> Saved {
    Saved { block: blocks.first(), count: blocks.count(), stamp, has_data: false, checksum: 0 }
}

/// The entry of a block with this content.
pub(crate) fn saved(block: Block, stamp: Stamp, data: &[u8]) -> Saved {
    let has_data = data.iter().any(|&byte| byte != 0);
    let checksum = if has_data { data_checksum(data) } else { 0 };
    Saved { block, count: 1, stamp, has_data, checksum }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn chunk() -> (Origin, Vec<Saved>, Vec<u8>) {
        let origin = Origin { group: 7, device: 2, lineage: (3, 9), block_size: 512 };
        let stamp = Stamp { epoch: 2, time: 77, sequence: 1 };
        let at = |number| Block { volume: 4, number };
        let data = [[5; 512], [0; 512], [6; 512]];
        let entries: Vec<_> =
            data.iter().zip(8..).map(|(data, n)| saved(at(n), stamp, data)).collect();
        (origin, entries, [data[0], data[2]].concat())
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written() {
        let (origin, entries, data) = chunk();
        let bytes = encode(&origin, 55, &entries, &data);
        let found = decode(&bytes).expect("a chunk");
        assert_eq!((found.origin, found.saved_at, found.bytes), (origin, 55, bytes.len() as u64));
        assert_eq!(found.entries.iter().map(|e| e.0).collect::<Vec<_>>(), entries);
        for (entry, at) in found.entries.iter().filter(|(entry, _)| entry.has_data) {
            let data = &bytes[*at as usize..*at as usize + 512];
            assert_eq!(data_checksum(data), entry.checksum);
        }
    }

    #[test]
    fn a_damaged_chunk_is_none() {
        let (origin, entries, data) = chunk();
        let bytes = encode(&origin, 55, &entries, &data);
        for at in 0..HEAD + entries.len() * ENTRY {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
        for length in 0..HEAD + entries.len() * ENTRY {
            assert_eq!(decode(&bytes[..length]), None, "cut to {length}");
        }
    }
}
