//! A set of blocks, a bit each: what a differential administration table is (tables 1–3), and what the
//! peer owes in differential mode. Neighbours are kept as one run, so that memory grows with what is
//! set, at most 64 bytes a run, and never with the volumes: a full table is a run for each volume.

use crate::unit::Block;
pub use crate::unit::Blocks;
use std::collections::BTreeMap;
use std::ops::Range;

/// The same blocks as rising runs of which none touches another.
pub(super) fn joined(mut runs: Vec<Blocks>) -> Vec<Blocks> {
    // Stable, as that finds what is sorted already.
    runs.sort_by_key(Blocks::first);
    runs.dedup_by(|next, run| run.absorb(next));
    runs
}

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bits {
    /// Of each volume with a run, the number of its first block → the number behind its last. No two runs touch.
    volumes: BTreeMap<u32, BTreeMap<u64, u64>>,
    runs: usize,
    blocks: u64,
}

impl Bits {
    /// How many blocks are set.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many runs there are.
    pub(crate) fn run_count(&self) -> usize {
        self.runs
    }

    /// Whether no block is set.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Whether `block` is set.
    pub fn contains(&self, block: Block) -> bool {
        self.run_at(block).is_some()
    }

    /// Whether all of `blocks` are set.
    pub fn covers(&self, blocks: &Blocks) -> bool {
        self.run_at(blocks.first()).is_some_and(|run| run.numbers.end >= blocks.numbers.end)
    }

    /// The run that has `block`.
    fn run_at(&self, block: Block) -> Option<Blocks> {
        let Block { volume, number } = block;
        let (&first, &end) = self.volumes.get(&volume)?.range(..=number).next_back()?;
        (number < end).then_some(Blocks { volume, numbers: first..end })
    }

    /// The first blocks that are set from `block` on, in the order of volumes and numbers: the rest of a
    /// run.
    pub fn next_from(&self, block: Block) -> Option<Blocks> {
        if let Some(run) = self.run_at(block) {
            return Some(Blocks { numbers: block.number..run.numbers.end, ..run });
        }
        self.runs_from(block).next()
    }

