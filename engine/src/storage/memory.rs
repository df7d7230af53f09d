//! A storage in memory, for tests and for benchmarks of everything but the disk.
//!
//! It keeps the storage's contract and costs next to nothing: a 4 KiB read or write is a walk of
//! three pointers, one uncontended lock and the copy. Nothing outlives the process, so `sync` has
//! nothing to do.
//!
//! # Rules
//! - A file is a tree of fixed depth over pages of 4 KiB: a root of one slot a GiB, below it
//!   nodes of one slot for 256 KiB, below those leaves of 64 pages. The tree's nodes are made once
//!   and never taken away, so finding a page takes no lock; each page has its own.
//! - Pages of a sparse file come with their first write and go when a whole page is zeroed. Those
//!   of a written file are all there from the beginning, and stay.
//! - A thread holds one page's lock at a time, and nothing is called while it is held.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::mapped::past_end;
use super::{FileName, Fill, SideKind, Storage, must_be_side, would_shrink};

const PAGE_BYTES: usize = 4096;
const PAGES_PER_LEAF: u64 = 64;
const LEAVES_PER_NODE: u64 = 4096;
const PAGES_PER_NODE: u64 = PAGES_PER_LEAF * LEAVES_PER_NODE;

/// The longest file, so that a mistaken length does not take all memory for a root.
const LENGTH_MAX: u64 = 1 << 50;

/// How many parts the index of the segments is cut into.
const SHARDS: usize = 16;

/// A page; `None` reads as zeros.
type Page = RwLock<Option<Box<[u8]>>>;
type Leaf = [Page; PAGES_PER_LEAF as usize];
type Node = Box<[OnceLock<Box<Leaf>>]>;

/// Some of the segments, by volume and index.
type Shard = RwLock<HashMap<(u32, u32), Arc<File>>>;

/// One file: its length and its tree of pages.
struct File {
    length: u64,
    fill: Fill,
    root: Vec<OnceLock<Node>>,
}

/// One page's part of a range of bytes.
struct Piece {
    page: u64,
    within: usize,
    length: usize,
}

/// The pieces of `length` bytes at `offset`, page by page.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        let within = (at % PAGE_BYTES as u64) as usize;
        let length = ((PAGE_BYTES - within) as u64).min(end - at);
        let piece = Piece { page: at / PAGE_BYTES as u64, within, length: length as usize };
        at += length;
        (length > 0).then_some(piece)
    })
}

impl File {
    fn new(length: u64, fill: Fill) -> File {
        let mut file = File { length: 0, fill, root: Vec::new() };
        file.grow(length);
        file
    }

    /// Adds zeros up to `length`, which is no less than the present one.
    fn grow(&mut self, length: u64) {
        let [first, pages] = [self.length, length].map(|bytes| bytes.div_ceil(PAGE_BYTES as u64));
        self.root.resize_with(pages.div_ceil(PAGES_PER_NODE) as usize, OnceLock::new);
        self.length = length;
        if self.fill == Fill::Written {
            for page in first..pages {
                // Really touched, so that a later write meets memory and no page fault.
                let zeros = std::hint::black_box([0u8; PAGE_BYTES]);
                *write(self.page_made(page)) = Some(Box::from(zeros.as_slice()));
            }
        }
    }

    /// The page, if anything was ever written near it.
    fn page(&self, page: u64) -> Option<&Page> {
        let node = self.root[(page / PAGES_PER_NODE) as usize].get()?;
        let leaf = node[(page % PAGES_PER_NODE / PAGES_PER_LEAF) as usize].get()?;
        Some(&leaf[(page % PAGES_PER_LEAF) as usize])
    }

