//! Where the next batch goes in a log's file, and which batches are still held.
//!
//! The file is a ring; batches are freed in the order in which they were written, by the
//! checkpoint alone, so that the superblock always names the oldest one and every batch from
//! there on can be found by walking.

use crate::format::superblock::LogState;
use crate::unit::Position;
use crate::weaken::{Clause, holds};
use std::collections::VecDeque;

#[derive(Debug)]
struct Span {
    offset: u64,
    /// Bytes of the ring that come free with it: its own, and those skipped before it.
    bytes: u64,
    sequence: u64,
    /// The opening that wrote it.
    opened: u64,
    /// The highest queue position in it.
    last: Position,
}

/// The space of one log.
#[derive(Debug)]
pub struct Ring {
    length: u64,
    slack: u64,
    head: u64,
    used: u64,
    sequence: u64,
    incarnation: u64,
    /// The present opening.
    opened: u64,
    spans: VecDeque<Span>,
}

impl Ring {
    /// An empty ring as the superblock describes it; `slack` bytes are never promised. `opened` is
    /// the present opening.
    pub fn new(state: &LogState, slack: u64, opened: u64) -> Ring {
        Ring {
            length: state.bytes,
            slack,
            head: state.tail_offset,
            used: 0,
            sequence: state.tail_sequence,
            incarnation: state.incarnation,
            opened,
            spans: VecDeque::new(),
        }
    }

    /// Takes `bytes` for a batch of `rows` rows whose highest queue position is `last`; returns
    /// where it goes and its first log sequence number. The caller has made sure of the space by
    /// the queue's limit.
    pub fn place(&mut self, bytes: u64, rows: u64, last: Position) -> (u64, u64) {
        let wraps = self.head + bytes > self.length;
        let offset = if wraps { 0 } else { self.head };
        self.adopt(offset, bytes, rows, self.opened, last)
    }

    /// Takes a batch that `opened` wrote at `offset`, found when a log is read at opening.
    pub fn adopt(
        &mut self,
        offset: u64,
        bytes: u64,
        rows: u64,
        opened: u64,
        last: Position,
    ) -> (u64, u64) {
        let skipped = if offset < self.head { self.length - self.head } else { 0 };
        let sequence = self.sequence;
        self.used += bytes + skipped;
        let fits = self.used <= self.length || !holds(Clause::PlacesBeforeReservation);
        assert!(fits, "a batch was placed over one that is held");
        self.spans.push_back(Span { offset, bytes: bytes + skipped, sequence, opened, last });
        self.head = offset + bytes;
        self.sequence += rows;
        (offset, sequence)
    }

    /// The state that the superblock must have before positions below `freed` are given up: the tail
    /// is then the oldest batch held.
    pub fn state_without(&self, freed: Position, durable: u64) -> LogState {
        let kept = self.spans.iter().find(|span| span.last >= freed);
        let (tail_offset, tail_sequence, opened) = kept
            .map_or((self.head, self.sequence, self.opened), |span| {
                (span.offset, span.sequence, span.opened)
            });
        LogState {
            bytes: self.length,
            incarnation: self.incarnation,
            tail_offset,
            tail_sequence,
            // Freed records are durable in the normal volumes, however their log was synced.
            durable: durable.max(tail_sequence - 1),
            opened,
        }
    }

    /// Gives up every batch all of whose positions are below `freed`, from the oldest on.
    pub fn free_below(&mut self, freed: Position) {
        while let Some(span) = self.spans.front() {
            if span.last >= freed {
                break;
            }
            self.used -= span.bytes;
            self.spans.pop_front();
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
        self.sequence
    }

    /// The log's life.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }
}
