//! The normal volumes (510/610) over the files of a [`Storage`]: segments, created at the first
//! write, zeros where nothing was written.

use super::segments::Segments;
use super::{FileName, Storage};
use crate::error::{Error, Result};
use crate::format::superblock::Superblock;
use crate::image::Overlay;
use crate::sync::{AtomicBool, Ordering, fence, lock};
use crate::unit::{Block, Blocks, Extent};
use std::collections::{BTreeSet, HashMap};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard};

/// So many neighbouring blocks are read though a hole may be among them.
const PART_BLOCKS_MAX: u64 = 64;

/// All normal volumes of a device.
pub struct Volumes {
    storage: Arc<dyn Storage>,
    block_size: u64,
    segment_bytes: u64,
    sizes: HashMap<u32, u64>,
    segments: Segments,
    /// Segments written since the last [`Volumes::sync`]; sorted, so that they are always synced
    /// in the same order.
    dirty: Mutex<BTreeSet<FileName>>,
    /// One sync at a time: one that finds nothing written since waits for the one that makes it durable.
    syncing: Mutex<()>,
    /// Blocks that are read from a side file until [`Volumes::uncover`] (`image.rs`).
    overlay: Mutex<Overlay>,
    /// Whether there may be any. Release/Acquire: a reader that finds it cleared finds them written.
    is_overlaid: AtomicBool,
}