    /// The page, and the way to it made if there was none.
    fn page_made(&self, page: u64) -> &Page {
        let node = self.root[(page / PAGES_PER_NODE) as usize]
            .get_or_init(|| (0..LEAVES_PER_NODE).map(|_| OnceLock::new()).collect());
        let leaf = node[(page % PAGES_PER_NODE / PAGES_PER_LEAF) as usize]
            .get_or_init(|| Box::new(std::array::from_fn(|_| RwLock::new(None))));
        &leaf[(page % PAGES_PER_LEAF) as usize]
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut rest = buf;
        for Piece { page, within, length } in pieces(offset, rest.len() as u64) {
            let (now, later) = rest.split_at_mut(length);
            match self.page(page).map(read).as_deref() {
                Some(Some(bytes)) => now.copy_from_slice(&bytes[within..within + length]),
                Some(None) | None => now.fill(0),
            }
            rest = later;
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for Piece { page, within, length } in pieces(offset, rest.len() as u64) {
            let (now, later) = rest.split_at(length);
            match &mut *write(self.page_made(page)) {
                Some(bytes) => bytes[within..within + length].copy_from_slice(now),
                empty if length == PAGE_BYTES => *empty = Some(Box::from(now)),
                empty => {
                    let mut bytes = vec![0; PAGE_BYTES].into_boxed_slice();
                    bytes[within..within + length].copy_from_slice(now);
                    *empty = Some(bytes);
                }
            }
            rest = later;
        }
    }

    fn zero(&self, offset: u64, length: u64) {
        let end = offset + length;
        let mut at = offset;
        while at < end {
            // Over what was never written in large steps.
            let pages = PAGE_BYTES as u64;
            at = at.max(self.next_page(at / pages, end.div_ceil(pages), true) * pages);
            let Some(Piece { page, within, length }) = pieces(at, end.saturating_sub(at)).next()
            else {
                return;
            };
            match self.page(page).map(write).as_deref_mut() {
                None | Some(None) => (),
                Some(bytes) if length == PAGE_BYTES && self.fill == Fill::Sparse => *bytes = None,
                Some(Some(bytes)) => bytes[within..within + length].fill(0),
            }
            at += length as u64;
        }
    }

    /// The first page at or after `page` that is there (`wanted`) or is not, up to `end`.
    fn next_page(&self, mut page: u64, end: u64, wanted: bool) -> u64 {
        while page < end {
            let node = self.root[(page / PAGES_PER_NODE) as usize].get();
            let leaf =
                node.and_then(|node| node[(page % PAGES_PER_NODE / PAGES_PER_LEAF) as usize].get());
            let there =
                leaf.is_some_and(|leaf| read(&leaf[(page % PAGES_PER_LEAF) as usize]).is_some());
            if there == wanted {
                return page;
            }
            // Where a whole node or leaf is missing, so are all its pages.
            let step = match (node, leaf) {
                (None, _) => PAGES_PER_NODE,
                (_, None) => PAGES_PER_LEAF,
                _ => 1,
            };
            page = (page / step + 1) * step;
        }
        end
    }

    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        if offset >= self.length {
            return None;
        }
        if self.fill == Fill::Written {
            return Some(offset..self.length);
        }
        let page_bytes = PAGE_BYTES as u64;
        let end = self.length.div_ceil(page_bytes);
        let first = self.next_page(offset / page_bytes, end, true);
        let hole = self.next_page(first, end, false);
        let start = offset.max(first * page_bytes);
        (first < end).then(|| start..(hole * page_bytes).min(self.length))
    }

    fn reads_as_zeros(&self, range: Range<u64>) -> bool {
        let page_bytes = PAGE_BYTES as u64;
        let end = range.end.min(self.length).div_ceil(page_bytes);
        self.fill == Fill::Sparse
            && range.end <= self.length
            && self.next_page(range.start / page_bytes, end, true) >= end
    }
}

/// One device's files in memory. Share it by [`Arc`].
#[derive(Default)]
pub struct Memory {
    /// Superblock, own log, received log: found without a lock.
    fixed: [OnceLock<File>; 3],
    segments: [Shard; SHARDS],
    number: Number,
    /// Locked for as long as one is looked at: they grow, and go.
    sides: RwLock<HashMap<(SideKind, u32), File>>,
}

/// Tells one storage in memory from every other of this process.
struct Number(u64);

impl Default for Number {
    fn default() -> Number {
        static LAST: Mutex<u64> = Mutex::new(0);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        Number(*last)
    }
}

