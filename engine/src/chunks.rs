//! A list that grows at its end and is dropped from its front, made of chunks: it has no room that is
//! never used, as a list that doubles has, and growing copies nothing.

use std::collections::VecDeque;

/// Entries of a chunk.
const CHUNK: u64 = if cfg!(test) { 4 } else { 1024 };

/// The list. Entries are counted from the first that it ever had.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    /// The first has the entry at `begin`, and those that were dropped before it.
    chunks: VecDeque<Vec<T>>,
    begin: u64,
    end: u64,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: VecDeque::new(), begin: 0, end: 0 }
    }
}

impl<T> Chunks<T> {
    /// Appends an entry.
    pub fn push(&mut self, entry: T) {
        if self.end.is_multiple_of(CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK as usize));
        }
        self.chunks.back_mut().expect("the chunk of the end").push(entry);
        self.end += 1;
    }

    /// The entry at `index`; `None` past the end, or if it has been dropped.
    pub fn get(&self, index: u64) -> Option<&T> {
        if !(self.begin..self.end).contains(&index) {
            return None;
        }
        let chunk = &self.chunks[(index / CHUNK - self.begin / CHUNK) as usize];
        Some(&chunk[(index % CHUNK) as usize])
    }

    /// Index behind the newest entry.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Index of the oldest entry still here.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    pub fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Index of the first entry that is not `older`, where all that are stand before all that are not:
    /// a binary search.
    pub fn after(&self, older: impl Fn(&T) -> bool) -> u64 {
        let at = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&older));
        let within = self.chunks.get(at).map(|chunk| chunk.partition_point(&older) as u64);
        let first = (self.begin / CHUNK + at as u64) * CHUNK;
        within.map_or(self.end, |within| self.begin.max(first + within))
    }

    /// Drops the entries before `index`: each is dropped once.
    pub fn drop_before(&mut self, index: u64) {
        let index = index.min(self.end).max(self.begin);
        self.chunks.drain(..(index / CHUNK - self.begin / CHUNK) as usize);
        self.begin = index;
    }
}
