//! The words of the domain as types: a block's address, a write's stamp, a position in a queue.
//!
//! Index, count, length, address and time never share a type where they could be mixed up.

use std::fmt;
use std::ops::Range;

/// The unit that traces, partial writes and addresses on the host's side are aligned to, in bytes.
pub const SECTOR: u64 = 512;

/// A block's address in a consistency group: the volume and the block's number in it, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The volume, as configured; volumes need not be numbered without gaps.
    pub volume: u32,
    /// The block's number in its volume, from 0.
    pub number: u64,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.volume, self.number)
    }
}

/// The blocks of one record: an aligned power of two of them, so that two extents are nested or
/// disjoint (R19). A record with data has the extent of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// The first block; its number is a multiple of the extent's length.
    pub first: Block,
    /// The logarithm of its length in blocks, at most [`Extent::LEVEL_MAX`].
    pub level: u8,
}

impl Extent {
    /// The largest level: 32 MiB of the smallest blocks.
    pub const LEVEL_MAX: u8 = 16;

    /// The extent of `level` that holds `block`.
    pub fn around(block: Block, level: u8) -> Extent {
        let number = block.number >> level << level;
        Extent { first: Block { number, ..block }, level }
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        1 << self.level
    }

    /// Number of the block behind its last.
    pub fn end(&self) -> u64 {
        self.first.number + self.blocks()
    }

    /// Whether a volume of so many blocks has all of it.
    pub fn ends_within(&self, blocks: u64) -> bool {
        self.first.number.checked_add(self.blocks()).is_some_and(|end| end <= blocks)
    }

    /// Whether `block` is one of its blocks.
    pub fn holds(&self, block: Block) -> bool {
        Extent::around(block, self.level) == *self
    }

    /// The fewest extents that have the `count` blocks from `first` on, in their order: for `n` blocks
    /// at most twice the logarithm of `n`, none above level `most`.
    pub fn split(first: Block, count: u64, most: u8) -> impl Iterator<Item = Extent> {
        let (mut number, end) = (first.number, first.number + count);
        std::iter::from_fn(move || {
            let left = end - number;
            let fits = left.checked_ilog2()?.min(u32::from(most.min(Extent::LEVEL_MAX)));
            let level = fits.min(number.trailing_zeros()) as u8;
            let extent = Extent { first: Block { number, ..first }, level };
            number = extent.end();
            Some(extent)
        })
    }
}

impl From<Block> for Extent {
    fn from(first: Block) -> Extent {
        Extent { first, level: 0 }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blocks() {
            1 => write!(f, "{}", self.first),
            blocks => write!(f, "{}+{blocks}", self.first),
        }
    }
}

/// Neighbouring blocks of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// The volume.
    pub volume: u32,
    /// Their numbers in it; not empty.
    pub numbers: Range<u64>,
}

impl Blocks {
    /// The first of them.
    pub fn first(&self) -> Block {
        Block { volume: self.volume, number: self.numbers.start }
    }

    /// Their addresses.
    pub fn range(&self) -> Range<Block> {
        self.first()..Block { volume: self.volume, number: self.numbers.end }
    }

    /// How many they are.
    pub fn count(&self) -> u64 {
        self.numbers.end - self.numbers.start
    }

