//! Which record is the newest of a block, for all blocks of records whose extents lie in one another
//! (R19).

use crate::unit::{Block, Extent};
use crate::weaken::{Clause, holds};
use std::cmp::Reverse;

/// Blocks of which one record is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: Block,
    /// How many they are.
    pub blocks: u64,
    /// Which record it is.
    pub newest: usize,
}

/// Which of `extents`, those of records from the oldest to the newest, is the last that holds a block, for
/// each block that they hold, in address order.
pub fn newest_runs(extents: impl IntoIterator<Item = Extent>) -> Vec<Run> {
    let mut order: Vec<_> = (0..).zip(extents).map(|(k, extent)| (extent, k)).collect();
    // Around before within, since they are nested or disjoint; of the same, the newest comes first.
    order.sort_unstable_by_key(|&(extent, k): &(Extent, usize)| {
        (extent.first, Reverse(extent.level), Reverse(k))
    });
    order.dedup_by_key(|entry| entry.0);
    let mut runs = Vec::with_capacity(order.len());
    // Those around the present block, each with the newest of itself and of those around it, and the
    // first block that has no run yet.
    let mut around: Vec<(Extent, usize)> = Vec::new();
    let mut next = 0;
    let mut run_to = |next: &mut u64, end: u64, (extent, newest): (Extent, usize)| {
        if *next < end {
            let first = Block { number: *next, ..extent.first };
            runs.push(Run { first, blocks: end - *next, newest });
            *next = end;
        }
    };
    for (extent, k) in order {
        let mut newest = k;
        while let Some(&outer) = around.last() {
            if outer.0.holds(extent.first) {
                run_to(&mut next, extent.first.number, outer);
                if holds(Clause::NewestAround) {
                    newest = newest.max(outer.1);
                }
                break;
            }
            run_to(&mut next, outer.0.end(), outer);
            around.pop();
        }
        next = extent.first.number;
        around.push((extent, newest));
    }
    while let Some(outer) = around.pop() {
        run_to(&mut next, outer.0.end(), outer);
    }
    runs
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_newest_of_each_block_is_found(
            records in prop::collection::vec((0..2u32, 0..64u64, 0..7u8), 0..40),
        ) {
            let extents = records.iter().map(|&(volume, number, level)| {
                Extent::around(Block { volume, number }, level.saturating_sub(2))
            });
            let extents: Vec<_> = extents.collect();
            let runs = newest_runs(extents.clone());
            let mut last = None;
            for run in &runs {
                prop_assert!(run.blocks > 0 && last < Some(run.first), "{:?}", runs);
                last = Some(Block { number: run.first.number + run.blocks - 1, ..run.first });
            }
            for number in 0..64 {
                for volume in 0..2 {
                    let block = Block { volume, number };
                    let newest = extents.iter().rposition(|extent| extent.holds(block));
                    let mut found = runs.iter().filter(|run| {
                        let numbers = run.first.number..run.first.number + run.blocks;
                        run.first.volume == volume && numbers.contains(&number)
                    });
                    prop_assert_eq!(found.next().map(|run| run.newest), newest);
                    prop_assert!(found.next().is_none());
                }
            }
        }
    }
}
