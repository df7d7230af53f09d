//! Saved blocks on their way into a side file, and back: chunks (`format/salvage.rs`) one behind the other.
//! Salvage is made of them, and so is the last consistent image.

use crate::format::salvage::{Chunk, ENTRIES_MAX, Origin, Saved, TABLE_BYTES_MAX, decode, encode};
use crate::format::salvage::{chunk_bytes, is_begin, saved, saved_zeros};
use crate::format::{PAGE, data_checksum};
use crate::storage::{FileName, Fill, Storage};
use crate::unit::{Block, Blocks, Stamp};
use std::io::{self, IoSlice};

/// A chunk has no more than one block above so many bytes of data.
const DATA_BYTES_MAX: usize = 4 << 20;

/// Blocks that make the next chunk.
#[derive(Debug)]
pub(crate) struct Pending {
    pub origin: Origin,
    entries: Vec<Saved>,
    data: Vec<u8>,
}

impl Pending {
    /// None yet.
    pub fn new(origin: Origin) -> Pending {
        Pending { origin, entries: Vec::new(), data: Vec::new() }
    }

    /// Notes one block down.
    pub fn add(&mut self, block: Block, stamp: Stamp, data: &[u8]) {
        let entry = saved(block, stamp, data);
        match entry.has_data {
            true => {
                self.data.extend_from_slice(data);
                self.entries.push(entry);
            }
            false => self.add_zeros(
                &Blocks { volume: block.volume, numbers: block.number..block.number + 1 },
                stamp,
            ),
        }
    }

    /// Notes down that `blocks` read as zeros.
    pub fn add_zeros(&mut self, blocks: &Blocks, stamp: Stamp) {
        match self.entries.last_mut() {
            Some(last)
                if !last.has_data
                    && last.stamp == stamp
                    && last.block.volume == blocks.volume
                    && last.block.number + last.count == blocks.numbers.start =>
            {
                last.count += blocks.count();
            }
            _ => self.entries.push(saved_zeros(blocks, stamp)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a chunk should be made of them. Half as many again have room in it.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX / 2 || self.data.len() >= DATA_BYTES_MAX
    }

    /// The length of the chunk with one more block in it, in bytes.
    pub fn bytes_with_another(&self) -> u64 {
        let data = self.data.len() + self.origin.block_size as usize;
        chunk_bytes(self.entries.len() + 1, data) as u64
    }

    /// The chunk of them; there are none then.
    pub fn take(&mut self, now: u64) -> Vec<u8> {
        debug_assert!(self.entries.len() <= ENTRIES_MAX, "no such chunk can be read");
        let chunk = encode(&self.origin, now, &self.entries, &self.data);
        self.entries.clear();
        self.data.clear();
        chunk
    }
}

/// Writes `bytes` at `at` of `file`, which is made, or grows, for them.
pub(crate) fn put(storage: &dyn Storage, file: FileName, at: u64, bytes: &[u8]) -> io::Result<()> {
    let end = at + bytes.len() as u64;
    match storage.length(file)? {
        None => storage.create(file, end, Fill::Sparse)?,
        Some(found) if found < end => storage.grow(file, end)?,
        Some(_) => {}
    }
    storage.write(file, at, &[IoSlice::new(bytes)])
}

/// Calls `each` with each chunk of `file` from `at` on, and where it begins; returns where the last one ends.
pub(crate) fn chunks(
    storage: &dyn Storage,
    file: FileName,
    mut at: u64,
    mut each: impl FnMut(u64, &Chunk),
) -> io::Result<u64> {
    let length = storage.length(file)?.unwrap_or(0);
    let mut bytes = vec![0; TABLE_BYTES_MAX];
    while at < length {
        let room = (length - at).min(TABLE_BYTES_MAX as u64) as usize;
        storage.read(file, at, &mut bytes[..room])?;
        let Some(chunk) = decode(&bytes[..room]).filter(|chunk| chunk.bytes <= length - at) else {
            break;
        };
        each(at, &chunk);
        at += chunk.bytes;
    }
    Ok(at)
}

/// Where the first chunk of `file` begins that stands at a page from `at` on.
pub(crate) fn next_chunk(
    storage: &dyn Storage,
    file: FileName,
    mut at: u64,
) -> io::Result<Option<u64>> {
    let length = storage.length(file)?.unwrap_or(0);
    let mut bytes = vec![0; TABLE_BYTES_MAX];
    while at + PAGE <= length {
        storage.read(file, at, &mut bytes[..PAGE as usize])?;
        if is_begin(&bytes) {
            let room = (length - at).min(TABLE_BYTES_MAX as u64) as usize;
            storage.read(file, at, &mut bytes[..room])?;
            if decode(&bytes[..room]).is_some() {
                return Ok(Some(at));
            }
        }
        at += PAGE;
    }
    Ok(None)
}

/// The first block of `chunk`, which begins at `at` of `file`, whose data is not what was saved, and where it is.
pub(crate) fn first_damaged(
    storage: &dyn Storage,
    file: FileName,
    (at, chunk): (u64, &Chunk),
) -> io::Result<Option<(Block, u64)>> {
    let size = chunk.origin.block_size as usize;
    let with_data = || chunk.entries.iter().filter(|(entry, _)| entry.has_data);
    // Blocks of data stand one behind the other.
    let Some((_, first)) = with_data().next() else { return Ok(None) };
    let mut data = vec![0; with_data().count() * size];
    storage.read(file, at + first, &mut data)?;
    let mut blocks = with_data().zip(data.chunks_exact(size));
    let damaged = blocks.find(|((entry, _), data)| data_checksum(data) != entry.checksum);
    Ok(damaged.map(|((entry, offset), _)| (entry.block, at + offset)))
}
