//! Where the next batch goes in a log's file, and which batches are still held.
//!
//! The file is a ring; batches are freed in the order in which they were written, by the
//! checkpoint alone, so that the superblock always names the oldest one and every batch from
//! there on can be found by walking.
//!
//! A batch may be a single record, so little is kept of each: where it stands follows from those
//! before it.

use crate::chunks::Chunks;
use crate::format::PAGE;
use crate::format::superblock::LogState;
use crate::unit::Position;
use crate::weaken::{Clause, holds};
use std::collections::VecDeque;

/// A batch that is held.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// How far the highest queue position up to here lies above that of the batches before.
    raises: u32,
    /// Pages of the ring that come free with it: its own, and those skipped before it.
    pages: u16,
    rows: u16,
}

const _: () = assert!(size_of::<Span>() == 8);

impl Span {
    fn bytes(self) -> u64 {
        u64::from(self.pages) * PAGE
    }
}

/// Between two batches.
#[derive(Clone, Copy, Debug)]
struct Edge {
    /// Byte offset behind the one before.
    offset: u64,
    /// The log sequence number of the next row.
    sequence: u64,
    /// The highest queue position in any batch before.
    last: Position,
}

impl Edge {
    /// Where the batch behind this edge begins: there, or where the ring does.
    fn start(&self, span: Span, length: u64) -> u64 {
        if self.offset + span.bytes() > length { 0 } else { self.offset }
    }

    /// The edge behind that batch.
    fn behind(&self, span: Span, length: u64) -> Edge {
        let end = self.offset + span.bytes();
        Edge {
            offset: if end > length { end - length } else { end },
            sequence: self.sequence + u64::from(span.rows),
            last: self.last + u64::from(span.raises),
        }
    }
}

/// The space of one log.
#[derive(Debug)]
pub struct Ring {
    length: u64,
    slack: u64,
    used: u64,
    incarnation: u64,
    /// The present opening.
    opened: u64,
    /// Before the oldest batch held, and behind the newest.
    tail: Edge,
    head: Edge,
    spans: Chunks<Span>,
    /// From which sequence number on batches are of which opening, where it changes: rising.
    openings: VecDeque<(u64, u64)>,
}

impl Ring {
    /// An empty ring as the superblock describes it; `slack` bytes are never promised. `opened` is
    /// the present opening.
    pub fn new(state: &LogState, slack: u64, opened: u64) -> Ring {
        let edge = Edge { offset: state.tail_offset, sequence: state.tail_sequence, last: 0 };
        Ring {
            length: state.bytes,
            slack,
            used: 0,
            incarnation: state.incarnation,
            opened,
            tail: edge,
            head: edge,
            spans: Chunks::default(),
            openings: VecDeque::new(),
        }
    }

    /// Takes `bytes` for a batch of `rows` rows whose highest queue position is `last`; returns
    /// where it goes and its first log sequence number. The caller has made sure of the space by
    /// the queue's limit.
    pub fn place(&mut self, bytes: u64, rows: u64, last: Position) -> (u64, u64) {
        let wraps = self.head.offset + bytes > self.length;
        let offset = if wraps { 0 } else { self.head.offset };
        self.adopt(offset, bytes, rows, self.opened, last)
    }

    /// Takes a batch that `opened` wrote at `offset`, found when a log is read at opening: behind
    /// the one before, or where the ring begins.
    pub fn adopt(
        &mut self,
        offset: u64,
        bytes: u64,
        rows: u64,
        opened: u64,
        last: Position,
    ) -> (u64, u64) {
        let skipped = if offset < self.head.offset { self.length - self.head.offset } else { 0 };
        let sequence = self.head.sequence;
        self.used += bytes + skipped;
        let fits = self.used <= self.length || !holds(Clause::PlacesBeforeReservation);
        assert!(fits, "a batch was placed over one that is held");
        let last = last.max(self.head.last);
        if self.spans.is_empty() {
            // Any number of positions may have been void since. From a batch that is held, the next
            // one's are no further away than there are places.
            (self.tail.last, self.head.last) = (last, last);
        }
        let span = Span {
            raises: (last - self.head.last).try_into().expect("a queue has fewer places"),
            pages: ((bytes + skipped) / PAGE)
                .try_into()
                .expect("a batch and what it skips have at most 1,985 pages"),
            rows: rows.try_into().expect("a batch has at most 62 rows"),
        };
        if self.openings.back().is_none_or(|(_, before)| *before != opened) {
            self.openings.push_back((sequence, opened));
        }
        self.head = self.head.behind(span, self.length);
        debug_assert_eq!(self.head.offset, offset + bytes);
        self.spans.push(span);
        (offset, sequence)
    }

    /// The state that the superblock must have before positions below `freed` are given up: the tail
    /// is then the oldest batch held.
    pub fn state_without(&self, freed: Position, durable: u64) -> LogState {
        let (first, edge) = self.held_from(freed);
        let kept = self.spans.get(first);
        let opened = self.openings.iter().rev().find(|(from, _)| *from <= edge.sequence);
        let opened = opened.filter(|_| kept.is_some());
        LogState {
            bytes: self.length,
            incarnation: self.incarnation,
            tail_offset: kept.map_or(edge.offset, |span| edge.start(*span, self.length)),
            tail_sequence: edge.sequence,
            // Freed records are durable in the normal volumes, however their log was synced.
            durable: durable.max(edge.sequence - 1),
            opened: opened.map_or(self.opened, |(_, opened)| *opened),
        }
    }

