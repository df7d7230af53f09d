//! R towards one peer: own records that it has not acknowledged, and how far shipping, telling and
//! acknowledging have come along them (R4, R10, R18).

use super::own::Own;
use super::unreflected::Index;
use crate::queue::{Content, Queue, Record};
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};
use std::ops::Range;

/// The cursors of R.
pub(crate) struct Out {
    /// The next own record to ship.
    shipped: Index,
    /// The stamp shipped last, or where the peer said it stands.
    sent: Stamp,
    /// The next own record to tell of (R18).
    announced: Index,
    /// The stamp told of last, or where the peer said it stands.
    told: Stamp,
    /// How many records that it has not received the peer may be told of.
    told_max: u64,
    /// The first own record that the peer has not acknowledged.
    acked_index: Index,
    /// Highest own stamp acknowledged.
    acked: Stamp,
    /// Own records up to it are not of R, though the peer may lack them: bits tell of those (D1).
    cut: Stamp,
    /// Own records do not join R at all: bits tell of them (modes p and s).
    by_bits: bool,
    /// How many records from there on carry data, not zeros.
    backlog_data: u64,
    /// How many of those that the peer has acknowledged carried data, since the opening.
    acked_data: u64,
    /// Credit: own records before this index may be shipped. The receiver's places only ever
    /// grow, counted from its beginning, so this only rises within a connection.
    allowed: Index,
    /// The tenure granted at the last fence, since when R has had no new records; 0 otherwise.
    granted: u64,
}

impl Out {
    /// Without records; the peer has everything up to `acked`. `granted`: the tenure under which
    /// the device is fenced, or 0. Of what is up to `cut`, bits tell; with `by_bits`, of all.
    pub fn new(acked: Stamp, granted: u64, cut: Stamp, by_bits: bool) -> Out {
        Out {
            shipped: 0,
            sent: acked.max(cut),
            announced: 0,
            told: acked,
            told_max: 0,
            acked_index: 0,
            acked,
            cut,
            by_bits,
            backlog_data: 0,
            acked_data: 0,
            allowed: 0,
            granted,
        }
    }

    /// After an opening, `own` being what was found: R begins behind what was acknowledged.
    pub fn begin(&mut self, own: &Own) {
        self.acked_index = own.records().after(self.floor());
        self.shipped = self.acked_index;
    }

    /// An own record has become final.
    pub fn joined(&mut self, stamp: Stamp, has_data: bool) {
        self.backlog_data += u64::from(stamp > self.floor() && has_data);
    }

    /// R holds the own records above this stamp.
    pub fn floor(&self) -> Stamp {
        if self.by_bits { Stamp::MAX } else { self.acked.max(self.cut) }
    }

    /// Whether own records do not join R, and bits tell of them.
    pub fn is_by_bits(&self) -> bool {
        self.by_bits
    }

    /// Bits tell of own records: all of them with `by_bits`, or else those up to `cut` (D1, D9).
    pub fn follow(&mut self, own: &Own, by_bits: bool, cut: Stamp) {
        if !by_bits && (self.by_bits || cut > self.cut) {
            // R begins anew, and the peer names `cut` as what it has received (D3).
            self.acked_index = own.records().after(cut);
            (self.shipped, self.sent) = (self.acked_index, self.acked.max(cut));
            (self.announced, self.told) = (self.acked_index, self.sent);
            self.backlog_data = 0;
        }
        (self.by_bits, self.cut) = (by_bits, cut);
        self.skip(own);
    }

    /// Own records that have come do not join R, if bits tell of them.
    pub fn skip(&mut self, own: &Own) {
        if self.by_bits {
            let end = own.records().end();
            (self.shipped, self.announced, self.acked_index) = (end, end, end);
            self.backlog_data = 0;
        }
    }

    /// Both devices are in a round in which R is shipped: it begins with its first record, and the peer has
    /// forgotten what it was told of.
    pub fn begin_shipping(&mut self) {
        (self.shipped, self.sent) = (self.acked_index, self.floor());
        (self.announced, self.told) = (self.acked_index, self.floor());
    }

    /// Highest own stamp that the peer acknowledged.
    pub fn acked(&self) -> Stamp {
        self.acked
    }

    /// Own records up to it are not of R, though the peer may lack them.
    pub fn cut(&self) -> Stamp {
        self.cut
    }

    /// The first record of R.
    pub fn first(&self) -> Index {
        self.acked_index
    }

    /// How many records of R carry data, not zeros.
    pub fn backlog_data(&self) -> u64 {
        self.backlog_data
    }

    /// How many records with data the peer has acknowledged since the opening.
    pub fn acked_data(&self) -> u64 {
        self.acked_data
    }

