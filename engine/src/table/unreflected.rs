//! An unreflected table (501/601, 502/602): records in stamp order, oldest first.
//!
//! The queue behind it orders what is published; here stands what is durable and final. The rear
//! pointer of the seed is the next index. One type, two instances: the remote unreflected table
//! holds own records until the peer has them *and* the normal volume has them, the local one holds
//! received records until the normal volume has them.

use crate::chunks::Chunks;
use crate::unit::{Position, Stamp};

/// A place in a table's order, counted from the first entry it ever had.
pub type Index = u64;

/// A record's stamp, and the lowest bits of its position: a queue has far fewer places than these
/// bits tell apart.
#[derive(Debug)]
struct Entry {
    epoch: u64,
    time: u64,
    sequence: u32,
    position: u32,
}

const _: () = assert!(size_of::<Entry>() == 24);

impl Entry {
    fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, time: self.time, sequence: self.sequence }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Unreflected {
    entries: Chunks<Entry>,
    /// The position of the newest entry; those of the others are less than 2^31 away from it.
    position: Position,
}

impl Unreflected {
    /// Appends an entry, which is newer than all before it. Entries that are here at the same time have
    /// their records in one queue ([`PLACES_MAX`](crate::limits::PLACES_MAX)).
    pub fn push(&mut self, stamp: Stamp, position: Position) {
        if let Some((newest, before)) = self.end().checked_sub(1).and_then(|last| self.get(last)) {
            assert!(newest < stamp, "I1: {stamp} comes after {newest} in stamp order");
            assert!(before.abs_diff(position) < 1 << 31, "no queue has {before} and {position}");
        }
        let Stamp { epoch, time, sequence } = stamp;
        self.entries.push(Entry { epoch, time, sequence, position: position as u32 });
        self.position = position;
    }

    /// The entry at `index`; `None` past the end, or if it has been dropped.
    pub fn get(&self, index: Index) -> Option<(Stamp, Position)> {
        let entry = self.entries.get(index)?;
        let away = entry.position.wrapping_sub(self.position as u32) as i32;
        Some((entry.stamp(), self.position.wrapping_add_signed(away.into())))
    }

    /// Index behind the newest entry.
    pub fn end(&self) -> Index {
        self.entries.end()
    }

    /// Index of the oldest entry still here.
    pub fn begin(&self) -> Index {
        self.entries.begin()
    }

    /// Index of the first entry newer than `stamp`: a binary search.
    pub fn after(&self, stamp: Stamp) -> Index {
        self.entries.after(|entry| entry.stamp() <= stamp)
    }

    /// Drops the entries before `index`: each is dropped once.
    pub fn drop_before(&mut self, index: Index) {
        self.entries.drop_before(index);
    }

    /// Entries from `index` to the newest, newest first.
    pub fn newest_first(&self, index: Index) -> impl Iterator<Item = (Stamp, Position)> + '_ {
        (index.max(self.begin())..self.end()).rev().filter_map(|index| self.get(index))
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
                        // Positions in another order than stamps, about where their lowest bits begin again.
                        let position = (1 << 32) + time * 7 % 1000 - 500;
                        table.push(stamp(time), position);
                        list.push((stamp(time), position));
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