    /// Takes in `next`, which begins no earlier, if no block lies between the two; whether it did.
    pub(crate) fn absorb(&mut self, next: &Blocks) -> bool {
        let touches = next.volume == self.volume && next.numbers.start <= self.numbers.end;
        if touches {
            self.numbers.end = self.numbers.end.max(next.numbers.end);
        }
        touches
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = Block> + use<> {
        let volume = self.volume;
        self.numbers.clone().map(move |number| Block { volume, number })
    }
}

impl From<Extent> for Blocks {
    fn from(extent: Extent) -> Blocks {
        let Extent { first, .. } = extent;
        Blocks { volume: first.volume, numbers: first.number..first.number + extent.blocks() }
    }
}

/// The logarithm of a region's length in blocks: an extent of 32 MiB of the usual blocks. The few blocks
/// of a simulation lie in several, too.
const REGION_LEVEL: u8 = if cfg!(feature = "simulate") { 2 } else { 13 };

/// The number behind the region that block `number` lies in.
pub(crate) fn region_end(number: u64) -> u64 {
    ((number >> REGION_LEVEL) + 1) << REGION_LEVEL
}

/// Which of `count` counters stands for the region that `block` lies in.
pub(crate) fn region(block: Block, count: usize) -> usize {
    let apart = u64::from(block.volume).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    (block.number >> REGION_LEVEL).wrapping_add(apart) as usize & (count - 1)
}

/// Which of `count` counters stand for the regions that the `blocks` blocks from `first` on lie in.
/// Regions of one volume that follow one another have different ones.
pub(crate) fn regions(first: Block, blocks: u64, count: usize) -> impl Iterator<Item = usize> {
    debug_assert!(count.is_power_of_two());
    let [begin, end] = [first.number, first.number + blocks.max(1) - 1].map(|n| n >> REGION_LEVEL);
    let begin_at = region(first, count);
    (0..=end - begin).take(count).map(move |at| (begin_at + at as usize) & (count - 1))
}

/// When a write takes its place in history (R1): compared by epoch, then time, then sequence.
///
/// Unique within a group, and never zero for a real record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// The tenure under which the write was admitted.
    pub epoch: u64,
    /// Nanoseconds since 1970, by the host's clock where that does not contradict what was seen.
    pub time: u64,
    /// Tells apart the records of one request, and requests of one time.
    pub sequence: u32,
}

impl Stamp {
    /// Before every real stamp.
    pub const ZERO: Stamp = Stamp { epoch: 0, time: 0, sequence: 0 };

    /// After every real stamp.
    pub const MAX: Stamp = Stamp { epoch: u64::MAX, time: u64::MAX, sequence: u32::MAX };

    /// Host times above this, in nanoseconds, are no times but garbage, and ignored (R1).
    pub const HOST_TIME_MAX: u64 = 1 << 62;

    /// No stamp has a later time, in nanoseconds: from the latest host time on, each counts on by
    /// one.
    pub const TIME_MAX: u64 = 1 << 63;
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.time, self.sequence)
    }
}

/// How host writes reach the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By R, in the order of stamps: no bits.
    #[default]
    Ordered,
    /// By bits; first the active device collects what the peer owes (p).
    Collecting,
    /// By bits, and the active device sends (s).
    Sending,
    /// Host writes join R again, and the active device sends what has a bit (c).
    Copying,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Ordered => "ordered",
            Mode::Collecting => "collecting",
            Mode::Sending => "sending",
            Mode::Copying => "copying",
        })
    }
}

/// The round that copies, ships and acknowledgements belong to. A later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Round {
    /// The lineage's number: a force begins a new one.
    pub generation: u64,
    /// Counts the changes of mode within it, from 0.
    pub counter: u64,
}

impl Round {
    /// The one after it.
    pub(crate) fn next(self) -> Round {
        Round { counter: self.counter + 1, ..self }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.counter)
    }
}

/// A place taken in a journal's queue, counted from 1 and never used twice.
///
/// Position 0 means "none".
pub type Position = u64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_is_split_into_few_extents(first in 0..5000u64, count in 0..70_000u64, most in 0..20u8) {
            let first = Block { volume: 3, number: first };
            let extents: Vec<_> = Extent::split(first, count, most).collect();
            let mut next = first.number;
            for extent in &extents {
                prop_assert_eq!(extent.first, Block { number: next, ..first });
                prop_assert_eq!(Extent::around(extent.first, extent.level), *extent);
                prop_assert!(extent.level <= most.min(Extent::LEVEL_MAX));
                let last = Block { number: extent.end() - 1, ..first };
                prop_assert!(extent.holds(extent.first) && extent.holds(last));
                let behind = Block { number: extent.end(), ..first };
                prop_assert!(!extent.holds(behind));
                next = extent.end();
            }
            prop_assert_eq!(next, first.number + count);
            if most >= Extent::LEVEL_MAX {
                let bound = 2 * u64::from((count + 1).ilog2()) + count / (1 << Extent::LEVEL_MAX);
                prop_assert!(extents.len() as u64 <= bound.max(1), "{} extents", extents.len());
            }
        }
    }
}