    /// The tenure granted at the last fence, since when R has had no new records; 0 otherwise.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Whether the peer's credit is used up.
    pub fn is_held_back(&self) -> bool {
        self.shipped >= self.allowed
    }

    /// The oldest unsent records that credit allows, at most `most` (R10).
    pub fn next(&self, own: &Own, most: u64) -> Range<Index> {
        let mut end = own.records().end().min(self.shipped + most);
        if holds(Clause::Credit) {
            end = end.min(self.allowed);
        }
        self.shipped..end
    }

    /// The records before `end` are on their way, `newest` the last of them. Returns the stamp
    /// that was shipped before them.
    pub fn ship(&mut self, end: Index, newest: Stamp) -> Stamp {
        let within = end <= self.allowed || !holds(Clause::Credit);
        debug_assert!(within, "I9: within the receiver's credit");
        self.shipped = end;
        std::mem::replace(&mut self.sent, newest)
    }

    /// The records taken to be shipped were acknowledged meanwhile: goes on behind those.
    pub fn ship_on(&mut self) {
        self.shipped = self.acked_index;
        self.sent = self.acked;
    }

    /// The peer has everything up to `hi` (S1504); returns the records that it has only now.
    pub fn acknowledge(&mut self, own: &Own, queue: &Queue, hi: Stamp) -> Vec<Record> {
        let index = own.records().after(hi).max(self.acked_index);
        let position = |index| own.records().get(index).expect("R is kept").1;
        let acked = self.acked_index..index;
        let records: Vec<Record> = acked.map(|index| queue.record(position(index))).collect();
        let with_data = records.iter().filter(|r| r.content == Content::Data).count();
        self.backlog_data -= with_data as u64;
        self.acked_data += with_data as u64;
        self.acked_index = index;
        self.acked = self.acked.max(hi);
        if self.shipped < index {
            // Sent before shipping began anew: it goes on behind what the peer has.
            (self.shipped, self.sent) = (index, hi);
        }
        records
    }

    /// The peer can take so many records more than it has (R9).
    pub fn credit(&mut self, places: u64) {
        self.shipped = self.shipped.max(self.acked_index);
        self.allowed = self.allowed.max(self.acked_index.saturating_add(places));
    }

    /// A hello says that the peer has everything up to `hi`: window and credit are forgotten, and
    /// shipping goes on after what the peer has (R10). Returns the records that it has acknowledged
    /// by that.
    pub fn rewind(&mut self, own: &Own, queue: &Queue, hi: Stamp) -> Vec<Record> {
        let records = self.acknowledge(own, queue, hi);
        self.sent = hi;
        self.shipped = self.acked_index;
        self.allowed = self.acked_index;
        records
    }

    /// The device is fenced under the tenure `granted`: R is complete (R3, R4).
    pub fn fence(&mut self, granted: u64) {
        self.granted = granted;
    }

    /// The device serves: R may grow again.
    pub fn serve(&mut self) {
        self.granted = 0;
    }

    /// The peer knows of the records up to `told`, and is told of those after them (R18).
    pub fn tell_after(&mut self, own: &Own, told: Stamp) {
        self.announced = own.records().after(told);
        self.told = told;
    }

    /// The peer keeps what it is told of so many records that it has not received.
    pub fn tell_at_most(&mut self, most: u64) {
        self.told_max = most;
    }

    /// The peer has no room for what it might be told from this record on.
    pub fn tell_end(&self, own: &Own) -> Index {
        let end = own.records().end();
        match holds(Clause::AnnounceBound) {
            true => end.min(self.acked_index.saturating_add(self.told_max)),
            false => end,
        }
    }

    /// The last stamp that the peer was told of, or that it has.
    pub fn told(&self) -> Stamp {
        self.told.max(self.acked)
    }

    /// The next record to tell of and the stamp told before it; the peer need not be told of what
    /// it has.
    pub fn next_to_tell(&self) -> (Index, Stamp) {
        match self.announced < self.acked_index {
            true => (self.acked_index, self.told.max(self.acked)),
            false => (self.announced, self.told),
        }
    }

    /// The peer is told of the records before `index`, `newest` the last of them that it needs.
    pub fn tell(&mut self, index: Index, newest: Stamp) {
        self.announced = index;
        self.told = newest;
    }

    /// The oldest record of R.
    pub fn oldest(&self, own: &Own) -> Option<(Stamp, Position)> {
        own.records().get(self.acked_index)
    }

    /// The rest of R in `own`, in records.
    pub fn backlog(&self, own: &Own) -> u64 {
        debug_assert!(own.records().end() >= self.shipped && self.shipped >= self.acked_index);
        own.records().end() - self.acked_index
    }
}