    /// The runs that begin at `block` or behind it, in the order of volumes and numbers.
    pub fn runs_from(&self, block: Block) -> impl Iterator<Item = Blocks> + '_ {
        self.volumes.range(block.volume..).flat_map(move |(&volume, runs)| {
            let from = if volume == block.volume { block.number } else { 0 };
            runs.range(from..).map(move |(&first, &end)| Blocks { volume, numbers: first..end })
        })
    }

    /// All runs, in the order of volumes and numbers.
    pub fn runs(&self) -> impl Iterator<Item = Blocks> + '_ {
        self.runs_from(Block { volume: 0, number: 0 })
    }

    /// The blocks that are set in `range`, as runs.
    pub(crate) fn within(&self, range: Range<Block>) -> impl Iterator<Item = Blocks> + '_ {
        let Range { start, end } = range;
        let begun = self.run_at(start).filter(|run| run.first() < start);
        let begun = begun.map(|run| Blocks { numbers: start.number..run.numbers.end, ..run });
        let all = begun.into_iter().chain(self.runs_from(start));
        all.take_while(move |run| run.first() < end).map(move |mut run| {
            if run.volume == end.volume {
                run.numbers.end = run.numbers.end.min(end.number);
            }
            run
        })
    }

    /// Those of `blocks` that are not set.
    pub fn missing(&self, blocks: &Blocks) -> Bits {
        let mut missing = Bits::from_iter([blocks.clone()]);
        for run in self.within(blocks.range()) {
            missing.remove(&run);
        }
        missing
    }

    /// Sets `blocks`.
    pub fn insert(&mut self, blocks: Blocks) {
        let Blocks { volume, mut numbers } = blocks;
        let runs = self.volumes.entry(volume).or_default();
        let (before, mut swallowed) = (runs.len(), 0);
        // Runs that it touches become part of it, from the last one on.
        while let Some((&first, &end)) = runs.range(..=numbers.end).next_back()
            && end >= numbers.start
        {
            runs.remove(&first);
            swallowed += end - first;
            numbers = numbers.start.min(first)..numbers.end.max(end);
        }
        self.blocks += numbers.end - numbers.start - swallowed;
        runs.insert(numbers.start, numbers.end);
        self.runs = self.runs + runs.len() - before;
    }

    /// Takes the first runs out, at most `most`.
    pub fn take_first(&mut self, most: usize) -> Vec<Blocks> {
        let taken: Vec<_> = self.runs().take(most).collect();
        taken.iter().for_each(|run| drop(self.remove(run)));
        taken
    }

    /// Clears `blocks`; returns those that were set.
    pub fn remove(&mut self, blocks: &Blocks) -> Vec<Blocks> {
        let Blocks { volume, ref numbers } = *blocks;
        let mut removed = Vec::new();
        let mut from = blocks.first();
        while let Some(run) = self.next_from(from).filter(|run| run.volume == volume) {
            if run.numbers.start >= numbers.end {
                break;
            }
            let whole = self.run_at(run.first()).expect("it was just found");
            let cleared = run.numbers.start..run.numbers.end.min(numbers.end);
            let runs = self.volumes.get_mut(&volume).expect("it has a run");
            let before = runs.len();
            runs.remove(&whole.numbers.start);
            if whole.numbers.start < cleared.start {
                runs.insert(whole.numbers.start, cleared.start);
            }
            if cleared.end < whole.numbers.end {
                runs.insert(cleared.end, whole.numbers.end);
            }
            self.runs = self.runs + runs.len() - before;
            self.blocks -= cleared.end - cleared.start;
            from.number = cleared.end;
            removed.push(Blocks { volume, numbers: cleared });
        }
        if self.volumes.get(&volume).is_some_and(BTreeMap::is_empty) {
            self.volumes.remove(&volume);
        }
        removed
    }

    /// Sets what `other` has, too.
    pub fn add(&mut self, other: &Bits) {
        if other.runs < self.runs / 8 {
            return other.runs().for_each(|run| self.insert(run));
        }
        *self = self.runs().chain(other.runs()).collect();
    }

    /// Clears what `other` has.
    pub fn subtract(&mut self, other: &Bits) {
        if other.runs < self.runs {
            return other.runs().for_each(|run| drop(self.remove(&run)));
        }
        *self =
            self.runs().flat_map(|run| other.missing(&run).runs().collect::<Vec<_>>()).collect();
    }

    /// Clears what `other` does not have in `range`.
    pub fn keep_within(&mut self, range: Range<Block>, other: &Bits) {
        let without: Vec<_> = self.within(range).map(|run| other.missing(&run)).collect();
        without.iter().for_each(|gone| self.subtract(gone));
    }
}