impl Memory {
    /// A storage without files.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// The result of `act` on `file`; an error if there is no such file.
    fn with<T>(&self, file: FileName, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let missing = || missing(file);
        match place(file) {
            Place::Fixed(at) => act(self.fixed[at].get().ok_or_else(missing)?),
            Place::Segment(shard, key) => {
                let found = read(&self.segments[shard]).get(&key).cloned();
                act(&*found.ok_or_else(missing)?)
            }
            Place::Side(key) => act(read(&self.sides).get(&key).ok_or_else(missing)?),
        }
    }
}

/// A mistaken length must not take all memory.
fn must_fit(file: FileName, length: u64) -> io::Result<()> {
    if length <= LENGTH_MAX {
        return Ok(());
    }
    let story = format!("{file} of {length} bytes; at most {LENGTH_MAX} fit");
    Err(io::Error::new(io::ErrorKind::InvalidInput, story))
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("files", &self.files()).finish_non_exhaustive()
    }
}

impl Storage for Memory {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        must_fit(file, length)?;
        let exists =
            || io::Error::new(io::ErrorKind::AlreadyExists, format!("{file} exists already"));
        if self.length(file)?.is_some() {
            return Err(exists());
        }
        let made = File::new(length, fill);
        match place(file) {
            Place::Fixed(at) => self.fixed[at].set(made).map_err(|_| exists()),
            Place::Segment(shard, key) => match write(&self.segments[shard]).entry(key) {
                Entry::Occupied(_) => Err(exists()),
                Entry::Vacant(free) => {
                    free.insert(Arc::new(made));
                    Ok(())
                }
            },
            Place::Side(key) => match write(&self.sides).entry(key) {
                Entry::Occupied(_) => Err(exists()),
                Entry::Vacant(free) => {
                    free.insert(made);
                    Ok(())
                }
            },
        }
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        match self.with(file, |file| Ok(file.length)) {
            Ok(length) => Ok(Some(length)),
            Err(_missing) => Ok(None),
        }
    }

    fn read(&self, name: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(name, |file| {
            if !within(offset, buf.len() as u64, file.length) {
                return Err(past_end(name, file.length));
            }
            file.read(offset, buf);
            Ok(())
        })
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let length = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.with(file, |file| {
            if !within(offset, length, file.length) {
                return Err(would_extend(offset, length, file.length));
            }
            let mut at = offset;
            for buf in bufs {
                file.write(at, buf);
                at += buf.len() as u64;
            }
            Ok(())
        })
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        self.with(file, |file| {
            if !within(offset, length, file.length) {
                return Err(would_extend(offset, length, file.length));
            }
            file.zero(offset, length);
            Ok(())
        })
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        self.with(file, |_| Ok(()))
    }

    /// It lives as long as this value.
    fn cache_identity(&self) -> Option<[u8; 32]> {
        let mut identity = [0; 32];
        identity[..6].copy_from_slice(b"memory");
        identity[24..].copy_from_slice(&self.number.0.to_le_bytes());
        Some(identity)
    }

    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        let key = side(file)?;
        must_fit(file, length)?;
        let mut sides = write(&self.sides);
        match sides.get_mut(&key) {
            None => Err(missing(file)),
            Some(found) if found.length > length => Err(would_shrink(file, length, found.length)),
            Some(found) => {
                found.grow(length);
                Ok(())
            }
        }
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        let removed = write(&self.sides).remove(&side(file)?);
        removed.map(drop).ok_or_else(|| missing(file))
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        let fixed = [FileName::Superblock, FileName::OwnLog, FileName::RecvLog];
        let there = |(file, slot): (FileName, &OnceLock<File>)| slot.get().map(|_| file);
        let mut files: Vec<_> = fixed.into_iter().zip(&self.fixed).filter_map(there).collect();
        for shard in &self.segments {
            let shard = read(shard);
            files.extend(shard.keys().map(|&(volume, index)| FileName::Segment { volume, index }));
        }
        let sides = read(&self.sides);
        files.extend(sides.keys().map(|&(kind, number)| FileName::Side { kind, number }));
        Ok(files)
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.with(file, |file| Ok(file.next_data(offset)))
    }

    fn reads_as_zeros(&self, file: FileName, range: Range<u64>) -> io::Result<bool> {
        self.with(file, |file| Ok(file.reads_as_zeros(range)))
    }
}

