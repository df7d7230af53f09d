//! The prototype (S805, R4) and what becomes of it here: the peer's debt, `pend` (R5).
//!
//! A prototype names, for every block in the sender's R, its newest stamp there, in falling stamp
//! order: so it is made in one walk over R from its newest end, and the debt that is paid in
//! stamp order is a single number, not a table to be cleaned up.

use crate::sync::{AtomicU64, Ordering};
use crate::unit::{Block, Position, Stamp};
use std::collections::HashMap;
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

/// The newest entry of each block, from a table walked newest first; `is_newest` tells whether
/// nothing newer of its block is in the table.
pub fn newest_per_block(
    newest_first: impl Iterator<Item = Position>,
    is_newest: impl Fn(Position) -> bool,
) -> impl Iterator<Item = Position> {
    newest_first.filter(move |&position| is_newest(position))
}

/// The prototype's mistake of the seed (H5): the oldest entry of each block, in falling order.
#[cfg(feature = "weaken")]
pub(crate) fn oldest_per_block(
    queue: &crate::queue::Queue,
    newest_first: impl Iterator<Item = Position>,
) -> Vec<Position> {
    let oldest: HashMap<_, _> = newest_first.map(|p| (queue.record(p).block, p)).collect();
    let mut oldest: Vec<_> = oldest.into_values().collect();
    oldest.sort_by_key(|&position| std::cmp::Reverse(queue.record(position).stamp));
    oldest
}

/// What the peer owes: block → newest stamp, those above `hi`.
#[derive(Debug, Default)]
pub struct Debt {
    /// Block → index in `stamps`.
    indices: HashMap<Block, u32, Build>,
    /// Falling.
    stamps: Vec<Stamp>,
    /// How many of `stamps`, from the front, have not been received. Written by the receiver,
    /// after the record that pays is published; read before the queues are (R7). Release/Acquire:
    /// who finds a block paid for finds its record.
    owed: AtomicU64,
    need: Stamp,
    tenure: u64,
}

impl Debt {
    /// Takes the next piece of a prototype of at most `total` entries (S807), itself at most
    /// [`u32::MAX`].
    ///
    /// # Errors
    /// More entries than that; the entry that names a block twice or is not in falling order. What
    /// came before it has been taken: the prototype is of no use any more.
    pub fn extend(&mut self, piece: &[(Block, Stamp)], total: u64) -> Result<(), String> {
        let most = u32::try_from(total).unwrap_or(u32::MAX) as usize;
        if self.stamps.len() + piece.len() > most {
            let sent = self.stamps.len() + piece.len();
            return Err(format!("the prototype of {total} entries has {sent}, at most {most}"));
        }
        if self.stamps.is_empty() {
            // Grown in one go, but not on the word of a peer that has sent little of it.
            self.indices.reserve(most.min(piece.len() * 64));
            self.stamps.reserve(most.min(piece.len() * 64));
        }
        for &(block, stamp) in piece {
            if let Some(last) = self.stamps.last().filter(|last| **last <= stamp) {
                return Err(format!("the prototype names {last} before {stamp}"));
            }
            if self.indices.insert(block, self.stamps.len() as u32).is_some() {
                return Err(format!("the prototype names block {block} twice"));
            }
            self.stamps.push(stamp);
        }
        Ok(())
    }

    /// How many entries have come.
    pub fn entries(&self) -> u64 {
        self.stamps.len() as u64
    }

    /// Completes the merge (R5) under the granted `tenure`: stamps at or below `hi` have arrived
    /// already and are ignored.
    pub fn merge(mut self, hi: Stamp, tenure: u64) -> Debt {
        self.tenure = tenure;
        self.owed = AtomicU64::new(self.stamps.partition_point(|stamp| *stamp > hi) as u64);
        self.need = if self.is_empty() { Stamp::ZERO } else { self.stamps[0] };
        self
    }

    /// The newest stamp owed for `block`, if it has not arrived.
    pub fn owed(&self, block: Block) -> Option<Stamp> {
        let index = *self.indices.get(&block)?;
        let owed = u64::from(index) < self.owed.load(Ordering::Acquire);
        owed.then(|| self.stamps[index as usize])
    }

    /// Everything up to `hi` has arrived and is published.
    pub fn pay(&self, hi: Stamp) {
        let mut owed = self.owed.load(Ordering::Relaxed);
        while owed > 0 && self.stamps[owed as usize - 1] <= hi {
            owed -= 1;
        }
        self.owed.store(owed, Ordering::Release);
    }

    /// The tenure whose prototype this is.
    pub fn tenure(&self) -> u64 {
        self.tenure
    }

    /// `need`: the newest stamp owed when it was merged, zero if nothing was.
    pub fn need(&self) -> Stamp {
        self.need
    }

    /// How many blocks are still owed.
    pub fn len(&self) -> u64 {
        self.owed.load(Ordering::Acquire)
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks owed, with their stamps.
    pub fn iter(&self) -> impl Iterator<Item = (Block, Stamp)> + '_ {
        let owed = self.owed.load(Ordering::Acquire);
        let left = self.indices.iter().filter(move |entry| u64::from(*entry.1) < owed);
        left.map(|(&block, &index)| (block, self.stamps[index as usize]))
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
            // Positions are indices in `r`, and stamps rise with them.
            let at = |position: Position| stamp(position + 1);
            let mut oracle = BTreeMap::new();
            r.iter().zip(0..).for_each(|(&b, position)| { oracle.insert(b, at(position)); });
            let is_newest = |p: Position| !r[p as usize + 1..].contains(&r[p as usize]);
            let newest = newest_per_block((0..r.len() as u64).rev(), is_newest);
            let entry = |p: Position| (block(r[p as usize]), at(p));
            let prototype: Vec<_> = newest.map(entry).collect();
            prop_assert_eq!(prototype.len(), oracle.len());
            let mut debt = Debt::default();
            for piece in prototype.chunks(7) {
                debt.extend(piece, prototype.len() as u64).unwrap();
            }
            let debt = debt.merge(stamp(hi), 2);
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
            prop_assert!(Debt::default().extend(&twice, 10).unwrap_err().contains("twice"));
            prop_assert!(Debt::default().extend(&good, 9).unwrap_err().contains("at most 9"));
            let mut rising = good;
            rising.swap(swap, swap + 1);
            prop_assert!(Debt::default().extend(&rising, 10).unwrap_err().contains("before"));
        }
    }
}
