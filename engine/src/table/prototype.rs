//! The prototype (S805, R4) and what becomes of it here: the peer's debt, `pend` (R5).
//!
//! A prototype names, for every block in the sender's R, its newest stamp there, in rising stamp
//! order. What it names is told and stays told (R18): the debt grows at one end and is paid from
//! the other, through takeovers, fences and connections, and only what came after the last stamp
//! told is ever sent.

use crate::sync::{AtomicU64, Ordering};
use crate::unit::{Block, Stamp};
use crate::weaken::{Clause, holds};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// So few entries are not worth a look at how many of them were replaced.
const ENTRIES_MIN: usize = 256;

/// Mixes well and costs little: blocks come from a peer of this group.
fn hash(block: Block) -> u64 {
    let mixed = (u64::from(block.volume).rotate_left(40) ^ block.number)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    block: Block,
    stamp: Stamp,
    /// Whether a newer entry names the block.
    is_replaced: bool,
}

/// What the peer owes: block → newest stamp, those above `hi`.
#[derive(Debug, Default)]
pub struct Debt {
    /// Rising.
    entries: VecDeque<Entry>,
    /// Number of the front entry, counted from the first there ever was.
    begin: u64,
    /// Number of each block's newest entry, its low 32 bits.
    newest: HashTable<u32>,
    /// Number of the first entry that has not been received. Written by the receiver, after the
    /// record that pays is published; read before the queues are (R7). Release/Acquire: who finds a
    /// block paid for finds its record.
    paid: AtomicU64,
    /// How many blocks the entries from there on name.
    blocks: AtomicU64,
    /// The last stamp told.
    last: Stamp,
}

impl Debt {
    /// Takes the next piece of what the peer tells (S807, R18), which follows `previous` in the
    /// peer's order. What was told before or is at or below `hi`, which has arrived, is ignored.
    ///
    /// # Errors
    /// The entry that is not in rising order, that follows neither the last one told nor what has
    /// arrived, or whose block would be one of more than `most`. What came before it has been taken.
    pub fn extend(
        &mut self,
        previous: Stamp,
        piece: &[(Block, Stamp)],
        hi: Stamp,
        most: u64,
    ) -> Result<(), String> {
        self.sweep();
        let mut before = previous;
        for &(block, stamp) in piece {
            if stamp <= before {
                return Err(format!("the peer tells of {stamp} behind {before}"));
            }
            let has_arrived = stamp <= hi && holds(Clause::PrototypeFilter);
            if stamp > self.last && !has_arrived {
                let last = self.last;
                // The piece names everything behind `before`: a gap begins above what is known.
                if before > last.max(hi) && holds(Clause::ToldChain) {
                    return Err(format!(
                        "the peer tells of {stamp} behind {before}, {last} was told last"
                    ));
                }
                if !self.push(block, stamp, most) {
                    return Err(format!("the peer tells of more than {most} blocks that it owes"));
                }
            }
            before = stamp;
        }
        Ok(())
    }

    /// Makes room for so many entries more, in one go.
    pub fn reserve(&mut self, entries: u64) {
        self.entries.reserve(entries as usize);
        let told = &self.entries;
        let begin = self.begin as u32;
        let rehash = |n: &u32| hash(told[n.wrapping_sub(begin) as usize].block);
        self.newest.reserve(entries as usize, rehash);
    }

