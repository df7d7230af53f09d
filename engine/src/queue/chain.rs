//! The hash chains of the queue: the records of one extent, youngest first (rule 3 of [`super`]), and
//! looks into those of the extents around it (rule 5).
//!
//! An insertion is one function in the program: as calls its parts cost it a fifth of its time
//! (`queue --alone`).

use super::{NewWrite, Queue, Token};
use crate::moment::{Moment, moment};
use crate::sync::{AtomicU64, Ordering::*};
use crate::unit::{Extent, Position, Stamp};
use crate::weaken::{Clause, holds};

/// Why a record cannot stand where its position puts it.
pub(super) enum Conflict {
    /// A younger position already holds this block.
    Overtaken,
    /// The record of this block below has this time, which is not below ours.
    Seen(u64),
    /// The block of a partial write has changed.
    Stale,
}

impl Queue {
    pub(super) fn bucket(&self, extent: Extent) -> &AtomicU64 {
        let Extent { first, level } = extent;
        let key =
            first.number ^ (u64::from(first.volume) << 40) ^ (u64::from(level) << 58) ^ self.salt;
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 32).wrapping_mul((self.salt ^ 0xd6e8_feb8_6659_fd93) | 1);
        &self.buckets[(hash >> 32) as usize & (self.buckets.len() - 1)]
    }

    /// The conflict of `write` if it were linked now.
    #[inline(always)]
    pub(super) fn foresee(
        &self,
        epoch: u64,
        mut time: u64,
        write: &NewWrite<'_>,
    ) -> Result<(), Conflict> {
        let mut seen = Ok(());
        for (index, extent) in (0..).zip(write.extents()) {
            let head = self.bucket(extent).load(Acquire);
            match self.check_older(Position::MAX, head, extent, (epoch, time), write.base(index)) {
                Err(Conflict::Seen(later)) => {
                    time = later;
                    seen = Err(Conflict::Seen(later));
                }
                other => other?,
            }
        }
        seen
    }

    /// Puts the filled slots of a request into their chains, in the order of their blocks, and
    /// looks whether they may stay there.
    #[inline(always)]
    pub(super) fn link_all(
        &self,
        first: Position,
        stamp: Stamp,
        write: &NewWrite<'_>,
    ) -> Result<(), Conflict> {
        for (index, extent) in (0..).zip(write.extents()) {
            let position = first + index;
            let bucket = self.bucket(extent);
            self.levels.raise(extent, position);
            if !self.link(position, bucket) {
                self.check_younger(position, bucket.fetch_add(0, AcqRel), extent)?;
            }
            if self.has_live_extents() {
                for wider in self.levels.live_around(extent, self.freed()) {
                    self.check_younger(position, self.bucket(wider).load(Acquire), wider)?;
                }
            }
            let older = self.slot(position).prev.load(Acquire);
            let time = (stamp.epoch, stamp.time);
            self.check_older(position, older, extent, time, write.base(index))?;
            moment(Moment::Linked);
        }
        Ok(())
    }

    /// Puts a filled slot into its chain, below the younger positions there; whether there were
    /// none, so that it now is the chain's head.
    #[inline(always)]
    pub(super) fn link(&self, position: Position, bucket: &AtomicU64) -> bool {
        let slot = self.slot(position);
        loop {
            let (mut link, mut at_head) = (bucket, true);
            let mut next = link.load(Acquire);
            // Younger positions cannot be freed while ours is unsettled: their slots are theirs.
            while next > position {
                (link, at_head) = (&self.slot(next).prev, false);
                next = link.load(Acquire);
            }
            slot.prev.store(next, Release);
            if link.compare_exchange(next, position, AcqRel, Relaxed).is_ok() {
                return at_head;
            }
        }
    }

    /// Whether no younger position than the linked `position` has `extent`, in the chain from `next` on.
    fn check_younger(
        &self,
        position: Position,
        mut next: Position,
        extent: Extent,
    ) -> Result<(), Conflict> {
        while next > position {
            let younger = self.slot(next);
            if younger.is_of(extent) && !self.is_void(next) {
                return Err(Conflict::Overtaken);
            }
            next = younger.prev.load(Acquire);
        }
        Ok(())
    }

    /// Whether a record of `extent` and this time at `position` may stand above the chain from `next`
    /// on, and above the wider extents around it that stand below `position`.
    #[inline(always)]
    fn check_older(
        &self,
        position: Position,
        next: Position,
        extent: Extent,
        (epoch, time): (u64, u64),
        base: Option<Token>,
    ) -> Result<(), Conflict> {
        let older = self.newest_around(next, extent, |p| p < position && !self.is_void(p));
        let seen = older.map(|older| {
            let slot = self.slot(older);
            (older, slot.epoch.load(Acquire), slot.time.load(Acquire))
        });
        let freed = self.freed();
        let seen = seen.filter(|seen| seen.0 >= freed);
        if let Some(base) = base.filter(|_| holds(Clause::TwoHalves)) {
            let now = seen.map_or(0, |seen| seen.0);
            // With nothing there, something newer than the base may have come and gone.
            if now != base.newest || now == 0 && freed != base.freed {
                return Err(Conflict::Stale);
            }
        }
        match seen {
            Some((_, its_epoch, its_time)) if its_epoch == epoch && its_time >= time => {
                Err(Conflict::Seen(its_time))
            }
            _ => Ok(()),
        }
    }

    /// The first record of `extent` in its chain from `next` on that `takes` accepts, or the first of
    /// a wider one around it, whichever is younger (rule 5).
    #[inline(always)]
    pub(super) fn newest_around(
        &self,
        next: Position,
        extent: Extent,
        takes: impl Fn(Position) -> bool,
    ) -> Option<Position> {
        let newest = self.newest_from(next, extent, &takes);
        if self.has_live_extents() { newest.max(self.newest_wider(extent, takes)) } else { newest }
    }

    #[cold]
    fn newest_wider(&self, extent: Extent, takes: impl Fn(Position) -> bool) -> Option<Position> {
        let wider = self.levels.live_around(extent, self.freed());
        let newest = |wider| self.newest_from(self.bucket(wider).load(Acquire), wider, &takes);
        wider.filter_map(newest).max()
    }

    /// The first record of `extent` in the chain from `next` on that `takes` accepts.
    #[inline(always)]
    fn newest_from(
        &self,
        mut next: Position,
        extent: Extent,
        takes: impl Fn(Position) -> bool,
    ) -> Option<Position> {
        while next >= self.freed() {
            let slot = self.slot(next);
            let is_it = slot.is_of(extent) && takes(next);
            let prev = slot.prev.load(Acquire);
            if next < self.freed() {
                return None; // freed while we read it, and all below it with it
            }
            if is_it {
                return Some(next);
            }
            next = prev;
        }
        None
    }

    /// Whether the published record at `position` is the newest published one of its extent here.
    pub fn is_newest(&self, position: Position) -> bool {
        self.newest_of(self.slot(position).extent()) == Some(position)
    }

    /// The newest published record of just this extent.
    pub fn newest_of(&self, extent: Extent) -> Option<Position> {
        let head = self.bucket(extent).load(Acquire);
        self.newest_from(head, extent, |p| self.settled(p) == Some(true))
    }
}
