//! Whether anything is live among many blocks, without a look at each (R17): rule 6 of [`super`].

use super::{Clk, Queue};
use crate::sync::{AtomicU64, Ordering::*, zeros};
use crate::unit::{Block, Position, regions};

/// Regions further apart share a counter.
const REGIONS: usize = if cfg!(loom) { 1 } else { 4096 };

/// A counter rises by so many positions at a time, that most writes only read it.
const STEP: u64 = if cfg!(any(loom, feature = "simulate")) { 1 } else { 256 };

/// For each region a position that no record there is above.
#[derive(Debug)]
pub(super) struct Recent(Box<[AtomicU64]>);

impl Recent {
    pub fn new() -> Option<Recent> {
        zeros(REGIONS).map(Recent)
    }

    /// Records of these blocks are about to be linked, the youngest at `position`.
    pub fn raise(&self, first: Block, blocks: u64, position: Position) {
        for region in regions(first, blocks, REGIONS) {
            let newest = &self.0[region];
            if newest.load(Acquire) < position {
                newest.fetch_max(position | (STEP - 1), AcqRel);
            }
        }
    }

    fn is_above(&self, first: Block, blocks: u64, freed: Position) -> bool {
        regions(first, blocks, REGIONS).any(|region| self.0[region].load(Acquire) >= freed)
    }
}

impl Queue {
    /// Whether a record of one of the `blocks` blocks from `first` on may be live. If not, each that
    /// was published before this call has been freed (R17).
    pub fn may_have(&self, first: Block, blocks: u64) -> bool {
        let freed = self.freed();
        freed < self.tail() && self.recent.is_above(first, blocks, freed)
    }

    /// Admits a request that takes no places (R17): whether `epoch` is open and `may` says so, behind
    /// everything that its thread looked at before.
    pub fn admits(&self, clk: &Clk, epoch: u64, may: impl FnOnce() -> bool) -> bool {
        self.horizon();
        clk.epoch() == epoch && may()
    }
}
