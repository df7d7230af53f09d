//! The prototype (S805, R4) and what becomes of it here: the peer's debt, `pend` (R5).
//!
//! A prototype names, for every block in the sender's R, its newest stamp there, in falling stamp
//! order: so it is made in one walk over R from its newest end, and the debt that is paid in
//! stamp order is a single number, not a table to be cleaned up.

use crate::sync::{AtomicU64, Ordering};
use crate::unit::{Block, Stamp};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A hasher for [`Block`]s from a peer of this group: mixes well and costs little.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

type Build = BuildHasherDefault<BlockHasher>;

/// The newest entry of each block, from a table walked newest first; `block_of` tells an entry's.
pub fn newest_per_block<T>(
    newest_first: impl Iterator<Item = (Stamp, T)>,
    block_of: impl Fn(T) -> Block,
) -> Vec<(Block, Stamp)> {
    let mut seen: HashSet<Block, Build> = HashSet::default();
    let named = newest_first.map(|(stamp, entry)| (block_of(entry), stamp));
    named.filter(|&(block, _)| seen.insert(block)).collect()
}

/// What the peer owes: block → newest stamp, all above `hi` when it was made.
#[derive(Debug)]
pub struct Debt {
    ordinals: HashMap<Block, u32, Build>,
    /// Rising.
    stamps: Vec<Stamp>,
    /// How many of `stamps` have been received. Written by the receiver, after the record that
    /// pays is published; read before the queues are (R7).
    paid: AtomicU64,
}

impl Debt {
    /// Merges a prototype (R5): stamps at or below `hi` have arrived already and are ignored.
    /// Says what is wrong if it names a block twice or is not in falling order.
    pub fn merge(prototype: &[(Block, Stamp)], hi: Stamp) -> Result<Debt, String> {
        if let Some(w) = prototype.windows(2).find(|w| w[0].1 <= w[1].1) {
            return Err(format!("the prototype names {} before {}", w[0].1, w[1].1));
        }
        let owed = prototype.partition_point(|entry| entry.1 > hi);
        let mut ordinals = HashMap::with_capacity_and_hasher(owed, Build::default());
        let mut stamps = Vec::with_capacity(owed);
        for (ordinal, &(block, stamp)) in (0..).zip(prototype[..owed].iter().rev()) {
            if ordinals.insert(block, ordinal).is_some() {
                return Err(format!("the prototype names block {block} twice"));
            }
            stamps.push(stamp);
        }
        Ok(Debt { ordinals, stamps, paid: AtomicU64::new(0) })
    }

    /// The newest stamp owed for `block`, if it has not arrived.
    pub fn owed(&self, block: Block) -> Option<Stamp> {
        let ordinal = *self.ordinals.get(&block)?;
        let owed = u64::from(ordinal) >= self.paid.load(Ordering::Acquire);
        owed.then(|| self.stamps[ordinal as usize])
    }

    /// Everything up to `hi` has arrived and is published.
    pub fn pay(&self, hi: Stamp) {
        let mut paid = self.paid.load(Ordering::Relaxed);
        while self.stamps.get(paid as usize).is_some_and(|stamp| *stamp <= hi) {
            paid += 1;
        }
        self.paid.store(paid, Ordering::Release);
    }

    /// `need`: the newest stamp owed at the takeover, zero if nothing was.
    pub fn need(&self) -> Stamp {
        self.stamps.last().copied().unwrap_or(Stamp::ZERO)
    }

    /// How many blocks are still owed.
    pub fn len(&self) -> u64 {
        self.stamps.len() as u64 - self.paid.load(Ordering::Acquire)
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks owed, with their stamps.
    pub fn iter(&self) -> impl Iterator<Item = (Block, Stamp)> + '_ {
        let paid = self.paid.load(Ordering::Acquire);
        let owed = self.ordinals.iter().filter(move |entry| u64::from(*entry.1) >= paid);
        owed.map(|(&block, &ordinal)| (block, self.stamps[ordinal as usize]))
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

    proptest! {
        /// Prototype and debt together, against a map of the newest stamp per block.
        #[test]
        fn debt_is_the_newest_stamp_per_block_above_hi(
            r in prop::collection::vec(0..20u64, 0..100),
            hi in 0..120u64,
            paid in 0..120u64,
        ) {
            let block = |number| Block { volume: 3, number };
            let table: Vec<(Stamp, u64)> = (1..).map(stamp).zip(r.iter().copied()).collect();
            let mut oracle = BTreeMap::new();
            table.iter().for_each(|&(s, b)| { oracle.insert(b, s); });
            let prototype = newest_per_block(table.iter().rev().copied(), block);
            prop_assert_eq!(prototype.len(), oracle.len());
            let debt = Debt::merge(&prototype, stamp(hi)).unwrap();
            oracle.retain(|_, s| *s > stamp(hi));
            prop_assert_eq!(debt.need(), oracle.values().max().copied().unwrap_or(Stamp::ZERO));
            debt.pay(stamp(paid));
            oracle.retain(|_, s| *s > stamp(paid));
            for b in 0..20 {
                prop_assert_eq!(debt.owed(block(b)), oracle.get(&b).copied());
            }
            prop_assert_eq!(debt.len(), oracle.len() as u64);
            let listed: BTreeMap<u64, Stamp> = debt.iter().map(|(b, s)| (b.number, s)).collect();
            prop_assert_eq!(listed, oracle);
        }

        #[test]
        fn a_broken_prototype_is_refused(swap in 0..9usize) {
            let block = |number| Block { volume: 0, number };
            let good: Vec<_> = (0..10u64).map(|n| (block(n), stamp(20 - n))).collect();
            let mut twice = good.clone();
            twice[swap + 1].0 = twice[swap].0;
            prop_assert!(Debt::merge(&twice, Stamp::ZERO).unwrap_err().contains("twice"));
            let mut rising = good;
            rising.swap(swap, swap + 1);
            prop_assert!(Debt::merge(&rising, Stamp::ZERO).unwrap_err().contains("before"));
        }
    }
}