impl FromIterator<Blocks> for Bits {
    /// In any order, and overlapping ones, too; of runs in rising order in time that grows with their number.
    fn from_iter<I: IntoIterator<Item = Blocks>>(runs: I) -> Bits {
        let runs = joined(runs.into_iter().collect());
        let of_volumes = runs.chunk_by(|a, b| a.volume == b.volume);
        let volumes = of_volumes.map(|of_one| {
            let numbers = of_one.iter().map(|run| (run.numbers.start, run.numbers.end));
            (of_one[0].volume, numbers.collect())
        });
        let blocks = runs.iter().map(Blocks::count).sum();
        Bits { volumes: volumes.collect(), runs: runs.len(), blocks }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const EVERY: Range<Block> =
        Block { volume: 0, number: 0 }..Block { volume: u32::MAX, number: u64::MAX };

    fn few() -> impl Strategy<Value = Blocks> {
        (0..2u32, 0..40u64, 1..9u64)
            .prop_map(|(volume, first, count)| Blocks { volume, numbers: first..first + count })
    }

    fn some() -> impl Strategy<Value = Bits> {
        prop::collection::vec(few(), 0..9).prop_map(Bits::from_iter)
    }

    fn each(blocks: &Blocks) -> impl Iterator<Item = Block> + use<> {
        let volume = blocks.volume;
        blocks.numbers.clone().map(move |number| Block { volume, number })
    }

    fn set(bits: &Bits) -> BTreeSet<Block> {
        let mut last = None;
        for run in bits.runs() {
            assert!(!run.numbers.is_empty() && last < Some(run.first()), "{bits:?}");
            last = Some(Block { number: run.numbers.end, ..run.first() });
        }
        let all: BTreeSet<_> = bits.runs().flat_map(|run| each(&run)).collect();
        assert_eq!(bits.blocks(), all.len() as u64);
        all
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), few()), 0..60)) {
            let (mut bits, mut oracle) = (Bits::default(), BTreeSet::new());
            for (inserts, blocks) in steps {
                if inserts {
                    oracle.extend(each(&blocks));
                    bits.insert(blocks);
                } else {
                    let was = each(&blocks).filter(|block| oracle.remove(block));
                    let was: BTreeSet<_> = was.collect();
                    let removed = bits.remove(&blocks);
                    prop_assert_eq!(removed.iter().flat_map(each).collect::<BTreeSet<_>>(), was);
                }
                prop_assert_eq!(set(&bits), oracle.clone());
                for volume in 0..3 {
                    for number in 0..50 {
                        let block = Block { volume, number };
                        prop_assert_eq!(bits.contains(block), oracle.contains(&block));
                        let two = Blocks { volume, numbers: number..number + 2 };
                        let has_two = each(&two).all(|block| oracle.contains(&block));
                        prop_assert_eq!(bits.covers(&two), has_two);
                        let next = bits.next_from(block).map(|run| run.first());
                        prop_assert_eq!(next, oracle.range(block..).next().copied());
                    }
                }
            }
        }

        #[test]
        fn what_is_taken_is_out(all in some(), most in 0..5usize) {
            let mut rest = all.clone();
            let taken = Bits::from_iter(rest.take_first(most));
            prop_assert_eq!(taken.runs().count(), most.min(all.runs().count()));
            prop_assert!(set(&taken).last() < set(&rest).first() || set(&rest).is_empty());
            prop_assert_eq!(&set(&taken) | &set(&rest), set(&all));
        }

        #[test]
        fn what_is_outside_a_range_stays(a in some(), b in some(), ends in (0..3u32, 0..50u64, 0..3u32, 0..50u64)) {
            let (volume, number, last, end) = ends;
            let range = Block { volume, number }..Block { volume: last, number: end };
            let mut kept = a.clone();
            kept.keep_within(range.clone(), &b);
            let of_b = set(&b);
            let expected: BTreeSet<_> =
                set(&a).into_iter().filter(|at| !range.contains(at) || of_b.contains(at)).collect();
            prop_assert_eq!(set(&kept), expected);
        }

        /// Runs in any order make what they make one by one, also of many against few.
        #[test]
        fn sets_are_joined_and_parted(a in some(), b in some(), many in prop::collection::vec(few(), 0..60)) {
            let mut one_by_one = Bits::default();
            many.iter().for_each(|run| one_by_one.insert(run.clone()));
            let many = Bits::from_iter(many);
            prop_assert_eq!(&many, &one_by_one);
            for (a, b) in [(a.clone(), b), (a.clone(), many.clone()), (many, a)] {

            let (of_a, of_b) = (set(&a), set(&b));
            let [mut sum, mut rest, mut both] = [(); 3].map(|()| a.clone());
            sum.add(&b);
            rest.subtract(&b);
            both.keep_within(EVERY, &b);
            prop_assert_eq!(set(&sum), &of_a | &of_b);
            prop_assert_eq!(set(&rest), &of_a - &of_b);
            prop_assert_eq!(set(&both), &of_a & &of_b);
            }
        }
    }
}
