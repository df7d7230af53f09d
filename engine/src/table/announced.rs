//! Runs of blocks, each with the number of the announcement that told of it (LADDER 6), at most 64 bytes a
//! run: neighbours of one announcement are one run, and a later announcement goes over an earlier one.

use super::bits::{Bits, Blocks};
use crate::unit::Block;
use std::collections::BTreeMap;

/// The runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Announced {
    /// First block of a run → the number behind its last, and the announcement's. No two runs overlap.
    runs: BTreeMap<Block, (u64, u64)>,
}

impl Announced {
    /// How many runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All runs, in the order of volumes and numbers, with their announcements.
    pub fn runs(&self) -> impl Iterator<Item = (Blocks, u64)> + '_ {
        self.runs.iter().map(|(first, &(end, number))| {
            (Blocks { volume: first.volume, numbers: first.number..end }, number)
        })
    }

    /// The parts of runs that lie in `blocks`.
    pub fn within(&self, blocks: &Blocks) -> Vec<(Blocks, u64)> {
        let Blocks { volume, numbers } = blocks;
        let before = self.runs.range(..blocks.first()).next_back();
        let reaching =
            before.filter(|(first, (end, _))| first.volume == *volume && *end > numbers.start);
        let behind = self.runs.range(blocks.range());
        let parts = reaching.into_iter().chain(behind).map(|(first, &(end, number))| {
            let (start, end) = (first.number.max(numbers.start), end.min(numbers.end));
            (Blocks { volume: *volume, numbers: start..end }, number)
        });
        parts.collect()
    }

    /// The announcement `number` tells of `blocks`.
    pub fn insert(&mut self, blocks: &Blocks, number: u64) {
        self.remove(blocks, u64::MAX);
        self.runs.insert(blocks.first(), (blocks.numbers.end, number));
    }

    /// Enters all of `later`, which goes over what is here, in time that grows with the smaller of the two.
    pub fn add(&mut self, later: Announced) {
        if later.len() < self.len() {
            return later.runs().for_each(|(blocks, number)| self.insert(&blocks, number));
        }
        for (blocks, number) in std::mem::replace(self, later).runs() {
            let over: Bits = self.within(&blocks).into_iter().map(|part| part.0).collect();
            let rest = over.missing(&blocks);
            self.runs.extend(rest.runs().map(|run| (run.first(), (run.numbers.end, number))));
        }
    }

    /// Enters the parts of `other` that lie in `blocks`.
    pub fn add_within(&mut self, blocks: &Blocks, other: &Announced) {
        other.within(blocks).iter().for_each(|(part, number)| self.insert(part, *number));
    }

    /// Takes those of `blocks` out that announcements up to `upto` told of; returns them.
    pub fn remove(&mut self, blocks: &Blocks, upto: u64) -> Vec<Blocks> {
        let mut removed = Vec::new();
        for (part, number) in self.within(blocks).into_iter().filter(|part| part.1 <= upto) {
            let volume = part.volume;
            let (&first, &(end, _)) =
                self.runs.range(..=part.first()).next_back().expect("it was just found");
            self.runs.remove(&first);
            if first.number < part.numbers.start {
                self.runs.insert(first, (part.numbers.start, number));
            }
            if part.numbers.end < end {
                let rest = Block { volume, number: part.numbers.end };
                self.runs.insert(rest, (end, number));
            }
            removed.push(part);
        }
        removed
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = Blocks> {
        (0..2u32, 0..40u64, 1..9u64)
            .prop_map(|(volume, first, count)| Blocks { volume, numbers: first..first + count })
    }

    fn each(announced: &Announced) -> BTreeMap<Block, u64> {
        let of =
            |(run, number): (Blocks, u64)| run.each().map(move |block| (block, number)).collect();
        announced.runs().flat_map(|run| -> Vec<_> { of(run) }).collect()
    }

    proptest! {
        #[test]
        fn what_is_later_goes_over(
            earlier in prop::collection::vec((blocks(), 0..9u64), 0..12),
            later in prop::collection::vec((blocks(), 0..9u64), 0..12),
        ) {
            let gather = |runs: Vec<(Blocks, u64)>| {
                let mut all = Announced::default();
                runs.iter().for_each(|(run, number)| all.insert(run, *number));
                all
            };
            let (mut all, later) = (gather(earlier), gather(later));
            let mut oracle = each(&all);
            oracle.extend(each(&later));
            all.add(later);
            prop_assert_eq!(each(&all), oracle);
        }

        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), blocks(), 0..9u64), 0..60)) {
            let (mut announced, mut oracle) = (Announced::default(), BTreeMap::new());
            for (inserts, blocks, number) in steps {
                if inserts {
                    announced.insert(&blocks, number);
                    oracle.extend(blocks.each().map(|block| (block, number)));
                } else {
                    let before = oracle.clone();
                    let removed = announced.remove(&blocks, number);
                    oracle.retain(|block, told| !blocks.each().any(|at| at == *block) || *told > number);
                    let removed: Vec<_> = removed.iter().flat_map(Blocks::each).collect();
                    let gone = before.into_keys().filter(|block| !oracle.contains_key(block));
                    prop_assert_eq!(removed, gone.collect::<Vec<_>>());
                }
                let mut last = Block { volume: 0, number: 0 };
                let mut all = BTreeMap::new();
                for (run, number) in announced.runs() {
                    prop_assert!(run.first() >= last && !run.numbers.is_empty());
                    last = run.range().end;
                    all.extend(run.each().map(|block| (block, number)));
                }
                prop_assert_eq!(&all, &oracle);
                let part: BTreeMap<_, _> = announced.within(&blocks).iter()
                    .flat_map(|(run, number)| run.each().map(|block| (block, *number)).collect::<Vec<_>>())
                    .collect();
                oracle.iter().filter(|(at, _)| blocks.each().any(|block| block == **at)).for_each(
                    |(at, number)| assert_eq!(part.get(at), Some(number)),
                );
                prop_assert!(part.keys().all(|at| oracle.contains_key(at)));
            }
        }
    }
}
