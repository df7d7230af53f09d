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

/// The table.
#[derive(Debug, Default)]
pub struct Unreflected {
    entries: VecDeque<(Stamp, Position)>,
    /// Index of the front entry.
    begin: Index,
}

impl Unreflected {
    /// Appends an entry, which is newer than all before it.
    pub fn push(&mut self, stamp: Stamp, position: Position) {
        if let Some(&(newest, _)) = self.entries.back() {
            assert!(newest < stamp, "I1: {stamp} comes after {newest} in stamp order");
        }
        self.entries.push_back((stamp, position));
    }

    /// The entry at `index`; `None` past the end, or if it has been dropped.
    pub fn get(&self, index: Index) -> Option<(Stamp, Position)> {
        let at = index.checked_sub(self.begin)?;
        self.entries.get(at as usize).copied()
    }

    /// Index behind the newest entry.
    pub fn end(&self) -> Index {
        self.begin + self.entries.len() as u64
    }

    /// Index of the oldest entry still here.
    pub fn begin(&self) -> Index {
        self.begin
    }

    /// Index of the first entry newer than `stamp`: a binary search.
    pub fn after(&self, stamp: Stamp) -> Index {
        self.begin + self.entries.partition_point(|entry| entry.0 <= stamp) as u64
    }

    /// Drops the entries before `index`: each is dropped once.
    pub fn drop_before(&mut self, index: Index) {
        while self.begin < index.min(self.end()) {
            self.entries.pop_front();
            self.begin += 1;
        }
    }

    /// Entries from `index` to the newest, newest first.
    pub fn newest_first(&self, index: Index) -> impl Iterator<Item = (Stamp, Position)> + '_ {
        let skip = index.saturating_sub(self.begin) as usize;
        self.entries.iter().skip(skip).rev().copied()
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