/// Where a file is kept.
enum Place {
    Fixed(usize),
    Segment(usize, (u32, u32)),
    Side((SideKind, u32)),
}

fn place(file: FileName) -> Place {
    match file {
        FileName::Superblock => Place::Fixed(0),
        FileName::OwnLog => Place::Fixed(1),
        FileName::RecvLog => Place::Fixed(2),
        FileName::Segment { volume, index } => {
            let shard = volume.wrapping_mul(31).wrapping_add(index) as usize % SHARDS;
            Place::Segment(shard, (volume, index))
        }
        FileName::Side { kind, number } => Place::Side((kind, number)),
    }
}

/// The key of a side file.
fn side(file: FileName) -> io::Result<(SideKind, u32)> {
    must_be_side(file)?;
    let FileName::Side { kind, number } = file else { unreachable!("it is a side file") };
    Ok((kind, number))
}

fn missing(file: FileName) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {file}"))
}

/// Whether `length` bytes at `offset` are inside a file of `file_length` bytes.
pub(super) fn within(offset: u64, length: u64, file_length: u64) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= file_length)
}

/// The error for a write that would make a file longer.
pub(super) fn would_extend(offset: u64, length: u64, file_length: u64) -> io::Error {
    let story = format!(
        "a write of {length} bytes at {offset} goes beyond the end of a file of {file_length} bytes"
    );
    io::Error::new(io::ErrorKind::InvalidInput, story)
}

// A lock is poisoned only by a panic while it is held, and nothing that is done under these can
// leave a page or an index half changed in a way that matters: bytes may be any mixture anyway.

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: FileName = FileName::Segment { volume: 7, index: 3 };

    #[test]
    fn sparse_pages_come_and_go() {
        let memory = Memory::new();
        memory.create(SEGMENT, 1 << 41, Fill::Sparse).unwrap();
        assert_eq!(memory.next_data(SEGMENT, 0).unwrap(), None);
        let far = (1 << 40) + 8192;
        memory
            .write(SEGMENT, far + 4000, &[IoSlice::new(&[1; 50]), IoSlice::new(&[2; 50])])
            .unwrap();
        assert_eq!(memory.next_data(SEGMENT, 5).unwrap(), Some(far..far + 8192));
        assert_eq!(memory.next_data(SEGMENT, far + 9).unwrap(), Some(far + 9..far + 8192));
        let mut buf = [9; 102];
        memory.read(SEGMENT, far + 3999, &mut buf).unwrap();
        assert_eq!((buf[0], buf[1], buf[50], buf[51], buf[101]), (0, 1, 1, 2, 0));
        memory.zero(SEGMENT, far, 4096).unwrap();
        assert_eq!(memory.next_data(SEGMENT, 0).unwrap(), Some(far + 4096..far + 8192));
        memory.zero(SEGMENT, 0, 1 << 41).unwrap();
        assert_eq!(memory.next_data(SEGMENT, 0).unwrap(), None);
    }

    #[test]
    fn a_written_file_is_all_data() {
        let memory = Memory::new();
        memory.create(FileName::OwnLog, 10_000, Fill::Written).unwrap();
        assert_eq!(memory.next_data(FileName::OwnLog, 3).unwrap(), Some(3..10_000));
        memory.zero(FileName::OwnLog, 0, 10_000).unwrap();
        assert_eq!(memory.next_data(FileName::OwnLog, 3).unwrap(), Some(3..10_000));
        assert_eq!(memory.next_data(FileName::OwnLog, 10_000).unwrap(), None);
    }

    #[test]
    fn refuses_lengths_beyond_reason() {
        let error = Memory::new().create(SEGMENT, u64::MAX, Fill::Sparse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
