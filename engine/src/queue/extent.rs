//! Records of many blocks in the queue (R19): rule 5 of [`super`].

use super::chain::Conflict;
use super::slot::{MEMBER, VOID};
use super::{NewWrite, Queue};
use crate::sync::{AtomicU64, Ordering::*, zeros};
use crate::unit::{Block, Extent, Position, Stamp, region, regions};
use crate::weaken::{Clause, holds};
use crossbeam_utils::CachePadded;

/// A volume is below 4 EiB, and a block at least 512 bytes.
const NUMBER_BITS: u32 = 53;
const LEVEL_BITS: u32 = 5;

/// A slot's extent, and whether its request has blocks in part:
/// `has parts << 58 | level << 53 | number of the first block`.
#[derive(Clone, Copy)]
pub(super) struct Span(pub u64);

impl Span {
    /// Of a record of a request that has blocks in part, or none.
    pub fn of(extent: Extent, has_parts: bool) -> Span {
        debug_assert!(extent.first.number >> NUMBER_BITS == 0, "no volume is so large");
        let (has_parts, level) = (u64::from(has_parts), u64::from(extent.level));
        Span(has_parts << (NUMBER_BITS + LEVEL_BITS) | level << NUMBER_BITS | extent.first.number)
    }

    /// Whether it is of `extent`, as far as the volume does not tell.
    pub fn is_of(self, extent: Extent) -> bool {
        (self.0 ^ Span::of(extent, false).0) << (u64::BITS - NUMBER_BITS - LEVEL_BITS) == 0
    }

    fn has_parts(self) -> bool {
        self.0 >> (NUMBER_BITS + LEVEL_BITS) != 0
    }

    pub fn extent(self, volume: u32) -> Extent {
        let number = self.0 & ((1 << NUMBER_BITS) - 1);
        let level = (self.0 >> NUMBER_BITS & ((1 << LEVEL_BITS) - 1)) as u8;
        Extent { first: Block { volume, number }, level }
    }
}

/// The levels at which there are extents, region by region, and how far wide requests have looked.
///
/// | atomic | writers | readers | ordering |
/// |---|---|---|---|
/// | `regions`, `any` | inserters of extents (max), before they link | all | AcqRel/Acquire: rule 5 |
/// | `settled` | inserters of wide requests, commits (max) | inserters of wide requests | AcqRel/Acquire: the times of what is published below it are sealed |
#[derive(Debug)]
pub(super) struct Levels {
    regions: Box<[Region]>,
    /// The youngest position that an extent ever had.
    any: AtomicU64,
    /// Every position below this was once found settled.
    settled: CachePadded<AtomicU64>,
}

/// The youngest position that an extent of levels 1 and 2, of 3 and 4, and so on ever had there: one
/// line of a processor's cache.
#[derive(Debug, Default)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(align(64))]
struct Region([AtomicU64; Extent::LEVEL_MAX as usize / 2]);

/// Enough for 512 GiB of the usual blocks. A region shares its line with those so far away.
const REGIONS: usize = if cfg!(loom) { 1 } else { 1 << 14 };

impl Region {
    fn of(&self, level: u8) -> &AtomicU64 {
        &self.0[usize::from(level - 1) / 2]
    }
}

impl Levels {
    /// `None`: the operating system refuses the address space.
    pub fn new(first: Position) -> Option<Levels> {
        let (any, settled) = (AtomicU64::new(0), CachePadded::new(AtomicU64::new(first)));
        Some(Levels { regions: zeros(REGIONS)?, any, settled })
    }

    /// `extent` is about to be linked at `position`.
    #[inline(always)]
    pub fn raise(&self, extent: Extent, position: Position) {
        if extent.level > 0 {
            self.raise_wide(extent, position);
        }
    }

    #[cold]
    fn raise_wide(&self, extent: Extent, position: Position) {
        for region in regions(extent.first, extent.blocks(), REGIONS) {
            self.regions[region].of(extent.level).fetch_max(position, AcqRel);
        }
        self.any.fetch_max(position, AcqRel);
    }

    /// The extents around `extent` of those levels at which something near it may not be freed yet.
    pub fn live_around(&self, extent: Extent, freed: Position) -> impl Iterator<Item = Extent> {
        let region = &self.regions[region(extent.first, REGIONS)];
        let levels = extent.level + 1..=Extent::LEVEL_MAX;
        let wider = levels.filter(move |&level| region.of(level).load(Acquire) >= freed);
        wider.map(move |level| Extent::around(extent.first, level))
    }
}

impl Queue {
    /// Whether any extent may not be freed yet.
    #[inline(always)]
    pub(super) fn has_live_extents(&self) -> bool {
        let newest = self.levels.any.load(Acquire);
        newest > 0 && newest >= self.freed() && holds(Clause::WiderExtents)
    }

    /// Every position below this is settled, and the times of those published are sealed.
    pub(super) fn settled_floor(&self) -> Position {
        let mut floor = self.levels.settled.load(Acquire).max(self.freed());
        let tail = self.tail();
        while floor < tail && self.settled(floor).is_some() {
            floor += 1;
        }
        self.note_settled(floor);
        floor
    }

    /// Whether the request that took `position` has filled it.
    pub(super) fn is_filled(&self, position: Position) -> bool {
        self.slot(position).state.load(Acquire) >> 2 >= position
    }

    /// Every position below `floor` is settled. Wide requests need not look there.
    pub(super) fn note_settled(&self, floor: Position) {
        self.levels.settled.fetch_max(floor, AcqRel);
    }

    /// Whether the wide request at `first`, which is linked, may stand there among the requests from
    /// `floor` on (rule 5).
    pub(super) fn look_at_others(
        &self,
        floor: Position,
        first: Position,
        stamp: Stamp,
        write: &NewWrite<'_>,
    ) -> Result<(), Conflict> {
        let begin = write.block.number;
        let end = begin + write.blocks();
        // Requests from the horizon on find this one in the chains of its extents.
        let horizon = self.horizon();
        for position in (floor..first).chain(first + write.records.len() as u64..horizon) {
            let slot = self.slot(position);
            let state = slot.state.load(Acquire);
            if state >> 2 < position {
                return Err(Conflict::Stale);
            }
            if state >> 2 > position || [MEMBER, VOID].contains(&(state & 3)) {
                continue;
            }
            let has_parts = Span(slot.span.load(Acquire)).has_parts();
            let (_, count) = slot.group();
            let (its_first, its_last) = (slot.extent(), self.slot(position + count - 1).extent());
            let (epoch, time) = (slot.epoch.load(Acquire), slot.time.load(Acquire));
            if position < self.freed() {
                continue; // settled before, and older
            }
            let its_begin = its_first.first;
            if its_begin.volume != write.block.volume
                || its_begin.number >= end
                || its_last.end() <= begin
            {
                continue;
            }
            let has_parts = has_parts && holds(Clause::WideHalves);
            let is_below = (epoch, time) < (stamp.epoch, stamp.time);
            match position < first {
                true if !is_below => return Err(Conflict::Seen(time)),
                false if (epoch, time) <= (stamp.epoch, stamp.time) || has_parts => {
                    return Err(Conflict::Overtaken);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
