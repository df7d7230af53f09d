//! The data path, one file an arrow:
//! host → `write` → own log → `commit` → `ship` → `receive` → received log → `reflect` →
//! normal volume → `checkpoint`; back: `acknowledge`; ahead: `announce`; and `read`, by location, which
//! asks the peer by `remote`. Beside it: `compare`, which holds the normal volumes of both devices against
//! each other by their `checksums`.
//!
//! The flow does not know who is primary: [`crate::failover`] opens and closes admission above it.

pub(crate) mod acknowledge;
pub(crate) mod admission;
pub(crate) mod announce;
pub(crate) mod checkpoint;
pub(crate) mod checksums;
pub(crate) mod commit;
pub(crate) mod compare;
pub(crate) mod copy;
#[cfg(not(loom))]
pub(crate) mod differential;
#[cfg(loom)]
pub mod differential; // for the models
pub(crate) mod image;
pub(crate) mod open;
pub(crate) mod owed;
pub(crate) mod pace;
pub(crate) mod policy;
pub(crate) mod read;
pub(crate) mod receive;
pub(crate) mod reflect;
pub(crate) mod remote;
pub(crate) mod rest;
pub(crate) mod rounds;
pub(crate) mod ship;
pub(crate) mod space;
pub(crate) mod store;
pub(crate) mod sums;
mod trend;
#[cfg(not(loom))]
pub(crate) mod turn;
#[cfg(loom)]
pub mod turn; // for the models
pub(crate) mod write;

use crate::journal::own::OwnLog;
use crate::queue::{Clk, Queue, Record};
use crate::table::incoming::Incoming;
use crate::table::normal::Normal;
use crate::table::out::Out;
use crate::table::own::Own;
use crate::table::unreflected::Index;
use crate::unit::{Extent, Position, Stamp};

/// The unreflected tables and how far each arrow has come along them, a value for each owner. One
/// lock, held for moments; no host request that is served takes it. Here is what takes more than
/// one of them.
pub(crate) struct Tables {
    /// Own records, durable and final: both R's and L's.
    pub own: Own,
    /// R: what the peer lacks of them.
    pub out: Out,
    /// The records that came from the peer.
    pub incoming: Incoming,
    /// How far both have gone to N.
    pub normal: Normal,
}

impl Tables {
    /// Records waiting for their turn to the normal volume.
    pub fn unreflected(&self) -> u64 {
        let received = self.incoming.records();
        self.own.records().end() - self.normal.first_own() + received.end() - received.begin()
    }

    /// Whether the next unreflected record of either log may go to N now.
    pub fn is_reflectable(&self) -> bool {
        let newest = self.reflectable();
        let own = self.own.records().get(self.normal.first_own());
        let received = self.incoming.records();
        let next = [own, received.get(received.begin())];
        next.iter().flatten().any(|entry| entry.0 <= newest)
    }

    /// Takes own records that are `ready` and final from their queue into R and L; returns them.
    pub fn sequence(
        &mut self,
        queue: &Queue,
        clk: &Clk,
        ready: impl Fn(Position) -> bool,
    ) -> Vec<(Stamp, Position)> {
        let taken = self.own.take(queue, clk, ready);
        for &(stamp, position) in &taken {
            self.out.joined(stamp, queue.has_data(position));
        }
        self.out.skip(&self.own);
        taken
    }

    /// The extents of own records of which a bit is implied: those that are live and not of R (D8).
    pub fn implied(&self, own: &OwnLog) -> impl Iterator<Item = Extent> {
        let queue = &own.journal.queue;
        let records = self.own.records();
        let cut = self.out.cut();
        let first = if self.out.is_by_bits() { records.begin() } else { records.end() };
        let entries = (first..records.end()).filter_map(|index| records.get(index));
        let above = entries.filter(move |&(stamp, _)| stamp > cut);
        above.map(|(_, position)| queue.record(position).extent())
    }

    /// The newest own record that is known of: the peer has not heard of a newer one.
    pub fn newest_own(&self) -> Stamp {
        self.own.newest().max(self.out.acked()).max(self.out.cut())
    }

    /// Own records that the peer lacks.
    pub fn backlog(&self) -> u64 {
        self.out.backlog(&self.own)
    }

    /// Whether there is a record that is not sent and the peer has a place for.
    pub fn has_to_ship(&self) -> bool {
        !self.out.next(&self.own, 1).is_empty()
    }

    /// The peer has everything up to `hi`, and can take `credit` records more; returns those that
    /// it has only now.
    pub fn acknowledge(&mut self, queue: &Queue, hi: Stamp, credit: u64) -> Vec<Record> {
        let records = self.out.acknowledge(&self.own, queue, hi);
        self.out.credit(credit);
        self.trim();
        records
    }

    /// As [`Out::rewind`].
    pub fn rewind(&mut self, queue: &Queue, hi: Stamp) -> Vec<Record> {
        let records = self.out.rewind(&self.own, queue, hi);
        self.trim();
        records
    }

    /// As [`Out::tell_after`].
    pub fn tell_after(&mut self, told: Stamp) {
        self.out.tell_after(&self.own, told);
    }

    /// The device takes the host over, and the peer owes what is up to `need` (R5).
    pub fn raise_need(&mut self, need: Stamp) {
        let newest = self.newest_own();
        self.normal.raise_need(need, self.incoming.hi(), newest);
    }

    /// Whether the peer owes something that was needed at the last takeover.
    pub fn is_behind(&self) -> bool {
        self.incoming.hi() < self.normal.need()
    }

    /// The newest record that may go to N now (R8).
    pub fn reflectable(&self) -> Stamp {
        self.normal.reflectable(self.incoming.hi())
    }

    /// `count` records, up to `upto`, are in N: the own and received ones before these indices.
    pub fn reflect(&mut self, [own, received]: [Index; 2], upto: Stamp, count: u64) {
        self.normal.reflect(own, upto, count);
        self.incoming.reflect(received);
        self.trim();
    }

    /// Drops the own records that neither R nor L needs any more.
    fn trim(&mut self) {
        self.own.drop_before(self.out.first().min(self.normal.first_own()));
    }
}
