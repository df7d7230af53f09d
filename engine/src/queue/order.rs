//! Two ways out of the queue: in the order of publication, for the log, and in stamp order, for
//! everything else.

use super::{Clk, Queue};
use crate::unit::{Position, Stamp};
use std::collections::VecDeque;

/// Collects settled positions in the order of publication: what the log is written from.
///
/// A reservation in flight is left behind and looked at again, so that it delays nobody's flush.
#[derive(Debug)]
pub struct Gather {
    next: Position,
    holes: Vec<Position>,
}

impl Gather {
    /// Starts at `first`, the first position the queue gives out.
    pub fn new(first: Position) -> Gather {
        Gather { next: first, holes: Vec::new() }
    }

    /// Appends to `out` every position published since the last call, whole requests only.
    /// Everything that was published before this call is among them.
    pub fn run(&mut self, queue: &Queue, out: &mut Vec<Position>) {
        let tail = queue.tail();
        let mut take = |position| match queue.settled(position) {
            None => true,
            Some(false) => false,
            Some(true) => {
                // A request that settles while we look at it is taken whole by the next call.
                let split = queue.index(position) > 0 && out.last() != Some(&(position - 1));
                if !split {
                    out.push(position);
                }
                split
            }
        };
        self.holes.retain(|&position| take(position));
        for position in self.next..tail {
            if take(position) {
                self.holes.push(position);
            }
        }
        self.next = tail;
    }

    /// How many positions have been settled and collected so far, counted as positions: those
    /// below this number less the holes are no longer waiting for the log.
    pub fn collected(&self) -> Position {
        self.next - self.holes.len() as u64
    }

    /// Every position below this one has been collected, or found void.
    pub fn passed(&self) -> Position {
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
    fresh: Vec<Position>,
    /// Drained and not yet emitted, sorted by stamp.
    pending: VecDeque<(Stamp, Position)>,
    /// No stamp at or below this can be added to `pending` any more.
    sealed: Stamp,
}

impl Sequencer {
    /// Starts at `first`, the first position the queue gives out.
    pub fn new(first: Position) -> Sequencer {
        Sequencer {
            gather: Gather::new(first),
            fresh: Vec::new(),
            pending: VecDeque::new(),
            sealed: Stamp::ZERO,
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
        self.drain(queue, queue.tail());
        let Some(&(newest, _)) = self.pending.back() else { return };
        if newest > self.sealed {
            // Raise the clock first; whoever reserves after the horizon is stamped later.
            clk.raise(newest.time);
            let horizon = queue.horizon();
            self.drain(queue, horizon);
            if self.gather.is_settled() {
                // The sequence does not count: a later reservation's time is later.
                self.sealed = Stamp { sequence: u32::MAX, ..newest };
            }
        }
        while let Some(&(stamp, position)) = self.pending.front() {
            if stamp > self.sealed || !ready(position) {
                break;
            }
            out.push((stamp, position));
            self.pending.pop_front();
        }
    }

    /// Every position below this one has been drained, or found void.
    pub fn passed(&self) -> Position {
        self.gather.passed()
    }

    /// Whether everything published has been emitted.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.gather.is_settled()
    }

    fn drain(&mut self, queue: &Queue, upto: Position) {
        debug_assert!(upto <= queue.tail());
        self.gather.run(queue, &mut self.fresh);
        let mut sorted = true;
        for position in self.fresh.drain(..) {
            let stamp = queue.record(position).stamp;
            sorted &= self.pending.back().is_none_or(|last| last.0 < stamp);
            self.pending.push_back((stamp, position));
        }
        if !sorted {
            // Nearly sorted runs: the standard stable sort merges them in linear time.
            self.pending.make_contiguous().sort();
        }
    }
}
