//! Two ways out of the queue: in the order of publication, for the log, and in stamp order, for
//! everything else.

use super::{Clk, Queue};
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};
use std::collections::VecDeque;

/// Collects settled positions in the order of publication: what the log is written from.
///
/// A reservation in flight is left behind and looked at again, so that it delays no flush.
/// The records of a request are collected together.
#[derive(Debug)]
pub struct Gather {
    next: Position,
    holes: Vec<Position>,
    /// Empty between runs; kept for its room.
    again: Vec<Position>,
}

impl Gather {
    /// Starts at `first`, the first position the queue gives out.
    pub fn new(first: Position) -> Gather {
        Gather { next: first, holes: Vec::new(), again: Vec::new() }
    }

    /// Appends to `out` every position published since the last call, whole requests only.
    /// Everything that was published before this call is among them.
    pub fn run(&mut self, queue: &Queue, out: &mut Vec<Position>) {
        let tail = queue.tail();
        std::mem::swap(&mut self.holes, &mut self.again);
        for position in self.again.drain(..).chain(self.next..tail) {
            let hole = self.holes.last().copied();
            match queue.settled(position) {
                None => self.holes.push(position),
                // Settled since its request's first was looked at: they go together.
                Some(_) if hole.is_some_and(|hole| queue.first(position) <= hole) => {
                    self.holes.push(position);
                }
                Some(true) => out.push(position),
                Some(false) => {}
            }
        }
        self.next = tail;
    }

    /// How many positions have been settled and collected so far, counted as positions: those
    /// below this number less the holes are no longer waiting for the log.
    pub fn collected(&self) -> Position {
        self.next - self.holes.len() as u64
    }

    /// Every position below this is settled, as far as seen.
    pub fn settled(&self) -> Position {
        self.holes.first().copied().unwrap_or(self.next)
    }

    /// Whether every position below the last tail seen is settled.
    pub fn is_settled(&self) -> bool {
        self.holes.is_empty()
    }
}

/// Takes records in stamp order (S1500: the oldest first), sealing what it takes (R2).
#[derive(Debug)]
pub struct Sequencer {
    gather: Gather,
    /// Emptied by every drain; kept for their room.
    positions: Vec<Position>,
    fresh: Vec<(Stamp, Position)>,
    /// Drained and not yet emitted, sorted by stamp.
    pending: VecDeque<(Stamp, Position)>,
    /// The stamp to be sealed, and the horizon below which reservations may still precede it. Kept
    /// until they are settled: a new horizon would have new ones below it, for ever.
    sealing: Option<(Stamp, Position)>,
    /// No stamp at or below this can be added to `pending` any more.
    sealed: Stamp,
    /// The last one emitted.
    emitted: Stamp,
}

impl Sequencer {
    /// Starts at `first`, the first position the queue gives out.
    pub fn new(first: Position) -> Sequencer {
        Sequencer {
            gather: Gather::new(first),
            positions: Vec::new(),
            fresh: Vec::new(),
            pending: VecDeque::new(),
            sealing: None,
            sealed: Stamp::ZERO,
            emitted: Stamp::ZERO,
        }
    }

    /// Drains what is published and appends to `out`, in stamp order, every record that nothing
    /// can come before any more and that `ready` accepts; it stops at the first that is not
    /// ready. Never waits: what a reservation in flight may still precede stays for a later call.
    pub fn take(
        &mut self,
        queue: &Queue,
        clk: &Clk,
        ready: impl Fn(Position) -> bool,
        out: &mut Vec<(Stamp, Position)>,
    ) {
        self.drain(queue);
        self.seal();
        if self.sealing.is_none()
            && let Some(&(newest, _)) = self.pending.back()
            && newest > self.sealed
        {
            // Raise the clock first; a reservation after the horizon is stamped later.
            clk.raise(newest.time);
            self.sealing = Some((newest, queue.horizon()));
            self.drain(queue);
            self.seal();
        }
        while let Some(&(stamp, position)) = self.pending.front() {
            if stamp > self.sealed && holds(Clause::OldestFirst) || !ready(position) {
                break;
            }
            debug_assert!(stamp > self.emitted, "{stamp} after {}", self.emitted);
            self.emitted = stamp;
            out.push((stamp, position));
            self.pending.pop_front();
        }
    }

    /// Every position below this has been drained, or found void.
    pub fn settled(&self) -> Position {
        self.gather.settled()
    }

    /// Where the first request begins that is not settled or not emitted as a whole: everything
    /// below may be freed as far as this taker is concerned. Looks at all that is drained and not
    /// emitted: a question for checkpoints.
    pub fn done(&self, queue: &Queue) -> Position {
        let pending = self.pending.iter().map(|&(_, position)| queue.first(position));
        pending.min().unwrap_or(Position::MAX).min(self.gather.settled())
    }

    /// The newest that is drained and not emitted.
    pub fn newest_pending(&self) -> Option<Stamp> {
        self.pending.back().map(|&(stamp, _)| stamp)
    }

    /// Whether everything published has been emitted.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.gather.is_settled()
    }

    fn seal(&mut self) {
        if let Some((newest, horizon)) = self.sealing
            && (self.gather.settled() >= horizon || !holds(Clause::SealWait))
        {
            // The sequence does not count: a later reservation's time is later.
            self.sealed = Stamp { sequence: u32::MAX, ..newest };
            self.sealing = None;
        }
    }

    fn drain(&mut self, queue: &Queue) {
        self.gather.run(queue, &mut self.positions);
        let fresh = self.positions.drain(..);
        self.fresh.extend(fresh.map(|position| (queue.stamp(position), position)));
        let Some(&(oldest, _)) = self.fresh.iter().min() else { return };
        // Only what is younger than the oldest of the fresh ones has to be sorted again.
        while let Some(&last) = self.pending.back()
            && last.0 > oldest
        {
            self.fresh.push(last);
            self.pending.pop_back();
        }
        // Nearly sorted runs: the standard stable sort merges them in linear time.
        self.fresh.sort();
        self.pending.extend(self.fresh.drain(..));
    }
}
