//! An unreflected table (501/601, 502/602): records in stamp order, oldest first.
//!
//! The queue behind it orders what is published; here stands what is durable and final. The rear
//! pointer of the seed is the next index. One type, two instances: the remote unreflected table
//! holds own records until the peer has them *and* the normal volume has them, the local one holds
//! received records until the normal volume has them.

use crate::unit::{Position, Stamp};
use std::collections::VecDeque;

/// A place in a table's order, counted from the first entry it ever had.
pub type Index = u64;

/// Entries of a chunk (32 KiB). A table that grows by chunks has no room that is never used.
const CHUNK: u64 = if cfg!(test) { 4 } else { 1024 };

/// The table.
#[derive(Debug, Default)]
pub struct Unreflected {
    /// The first has the entry at `begin`, and those that were dropped before it.
    chunks: VecDeque<Vec<(Stamp, Position)>>,
    /// Index of the front entry.
    begin: Index,
    /// Index behind the newest entry.
    end: Index,
}

impl Unreflected {
    /// Appends an entry, which is newer than all before it.
    pub fn push(&mut self, stamp: Stamp, position: Position) {
        if let Some((newest, _)) = self.end.checked_sub(1).and_then(|last| self.get(last)) {
            assert!(newest < stamp, "I1: {stamp} comes after {newest} in stamp order");
        }
        if self.end.is_multiple_of(CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK as usize));
        }
        let last = self.chunks.back_mut().expect("the chunk of the end");
        last.push((stamp, position));
        self.end += 1;
    }

    /// The entry at `index`; `None` past the end, or if it has been dropped.
    pub fn get(&self, index: Index) -> Option<(Stamp, Position)> {
        if !(self.begin..self.end).contains(&index) {
            return None;
        }
        let chunk = &self.chunks[(index / CHUNK - self.begin / CHUNK) as usize];
        Some(chunk[(index % CHUNK) as usize])
    }

    /// Index behind the newest entry.
    pub fn end(&self) -> Index {
        self.end
    }

    /// Index of the oldest entry still here.
    pub fn begin(&self) -> Index {
        self.begin
    }

    /// Index of the first entry newer than `stamp`: a binary search.
    pub fn after(&self, stamp: Stamp) -> Index {
        let older = |entry: &(Stamp, Position)| entry.0 <= stamp;
        let at = self.chunks.partition_point(|chunk| chunk.last().is_some_and(older));
        let within = self.chunks.get(at).map(|chunk| chunk.partition_point(older) as u64);
        let first = (self.begin / CHUNK + at as u64) * CHUNK;
        within.map_or(self.end, |within| self.begin.max(first + within))
    }

    /// Drops the entries before `index`: each is dropped once.
    pub fn drop_before(&mut self, index: Index) {
        let index = index.min(self.end).max(self.begin);
        self.chunks.drain(..(index / CHUNK - self.begin / CHUNK) as usize);
        self.begin = index;
    }

    /// Entries from `index` to the newest, newest first.
    pub fn newest_first(&self, index: Index) -> impl Iterator<Item = (Stamp, Position)> + '_ {
        (index.max(self.begin)..self.end).rev().filter_map(|index| self.get(index))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(time: u64) -> Stamp {
        Stamp { epoch: 1, time, sequence: 0 }
    }

    proptest! {
        /// Against a plain list that forgets nothing.
        #[test]
        fn behaves_like_a_list_with_a_cursor(steps in prop::collection::vec((0..3u8, 1..9u64), 1..200)) {
            let mut table = Unreflected::default();
            let mut list: Vec<(Stamp, Position)> = Vec::new();
            let (mut time, mut begin) = (0, 0);
            for (what, n) in steps {
                match what {
                    0 | 1 => {
                        time += n;
                        table.push(stamp(time), time * 7);
                        list.push((stamp(time), time * 7));
                    }
                    _ => {
                        begin = list.len().min(begin + n as usize);
                        table.drop_before(begin as u64);
                    }
                }
                prop_assert_eq!(table.end(), list.len() as u64);
                prop_assert_eq!(table.begin(), begin as u64);
                for (i, entry) in list.iter().enumerate() {
                    let expected = (i >= begin).then_some(*entry);
                    prop_assert_eq!(table.get(i as u64), expected);
                }
                let after = list.iter().filter(|e| e.0 <= stamp(n)).count().max(begin);
                prop_assert_eq!(table.after(stamp(n)), after as u64);
                let newest: Vec<_> = table.newest_first(begin as u64 + 1).collect();
                let expected: Vec<_> = list.iter().skip(begin + 1).rev().copied().collect();
                prop_assert_eq!(newest, expected);
            }
        }
    }
}