    /// The oldest batch that is held once every position below `freed` is given up, and the edge
    /// before it.
    fn held_from(&self, freed: Position) -> (u64, Edge) {
        let (mut first, mut edge) = (self.spans.begin(), self.tail);
        while let Some(&span) = self.spans.get(first) {
            let behind = edge.behind(span, self.length);
            if behind.last >= freed {
                break;
            }
            (first, edge) = (first + 1, behind);
        }
        (first, edge)
    }

    /// Gives up every batch all of whose positions are below `freed`, from the oldest on.
    pub fn free_below(&mut self, freed: Position) {
        let (first, edge) = self.held_from(freed);
        let given_up = (self.spans.begin()..first).filter_map(|index| self.spans.get(index));
        self.used -= given_up.map(|span| span.bytes()).sum::<u64>();
        self.spans.drop_before(first);
        self.tail = edge;
        while self.openings.get(1).is_some_and(|(from, _)| *from <= edge.sequence) {
            self.openings.pop_front();
        }
    }

    /// Bytes that may be promised.
    pub fn free_bytes(&self) -> u64 {
        self.length.saturating_sub(self.used + self.slack)
    }

    /// Bytes held.
    pub fn used_bytes(&self) -> u64 {
        self.used
    }

    /// The log sequence number of the next row.
    pub fn next_sequence(&self) -> u64 {
        self.head.sequence
    }

    /// The log's life.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that there is to know of a batch.
    struct Batch {
        state: (u64, u64, u64),
        bytes: u64,
        last: Position,
    }

    proptest! {
        /// Batches come and go over several openings, against a list of all that there is to know.
        #[test]
        fn batches_stand_where_they_were_placed(
            steps in prop::collection::vec((0..4u8, 1..9u64, 1..63u64, 0..5u64), 1..300),
            at in 0..64u64,
        ) {
            let length = 64 * PAGE;
            let state = LogState {
                bytes: length,
                incarnation: 3,
                tail_offset: at * PAGE,
                tail_sequence: 17,
                durable: 0,
                opened: 0,
            };
            let mut ring = Ring::new(&state, 0, 9);
            let mut held: VecDeque<Batch> = VecDeque::new();
            let (mut head, mut sequence, mut opened) = (at * PAGE, 17, 1);
            let (mut position, mut lowest) = (1u64, 1);
            for (what, pages, rows, far) in steps {
                let bytes = pages * PAGE;
                let wraps = head + bytes > length;
                let all = bytes + if wraps { length - head } else { 0 };
                let used: u64 = held.iter().map(|batch| batch.bytes).sum();
                if what < 3 && used + all <= length {
                    // A straggler's positions may be below those of the batch before.
                    position = (position + 2 * far).saturating_sub(3).max(lowest);
                    let offset = if wraps { 0 } else { head };
                    let found = if opened < 9 {
                        opened += u64::from(far == 0);
                        ring.adopt(offset, bytes, rows, opened, position)
                    } else {
                        ring.place(bytes, rows, position)
                    };
                    prop_assert_eq!(found, (offset, sequence));
                    let state = (offset, sequence, opened);
                    held.push_back(Batch { state, bytes: all, last: position });
                    (head, sequence) = (offset + bytes, sequence + rows);
                } else {
                    let freed = held.front().map_or(lowest, |batch| batch.last) + far;
                    let kept = held.iter().find(|batch| batch.last >= freed);
                    let expected = kept.map_or((head, sequence, 9), |batch| batch.state);
                    let state = ring.state_without(freed, 0);
                    let found = (state.tail_offset, state.tail_sequence, state.opened);
                    prop_assert_eq!(found, expected);
                    ring.free_below(freed);
                    lowest = lowest.max(freed);
                    while held.front().is_some_and(|batch| batch.last < freed) {
                        held.pop_front();
                    }
                }
                prop_assert_eq!(ring.next_sequence(), sequence);
                prop_assert_eq!(ring.used_bytes(), held.iter().map(|batch| batch.bytes).sum::<u64>());
            }
        }
    }

    /// More positions than a span tells apart were void since the last batch.
    #[test]
    fn voids_are_not_counted() {
        let mut state = LogState {
            bytes: 64 * PAGE,
            incarnation: 1,
            tail_offset: 0,
            tail_sequence: 1,
            durable: 0,
            opened: 1,
        };
        let mut ring = Ring::new(&state, 0, 1);
        for last in [1, 1 << 40, (1 << 40) + 1] {
            ring.free_below(last - 1);
            ring.place(PAGE, 1, last);
        }
        state = ring.state_without(1 << 40, 0);
        assert_eq!((state.tail_offset, state.tail_sequence), (PAGE, 2));
    }
}
