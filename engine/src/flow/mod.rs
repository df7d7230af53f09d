//! The data path, one file an arrow:
//! host → `write` → own log → `commit` → `ship` → `receive` → received log → `reflect` →
//! normal volume → `checkpoint`; back: `acknowledge`; ahead: `announce`; and `read`, by location, which
//! asks the peer by `remote`.
//!
//! The flow does not know who is primary: [`crate::failover`] opens and closes admission above it.

pub(crate) mod acknowledge;
pub(crate) mod announce;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod receive;
pub(crate) mod reflect;
pub(crate) mod remote;
pub(crate) mod ship;
pub(crate) mod write;

use crate::queue::{Queue, Sequencer};
use crate::table::unreflected::{Index, Unreflected};
use crate::unit::{Position, Stamp};
use crate::weaken::{Clause, holds};

/// The unreflected tables and how far each arrow has come along them. One lock, held for moments;
/// no host request that is served takes it.
pub(crate) struct Tables {
    /// From the queue into `own`.
    pub sequencer: Sequencer,
    /// The position in the received log's queue behind the last record in `recv`: the queue may be
    /// ahead of the table for a moment.
    pub recv_next: Position,
    /// Own records, durable and final: R from `acked_index`, L from `own_reflected`.
    pub own: Unreflected,
    /// Received records: L from `recv_reflected`.
    pub recv: Unreflected,
    /// The next own record to ship.
    pub shipped: Index,
    /// The stamp shipped last, or where the peer said it stands.
    pub sent: Stamp,
    /// The next own record to tell of (R18).
    pub announced: Index,
    /// The stamp told of last, or where the peer said it stands.
    pub told: Stamp,
    /// How many records that it has not received the peer can be told of.
    pub told_max: u64,
    /// The first own record that the peer has not acknowledged.
    pub acked_index: Index,
    /// How many from there on carry data, not zeros.
    pub backlog_data: u64,
    /// Highest own stamp acknowledged.
    pub acked: Stamp,
    /// Credit: own records before this index may be shipped. The receiver's places only ever
    /// grow, counted from its beginning, so this only rises within a connection.
    pub allowed: Index,
    /// The next own record to reflect.
    pub own_reflected: Index,
    /// The next received record to reflect.
    pub recv_reflected: Index,
    /// Highest stamp reflected.
    pub reflected: Stamp,
    /// Records reflected since the last checkpoint.
    pub since_checkpoint: u64,
    /// Highest stamp received.
    pub hi: Stamp,
    /// The peer's name for the connection in which the last new record came.
    pub last_session: u64,
    /// Newest stamp owed or received when this device last became active.
    pub need: Stamp,
    /// Newest record that could be in N when `need` was last raised: N was a prefix up to it.
    pub whole: Stamp,
    /// The tenure granted at the last fence, since when R has had no new records; 0 otherwise.
    pub granted: u64,
}

impl Tables {
    /// Records waiting for their turn to the normal volume.
    pub fn unreflected(&self) -> u64 {
        self.own.end() - self.own_reflected + self.recv.end() - self.recv_reflected
    }

    /// Appends an own record.
    pub fn push_own(&mut self, queue: &Queue, stamp: Stamp, position: Position) {
        self.own.push(stamp, position);
        self.backlog_data += u64::from(stamp > self.acked && queue.has_data(position));
    }

    /// The newest own record that is in R, or was acknowledged: nobody else has heard of a newer one.
    pub fn newest_own(&self) -> Stamp {
        let newest = self.own.newest_first(self.own.begin()).next();
        newest.map_or(self.acked, |(stamp, _)| stamp.max(self.acked))
    }

    /// The device takes the host over, and the peer owes what is up to `need` (R5). N was a prefix
    /// of history as long as nothing was owed, however far reflection had come: every record here
    /// could go there, so all of them are `whole`.
    pub fn raise_need(&mut self, need: Stamp) {
        if self.hi >= self.need {
            // It is fl, or the stamp of a record, and so never above the newest record.
            self.whole = self.whole.max(self.reflected);
            if holds(Clause::WholeOfRecords) {
                self.whole = self.whole.max(self.newest_own()).max(self.hi);
            }
        }
        self.need = need;
    }

    /// The newest record that may go to N now (R8).
    pub fn reflectable(&self) -> Stamp {
        if self.hi >= self.need || !holds(Clause::OnePathInOrder) {
            return Stamp::MAX;
        }
        let mut newest = self.hi;
        if holds(Clause::Whole) {
            newest = newest.max(self.whole);
        }
        newest
    }

    /// Drops what neither R nor L needs any more.
    pub fn trim(&mut self) {
        self.own.drop_before(self.acked_index.min(self.own_reflected));
        self.recv.drop_before(self.recv_reflected);
        debug_assert!(self.own.end() >= self.shipped && self.shipped >= self.acked_index);
    }
}