impl Volumes {
    /// The volumes of an existing device.
    ///
    /// # Errors
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) if a segment that was made is not there, or
    /// not as long as it was; [`Kind::Storage`](crate::error::Kind::Storage).
    pub fn open(storage: Arc<dyn Storage>, superblock: &Superblock) -> Result<Volumes> {
        Ok(Volumes {
            segments: Segments::open(storage.clone(), superblock)?,
            syncing: Mutex::default(),
            storage,
            block_size: superblock.block_size.into(),
            segment_bytes: superblock.segment_bytes,
            sizes: superblock.volumes.iter().map(|v| (v.id, v.bytes)).collect(),
            dirty: Mutex::default(),
            overlay: Mutex::default(),
            is_overlaid: AtomicBool::new(false),
        })
    }

    /// The same, with the blocks of `overlay` read from their side file. None is written but to write them back.
    pub(crate) fn under(self, overlay: Overlay) -> Volumes {
        Volumes { overlay: Mutex::new(overlay), is_overlaid: AtomicBool::new(true), ..self }
    }

    /// The size of `volume` in bytes; `None` if there is no such volume.
    pub fn size(&self, volume: u32) -> Option<u64> {
        self.sizes.get(&volume).copied()
    }

    /// All blocks of every volume.
    pub fn whole(&self) -> impl Iterator<Item = Blocks> + '_ {
        let ids = self.sizes.keys().copied();
        ids.map(|volume| Blocks { volume, numbers: 0..self.blocks(volume) })
            .filter(|blocks| !blocks.numbers.is_empty())
    }

    /// Whether a volume has all blocks of `extent`, each wholly or with its first byte.
    pub fn contains(&self, extent: Extent) -> bool {
        extent.ends_within(self.blocks(extent.first.volume))
    }

    /// How many blocks `volume` has, the last one perhaps in part; 0 if there is no such volume.
    pub fn blocks(&self, volume: u32) -> u64 {
        self.size(volume).unwrap_or(0).div_ceil(self.block_size)
    }

    fn at(&self, block: Block) -> (FileName, u64) {
        let byte = block.number * self.block_size;
        let index = (byte / self.segment_bytes) as u32;
        (FileName::Segment { volume: block.volume, index }, byte % self.segment_bytes)
    }

    /// Reads one block (S1009); `buf` is a block long.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the storage fails.
    pub fn read(&self, block: Block, buf: &mut [u8]) -> Result<()> {
        match self.read_overlaid(block, buf)? {
            true => Ok(()),
            false => self.read_beneath(block, buf),
        }
    }

    /// Bytes from `block` to the end of its segment: no run of blocks is written across it.
    pub fn bytes_to_segment_end(&self, block: Block) -> u64 {
        self.segment_bytes - self.at(block).1
    }

    /// Writes a run of blocks from `block` on, within one segment; not durable before
    /// [`Volumes::sync`].
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) in a segment beyond the volume's end,
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the storage
    /// fails: any part of the run may have been written then.
    pub fn write(&self, block: Block, bufs: &[IoSlice<'_>]) -> Result<()> {
        let (file, offset) = self.at(block);
        self.segments.ensure(file)?;
        publish_first();
        let written = self.storage.write(file, offset, bufs);
        self.touch(file);
        written
            .map_err(|e| Error::storage(format!("writing block {block} at {offset} of {file}"), e))
    }

    /// Makes `count` blocks from `block` on, within one segment, read as zeros; not durable before
    /// [`Volumes::sync`].
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the storage fails: any part of the run may read as zeros then.
    pub fn zero(&self, block: Block, count: u64) -> Result<()> {
        let (file, offset) = self.at(block);
        if !self.segments.is_present(file) {
            return Ok(());
        }
        publish_first();
        let zeroed = self.storage.zero(file, offset, count * self.block_size);
        self.touch(file);
        zeroed
            .map_err(|e| Error::storage(format!("zeroing block {block} at {offset} of {file}"), e))
    }

    /// Whether `count` blocks from `block` on are known to read as zeros (R17). A storage that fails
    /// knows nothing.
    pub fn read_as_zeros(&self, block: Block, count: u64) -> bool {
        let numbers = block.number..block.number + count;
        !self.is_overlaid() && self.is_hole(&Blocks { volume: block.volume, numbers })
    }

    /// As [`Volumes::read_as_zeros`], beneath a side file.
    pub(crate) fn is_hole(&self, run: &Blocks) -> bool {
        let (mut block, mut count) = (run.first(), run.count());
        while count > 0 {
            let (file, offset) = self.at(block);
            let blocks = count.min(self.bytes_to_segment_end(block) / self.block_size);
            let range = offset..offset + blocks * self.block_size;
            if self.segments.is_present(file)
                && !self.storage.reads_as_zeros(file, range).unwrap_or(false)
            {
                return false;
            }
            block.number += blocks;
            count -= blocks;
        }
        true
    }

    /// The number behind the blocks of `run` that are alike from its first on, and whether these are known to
    /// read as zeros. A storage that fails knows nothing.
    pub(crate) fn first_part(&self, run: &Blocks) -> (u64, bool) {
        let (block, end) = (run.first(), run.numbers.end);
        if self.is_overlaid() {
            return (end, false);
        }
        let (file, offset) = self.at(block);
        let to_end = (self.bytes_to_segment_end(block) / self.block_size).max(1);
        let end = end.min(block.number + to_end);
        if !self.segments.is_present(file) {
            return (end, true);
        }
        // A block that has both counts as data.
        let behind = |bytes: u64| block.number + (bytes - offset) / self.block_size;
        match self.storage.next_data(file, offset) {
            Ok(None) => (end, true),
            Ok(Some(data)) if behind(data.start) > block.number => {
                (end.min(behind(data.start)), true)
            }
            Ok(Some(data)) => {
                let end_of_data = data.end.next_multiple_of(self.block_size);
                (end.min(behind(end_of_data).max(block.number + 1)), false)
            }
            Err(_) => (end, false),
        }
    }

    /// Reads a block from the side file, if it is one that stands there.
    ///
    /// # Errors
    /// As [`Volumes::read`].
    pub(crate) fn read_overlaid(&self, block: Block, buf: &mut [u8]) -> Result<bool> {
        Ok(self.is_overlaid() && lock(&self.overlay).read(&*self.storage, block, buf)?)
    }

    fn is_overlaid(&self) -> bool {
        self.is_overlaid.load(Ordering::Acquire)
    }

    /// Parts of `run`, in rising order, each with whether it is known to be a hole beneath the side file. The
    /// others are short, so that no more is read than is stored.
    pub(crate) fn parts(&self, run: Blocks) -> impl Iterator<Item = (Blocks, bool)> + '_ {
        let mut left = vec![run];
        std::iter::from_fn(move || {
            loop {
                let run = left.pop()?;
                let is_hole = self.is_hole(&run);
                if is_hole || run.count() <= PART_BLOCKS_MAX {
                    return Some((run, is_hole));
                }
                let middle = run.numbers.start + run.count() / 2;
                left.push(Blocks { numbers: middle..run.numbers.end, ..run });
                left.push(Blocks { numbers: run.numbers.start..middle, ..run });
            }
        })
    }

    /// Reads a block as it is beneath the side file.
    ///
    /// # Errors
    /// As [`Volumes::read`].
    pub(crate) fn read_beneath(&self, block: Block, buf: &mut [u8]) -> Result<()> {
        let (file, offset) = self.at(block);
        if !self.segments.is_present(file) {
            buf.fill(0);
            return Ok(());
        }
        self.storage
            .read(file, offset, buf)
            .map_err(|e| Error::storage(format!("reading block {block} at {offset} of {file}"), e))
    }

    /// The blocks that stand in the side file.
    pub(crate) fn overlay(&self) -> MutexGuard<'_, Overlay> {
        lock(&self.overlay)
    }

    /// The blocks of these `runs`, if they stood in the side file, have been written; whether others are left.
    pub(crate) fn uncover(&self, runs: impl Iterator<Item = Blocks>) -> bool {
        let overlay = &mut *self.overlay();
        runs.for_each(|run| overlay.remove(&run));
        let is_left = !overlay.is_empty();
        self.is_overlaid.store(is_left, Ordering::Release);
        is_left
    }

    /// Makes the blocks of `run`, which may cross segments, read as zeros, as [`Volumes::zero`].
    ///
    /// # Errors
    /// As [`Volumes::zero`].
    pub(crate) fn zero_run(&self, run: &Blocks) -> Result<()> {
        let mut block = run.first();
        while block.number < run.numbers.end {
            let room = (self.bytes_to_segment_end(block) / self.block_size).max(1);
            let count = room.min(run.numbers.end - block.number);
            self.zero(block, count)?;
            block.number += count;
        }
        Ok(())
    }

    /// Whether the block's segment was made.
    pub fn has_segment_of(&self, block: Block) -> bool {
        self.segments.is_present(self.at(block).0)
    }

    /// How many of a block's bytes are within its volume.
    pub fn bytes_within(&self, block: Block) -> u64 {
        let begins = block.number * self.block_size;
        self.size(block.volume).unwrap_or(0).saturating_sub(begins).min(self.block_size)
    }

    /// Makes everything written so far durable; returns how many segments that concerned.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage) if the storage fails. The durable part is
    /// unknown then, and a further call says nothing of it: the device halts.
    pub fn sync(&self) -> Result<usize> {
        let _one = lock(&self.syncing);
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        let count = dirty.len();
        for file in dirty {
            let synced = self.storage.sync(file);
            synced.map_err(|e| Error::storage(format!("syncing {file}"), e))?;
        }
        self.segments.list()?;
        Ok(count)
    }

    /// The content of `block` counts as written now: the next [`Volumes::sync`] makes it durable, though an
    /// earlier process may have written it.
    pub fn count_as_written(&self, block: Block) {
        let (file, _) = self.at(block);
        if self.segments.is_present(file) {
            self.touch(file);
        }
    }

    /// After the write: a sync in between would clear the mark and not have seen it.
    fn touch(&self, file: FileName) {
        lock(&self.dirty).insert(file);
    }
}

/// A reader of a volume that then looks whether its block has moved must find that it has if it
/// read what is about to be written: a storage orders nothing, and need not be memory of ours. The
/// other half is in `Queue::unchanged`; loom's `second_reflection` fails without either.
fn publish_first() {
    fence(Ordering::Release);
}
