//! The records of one peer: how far they came (`hi`, R6), and those that are not in N yet.

use super::unreflected::{Index, Unreflected};
use crate::unit::{Position, Stamp};

/// The received records of one peer.
pub(crate) struct Incoming {
    /// Highest stamp received.
    hi: Stamp,
    /// The peer's name for the connection in which the last new record came.
    last_session: u64,
    /// The received records of L: what has gone to N is dropped.
    records: Unreflected,
    /// The position in the received log's queue behind the last of them: the queue may be ahead of
    /// the table for a moment.
    next: Position,
}

impl Incoming {
    /// Without records; they will begin at `first`.
    pub fn new(hi: Stamp, first: Position) -> Incoming {
        Incoming { hi, last_session: 0, records: Unreflected::default(), next: first }
    }

    /// At an opening: a record was found.
    pub fn adopt(&mut self, stamp: Stamp, position: Position) {
        self.records.push(stamp, position);
        self.hi = self.hi.max(stamp);
        self.next = position + 1;
    }

    /// These records came in the peer's connection `session`, and are durable: `hi` rises to the
    /// last of them (S1502, R6).
    pub fn arrived(&mut self, session: u64, records: impl Iterator<Item = (Stamp, Position)>) {
        for (stamp, position) in records {
            self.records.push(stamp, position);
            self.hi = stamp;
            self.next = position + 1;
        }
        self.last_session = session;
    }

    /// The peer names `hi` as the stamp before its next record (D3). Nothing that was received is left, unless
    /// the round was opened twice and has gone on in between.
    pub fn raise(&mut self, hi: Stamp) {
        let is_known = hi <= self.hi || self.records.begin() == self.records.end();
        debug_assert!(is_known, "D3: all of it is in N");
        self.hi = self.hi.max(hi);
    }

    /// Highest stamp received.
    pub fn hi(&self) -> Stamp {
        self.hi
    }

    /// The peer's name for the connection in which the last new record came.
    pub fn last_session(&self) -> u64 {
        self.last_session
    }

    /// The received records of L.
    pub fn records(&self) -> &Unreflected {
        &self.records
    }

    /// The position behind the last record that has arrived.
    pub fn next(&self) -> Position {
        self.next
    }

    /// The records before `index` are in N.
    pub fn reflect(&mut self, index: Index) {
        self.records.drop_before(index);
    }
}