    fn push(&mut self, block: Block, stamp: Stamp, most: u64) -> bool {
        let number = (self.begin + self.entries.len() as u64) as u32;
        let begin = self.begin as u32;
        let hash_of_block = hash(block);
        let entries = &self.entries;
        let is_same = |n: &u32| entries[n.wrapping_sub(begin) as usize].block == block;
        let blocks = self.newest.len() as u64;
        match self.newest.find_mut(hash_of_block, is_same) {
            Some(newest) => {
                let earlier = newest.wrapping_sub(begin) as usize;
                if holds(Clause::NewestPerBlock) {
                    *newest = number;
                }
                self.entries[earlier].is_replaced = true;
            }
            None if blocks >= most => return false,
            None => {
                let rehash = |n: &u32| hash(entries[n.wrapping_sub(begin) as usize].block);
                self.newest.insert_unique(hash_of_block, number, rehash);
                // Nobody reads beside the one who may push.
                self.blocks.store(self.blocks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
        }
        self.entries.push_back(Entry { block, stamp, is_replaced: false });
        self.last = stamp;
        true
    }

    /// Forgets what has been received, and what newer entries have replaced when that is most: there
    /// are never many more entries than blocks.
    pub fn sweep(&mut self) {
        let paid = self.paid.load(Ordering::Relaxed);
        while self.begin < paid {
            let Entry { block, is_replaced, .. } = self.entries[0];
            if !is_replaced {
                let number = self.begin as u32;
                if let Ok(found) = self.newest.find_entry(hash(block), |&n| n == number) {
                    found.remove();
                }
            }
            self.entries.pop_front();
            self.begin += 1;
        }
        if self.entries.len() > 2 * self.newest.len() + ENTRIES_MIN {
            // Numbers are never used twice.
            self.begin += self.entries.len() as u64;
            self.paid.store(self.begin, Ordering::Relaxed);
            self.entries.retain(|entry| !entry.is_replaced);
            self.newest.clear();
            let (begin, told) = (self.begin as u32, &self.entries);
            let rehash = |n: &u32| hash(told[n.wrapping_sub(begin) as usize].block);
            for (entry, number) in told.iter().zip(0u32..) {
                self.newest.insert_unique(hash(entry.block), begin.wrapping_add(number), rehash);
            }
        }
    }

    /// The newest stamp owed for `block`, if it has not arrived.
    pub fn owed(&self, block: Block) -> Option<Stamp> {
        let at = |n: u32| n.wrapping_sub(self.begin as u32) as usize;
        let &newest = self.newest.find(hash(block), |&n| self.entries[at(n)].block == block)?;
        let is_owed = self.begin + at(newest) as u64 >= self.paid.load(Ordering::Acquire);
        is_owed.then(|| self.entries[at(newest)].stamp)
    }

    /// Everything up to `hi` has arrived and is published.
    pub fn pay(&self, hi: Stamp) {
        let mut paid = self.paid.load(Ordering::Relaxed);
        let mut blocks = self.blocks.load(Ordering::Relaxed);
        while let Some(entry) = self.entries.get((paid - self.begin) as usize)
            && entry.stamp <= hi
        {
            blocks -= u64::from(!entry.is_replaced);
            paid += 1;
        }
        self.blocks.store(blocks, Ordering::Relaxed);
        self.paid.store(paid, Ordering::Release);
    }

    /// The last stamp told, whether it has arrived or not; zero before the first.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// How many blocks are still owed.
    pub fn len(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks owed, with their newest stamps, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (Block, Stamp)> + '_ {
        let arrived = self.paid.load(Ordering::Acquire) - self.begin;
        let left = self.entries.iter().skip(arrived as usize).filter(|e| !e.is_replaced);
        left.map(|entry| (entry.block, entry.stamp))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn stamp(time: u64) -> Stamp {
        Stamp { epoch: 1, time, sequence: 0 }
    }

    fn block(number: u64) -> Block {
        Block { volume: 3, number }
    }

    proptest! {
        /// What is told and what arrives, in any order, against a map of the newest stamp per
        /// block.
        #[test]
        fn debt_is_the_newest_stamp_per_block_above_hi(
            told in prop::collection::vec((0..20u64, 0..4u64), 0..900),
        ) {
            let mut debt = Debt::default();
            let mut oracle = BTreeMap::new();
            let mut hi = Stamp::ZERO;
            let mut last = Stamp::ZERO;
            for (time, (b, arrived)) in (1..).zip(told) {
                // Little arrives before much has been told.
                let arrived = if time % 500 < 450 { 0 } else { arrived };
                debt.extend(last, &[(block(b), stamp(time))], hi, 20).unwrap();
                last = stamp(time);
                oracle.insert(b, last);
                prop_assert_eq!(debt.last(), last);
                hi = hi.max(stamp(time * arrived / 4));
                debt.pay(hi);
                oracle.retain(|_, stamp| *stamp > hi);
                for b in 0..20 {
                    prop_assert_eq!(debt.owed(block(b)), oracle.get(&b).copied());
                }
                prop_assert_eq!(debt.len(), oracle.len() as u64);
                prop_assert_eq!(debt.is_empty(), oracle.is_empty());
                let listed: Vec<_> = debt.iter().collect();
                prop_assert!(listed.is_sorted_by_key(|entry| entry.1));
                let listed: BTreeMap<_, _> = listed.iter().map(|(b, s)| (b.number, *s)).collect();
                prop_assert_eq!(listed, oracle.clone());
            }
        }

        #[test]
        fn what_breaks_the_order_is_refused(swap in 0..9usize) {
            let good: Vec<_> = (0..10u64).map(|n| (block(n), stamp(n + 1))).collect();
            let extend = |previous, piece: &[_], hi, most| {
                let mut debt = Debt::default();
                debt.extend(previous, piece, hi, most)
            };
            prop_assert!(extend(Stamp::ZERO, &good, Stamp::ZERO, 10).is_ok());
            prop_assert!(extend(Stamp::ZERO, &good, Stamp::ZERO, 9).unwrap_err().contains("than 9"));
            let gap = &good[swap + 1..];
            let before = good[swap].1;
            prop_assert!(extend(before, gap, Stamp::ZERO, 11).unwrap_err().contains("told last"));
            prop_assert!(extend(before, gap, before, 11).is_ok());
            let mut falling = good.clone();
            falling.swap(swap, swap + 1);
            let refused = extend(Stamp::ZERO, &falling, Stamp::ZERO, 11);
            prop_assert!(refused.unwrap_err().contains("behind"));
        }

        #[test]
        fn what_was_told_or_has_arrived_is_ignored(from in 0..9u64, hi in 0..12u64) {
            let good: Vec<_> = (0..10u64).map(|n| (block(n), stamp(n + 1))).collect();
            let mut debt = Debt::default();
            debt.extend(Stamp::ZERO, &good[..5], Stamp::ZERO, 10).unwrap();
            debt.pay(stamp(hi));
            debt.extend(stamp(from.min(5)), &good[from.min(5) as usize..], stamp(hi), 10).unwrap();
            prop_assert_eq!(debt.len(), 10u64.saturating_sub(hi));
        }
    }
}
