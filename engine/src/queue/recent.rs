//! Whether anything is live among many blocks, without a look at each (R17): rule 6 of [`super`].

use super::{Clk, Queue};
use crate::sync::{AtomicU64, Ordering::*, zeros};
use crate::unit::{Block, Extent, Position, regions};
use crossbeam_utils::CachePadded;

/// Regions further apart share a counter.
const REGIONS: usize = if cfg!(loom) { 1 } else { 4096 };

/// A counter rises by so many positions at a time, that most records only read it.
const STEP: u64 = if cfg!(any(loom, feature = "simulate")) { 1 } else { 256 };

/// For each region a position that none of the records noted there is above.
#[derive(Debug)]
pub(super) struct Recent {
    newest: Box<[AtomicU64]>,
    /// Every record below this is noted.
    noted: CachePadded<AtomicU64>,
}

impl Recent {
    /// `None`: the operating system refuses the address space.
    pub fn new(first: Position) -> Option<Recent> {
        Some(Recent { newest: zeros(REGIONS)?, noted: CachePadded::new(AtomicU64::new(first)) })
    }

    fn raise(&self, extent: Extent, position: Position) {
        for region in regions(extent.first, extent.blocks(), REGIONS) {
            let newest = &self.newest[region];
            if newest.load(Relaxed) < position {
                newest.store(position | (STEP - 1), Release);
            }
        }
    }
}

impl Queue {
    /// Notes the published `records`, those below `settled` that have not been noted; all positions below
    /// it are settled. One caller at a time: whoever takes the records in the order of publication.
    pub fn note(&self, records: &[Position], settled: Position) {
        for &position in records {
            self.recent.raise(self.slot(position).extent(), position);
        }
        self.recent.noted.fetch_max(settled, AcqRel);
        self.note_settled(settled);
    }

    /// Whether a record of one of the `blocks` blocks from `first` on may be live. If not, each that
    /// was published before this call has been freed (R17).
    pub fn may_have(&self, first: Block, blocks: u64) -> bool {
        let freed = self.freed();
        let noted = self.recent.noted.load(Acquire).max(freed);
        let is_recent = |region: usize| self.recent.newest[region].load(Acquire) >= freed;
        if freed < noted && regions(first, blocks, REGIONS).any(is_recent) {
            return true;
        }
        let overlaps = |extent: Extent| {
            extent.first.volume == first.volume
                && extent.first.number < first.number + blocks
                && extent.end() > first.number
        };
        (noted..self.tail())
            .any(|p| self.settled(p) == Some(true) && overlaps(self.slot(p).extent()))
    }

    /// Admits a request that takes no places (R17): whether `epoch` is open and `may` says so, behind
    /// everything that its thread looked at before.
    pub fn admits(&self, clk: &Clk, epoch: u64, may: impl FnOnce() -> bool) -> bool {
        self.horizon();
        clk.epoch() == epoch && may()
    }
}
